"""Regions: target, distractors and background of a picture, as shares of a model's patches."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from tqdm import tqdm

from qkutils import options, store
from qkutils.alignment import align
from qkutils.models import Model
from qkutils.records import Sample, Samples

OBJECTS = ("target", "distractor")
REGIONS = (*OBJECTS, "background")

Patches = Literal["fraction", "half"]
Query = Literal["largest", "weighted"]


@dataclass(frozen=True)
class Layouts:
    """Where target and distractors lie on the patch grid, for all samples that can be studied."""

    keys: list[str]
    place: Int[np.ndarray, " image"]  # in the sequence of samples
    checksum: list[str]  # of the pictures
    fraction: Float[np.ndarray, "image object patch"]
    left_out: dict[str, int]


def read_layouts(model: Model, samples: Samples) -> Layouts:
    """Reads the masks of all samples, in the model's own resize and crop, and keeps no picture.

    Samples whose target is missing, is cut away by the crop, or covers no patch by half are left
    out and counted.  Raises ValueError for samples without the two masks, for keys that occur twice
    and where no sample is left.
    """
    kept, left_out = [], Counter({"no target": 0, "target cut away": 0, "target too small": 0})
    for place, sample in enumerate(tqdm(samples, desc="masks")):
        fraction = patch_fractions(model, sample)
        reason = _why_not(sample, fraction[0])
        if reason:
            left_out[reason] += 1
        else:
            kept.append((sample.key, place, store.digest(sample.image.convert("RGB")), fraction))
    if not kept:
        raise ValueError(
            f"none of {len(samples)} samples can be studied ({dict(left_out)}); a target has to "
            "cover at least one patch by half after the model's resize and crop"
        )
    keys, places, checksums, fractions = zip(*kept, strict=True)
    refuse_twins(keys)
    fraction = np.stack(fractions)
    return Layouts(list(keys), np.array(places), list(checksums), fraction, dict(left_out))


def patch_fractions(model: Model, sample: Sample) -> Float[np.ndarray, "object patch"]:
    """Share of each patch's area that target and distractors cover; what overlaps is the target's.

    Raises ValueError for a sample without these masks.
    """
    if not isinstance(sample, Sample):
        raise ValueError(f"{sample!r:.80}: a Sample is needed, a picture with its masks")
    missing = set(OBJECTS) - set(sample.masks)
    if missing:
        raise ValueError(
            f"sample {sample.key!r} has masks {sorted(sample.masks)}; it needs {', '.join(OBJECTS)}"
        )
    _, (target, distractor) = align(model, sample.image, _stack(sample))
    both = torch.stack([target, distractor & ~target]).float()
    return torch.nn.functional.adaptive_avg_pool2d(both, model.grid).flatten(1).numpy()


def _stack(sample: Sample) -> np.ndarray:
    masks = [sample.masks[name] for name in OBJECTS]
    for name, mask in zip(OBJECTS, masks, strict=True):
        if getattr(mask, "ndim", 0) != 2 or mask.dtype != bool:
            raise ValueError(
                f"sample {sample.key!r}: the {name} mask is an array [row, column] of True and "
                "False, such as mask > 127 of a grey one"
            )
    if masks[0].shape != masks[1].shape:
        raise ValueError(
            f"sample {sample.key!r}: target mask of {masks[0].shape} and distractor mask of "
            f"{masks[1].shape} pixels; bring both to one size"
        )
    return np.stack(masks)


def _why_not(sample: Sample, target: Float[np.ndarray, " patch"]) -> str | None:
    if not sample.masks["target"].any():
        return "no target"
    if not target.any():
        return "target cut away"
    return None if target.max() >= 0.5 else "target too small"


def refuse_twins(keys: Sequence[str]) -> None:
    """Raises ValueError for keys that occur twice."""
    twins = [key for key, times in Counter(keys).items() if times > 1]
    if twins:
        raise ValueError(
            f"{', '.join(map(repr, twins[:5]))} occur more than once; a key names one picture, "
            "and pictures are paired by their keys"
        )


def memberships(
    fraction: Float[np.ndarray, "image object patch"], patches: Patches = "fraction"
) -> Float[np.ndarray, "image patch region"]:
    """How much of each patch belongs to target, distractors and background; sums to 1.

    `fraction`: its share of area.  `half`: all of it to what covers half of it or more.
    """
    options.choice("patches", patches, get_args(Patches))
    if patches == "half":
        target, distractor = (fraction >= 0.5).swapaxes(0, 1)
        fraction = np.stack([target, distractor & ~target], 1).astype(np.float32)
    background = 1 - fraction.sum(1, keepdims=True)
    return np.concatenate([fraction, background], 1).swapaxes(1, 2)


def query_weights(
    fraction: Float[np.ndarray, "image object patch"],
    member: Float[np.ndarray, "image patch region"],
    query: Query = "largest",
) -> Float[np.ndarray, "image object patch"]:
    """How much each patch counts as the query of target and of distractors; sums to 1.

    `largest`: the patch that the object covers most, the first in reading order.  `weighted`: every
    patch of the object, by how much of it is the object's.  NaN where the object covers no patch by
    half.
    """
    options.choice("query", query, get_args(Query))
    if query == "largest":
        weight = np.zeros_like(fraction)
        np.put_along_axis(weight, fraction.argmax(-1)[..., None], 1, -1)
    else:
        weight = member[..., : len(OBJECTS)].swapaxes(1, 2)
        weight = weight / np.maximum(weight.sum(-1, keepdims=True), np.finfo(np.float32).tiny)
    return np.where(fraction.max(-1, keepdims=True) >= 0.5, weight, np.nan).astype(np.float32)


def areas(
    member: Float[np.ndarray, "image patch region"], weight: Float[np.ndarray, "image object patch"]
) -> tuple[Float[np.ndarray, "image region"], Float[np.ndarray, "image object region"]]:
    """Share of all patches that lie in each region; and of all but the query's own patch."""
    count = member.shape[1]
    area = member.mean(1)
    own = weight @ member
    return area, (count * area[:, None] - own) / (count - 1)


def shuffled(names: list[str]) -> list[int]:
    """Positions of names in an order that depends on each name alone, and not on its neighbours'.

    Names of neighbours in a folder are often alike, and so are their pictures.
    """
    return sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())

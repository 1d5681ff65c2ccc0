"""Regions: where masks and segments of a picture lie on a model's patches, as shares of them.

They never hold the picture itself, so that all of a data set's are kept while pictures pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import PIL.Image
import scipy.ndimage
from jaxtyping import Float, Int
from tqdm import tqdm

from qkutils import options, store
from qkutils.alignment import align_labels
from qkutils.models import Model
from qkutils.pictures import in_mode
from qkutils.records import Sample, Samples, Segmented

OBJECTS = ("target", "distractor")
REGIONS = (*OBJECTS, "background")
HALF = 0.5
LEAST = 1e-6  # share of a patch that is asked of an object

Patches = Literal["fraction", "half"]
Query = Literal["largest", "weighted"]
LabelMap = Int[np.ndarray, "height width"]
Pixels = Int[np.ndarray, "row column"]  # that the model sees
Fractions = Float[np.ndarray, "image object patch"]
Members = Float[np.ndarray, "image patch region"]


# ---- masks of target and distractors -------------------------------------------------------------


@dataclass(frozen=True)
class Layouts:
    """Where target and distractors lie on the patch grid, for all samples that can be studied."""

    keys: list[str]
    place: Int[np.ndarray, " image"]  # in the sequence of samples
    checksum: list[str]  # of the pictures
    fraction: Fractions
    left_out: dict[str, int]


def read_layouts(model: Model, samples: Samples) -> Layouts:
    """Reads the masks of all samples, in the model's own resize and crop, and keeps no picture.

    Samples whose target is missing, is cut away by the crop, or covers no patch by half are left
    out and counted.  Raises ValueError for samples without the two masks, and where none is left.
    """
    kept, left_out = [], dict.fromkeys(("no target", "target cut away", "target too small"), 0)
    for place, sample in enumerate(tqdm(samples, desc="masks")):
        fraction = patch_fractions(model, sample)
        if reason := _why_not(sample, fraction[0]):
            left_out[reason] += 1
        else:
            kept.append((sample.key, place, store.digest(in_mode(sample.image)), fraction))
    if not kept:
        raise ValueError(
            f"none of {len(samples)} samples can be studied ({left_out}); after the model's resize "
            "and crop, a target has to cover at least one patch by half"
        )
    keys, places, checksums, fractions = zip(*kept, strict=True)
    return Layouts(list(keys), np.array(places), list(checksums), np.stack(fractions), left_out)


def patch_fractions(model: Model, sample: Sample) -> Float[np.ndarray, "object patch"]:
    """Share of each patch's area that target and distractors cover; what overlaps is the target's.

    Raises ValueError for a sample without these masks.
    """
    if not isinstance(sample, Sample):
        raise ValueError(f"{sample!r:.80}: a Sample is needed, a picture with its masks")
    if not set(OBJECTS) <= set(sample.masks):
        raise ValueError(
            f"sample {sample.key!r} has masks {sorted(sample.masks)}; it needs {', '.join(OBJECTS)}"
        )
    target, distractor = (sample.masks[name] for name in OBJECTS)
    labels = np.where(target, 0, np.where(distractor, 1, -1))
    number = align_labels(model, sample.image, labels).numpy()
    return _patch_shares(number, len(OBJECTS), model.grid)


def _why_not(sample: Sample, target: Float[np.ndarray, " patch"]) -> str | None:
    if not sample.masks["target"].any():
        return "no target"
    if not target.any():
        return "target cut away"
    return None if target.max() >= HALF else "target too small"


def memberships(fraction: Fractions, patches: Patches = "fraction") -> Members:
    """How much of each patch belongs to target, distractors and background; sums to 1.

    `fraction`: its share of area.  `half`: all of it to what covers half of it or more.
    """
    options.choice("patches", patches, get_args(Patches))
    if patches == "half":
        target, distractor = (fraction >= HALF).swapaxes(0, 1)
        fraction = np.stack([target, distractor & ~target], 1).astype(np.float32)
    background = 1 - fraction.sum(1, keepdims=True)
    return np.concatenate([fraction, background], 1).swapaxes(1, 2)


def with_prefix(
    member: Members, prefix_tokens: int
) -> Float[np.ndarray, "image key region_or_prefix"]:
    """The same with a further region, to which the prefix tokens belong, and no patch does."""
    member = np.pad(member, ((0, 0), (prefix_tokens, 0), (0, 1)))
    member[:, :prefix_tokens, -1] = 1
    return member


def query_weights(fraction: Fractions, member: Members, query: Query) -> Fractions:
    """How much each patch counts as the query of target and of distractors; sums to 1.

    `largest`: the patch that the object covers most, the first in reading order.  `weighted`: every
    patch of the object, by how much of it is the object's.  NaN where the object covers no patch by
    half.
    """
    if query == "largest":
        weight = np.zeros_like(fraction)
        np.put_along_axis(weight, fraction.argmax(-1)[..., None], 1, -1)
    else:
        weight = as_mean(member[..., : len(OBJECTS)].swapaxes(1, 2))
    return np.where(fraction.max(-1, keepdims=True) >= HALF, weight, np.nan).astype(np.float32)


def as_mean(weight: Fractions) -> Fractions:
    """Weights of patches, made to sum to 1 for each object; zeros where an object has none."""
    return weight / np.maximum(weight.sum(-1, keepdims=True), np.finfo(np.float32).tiny)


# ---- segments of label maps ----------------------------------------------------------------------


@dataclass(frozen=True)
class Objects:
    """The objects of a picture as the model sees it, numbered from 0."""

    where: Pixels  # the object of every pixel, -1 where there is none
    label: Int[np.ndarray, " object"]  # what the label map calls each of them
    share: Float[np.ndarray, "object patch"]  # of each patch's area
    left_out: int  # objects too small for the patch grid


def objects_of(
    model: Model, segmented: Segmented, instances: bool = False, cover: float = HALF
) -> Objects:
    """Find the objects of a picture after the model's own resize and crop.

    Paper figure 6.

    Parameters
    ----------
    model
        What `load` gave.
    segmented
        A picture with one label map.
    instances
        Whether every number of the label map is one object; else each connected component is one.
    cover
        The share of a patch, above 0 and up to 1, that an object has to cover in one patch at
        least.  Smaller objects are left out and counted.

    Returns
    -------
    Objects
        `where` [row, column]: the object of every pixel, -1 where there is none.  `label`: what
        the label map calls each object.  `share` [object, patch]: of each patch's area.
        `left_out`: how many objects were too small.

    Raises
    ------
    ValueError
        For a picture with several label maps, or with none.

    Examples
    --------
    >>> import qkutils as qk
    >>> model = qk.load("tiny-supervised")
    >>> objects = qk.studies.objects_of(model, qk.world.segmentations(0, 0, 1)[0])
    >>> objects.share.shape, objects.left_out
    ((12, 64), 2)
    """
    options.flag("instances", instances)
    cover = options.number("cover", cover, LEAST, 1, closed=True)
    labels, *others = _label_maps(segmented)
    if others:
        raise ValueError(
            f"{segmented.key!r} has {1 + len(others)} label maps; objects are taken from one: hand "
            "in a Segmented with the one you choose"
        )
    return _objects(model, segmented.image, labels, instances, cover)


def segments_of_patches(model: Model, segmented: Segmented) -> Int[np.ndarray, "person patch"]:
    """Say which segment covers at least half of each patch, after the model's own resize and crop.

    Parameters
    ----------
    model
        What `load` gave.
    segmented
        A picture with one label map or several.

    Returns
    -------
    np.ndarray
        Segments [label map, patch]; -1 where none covers half.  Where two segments cover just half
        of a patch, the smaller number counts.

    Raises
    ------
    ValueError
        For a picture without a label map.

    Examples
    --------
    >>> import qkutils as qk
    >>> model = qk.load("tiny-supervised")
    >>> people = qk.studies.segments_of_patches(model, qk.world.segmentations(0, 0, 1)[0])
    >>> people.reshape(-1, *model.grid)[0, 1].tolist()
    [-1, 16, 16, -1, 17, -1, 18, -1]
    """
    people = []
    for labels in _label_maps(segmented):
        found = _objects(model, segmented.image, labels, True, HALF)
        half = np.pad(found.share >= HALF, ((0, 1), (0, 0)), constant_values=True)
        people.append(np.append(found.label, -1)[half.argmax(0)])  # the first, and else the last
    return np.stack(people)


def _label_maps(segmented: Segmented) -> tuple[np.ndarray, ...]:
    """A picture's label maps; ValueError where there are none."""
    if not isinstance(segmented, Segmented):
        raise ValueError(f"{segmented!r:.80}: a Segmented is needed, a picture with label maps")
    if not segmented.labels:
        raise ValueError(f"{segmented.key!r} has no label map; at least one is needed")
    return segmented.labels


def _objects(
    model: Model, image: PIL.Image.Image, labels: LabelMap, instances: bool, cover: float
) -> Objects:
    """What of a label map covers at least one patch by `cover`."""
    number, label = _numbered(align_labels(model, image, labels).numpy(), instances)
    share = _patch_shares(number, len(label), model.grid)
    kept = share.max(1, initial=0) >= cover
    new = np.append(np.where(kept, kept.cumsum() - 1, -1), -1)  # the last: pixels of no object
    return Objects(new[number], label[kept], share[kept], int((~kept).sum()))


def _numbered(labels: Pixels, instances: bool) -> tuple[Pixels, Int[np.ndarray, " object"]]:
    """The number of every pixel's object, -1 where there is none, and each object's label."""
    number = np.full(labels.shape, -1, dtype=np.int64)
    of_object: list[int] = []
    for label in np.unique(labels[labels >= 0]).tolist():
        mask = labels == label
        parts, count = (mask, 1) if instances else scipy.ndimage.label(mask)
        number[mask] = len(of_object) + parts[mask] - 1
        of_object += [label] * count
    return number, np.array(of_object, dtype=np.int64)


# ---- numbers of pixels ---------------------------------------------------------------------------


def _patch_shares(
    number: Pixels, count: int, grid: tuple[int, int]
) -> Float[np.ndarray, "segment patch"]:
    """Share of every patch's area that each of the segments 0 to count − 1 covers."""
    rows, columns = (np.arange(n) * g // n for n, g in zip(number.shape, grid, strict=True))
    patch = rows[:, None] * grid[1] + columns
    patches = grid[0] * grid[1]
    there = number >= 0
    pixels = np.bincount(number[there] * patches + patch[there], minlength=count * patches)
    area = np.bincount(patch.ravel(), minlength=patches)
    return (pixels.reshape(count, patches) / area).astype(np.float32)

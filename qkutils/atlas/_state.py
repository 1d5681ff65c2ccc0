"""Atlases: what a scan has found so far, labelled, and the tensors to which more is added."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from importlib.metadata import version

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from qkutils import store
from qkutils.gauge import Layer, Projections
from qkutils.pictures._stream import Batch
from qkutils.provenance import with_origin

OnModes = Float[Tensor, "image head patch mode"]

SIGNS = (1, -1)
DIMS = ("layer", "head", "mode", "sign", "rank")
GEOMETRY = ("grid", "patch_size", "image_size")
PLACES = ("image", "score", "query_patch", "key_patch")
OF_PICTURES = ("key", "fault", "digest", "done")  # a digest is "" until the picture was opened
Field = tuple[tuple[str, ...], str, object]  # dims, kind as numpy calls it, what stands for nothing
FIELDS: dict[str, Field] = {
    **{name: ((name,), "i", 0) for name in DIMS},
    **dict.fromkeys(PLACES, (DIMS, "i", np.int32(-1))),
    "score": (DIMS, "f", np.float32(np.nan)),
    **dict.fromkeys(("sigma", "cosine"), (DIMS[:3], "f", np.nan)),
    **dict.fromkeys(OF_PICTURES, (("picture",), "O", "")),
    "done": (("picture",), "b", False),
}
# What is summed over images for each statistic, and over which dims.
SUMS: dict[str, dict[str, tuple[str, ...]]] = {
    "variance": {"logit_variance": DIMS[:3], "salience_variance": DIMS[:2]},
    "anisotropy": {"direction": ("layer", "d_model")},
    "sinks": {"sink": DIMS[:2], "sink_on_prefix": DIMS[:2]},
}
STATISTICS = tuple(SUMS)
_LAST = 2**32 - 1
_COARSE, _FINE = 2.0**10, 2.0**30


def fields_of(statistics: Iterable[str]) -> dict[str, Field]:
    """All that an atlas with these statistics holds."""
    sums = {
        f"{name}_sum": ((*dims, "word"), "i", 0)
        for each in statistics
        for name, dims in SUMS.get(each, {}).items()
    }
    return FIELDS | sums


def empty(
    projections: Projections,
    keys: Sequence[str],
    k: int,
    statistics: Sequence[str] = (),
    candidates: str = "",
) -> xr.Dataset:
    """The atlas of no image: what a scan knows before it sees one."""
    model, layers = projections.model, projections.layers
    sizes = dict(zip((*DIMS[:3], "d_model"), projections.heads.w_q.shape, strict=True))
    sizes |= {"sign": len(SIGNS), "rank": k, "word": 2, "picture": len(keys)}
    fields: dict = {
        name: (dims, np.full([sizes[dim] for dim in dims], value, object if kind == "O" else None))
        for name, (dims, kind, value) in fields_of(statistics).items()
    }
    for name in ("sigma", "cosine"):
        each = torch.stack([getattr(layer, name) for layer in layers]).cpu()
        fields[name] = (DIMS[:3], each.numpy())
    fields |= {name: np.arange(sizes[name]) for name in DIMS} | {"sign": list(SIGNS)}
    fields["key"] = ("picture", np.array(keys, dtype=object))
    known = xr.Dataset(fields).set_coords([*DIMS, "key"])
    attributes = _attributes(projections, [sizes[name] for name in DIMS], statistics, candidates)
    dtype = str(projections.precision).removeprefix("torch.")
    return with_origin(known.assign_attrs(attributes), model, projections.convention, dtype)


def _attributes(
    projections: Projections, shape: list[int], statistics: Sequence[str], candidates: str
) -> dict:
    """What tells this scan from others, and the geometry of its model."""
    model, precision = projections.model, str(projections.precision).removeprefix("torch.")
    options = {
        "k": shape[-1],
        "statistics": " ".join(each for each in STATISTICS if each in statistics),
        "candidates": candidates,
    }
    identity = {
        "model": model.identity,
        "preprocessing": repr(model.transform),
        "options": options | {"convention": projections.convention, "dtype": precision},
        "code_version": version("qkutils"),
    }
    return options | {
        "shape": shape,
        "grid": list(model.grid),
        "patch_size": list(model.net.patch_embed.patch_size),
        "image_size": list(model.image_size),
        "prefix_tokens": model.prefix_tokens,
        "identity": store.in_words(identity),
    }


def todo(atlas: xr.Dataset) -> list[int]:
    """Numbers of the images that are still to be read."""
    return np.flatnonzero(~atlas.done.values & (atlas.fault.values == "")).tolist()


def is_sum(name: Hashable) -> bool:
    """Whether this field of an atlas is a sum of a statistic."""
    return str(name).endswith("_sum")


def with_means(atlas: xr.Dataset) -> xr.Dataset:
    """The same, with the means of the statistics over the images that are done."""
    count, means = int(atlas.done.sum()), {}
    for name in filter(is_sum, atlas if count else ()):
        coarse, fine = (atlas[name].isel(word=n).astype(float) for n in range(2))
        of = 1 if name == "direction_sum" else count
        means[str(name).removesuffix("_sum")] = (coarse * _COARSE + fine / _FINE) / of
    direction = means.pop("direction", None)
    if direction is not None and count > 1:
        length = (direction**2).sum("d_model")
        means["anisotropy"] = (length - count) / (count * (count - 1))
    return atlas.assign(means)


def encode(score: Float[Tensor, "*at"], number: Int[Tensor, "*#at"]) -> Int[Tensor, "*at"]:
    """One integer by which a larger score sorts first and, where two tie, the smaller number.

    Scores are rounded to 16 significant bits, a part in 10⁵, so that copies of a picture tie
    whatever the rounding errors of the forward pass.  What is not positive becomes 0: nothing.
    """
    bits = (score.float().contiguous().view(torch.int32) + 128) & ~255
    code = (bits.long() << 32) | (_LAST - number)
    return torch.where(score > 0, code, 0)


def decode(code: Int[Tensor, "*at"]) -> tuple[Float[Tensor, "*at"], Int[Tensor, "*at"]]:
    """Score and number of a code; not-a-number and −1 where there is nothing."""
    score = (code >> 32).int().view(torch.float32)
    empty = code == 0
    return score.masked_fill(empty, torch.nan), (_LAST - (code & _LAST)).masked_fill(empty, -1)


def exact(terms: Shaped[Tensor, "*at"]) -> Int[Tensor, "*at 2"]:
    """Numbers as integers, in two words, so that no order of adding them can change their sum.

    They are rounded to a multiple of 2⁻³⁰; their size may reach 2⁶⁰.
    """
    terms = terms.double()
    coarse = (terms / _COARSE).floor()
    fine = ((terms - coarse * _COARSE) * _FINE).round()
    return torch.stack([coarse, fine], -1).long()


class Atlas:
    """An atlas to which images are added; its tensors are where the model is."""

    def __init__(self, known: xr.Dataset, device: torch.device) -> None:
        self.known = known.copy(deep=True)
        held = {name: torch.from_numpy(known[name].values).to(device) for name in PLACES}
        self.best = encode(held["score"].nan_to_num(0.0), held["image"].long().clamp(min=0))
        self.patches = torch.stack([held["query_patch"], held["key_patch"]], -1).long()
        self.sums = {
            name: torch.from_numpy(self.known[name].values).to(device)
            for name in filter(is_sum, known)
        }

    def note(self, batch: Batch) -> None:
        """Takes down what became of the pictures of a batch."""
        self.known.done.values[batch.numbers] = True
        for field, told in (("fault", batch.faults), ("digest", batch.digests)):
            self.known[field].values[list(told)] = list(told.values())

    def offer(
        self, index: int, numbers: Int[Tensor, " image"], layer: Layer, query: OnModes, key: OnModes
    ) -> Bool[Tensor, ""]:
        """Takes what is among the best so far from one layer's projections of some images.

        The score of an image is the largest s·(x·u) times the largest s·(x·v) over its patches,
        where both are positive, for each sign s.  Gives back whether all scores are finite.
        """
        queries = _extremes(query, layer.query_offset)
        keys = _extremes(key, layer.key_offset)
        score = queries * keys * (1 / layer.root.square())[..., None]
        code = encode(score.where((queries > 0) & (keys > 0), 0), numbers.view(-1, 1, 1, 1))
        k = self.best.shape[-1]
        best, place = torch.cat([self.best[index], code.movedim(0, -1)], -1).topk(k, -1)
        kept = place.clamp(max=k - 1)[..., None].expand(*place.shape, 2)
        patches = self.patches[index].gather(-2, kept)
        fresh = (place >= k) & (best > 0)
        at = _places(fresh)
        heads, modes, signs, _ = at
        image, turn = (place[at] - k).clamp(min=0), (1 - 2 * signs)[..., None]
        found = [(each[image, heads, :, modes] * turn).argmax(-1) for each in (query, key)]
        patches[at] = torch.stack(found, -1).where(fresh[at][..., None], patches[at])
        self.best[index], self.patches[index] = best, patches
        return score.isfinite().all()

    def dataset(self) -> xr.Dataset:
        """What is known now, with the means of the statistics."""
        score, number = decode(self.best.cpu())
        query, key = self.patches.cpu().int().unbind(-1)
        values = zip(PLACES, (number.int(), score, query, key), strict=True)
        fields: dict = {name: (DIMS, each.numpy()) for name, each in values}
        fields |= {
            name: (self.known[name].dims, words.cpu().numpy()) for name, words in self.sums.items()
        }
        return with_means(self.known.assign(fields))


def _extremes(
    projection: OnModes, offset: Float[Tensor, "head mode"]
) -> Float[Tensor, "image head mode sign"]:
    """The largest projection on each mode and on its reverse; the offset only shifts it."""
    largest, smallest = projection.amax(2), projection.amin(2)
    return torch.stack([largest - offset, offset - smallest], -1)


def _places(fresh: Bool[Tensor, "*at"]) -> tuple[Tensor, ...]:
    """Indices of what is true; on a GPU, which would have to be waited for, of everything."""
    if fresh.device.type == "cpu":
        return fresh.nonzero(as_tuple=True)
    each = [torch.arange(n, device=fresh.device) for n in fresh.shape]
    return torch.meshgrid(*each, indexing="ij")

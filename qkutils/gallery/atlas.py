"""Atlases: what a scan has found so far, to be added to, merged, saved and read again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from qkutils.gallery.projections import Layer, Projections
from qkutils.modes import provenance

Best = Int[Tensor, "layer head mode sign rank"]
STATISTICS = ("variance", "anisotropy", "sinks")
SIGNS = (1, -1)
DIMS = ("layer", "head", "mode", "sign", "rank")
_LAST = 2**32 - 1
# Sums of what each statistic needs, and their dims after `layer`.
_SUMS: dict[str, dict[str, tuple[str, ...]]] = {
    "variance": {"logit_variance": ("head", "mode"), "salience_variance": ("head",)},
    "anisotropy": {"direction": ("d_model",)},
    "sinks": {"sink": ("head",), "sink_on_prefix": ("head",)},
}


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


class ExactSum:
    """A sum that no order of its terms can change: integers, in two words.

    Terms are rounded to a multiple of 2⁻³⁰; their size may reach 2⁶⁰.
    """

    COARSE, FINE = 2.0**10, 2.0**30

    def __init__(self, words: Int[Tensor, "*at 2"]) -> None:
        self.words = words

    def add(self, at: int, terms: Tensor) -> None:
        """Adds terms, stacked along their first dimension, to the entry `at` of the sum."""
        terms = terms.double().cpu()
        coarse = (terms / self.COARSE).floor()
        fine = ((terms - coarse * self.COARSE) * self.FINE).round()
        self.words[at] += torch.stack([coarse, fine], -1).long().sum(0)

    def total(self) -> np.ndarray:
        """The sum in float64."""
        coarse, fine = self.words.double().unbind(-1)
        return (coarse * self.COARSE + fine / self.FINE).numpy()


@dataclass
class Atlas:
    """The best images of every mode so far, the sums of the statistics, and which images count."""

    keys: list[str]
    done: np.ndarray
    faults: list[str]
    best: Best
    patches: Int[Tensor, "layer head mode sign rank 2"]
    sums: dict[str, ExactSum]
    fixed: xr.Dataset = field(default_factory=xr.Dataset)  # σ, cosine and attributes

    @classmethod
    def empty(
        cls, projections: Projections, keys: list[str], k: int, statistics: Sequence[str]
    ) -> Atlas:
        """The atlas of no image."""
        layers, heads, modes, d_model = projections.heads.w_q.shape
        sizes = {"head": heads, "mode": modes, "d_model": d_model}
        shape = (layers, heads, modes, len(SIGNS), k)
        sums = {
            name: ExactSum(torch.zeros(layers, *(sizes[d] for d in dims), 2, dtype=torch.int64))
            for each in statistics
            for name, dims in _SUMS[each].items()
        }
        fixed = _fixed(projections, k, statistics)
        best = torch.zeros(shape, dtype=torch.int64)
        patches = torch.full((*shape, 2), -1, dtype=torch.int64)
        done = np.zeros(len(keys), dtype=bool)
        return cls(list(keys), done, [""] * len(keys), best, patches, sums, fixed)

    def offer(
        self,
        index: int,
        numbers: Int[Tensor, " image"],
        layer: Layer,
        query: Float[Tensor, "image head patch mode"],
        key: Float[Tensor, "image head patch mode"],
    ) -> None:
        """Takes what is among the best so far from one layer's projections of some images.

        The score of an image is the largest s·(x·u) times the largest s·(x·v) over its patches,
        where both are positive, for each sign s.
        """
        queries = _extremes(query, layer.query_offset)
        keys = _extremes(key, layer.key_offset)
        score = queries * keys * (1 / layer.root.square())[..., None]
        if not score.isfinite().all():
            raise ArithmeticError(
                f"layer {index}: projections that are not finite; the model or its number format "
                "can't take these images"
            )
        code = encode(score.where((queries > 0) & (keys > 0), 0), numbers.view(-1, 1, 1, 1))
        best = self.best[index]
        pool = torch.cat([best, code.movedim(0, -1).to(best.device)], -1)
        top, place = pool.topk(best.shape[-1], -1)
        patches = self.patches[index].gather(
            -2, place.clamp(max=best.shape[-1] - 1)[..., None].expand(*place.shape, 2)
        )
        fresh = (place >= best.shape[-1]) & (top > 0)
        heads, modes, signs, _ = at = fresh.nonzero(as_tuple=True)
        image = (place[at] - best.shape[-1]).to(query.device)
        turn = torch.tensor(SIGNS).to(query)[signs.to(query.device), None]
        patches[at] = torch.stack(
            [(each[image, heads, :, modes] * turn).argmax(-1) for each in (query, key)], -1
        ).cpu()
        self.best[index], self.patches[index] = top, patches

    def dataset(self) -> xr.Dataset:
        """The atlas with its dimensions labelled, and the means of the statistics."""
        score, number = decode(self.best)
        fields: dict = {
            "score": (DIMS, score.numpy()),
            "image": (DIMS, number.int().numpy()),
            "query_patch": (DIMS, self.patches[..., 0].int().numpy()),
            "key_patch": (DIMS, self.patches[..., 1].int().numpy()),
            "done": ("picture", self.done),
            "fault": ("picture", np.array(self.faults, dtype=object)),
        }
        dims = {name: d for group in _SUMS.values() for name, d in group.items()}
        for name, total in self.sums.items():
            fields[f"{name}_sum"] = (("layer", *dims[name], "word"), total.words.numpy())
        fields |= self._means()
        coords = {"sign": list(SIGNS), "rank": np.arange(self.best.shape[-1])}
        keys = np.array(self.keys, dtype=object)
        return self.fixed.assign(fields).assign_coords(coords | {"key": ("picture", keys)})

    def _means(self) -> dict:
        count = int(self.done.sum())
        totals = {name: total.total() for name, total in self.sums.items()}
        if count == 0:
            return {}
        means: dict = {
            name: (("layer", "head", "mode")[: total.ndim], total / count)
            for name, total in totals.items()
            if name != "direction"
        }
        if "direction" in totals and count > 1:
            length = (totals["direction"] ** 2).sum(-1)
            means["anisotropy"] = ("layer", (length - count) / (count * (count - 1)))
        return means

    @classmethod
    def of(cls, dataset: xr.Dataset) -> Atlas:
        """The atlas that a labelled result holds."""
        score = torch.from_numpy(dataset.score.values).nan_to_num(0.0)
        number = torch.from_numpy(dataset.image.values).long().clamp(min=0)
        patches = [torch.from_numpy(dataset[f"{w}_patch"].values) for w in ("query", "key")]
        sums = {
            str(name).removesuffix("_sum"): ExactSum(torch.from_numpy(values.values.copy()))
            for name, values in dataset.data_vars.items()
            if str(name).endswith("_sum")
        }
        return cls(
            [str(key) for key in dataset.key.values],
            dataset.done.values.astype(bool),
            [str(fault) for fault in dataset.fault.values],
            encode(score, number),
            torch.stack(patches, -1).long(),
            sums,
            dataset[["sigma", "cosine"]].reset_coords(drop=True),
        )


def _extremes(
    projection: Float[Tensor, "image head patch mode"], offset: Float[Tensor, "head mode"]
) -> Float[Tensor, "image head mode sign"]:
    """The largest projection on each mode and on its reverse; the offset only shifts it."""
    largest, smallest = projection.amax(2), projection.amin(2)
    return torch.stack([largest - offset, offset - smallest], -1)


def _fixed(projections: Projections, k: int, statistics: Sequence[str]) -> xr.Dataset:
    """What a scan knows before it sees an image."""
    dims = ("layer", "head", "mode")
    fields = {
        name: (dims, torch.stack([getattr(layer, name) for layer in projections.layers]).cpu())
        for name in ("sigma", "cosine")
    }
    model, precision = projections.model, str(projections.precision).removeprefix("torch.")
    attributes = provenance(projections.heads, projections.convention, precision) | {
        "k": k,
        "statistics": " ".join(each for each in STATISTICS if each in statistics),
        "grid": list(model.grid),
        "image_size": list(model.image_size),
        "prefix_tokens": model.prefix_tokens,
        "candidates": "",
    }
    coords = {d: np.arange(n) for d, n in zip(dims, fields["sigma"][1].shape, strict=True)}
    return xr.Dataset({n: (d, v.numpy()) for n, (d, v) in fields.items()}, coords, attributes)


def merge(*atlases: xr.Dataset) -> xr.Dataset:
    """The atlas of all images of several: what one scan of them all would have given.

    Raises ValueError for atlases of different models, conventions or options, and for images that
    two of them share.
    """
    if not atlases:
        raise ValueError("merge: at least one atlas is needed")
    return reduce(_merge_two, atlases[1:], atlases[0])


def _merge_two(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    differ = [
        name
        for name in sorted({*first.attrs, *second.attrs})
        if not np.array_equal(first.attrs.get(name, ""), second.attrs.get(name, ""))
    ]
    if differ:
        raise ValueError(
            f"merge: the atlases differ in {', '.join(differ)}; scan all shards in one way"
        )
    a, b = Atlas.of(first), Atlas.of(second)
    shared = sorted({*a.keys} & {*b.keys})
    if shared:
        raise ValueError(
            f"merge: {len(shared)} images are in two atlases, the first {shared[0]!r}; give every "
            "image to one shard"
        )
    keys = np.array(a.keys + b.keys, dtype=object)
    order = np.argsort(keys, kind="stable")
    place = torch.from_numpy(np.argsort(order))
    moved = [renumber(a.best, place[: len(a.keys)]), renumber(b.best, place[len(a.keys) :])]
    best, chosen = torch.cat(moved, -1).topk(a.best.shape[-1], -1)
    patches = torch.cat([a.patches, b.patches], -2)
    patches = patches.gather(-2, chosen[..., None].expand(*chosen.shape, 2))
    return Atlas(
        [str(key) for key in keys[order]],
        np.concatenate([a.done, b.done])[order],
        [(a.faults + b.faults)[n] for n in order],
        best,
        patches,
        {name: ExactSum(total.words + b.sums[name].words) for name, total in a.sums.items()},
        a.fixed,
    ).dataset()


def renumber(best: Best, place: Int[Tensor, " number"]) -> Best:
    """The same places where the pictures have other numbers."""
    score, number = decode(best)
    return encode(score.nan_to_num(0.0), place[number.clamp(min=0)])


def save(atlas: xr.Dataset, path: str | Path) -> Path:
    """Writes an atlas as netCDF, under a temporary name that is then changed, and returns where."""
    path = Path(path)
    partial = path.with_name(path.name + ".writing")
    atlas.to_netcdf(partial, engine="h5netcdf")
    os.replace(partial, path)
    return path


def load(path: str | Path) -> xr.Dataset:
    """Reads an atlas that `save` wrote."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such atlas; `scan(..., out=...)` writes one")
    return xr.load_dataset(path, engine="h5netcdf")

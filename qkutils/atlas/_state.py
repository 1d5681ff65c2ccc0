"""Atlases: what a scan has found so far, to be added to, merged, saved and read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from qkutils import store
from qkutils.gauge import Layer, Projections
from qkutils.heads import CONVENTIONS
from qkutils.pictures._stream import Batch
from qkutils.provenance import ORIGIN, convention_of, with_origin

Best = Int[Tensor, "layer head mode sign rank"]
STATISTICS = ("variance", "anisotropy", "sinks")
SIGNS = (1, -1)
DIMS = ("layer", "head", "mode", "sign", "rank")
PLACES = ("image", "query_patch", "key_patch")
GEOMETRY = ("grid", "patch_size", "image_size")
_NUMBERS = {"shape": len(DIMS)} | dict.fromkeys(GEOMETRY, 2)
FIXED = ("sigma", "cosine", "ranked_again", "from_candidates")
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
    digests: list[str]  # "" for a picture that was not opened yet, or could not be
    done: np.ndarray
    faults: list[str]
    best: Best
    patches: Int[Tensor, "layer head mode sign rank 2"]
    sums: dict[str, ExactSum]
    fixed: xr.Dataset  # σ, cosine and attributes

    @classmethod
    def empty(
        cls,
        projections: Projections,
        keys: list[str],
        k: int,
        statistics: Sequence[str] = (),
        candidates: str = "",
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
        fixed = _fixed(projections, shape, statistics, candidates)
        best = torch.zeros(shape, dtype=torch.int64)
        patches = torch.full((*shape, 2), -1, dtype=torch.int64)
        done, nothing = np.zeros(len(keys), dtype=bool), [""] * len(keys)
        return cls(list(keys), nothing, done, list(nothing), best, patches, sums, fixed)

    def todo(self) -> list[int]:
        """Numbers of the images that are still to be read."""
        return [n for n, fault in enumerate(self.faults) if not self.done[n] and not fault]

    def note(self, batch: Batch) -> None:
        """Takes down what became of the pictures of a batch."""
        self.done[batch.numbers] = True
        for number, fault in batch.faults.items():
            self.faults[number] = fault
        for number, known in batch.digests.items():
            self.digests[number] = known

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
            "digest": ("picture", np.array(self.digests, dtype=object)),
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
            [str(known) for known in dataset.digest.values],
            dataset.done.values.astype(bool),
            [str(fault) for fault in dataset.fault.values],
            encode(score, number),
            torch.stack(patches, -1).long(),
            sums,
            dataset[[n for n in FIXED if n in dataset]],
        )


def _extremes(
    projection: Float[Tensor, "image head patch mode"], offset: Float[Tensor, "head mode"]
) -> Float[Tensor, "image head mode sign"]:
    """The largest projection on each mode and on its reverse; the offset only shifts it."""
    largest, smallest = projection.amax(2), projection.amin(2)
    return torch.stack([largest - offset, offset - smallest], -1)


def _fixed(
    projections: Projections, shape: Sequence[int], statistics: Sequence[str], candidates: str
) -> xr.Dataset:
    """What a scan knows before it sees an image."""
    dims = ("layer", "head", "mode")
    fields = {
        name: (dims, torch.stack([getattr(layer, name) for layer in projections.layers]).cpu())
        for name in ("sigma", "cosine")
    }
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
    attributes = {
        "shape": list(shape),
        "grid": list(model.grid),
        "patch_size": list(model.net.patch_embed.patch_size),
        "image_size": list(model.image_size),
        "prefix_tokens": model.prefix_tokens,
        "identity": store.in_words(identity),
    }
    coords = {d: np.arange(n) for d, n in zip(dims, shape, strict=False)}
    values = {n: (d, v.numpy()) for n, (d, v) in fields.items()}
    known = xr.Dataset(values, coords, options | attributes)
    return with_origin(known, model, projections.convention, precision)


def merge(*atlases: xr.Dataset) -> xr.Dataset:
    """Merge the atlases of several sets of images into one.

    The result is what one scan of all the images would have given.

    Parameters
    ----------
    *atlases
        Whole atlases, as `scan` gave them: one or more.

    Returns
    -------
    xr.Dataset
        An atlas of all images, in the order of their keys.

    Raises
    ------
    ValueError
        For atlases of different models, conventions or options, for images that two of them share,
        and where there is no atlas.

    Examples
    --------
    >>> import qkutils as qk
    >>> scenes, keys = qk.world.pictures(0, 0, 4), ["a", "b", "c", "d"]
    >>> halves = [
    ...     qk.scan("tiny-supervised", scenes[part], k=2, keys=keys[part], progress=False)
    ...     for part in (slice(0, 2), slice(2, 4))
    ... ]
    >>> qk.merge(*halves).key.values.tolist()
    ['a', 'b', 'c', 'd']
    """
    if not atlases:
        raise ValueError("merge: at least one atlas is needed")
    for number, atlas in enumerate(atlases):
        check_atlas(atlas, f"atlas {number}", whole=True)
    return reduce(_merge_two, atlases[1:], atlases[0])


def _merge_two(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    _check_shards(first, second)
    a, b = Atlas.of(first), Atlas.of(second)
    keys = a.keys + b.keys
    order = sorted(range(len(keys)), key=keys.__getitem__)
    place = torch.tensor(order).argsort()
    moved = [renumber(a.best, place[: len(a.keys)]), renumber(b.best, place[len(a.keys) :])]
    best, chosen = torch.cat(moved, -1).topk(a.best.shape[-1], -1)
    patches = torch.cat([a.patches, b.patches], -2)
    return Atlas(
        [keys[n] for n in order],
        [(a.digests + b.digests)[n] for n in order],
        np.concatenate([a.done, b.done])[order],
        [(a.faults + b.faults)[n] for n in order],
        best,
        patches.gather(-2, chosen[..., None].expand(*chosen.shape, 2)),
        {name: ExactSum(total.words + b.sums[name].words) for name, total in a.sums.items()},
        a.fixed[["sigma", "cosine"]],
    ).dataset()


def _check_shards(first: xr.Dataset, second: xr.Dataset) -> None:
    differ = store.differing(store.identity_of(first), store.identity_of(second))
    if differ:
        raise ValueError(
            f"merge: the atlases differ in {', '.join(differ)}; scan all shards in one way"
        )
    shared = sorted({*map(str, first.key.values)} & {*map(str, second.key.values)})
    if shared:
        raise ValueError(
            f"merge: {len(shared)} images are in two atlases, the first {shared[0]!r}; give every "
            "image to one shard"
        )


def renumber(best: Best, place: Int[Tensor, " number"]) -> Best:
    """The same places where the pictures have other numbers."""
    score, number = decode(best)
    return encode(score.nan_to_num(0.0), place[number.clamp(min=0)])


def save(atlas: xr.Dataset, path: str | Path) -> Path:
    """Save an atlas as netCDF.

    The file is whole or not there.

    Parameters
    ----------
    atlas
        A whole atlas, as `scan` or `merge` gave it.
    path
        Where to write it.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        For what is no whole atlas.
    OSError
        Where the file can't be written.

    Examples
    --------
    >>> import qkutils as qk, tempfile
    >>> atlas = qk.scan("tiny-supervised", qk.world.pictures(0, 0, 4), k=2, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     qk.atlas.save(atlas, f"{folder}/atlas.nc").name
    'atlas.nc'
    """
    check_atlas(atlas, "the atlas", whole=True)
    return store.save(path, atlas)


def open_atlas(path: str | Path) -> xr.Dataset:
    """Read an atlas from the file that `save` or `scan` wrote.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    xr.Dataset
        The atlas, as `scan` gave it.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        For a file that is damaged, or holds no whole atlas.

    Examples
    --------
    >>> import qkutils as qk, tempfile
    >>> atlas = qk.scan("tiny-supervised", qk.world.pictures(0, 0, 4), k=2, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     qk.open_atlas(qk.atlas.save(atlas, f"{folder}/atlas.nc")).equals(atlas)
    True
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: there is no such atlas; `scan(..., out=...)` writes one")
    atlas = store.load(path)
    check_atlas(atlas, str(path), whole=True)
    return atlas


def check_atlas(atlas: Any, name: str = "the atlas", whole: bool = False) -> None:
    """Refuse what is no atlas, and an atlas that can't be true.

    A selection of layers, heads, modes, signs or ranks is an atlas too.

    Parameters
    ----------
    atlas
        What is checked.
    name
        What the error calls it.
    whole
        Whether to refuse a selection.

    Raises
    ------
    ValueError
        Where it is none.  The error says what is wrong.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.atlas.check_atlas("atlas.nc")
    Traceback (most recent call last):
    ValueError: the atlas: is no atlas that a scan can have given: it is a str; scan again
    """
    wrong = _missing(atlas) or _misshapen(atlas, whole) or _misplaced(atlas) or _misread(atlas)
    if wrong:
        raise ValueError(f"{name}: is no atlas that a scan can have given: {wrong}; scan again")


def _missing(atlas: Any) -> str:
    """What an atlas has to hold and this does not, or not over the right dimensions."""
    if not isinstance(atlas, xr.Dataset):
        return f"it is a {type(atlas).__name__}"
    wanted: dict[str, tuple[str, ...]] = {name: DIMS for name in (*PLACES, "score")}
    wanted |= {"sigma": DIMS[:3], "cosine": DIMS[:3]}
    wanted |= {name: ("picture",) for name in ("key", "done", "fault", "digest")}
    wanted |= {name: (name,) for name in DIMS}
    asked = str(atlas.attrs.get("statistics", "")).split()
    for group in (_SUMS[each] for each in asked if each in _SUMS):
        wanted |= {f"{name}_sum": ("layer", *dims, "word") for name, dims in group.items()}
    wrong = [name for name, dims in wanted.items() if name not in atlas or atlas[name].dims != dims]
    kinds = dict.fromkeys(PLACES, "i") | {"score": "f", "sigma": "f", "done": "b"}
    wrong += [
        name for name, kind in kinds.items() if name in atlas and atlas[name].dtype.kind != kind
    ]
    wrong += [name for name in ORIGIN if name not in atlas.coords]
    if "convention" in atlas.coords and convention_of(atlas) not in CONVENTIONS:
        wrong += ["convention"]
    wrong += [] if isinstance(atlas.attrs.get("identity"), str) else ["identity"]
    wrong += [name for name, count in _NUMBERS.items() if not _counts(atlas.attrs.get(name), count)]
    return f"{', '.join(wrong)} missing, or of another kind or other dimensions" if wrong else ""


def _counts(value: Any, count: int) -> bool:
    numbers = np.atleast_1d(value)
    return len(numbers) == count and numbers.dtype.kind == "i" and bool((numbers > 0).all())


def _misshapen(atlas: xr.Dataset, whole: bool) -> str:
    """Whether sizes are not those that the attributes tell."""
    for name, wanted in zip(DIMS, atlas.attrs["shape"], strict=True):
        there = atlas[name].values.tolist()
        numbers = list(SIGNS) if name == "sign" else list(range(wanted))
        if whole and there != numbers:
            return f"it holds {len(there)} of {wanted} in {name}, or in another order"
        if not set(there) <= set(numbers) or len(set(there)) < len(there):
            return f"{name} holds other numbers than 0 to {wanted - 1}, or one twice"
    grid, patch, size = (np.array(atlas.attrs[name]) for name in GEOMETRY)
    fits = (np.abs(grid * patch - size) < patch).all()
    return "" if fits else f"grid {grid}, patch_size {patch} and image_size {size} don't fit"


def _misplaced(atlas: xr.Dataset) -> str:
    """What can't be true of the places: of their pictures, their scores or their patches."""
    image, score = atlas.image.values, atlas.score.values
    there, count = image >= 0, atlas.sizes["picture"]
    if (image < -1).any() or (image >= count).any():
        return f"image holds numbers that none of the {count} pictures has"
    used = atlas.done.values & (atlas.fault.values == "")
    if not used[image[there]].all():
        return "image names pictures that are not done, or have a fault"
    if (
        not (np.isfinite(score[there]) & (score[there] > 0)).all()
        or not np.isnan(score[~there]).all()
    ):
        return (
            "score is missing, infinite or not positive where there is an image, or is without one"
        )
    if (np.diff(np.where(there, score, 0), axis=-1) > 0).any():
        return "score does not fall with the rank"
    patches = int(np.prod(atlas.attrs["grid"]))
    for name in ("query_patch", "key_patch"):
        at = atlas[name].values
        if (at[there] < 0).any() or (at[there] >= patches).any() or (at[~there] != -1).any():
            return f"{name} lies outside the grid of {patches} patches"
    return ""


def _misread(atlas: xr.Dataset) -> str:
    """What can't be true of the list of pictures."""
    keys, done = [str(key) for key in atlas.key.values], atlas.done.values.astype(bool)
    faulty, known = atlas.fault.values.astype(bool), atlas.digest.values.astype(bool)
    if len(set(keys)) < len(keys):
        return "key names two pictures alike"
    twice = bool(atlas.attrs.get("candidates"))  # where a picture may fail in the second pass alone
    if (not twice and (done & faulty).any()) or (done & ~known).any():
        return "done holds pictures with a fault, or without a digest"
    sigma = atlas.sigma.values
    return "" if (np.isfinite(sigma) & (sigma >= 0)).all() else "sigma is not finite, or negative"

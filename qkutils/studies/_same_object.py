"""Same object?  Whether a mode's queries and keys are strongest on one object (paper figure 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from qkutils import models, options, statistics
from qkutils.heads import CONVENTIONS, Convention
from qkutils.models import AnyModel, Model
from qkutils.modes import decompose
from qkutils.passes import normalise, streaming
from qkutils.provenance import ORIGIN, with_origin
from qkutils.records import Segmentations
from qkutils.studies._layouts import (
    HALF,
    SMALLEST,
    Objects,
    check,
    objects_of,
    pairing,
    picture_batches,
)
from qkutils.studies._regions import Patches

CASES = ("modes", "random directions", "other masks", "random directions, other masks")
SIGNS = (1, -1)
_DIMS = ("case", "image", "layer", "head", "mode", "sign")
_GALLERY = ("case", "layer", "head", "mode", "sign")


@dataclass(frozen=True)
class _Reader:
    """Directions of modes and random ones, side by side in rows, and objects as weights."""

    model: Model
    query: Float[Tensor, "layer row d_model"]
    key: Float[Tensor, "layer row d_model"]
    ln_eps: float | None  # None where the raw residual stream is projected
    weight: Float[Tensor, "picture object patch"]
    there: Bool[Tensor, "picture object"]


def same_object(
    model: AnyModel,
    segmentations: Segmentations,
    *,
    k: int = 5,
    convention: Convention = "exact",
    instances: bool = False,
    cover: float = HALF,
    patches: Patches = "fraction",
    seed: int = 0,
    batch_size: int = 16,
) -> xr.Dataset:
    """Find, for every picture, mode and sign, the objects that query and key directions pick out.

    A direction picks out the object on which its mean projection is largest.  Two nulls are
    measured next to the modes.  Paper figure 6.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    segmentations
        Pictures with one label map each, at least two.
    k
        How many of the best pictures of each mode `optimal_objects` and `probability` take.
    convention
        `exact`: tokens are normalised before they are projected.  `paper`: the raw residual
        stream.
    instances
        Whether every number of a label map is one object; else each connected component is one.
    cover
        The share of a patch, above 0 and up to 1, that an object has to cover in one patch at
        least.  Smaller objects are left out and counted.
    patches
        How an object's mean is taken.  `fraction`: patches are weighted by the object's share of
        their area.  `half`: over the patches that it covers by `cover`.
    seed
        Where the random generator of the random directions begins.
    batch_size
        How many pictures go through the model together.

    Returns
    -------
    xr.Dataset
        Over (case, image, layer, head, mode, sign).  `query_object` and `key_object` are the
        objects with the largest mean projection s(x·u) and s(x·v), as numbered by `objects_of`.
        `score` is max_i s(x_i·u) · max_j s(x_j·v) over patches, NaN where one of the two is not
        positive.  `objects` counts those of each image, `sigma` holds the modes' strengths.

        `case` holds the `modes` and their nulls.  `random directions` are as many random unit
        vectors, on the same pictures.  `other masks` has the modes with the masks of another
        picture; it shows what the objects' geometry alone would give.  A last case has both.
        Pictures without objects are left out, and the attributes count them.

    Raises
    ------
    ValueError
        For options and pictures that don't fit.

    Examples
    --------
    >>> import qkutils as qk
    >>> pictures = qk.world.segmentations(0, 0, 4)
    >>> found = qk.studies.same_object("tiny-supervised", pictures)
    >>> dict(found.score.sizes)
    {'case': 4, 'image': 4, 'layer': 8, 'head': 4, 'mode': 24, 'sign': 2}
    """
    check(segmentations, batch_size)
    options.choice("convention", convention, CONVENTIONS)
    options.choice("patches", patches, get_args(Patches))
    options.flag("instances", instances)
    k, seed = options.count("k", k), options.seed(seed)
    cover = options.number("cover", cover, SMALLEST, 1, closed=True)
    loaded = models.load(model)
    parts = decompose(loaded, convention=convention)
    places, keys, objects = _read(loaded, segmentations, instances, cover)
    reader = _reader(
        loaded, parts, _weights(objects, None if patches == "fraction" else cover), seed
    )
    guests = pairing(keys)[:, 0]
    found = _label(_measure(reader, segmentations, places, guests, batch_size), parts, keys)
    counts = [len(each.label) for each in objects]
    asked = {"k": k, "instances": str(instances), "cover": cover, "patches": patches, "seed": seed}
    asked |= {
        "pictures without objects": len(segmentations) - len(places),
        "objects too small": sum(each.left_out for each in objects),
    }
    return with_origin(
        found.assign(objects=("image", counts)), loaded, convention, "float32", **asked
    )


def _read(
    model: Model, segmentations: Segmentations, instances: bool, cover: float
) -> tuple[list[int], list[str], list[Objects]]:
    """Places, keys and objects of all pictures that hold an object."""
    kept = []
    for place, segmented in enumerate(tqdm(segmentations, desc="objects")):
        objects = objects_of(model, segmented, instances, cover)
        if len(objects.label):
            kept.append((place, segmented.key, objects))
    if len(kept) < 2:
        raise ValueError(
            f"{len(kept)} of {len(segmentations)} pictures hold an object that covers a patch by "
            f"{cover:.0%}; at least two have to"
        )
    places, keys, objects_by_picture = zip(*kept, strict=True)
    return list(places), list(keys), list(objects_by_picture)


def _weights(
    objects: Sequence[Objects], cover: float | None
) -> Float[np.ndarray, "picture object patch"]:
    """Weights that take an object's mean over patches; rows of zeros where there are fewer."""
    most = max(len(each.label) for each in objects)
    weight = np.zeros((len(objects), most, objects[0].share.shape[1]), dtype=np.float32)
    for picture, each in enumerate(objects):
        weight[picture, : len(each.label)] = each.share if cover is None else each.share >= cover
    return weight / np.maximum(weight.sum(-1, keepdims=True), np.finfo(np.float32).tiny)


def _reader(
    model: Model, parts: xr.Dataset, weight: Float[np.ndarray, "picture object patch"], seed: int
) -> _Reader:
    generator = torch.Generator().manual_seed(seed)

    def with_random(side: str) -> Float[Tensor, "layer row d_model"]:
        own = torch.from_numpy(parts[side].values).flatten(1, 2)
        random = torch.nn.functional.normalize(
            torch.randn(own.shape, generator=generator, dtype=torch.float64), dim=-1
        )
        return torch.cat([own, random.float()], 1).to(model.device)

    exact = parts.convention == "exact"
    weights = torch.from_numpy(weight).to(model.device)
    return _Reader(
        model,
        with_random("u"),
        with_random("v"),
        model.heads.ln_eps if exact else None,
        weights,
        weights.sum(-1) > 0,
    )


def _measure(
    reader: _Reader,
    segmentations: Segmentations,
    places: list[int],
    guests: Int[np.ndarray, " picture"],
    batch_size: int,
) -> dict[str, Tensor]:
    """Score and objects, each [case, picture, layer, row, sign], batch by batch."""
    batches: list[dict[str, Tensor]] = []
    start = 0
    model = reader.model
    with streaming(model) as run:
        for which, images in picture_batches(model, segmentations, places, batch_size):
            at = torch.arange(start, start + len(which))
            layers: list[dict[str, Tensor]] = []
            laid = [at.to(model.device), torch.from_numpy(guests)[at].to(model.device)]

            def visit(layer: int, x: Tensor, laid=laid, layers=layers) -> None:
                layers.append(_one_layer(reader, layer, x, laid))

            run(images, visit)
            batches.append({n: torch.stack([one[n] for one in layers], 2) for n in layers[0]})
            start += len(which)
    return {name: torch.cat([batch[name] for batch in batches], 1) for name in batches[0]}


def _one_layer(
    reader: _Reader, layer: int, x: Float[Tensor, "image token d_model"], laid: list[Tensor]
) -> dict[str, Tensor]:
    """Score and objects of one layer, each [case, image, row, sign]."""
    x = x[:, reader.model.prefix_tokens :].float()
    x = x if reader.ln_eps is None else normalise(x, reader.ln_eps)
    sides = [x @ directions[layer].mT for directions in (reader.query, reader.key)]
    largest = [torch.stack([side.amax(1), -side.amin(1)], -1) for side in sides]
    product = largest[0] * largest[1]
    positive = (largest[0] > 0) & (largest[1] > 0)
    score = product.masked_fill(~positive, torch.nan)
    rows = score.shape[1] // 2  # the first half are the modes
    out = {"score": torch.stack([score[:, :rows], score[:, rows:]] * 2).cpu()}
    for name, side in zip(("query_object", "key_object"), sides, strict=True):
        own, other = (_picked(side, reader.weight[at], reader.there[at]) for at in laid)
        cases = [own[:, :rows], own[:, rows:], other[:, :rows], other[:, rows:]]
        out[name] = torch.stack(cases).to("cpu", torch.int16)
    return out


def _picked(
    projection: Float[Tensor, "image patch row"],
    weight: Float[Tensor, "image object patch"],
    there: Bool[Tensor, "image object"],
) -> Int[Tensor, "image row sign"]:
    """The object with the largest mean projection, and the one with the smallest."""
    mean, missing = weight @ projection, ~there[..., None]
    largest = mean.masked_fill(missing, -torch.inf).argmax(1)
    return torch.stack([largest, mean.masked_fill(missing, torch.inf).argmin(1)], -1)


def _label(values: dict[str, Tensor], parts: xr.Dataset, keys: list[str]) -> xr.Dataset:
    heads = (parts.sizes["head"], parts.sizes["mode"])
    fields = {name: (_DIMS, each.unflatten(3, heads).numpy()) for name, each in values.items()}
    coords = {"case": list(CASES), "image": keys, "sign": list(SIGNS)}
    return xr.Dataset(fields, coords).assign(sigma=parts.sigma)


def _top(found: xr.Dataset, count: int) -> xr.Dataset:
    """The `count` pictures with the largest score of every mode and sign, as dimension `rank`."""
    fields = found[["score", "query_object", "key_object"]].transpose("image", *_GALLERY)
    score = np.where(np.isnan(fields.score), -np.inf, fields.score)
    order = np.argsort(-score, axis=0, kind="stable")[:count]
    taken = {
        str(name): (("rank", *_GALLERY), np.take_along_axis(each.values, order, 0))
        for name, each in fields.items()
    }
    top = xr.Dataset(taken, {dim: fields[dim] for dim in _GALLERY} | _origin(found))
    same = (top.query_object == top.key_object).where(top.score.notnull())
    return top.assign(same=same, place=(("rank", *_GALLERY), order))


def _origin(found: xr.Dataset) -> dict[str, xr.DataArray]:
    return {name: found[name] for name in ORIGIN if name in found.coords}


def optimal_objects(found: xr.Dataset) -> xr.Dataset:
    """Take the k optimal pictures of every mode and sign, and say whether their objects agree.

    Paper figure 6.

    Parameters
    ----------
    found
        What `same_object` gave; it holds k.

    Returns
    -------
    xr.Dataset
        Over (rank, case, layer, head, mode, sign), the best picture first.  `place` is the
        picture's number along `image`.  `same` is 1 where query and key pick out one object, else
        0.  It is NaN where a mode has fewer than k pictures with a positive score.

    Raises
    ------
    ValueError
        For a dataset that is not of `same_object`.

    Examples
    --------
    >>> import qkutils as qk
    >>> pictures = qk.world.segmentations(0, 0, 4)
    >>> found = qk.studies.same_object("tiny-supervised", pictures, k=2)
    >>> qk.studies.optimal_objects(found).sizes["rank"]
    2
    """
    options.with_fields("found", found, "score", "query_object", "key_object")
    return _top(found, found.attrs["k"])


def probability(
    found: xr.Dataset, over: Sequence[str] = (), draws: int = 500, seed: int = 0
) -> xr.Dataset:
    """Estimate per head the probability that a mode's queries and keys prefer one object.

    Modes are weighted by σ.  Random directions have no σ, so they all weigh alike.  The bootstrap
    draws whole pictures again.  It takes the k best anew from those drawn; a picture that was
    drawn twice then fills two places.  Paper figure 6.

    Parameters
    ----------
    found
        What `same_object` gave.
    over
        Dimensions, `layer` or `head`, whose mean is taken first.
    draws
        How often the bootstrap draws, at least twice.
    seed
        Where its random generator begins.

    Returns
    -------
    xr.Dataset
        `estimate` with its 95 % interval, `low` to `high`, over (of, layer, head).  `of` holds
        each case, then what the modes have more than `random directions`, more than `other masks`,
        and more than both.

        The excess over both says by how much the excess over other masks is larger for modes than
        for random directions.  Regions that cut across things differ little, except in how much of
        each thing they hold.  That alone makes any two directions agree.

    Raises
    ------
    ValueError
        For a dataset that is not of `same_object`, and for options that don't fit.

    Examples
    --------
    >>> import qkutils as qk
    >>> pictures = qk.world.segmentations(0, 0, 4)
    >>> found = qk.studies.same_object("tiny-supervised", pictures)
    >>> agreeing = qk.studies.probability(found, over=["layer", "head"], draws=20)
    >>> agreeing.of.values.tolist()[-1]
    'excess over both'
    >>> bool((agreeing.low <= agreeing.high).all())
    True
    """
    options.with_fields("found", found, "score", "query_object", "key_object", "sigma")
    over = options.choices("over", over, ("layer", "head"))
    draws, seed = options.count("draws", draws, 2), options.seed(seed)
    pictures, k = found.sizes["image"], found.attrs["k"]
    # Further down than this the k best of pictures drawn again practically never reach.
    top = _top(found, 4 * k + 5)
    place = np.where(top.score.notnull(), top.place, pictures)  # beyond the last: never drawn
    same, weight = (top.same == 1).values, _mode_weights(found)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=draws)
    times = tqdm([np.ones(pictures, dtype=np.int64), *drawn], desc="draws", leave=False)
    values = np.stack([_weighted(place, same, weight, np.append(each, 0), k) for each in times])
    dims = ("draw", "case", "layer", "head")
    cases = xr.DataArray(values, {dim: top[dim] for dim in dims[1:]}, dims)
    cases = _excesses(cases, over)
    parts = zip(("low", "high"), statistics.ends(cases[1:].values), strict=True)
    fields = {"estimate": cases[0]} | {name: cases[0].copy(data=part) for name, part in parts}
    interval = {"over": "image", "count": pictures, "draws": draws, "level": statistics.LEVEL}
    return xr.Dataset(fields, _origin(found), found.attrs | interval)


def _mode_weights(found: xr.Dataset) -> Float[np.ndarray, "case layer head mode"]:
    """σ for modes; the same for all random directions, which have no strength of their own."""
    sigma = found.sigma.transpose("layer", "head", "mode").values
    return np.stack([np.ones_like(sigma) if case.startswith("random") else sigma for case in CASES])


def _weighted(
    place: Int[np.ndarray, "rank case layer head mode sign"],
    same: Bool[np.ndarray, "rank case layer head mode sign"],
    weight: Float[np.ndarray, "case layer head mode"],
    times: Int[np.ndarray, " picture"],
    k: int,
) -> Float[np.ndarray, "case layer head"]:
    """Mean over the k best of pictures that are there so many times, over signs, then modes."""
    total = np.zeros(place.shape[1:], dtype=np.int16)
    agreeing = np.zeros_like(total)
    for picture, agrees in zip(place, same, strict=True):
        taken = np.minimum(times.astype(np.int16)[picture], k - total)
        total += taken
        agreeing += taken * agrees
    filled = (total > 0).sum(-1)
    share = (agreeing / np.maximum(total, 1)).sum(-1) / np.maximum(filled, 1)  # mean over signs
    weight = weight * (filled > 0)
    with np.errstate(invalid="ignore"):  # a head in which no mode has a picture
        return (share * weight).sum(-1) / weight.sum(-1)


def _excesses(cases: xr.DataArray, over: Sequence[str]) -> xr.DataArray:
    """The cases, and what the modes have more than the nulls, along `of`, after `draw`."""
    mean = cases.mean(list(over))
    modes, random, other, random_other = (mean.sel(case=case, drop=True) for case in CASES)
    beyond = {
        "excess over random directions": modes - random,
        "excess over other masks": modes - other,
        "excess over both": (modes - other) - (random - random_other),
    }
    labelled = [each.assign_coords(case=name) for name, each in beyond.items()]
    return xr.concat([mean, *labelled], "case").rename(case="of").transpose("draw", ...)

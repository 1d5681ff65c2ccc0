"""Same object?  Whether a mode's queries and keys are strongest on one object (paper figure 6)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
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
from qkutils.passes import Watch, normalise
from qkutils.provenance import with_origin
from qkutils.records import Records, Segmentations
from qkutils.studies._regions import HALF, LEAST, Fractions, Objects, Patches, as_mean, objects_of
from qkutils.studies._streaming import check, pairing, stream

CASES = ("modes", "random directions", "other masks", "random directions, other masks")
SIGNS = (1, -1)
_GALLERY = ("case", "layer", "head", "mode", "sign")
_DIMS = ("case", "image", "layer", "head", "mode", "sign")

Masks = Float[Tensor, "picture object patch"]
Sides = Float[Tensor, "layer row d_model"]
Ranked = "rank case layer head mode sign"


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
    cover = options.number("cover", cover, LEAST, 1, closed=True)
    loaded = models.load(model)
    places, keys, objects = zip(*_read(loaded, segmentations, instances, cover), strict=True)
    parts = decompose(loaded, convention=convention)
    weight = torch.from_numpy(_weights(objects, None if patches == "fraction" else cover))
    sides = _with_random(parts, seed, loaded.device)
    guests = torch.from_numpy(pairing(keys)[:, 0])
    begin = partial(_begin, loaded, sides, convention == "exact", weight, guests)
    pictures = Records(places, lambda place: segmentations[place])
    found = _label(stream(loaded, pictures, batch_size, begin), parts, list(keys))
    found = found.assign(objects=("image", [len(each.label) for each in objects]))
    asked: dict = {"k": k, "instances": str(instances), "cover": cover, "patches": patches}
    asked |= {"seed": seed, "pictures without objects": len(segmentations) - len(places)}
    asked["objects too small"] = sum(each.left_out for each in objects)
    return with_origin(found, loaded, convention, "float32", **asked)


def _read(
    model: Model, segmentations: Segmentations, instances: bool, cover: float
) -> list[tuple[int, str, Objects]]:
    """Place, key and objects of all pictures that hold an object."""
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
    return kept


def _weights(objects: Sequence[Objects], cover: float | None) -> Fractions:
    """Weights that take an object's mean over patches; rows of zeros where there are fewer."""
    most = max(len(each.label) for each in objects)
    weight = np.zeros((len(objects), most, objects[0].share.shape[1]), dtype=np.float32)
    for picture, each in enumerate(objects):
        weight[picture, : len(each.label)] = each.share if cover is None else each.share >= cover
    return as_mean(weight)


def _with_random(parts: xr.Dataset, seed: int, device: torch.device) -> list[Sides]:
    """Query and key directions of each layer's modes, and as many random ones, in rows."""
    generator, sides = torch.Generator().manual_seed(seed), []
    for own in (torch.from_numpy(parts[side].values).flatten(1, 2) for side in ("u", "v")):
        random = torch.randn(own.shape, generator=generator, dtype=torch.float64)
        random = torch.nn.functional.normalize(random, dim=-1).float()
        sides.append(torch.cat([own, random], 1).to(device))
    return sides


def _begin(
    model: Model, sides: list[Sides], exact: bool, weight: Masks, guests: Tensor, at: slice
) -> Watch:
    """What measures some pictures' scores, and the objects by their own masks and by others'."""
    masks = [weight[of].to(model.device) for of in (at, guests[at])]

    def measure(layer: int, x: Tensor) -> Float[Tensor, "picture field row sign"]:
        x = x[:, model.prefix_tokens :].float()
        x = normalise(x, model.heads.ln_eps) if exact else x
        query, key = (x @ directions[layer].mT for directions in sides)
        best, other = (torch.stack([p.amax(1), -p.amin(1)], -1) for p in (query, key))
        score = (best * other).masked_fill(~((best > 0) & (other > 0)), torch.nan)
        picked = [_picked(p, objects) for objects in masks for p in (query, key)]
        return torch.stack([score, *picked], 1)

    return measure


def _picked(
    projection: Float[Tensor, "picture patch row"], weight: Masks
) -> Float[Tensor, "picture row sign"]:
    """The number of the object with the largest mean projection, and of that with the smallest."""
    mean, missing = weight @ projection, (weight.sum(-1) == 0)[..., None]
    largest = mean.masked_fill(missing, -torch.inf).argmax(1)
    return torch.stack([largest, mean.masked_fill(missing, torch.inf).argmin(1)], -1).float()


def _label(
    values: Float[np.ndarray, "image layer field row sign"], parts: xr.Dataset, keys: list[str]
) -> xr.Dataset:
    """Scores and objects by case: modes and random directions, on own masks and on others'."""
    shape = (*values.shape[:3], 2, parts.sizes["head"], parts.sizes["mode"], len(SIGNS))
    score, *picked = np.moveaxis(values.reshape(shape), (2, 3), (0, 1))
    fields = {
        "score": (_DIMS, np.concatenate([score, score])),
        "query_object": (_DIMS, np.concatenate(picked[::2]).astype(np.int16)),
        "key_object": (_DIMS, np.concatenate(picked[1::2]).astype(np.int16)),
    }
    coords = {"case": list(CASES), "image": keys, "sign": list(SIGNS)}
    return xr.Dataset(fields, coords).assign(sigma=parts.sigma)


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


def _top(found: xr.Dataset, count: int) -> xr.Dataset:
    """The `count` pictures with the largest score of every mode and sign, as dimension `rank`."""
    fields = found[["score", "query_object", "key_object"]].transpose("image", *_GALLERY)
    score = fields.score.fillna(-np.inf).values
    order = np.argsort(-score, axis=0, kind="stable")[:count]
    place = xr.DataArray(order, dims=("rank", *_GALLERY))
    top = fields.drop_vars("image").isel(image=place)
    same = (top.query_object == top.key_object).where(top.score.notnull())
    return top.assign(same=same, place=place)


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
    coords = found.score.isel(image=0, mode=0, sign=0, drop=True).coords
    cases = xr.DataArray(values, coords, ("draw", "case", "layer", "head"))
    cases = _with_excesses(cases.mean(over))
    ends = (cases[0].copy(data=end) for end in statistics.ends(cases[1:].values))
    estimate = statistics.interval(cases[0], *ends)
    return estimate.assign_attrs(found.attrs, over="image", count=pictures, draws=draws)


def _mode_weights(found: xr.Dataset) -> Float[np.ndarray, "case layer head mode"]:
    """σ for modes; the same for all random directions, which have no strength of their own."""
    sigma = found.sigma.transpose("layer", "head", "mode").values
    return np.stack([np.ones_like(sigma) if case.startswith("random") else sigma for case in CASES])


def _weighted(
    place: Int[np.ndarray, Ranked],
    same: Bool[np.ndarray, Ranked],
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


def _with_excesses(cases: xr.DataArray) -> xr.DataArray:
    """The cases, and what the modes have more than the nulls, along `of`, after `draw`."""
    of = {case: cases.sel(case=case, drop=True) for case in CASES}
    modes, random, other, both = of.values()
    of |= {
        "excess over random directions": modes - random,
        "excess over other masks": modes - other,
        "excess over both": (modes - other) - (random - both),
    }
    names = xr.DataArray([*of], dims="of", name="of")
    return xr.concat([*of.values()], names).transpose("draw", "of", ...)

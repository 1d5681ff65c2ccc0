"""The odd-one-out study: how much the tokens of an object attend to it, to others, to the rest."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from qkutils import models, options, store
from qkutils.models import AnyModel, Model
from qkutils.passes import Watch
from qkutils.pictures import in_mode
from qkutils.provenance import with_origin
from qkutils.records import Records, Samples
from qkutils.scores import SALIENCE, ScoreFactors, kept, score_factors
from qkutils.studies import _regions
from qkutils.studies._regions import OBJECTS, Fractions, Layouts, Members, Patches, Query
from qkutils.studies._streaming import refuse_twins, shuffled, stream

Prefix = Literal["left out", "counted"]
DIMS = ("image", "layer", "head", "query", "region")

Laid = Int[np.ndarray, "picture laid object"]  # whose layout each object asks with
OfLayouts = Float[np.ndarray, "layout layer without_own head object region_or_prefix"]
Shares = Float[np.ndarray, "picture layer laid without_own head object region_or_prefix"]


def odd_one_out(
    model: AnyModel,
    samples: Samples,
    *,
    query: Query = "largest",
    patches: Patches = "fraction",
    prefix: Prefix = "left out",
    modes: xr.Dataset | None = None,
    salience: Sequence[str] = SALIENCE,
    null_images: Sequence[Image.Image] = (),
    batch_size: int = 32,
    path: str | Path | None = None,
) -> xr.Dataset:
    """Measure how much targets and distractors attend to each region, next to a null.

    Some patches of the target and of the distractors ask, and their attention is summed over each
    region.  The null asks from the same patches and sums over the same masks, but on another
    picture, whose own target, or distractor, lies where they ask.  Paper figure 2.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    samples
        Pictures with the masks "target" and "distractor".
    query
        Which patches ask.  `largest`: the one patch that the object covers most; the first in
        reading order where several tie.  `weighted`: every patch of the object, by how much of the
        patch is the object's.
    patches
        How much of a patch belongs to a region.  `fraction`: the share of its area that the region
        covers.  `half`: all of it, to the object that covers at least half, else to the
        background.
    prefix
        `left out`: prefix tokens are no part of the map, which then sums to 1 over patches.  It
        makes no difference whether they were in the softmax.  `counted`: prefix tokens are a
        region.
    modes, salience
        As for `rebuild_attention`; without, the model's own attention.
    null_images
        Pictures on which the masks are laid for the null, whatever lies there; without, the other
        samples.
    batch_size
        How many pictures go through the model together.
    path
        A netCDF file for the result.  An interrupted run goes on where it stood.

    Returns
    -------
    xr.Dataset
        `share` and `null_share` over (image, layer, head, query, region); each sums to 1 over
        regions.  `area` over (image, region) is a region's share of the patches, so share ÷ area
        is the enrichment.  `share_others`, `null_share_others` and `area_others`, which also
        depends on the query, leave out the query's own patch.  A query is NaN where its object
        covers no patch by half.  The attributes count the samples that were left out, and why.

        Among the other samples, each query has its null on one, and each carries one of each query,
        so that as much as possible of what asks lies on the same sort of object.  `null_on_object`
        over (image, query) is how much does; the more samples, the more.  NaN with `null_images`.

    Raises
    ------
    ValueError
        For options and samples that don't fit, and for a single sample without `null_images`.
    OSError
        Where `path` can't be written.

    Examples
    --------
    >>> import qkutils as qk
    >>> samples = qk.world.samples(0, 0, 4)
    >>> shares = qk.studies.odd_one_out("tiny-supervised", samples)
    >>> dict(shares.share.sizes)
    {'image': 4, 'layer': 8, 'head': 4, 'query': 2, 'region': 3}
    >>> bool(abs(shares.share.sum("region") - 1).max() < 1e-5)
    True
    """
    said = {
        "query": options.choice("query", query, get_args(Query)),
        "patches": options.choice("patches", patches, get_args(Patches)),
        "prefix": options.choice("prefix", prefix, get_args(Prefix)),
    }
    batch_size = options.count("batch_size", batch_size)
    _check_pictures(samples, null_images)
    if path is not None and not Path(path).is_file():
        store.check_writable(path)
    loaded = models.load(model)
    factors = score_factors(loaded, modes, salience)
    layouts = _regions.read_layouts(loaded, samples)
    member = _regions.memberships(layouts.fraction, patches)
    weight = _regions.query_weights(layouts.fraction, member, query)
    pictures, laid, on_object = _pair(layouts, weight, samples, null_images)
    keys = member if prefix == "left out" else _regions.with_prefix(member, loaded.prefix_tokens)
    said |= kept(modes, salience)

    def compute(folder: Path | None) -> xr.Dataset:
        on_keys, asking = (torch.from_numpy(each).to(loaded.device) for each in (keys, weight))
        begin = partial(_begin, loaded, factors, on_keys, asking, torch.from_numpy(laid))
        shape = (laid.shape[1], 2, len(factors.query[0]), len(OBJECTS), keys.shape[-1])
        values = stream(loaded, pictures, batch_size, begin, folder, shape)
        found = _label(values, laid, layouts.keys, member, weight)
        found["null_on_object"] = (("image", "query"), on_object)
        counts = {f"left out: {reason}": count for reason, count in layouts.left_out.items()}
        counts["distractor too small"] = int(np.isnan(weight[:, 1, 0]).sum())
        return with_origin(found, loaded, "exact", "float32", **said, **counts)

    asked = said | {"batch_size": str(batch_size)}
    if modes is not None:  # numbers alone don't tell what was done to them
        arrays = (modes[name].values for name in ("sigma", "u", "v"))
        asked["modes"] += " " + " ".join(map(store.digest, arrays))
    identity = partial(_identity, loaded, asked, layouts, (keys, weight), null_images)
    return store.resumable(path, identity, compute)


def _check_pictures(samples: Samples, null_images: Sequence[Image.Image]) -> None:
    """Raises ValueError for what is no list of samples or of pictures, before any is read."""
    options.sequence("samples", samples)
    for n, picture in enumerate(options.sequence("null_images", null_images)):
        if not isinstance(picture, Image.Image):
            raise ValueError(f"null_images: number {n} is {type(picture).__name__}, not a picture")


def _pair(
    layouts: Layouts, weight: Fractions, samples: Samples, null_images: Sequence[Image.Image]
) -> tuple[Records, Laid, Float[np.ndarray, "image object"]]:
    """Each layout on its own picture, for the null on another, and how much there is an object.

    Without `null_images` a picture carries its own layout, then that of another sample for each
    object, so that no picture is needed twice.
    """
    count, keys = len(layouts.keys), layouts.keys
    refuse_twins(keys)
    places: list[tuple[Sequence, int]] = [(samples, place) for place in layouts.place.tolist()]
    laid = np.arange(count)[:, None, None].repeat(len(OBJECTS), 2)
    on_object = np.full((count, len(OBJECTS)), np.nan, dtype=np.float32)
    if len(null_images):
        turn = shuffled([str(zlib.crc32(image.tobytes())) for image in null_images])
        pairs = np.arange(max(count, len(turn)))
        places += [(null_images, turn[n % len(turn)]) for n in pairs]
        guests = np.array(shuffled(keys))[pairs % count]
        laid = np.concatenate([laid, guests[:, None, None].repeat(len(OBJECTS), 2)])
    elif count == 1:
        raise ValueError("null_images: one sample can be studied, and its null needs a picture")
    else:
        guests, on_object = _matched(keys, weight, layouts.fraction)
        laid = np.concatenate([laid, guests[:, None]], 1)
    return Records(places, lambda at: at[0][at[1]]), laid, on_object


def _matched(
    keys: Sequence[str], weight: Fractions, fraction: Fractions
) -> tuple[Int[np.ndarray, "picture object"], Float[np.ndarray, "image object"]]:
    """Whose layout each object asks with on each picture, and how much of a layout's asks there.

    Every layout is on one picture, not its own.  The sum of what lies on the same sort of object is
    the largest possible.
    """
    order = np.array(shuffled(keys))  # so that it does not depend on the order of the samples
    guests = np.empty((len(keys), len(OBJECTS)), dtype=np.int64)
    on_object = np.empty(guests.shape, dtype=np.float32)
    for which in range(len(OBJECTS)):
        lies = weight[order, which] @ fraction[order, which].T
        cost = -np.nan_to_num(lies)
        np.fill_diagonal(cost, np.inf)
        guest, host = linear_sum_assignment(cost)
        guests[order[host], which] = order[guest]
        on_object[order[guest], which] = lies[guest, host]
    return guests, on_object


def _begin(
    model: Model, factors: ScoreFactors, member: Tensor, weight: Tensor, laid: Tensor, at: slice
) -> Watch:
    """What measures some pictures' shares, of which only the query rows in need are computed."""
    on = laid[at].to(model.device)
    rows, weight = _needed(weight[on, torch.arange(len(OBJECTS))])
    member, rows = member[on], rows + model.prefix_tokens

    def measure(layer: int, x: Tensor) -> Tensor:
        return _shares(factors.logits_of(layer, x, rows), rows, member, weight)

    return measure


def _needed(
    weight: Float[Tensor, "picture laid object patch"],
) -> tuple[Int[Tensor, "picture row"], Float[Tensor, "picture laid object row"]]:
    """The patches that any layout on a picture asks from, filled up to one number, and weights."""
    asked = (weight > 0).any(2).any(1)
    most = int(asked.sum(1).max())
    rows = asked.int().argsort(stable=True, dim=1, descending=True)[:, :most]
    return rows, weight.gather(-1, rows[:, None, None].expand(*weight.shape[:3], -1))


def _shares(
    logits: Float[Tensor, "picture head row token"],
    at: Int[Tensor, "picture row"],
    member: Float[Tensor, "picture laid object key region"],
    weight: Float[Tensor, "picture laid object row"],
) -> Float[Tensor, "picture laid without_own head object region"]:
    """Attention of each object's queries on each region, with the query's own token and without."""
    own = at[:, None, :, None].expand(-1, logits.shape[1], -1, -1)
    both = torch.stack([logits, logits.scatter(-1, own, -torch.inf)], 1)
    maps = both[..., -member.shape[-2] :].softmax(-1)
    return torch.einsum("iwhrk,igqkc,igqr->igwhqc", maps, member, weight)


def _label(
    values: Shares, laid: Laid, keys: list[str], member: Members, weight: Fractions
) -> xr.Dataset:
    """The shares of every layout on its own picture, their mean over its null, and the areas."""
    patches, area = member.shape[1], member.mean(1)
    others = (patches * area[:, None] - weight @ member) / (patches - 1)
    fields: dict = {"area": (("image", "region"), area)}
    fields["area_others"] = (("image", "query", "region"), others)
    labels = {"image": keys, "query": list(OBJECTS), "region": list(_regions.REGIONS)}
    regions = [*_regions.REGIONS, "prefix"][: values.shape[-1]]
    found = xr.Dataset(fields, labels).reindex(region=regions)
    own = values[: len(keys), :, 0]
    for name, mean in (("share", own), ("null_share", _null(values, laid, own))):
        for n, suffix in enumerate(("", "_others")):
            found[name + suffix] = (DIMS, mean[:, :, n])
    return found.assign_coords({dim: np.arange(found.sizes[dim]) for dim in ("layer", "head")})


def _null(values: Shares, laid: Laid, own: OfLayouts) -> OfLayouts:
    """Each layout's mean over all pictures that carry it, but for its own."""
    is_null = np.ones(laid.shape[:2], dtype=bool)
    is_null[: len(own), 0] = False
    null, total = values.swapaxes(1, 2)[is_null], np.zeros_like(own)
    for which in range(len(OBJECTS)):
        np.add.at(total[..., which, :], laid[is_null, which], null[..., which, :])
    times = np.bincount(laid[is_null, 0]).astype(np.float32)  # the same for every object
    return total / times.reshape(-1, *[1] * (total.ndim - 1))


def _identity(
    model: Model, asked: dict, layouts: Layouts, masks: Sequence[np.ndarray], null_images: Sequence
) -> store.Identity:
    """What the study's numbers depend on, by its parts."""
    pictures = [*layouts.checksum, *(store.digest(in_mode(image)) for image in null_images)]
    return {
        "model": model.identity,
        "preprocessing": repr(model.transform),
        "options": asked,
        "code_version": version("qkutils"),
        "pictures": store.digest(" ".join(pictures).encode()),
        "keys": store.digest("\0".join(layouts.keys).encode("utf-8", "surrogatepass")),
        "masks": [store.digest(mask) for mask in masks],
    }

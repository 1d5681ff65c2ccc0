"""The odd-one-out study: how much the tokens of an object attend to it, to others, to the rest."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from qkutils import models, options, statistics, store
from qkutils.attention import SALIENCE, kept, score_factors, scores_of_queries
from qkutils.models import AnyModel, Model
from qkutils.passes import Watch, normalise, streaming
from qkutils.provenance import with_origin
from qkutils.records import Samples
from qkutils.studies._regions import (
    OBJECTS,
    REGIONS,
    Layouts,
    Patches,
    Query,
    areas,
    memberships,
    query_weights,
    read_layouts,
    shuffled,
)

Prefix = Literal["left out", "counted"]
DIMS = ("image", "layer", "head", "query", "region")
RELATIONS = ("same", "different", "background")


@dataclass(frozen=True)
class _Jobs:
    """The pictures that go through the model, and the layouts that are laid on each."""

    pictures: list[Callable[[], Image.Image]]
    layout: Int[np.ndarray, "picture laid"]
    is_null: Bool[np.ndarray, "picture laid"]


@dataclass(frozen=True)
class _Reader:
    """What turns tokens into shares: the heads' factors, and every layout on the keys."""

    model: Model
    factors: tuple[Tensor, Tensor, Tensor]
    member: Float[Tensor, "layout key region"]
    weight: Float[Tensor, "layout object patch"]


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
    picture.  Paper figure 2.

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
        Pictures on which the masks are laid for the null; without, the other samples.
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
    kinds = {"query": (query, Query), "patches": (patches, Patches), "prefix": (prefix, Prefix)}
    said = {
        name: options.choice(name, value, get_args(kind)) for name, (value, kind) in kinds.items()
    }
    batch_size = options.count("batch_size", batch_size)
    _check_pictures(samples, null_images)
    if path is not None and not Path(path).is_file():
        store.check_writable(path)
    loaded = models.load(model)
    factors = score_factors(loaded, modes, salience)
    layouts = read_layouts(loaded, samples)
    jobs = _pair(layouts, samples, null_images)
    member = memberships(layouts.fraction, patches)
    weight = query_weights(layouts.fraction, member, query)
    keys = member if prefix == "left out" else _with_prefix(member, loaded.prefix_tokens)
    tensors = (torch.from_numpy(a).to(loaded.device) for a in (keys, weight))
    reader = _Reader(loaded, factors, *tensors)
    said |= kept(modes, salience)

    def compute(folder: Path | None) -> xr.Dataset:
        values = _measure(reader, jobs, batch_size, folder)
        found = _label(values, jobs, layouts, member, weight)
        counts = _counts(layouts, weight)
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


def _pair(layouts: Layouts, samples: Samples, null_images: Sequence[Image.Image]) -> _Jobs:
    """Each layout on its own picture, and for the null on another, which its key decides.

    Without `null_images` a picture carries its own layout and that of the sample before it in an
    order that has nothing to do with the order given, so that no picture is needed twice.
    """
    count, order = len(layouts.keys), shuffled(layouts.keys)

    def of_sample(place: int) -> Callable[[], Image.Image]:
        return lambda: samples[place].image

    def of_null(place: int) -> Callable[[], Image.Image]:
        return lambda: null_images[place]

    own = [of_sample(place) for place in layouts.place.tolist()]
    if len(null_images):
        turn = shuffled([str(_checksum(image)) for image in null_images])
        pairs = range(max(count, len(turn)))
        null = [of_null(turn[n % len(turn)]) for n in pairs]
        layout = np.array([*range(count), *(order[n % count] for n in pairs)])[:, None]
        return _Jobs(own + null, layout, np.arange(len(layout))[:, None] >= count)
    if count == 1:
        raise ValueError(
            "one sample can be studied, and its null needs another picture: pass null_images, a "
            "list of pictures on which its masks are laid"
        )
    guest = np.empty(count, dtype=np.int64)
    guest[np.roll(order, -1)] = order
    layout = np.stack([np.arange(count), guest], 1)
    return _Jobs(own, layout, np.tile([False, True], (count, 1)))


def _checksum(image: Image.Image) -> int:
    return zlib.crc32(image.tobytes())


def _with_prefix(
    member: Float[np.ndarray, "layout patch region"], prefix_tokens: int
) -> Float[np.ndarray, "layout key region_or_prefix"]:
    """The same with a further region, to which the prefix tokens belong, and no patch does."""
    member = np.pad(member, ((0, 0), (prefix_tokens, 0), (0, 1)))
    member[:, :prefix_tokens, -1] = 1
    return member


def _measure(
    reader: _Reader, jobs: _Jobs, batch_size: int, folder: Path | None
) -> Float[np.ndarray, "picture laid without_own layer head object region"]:
    """Shares for all pictures, batch by batch; each batch is kept in the folder, if any."""
    count, done = len(jobs.pictures), []
    with tqdm(total=count, desc="images") as bar, streaming(reader.model) as run:
        for start in range(0, count, batch_size):
            which = slice(start, start + batch_size)
            file = None if folder is None else folder / f"{start}.npy"
            done.append(store.kept(file, partial(_batch, reader, jobs, which, run)))
            bar.update(len(done[-1]))
    return np.concatenate(done)


def _batch(
    reader: _Reader, jobs: _Jobs, which: slice, run: Callable[[Tensor, Watch], None]
) -> Float[np.ndarray, "picture laid without_own layer head object region"]:
    """Shares for some pictures, of which only the query rows that are needed are computed."""
    model, heads = reader.model, reader.model.heads
    images = torch.stack(
        [model.transform(picture().convert("RGB")) for picture in jobs.pictures[which]]
    )
    laid = torch.from_numpy(jobs.layout[which]).to(model.device)
    member, weight = reader.member[laid], reader.weight[laid]
    rows, weight = _needed(weight)
    layers: list[Tensor] = []

    def visit(layer: int, x: Tensor) -> None:
        z = normalise(x.float(), heads.ln_eps)
        at = rows + model.prefix_tokens
        logits = scores_of_queries(z, at, *(f[layer] for f in reader.factors)) * heads.scale
        layers.append(_shares(logits, at, member, weight))

    run(images, visit)
    return torch.stack(layers, 3).cpu().numpy()


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
    member: Float[Tensor, "picture laid key region"],
    weight: Float[Tensor, "picture laid object row"],
) -> Float[Tensor, "picture laid without_own head object region"]:
    """Attention of each object's queries on each region, with the query's own token and without."""
    own = at[:, None, :, None].expand(-1, logits.shape[1], -1, -1)
    both = torch.stack([logits, logits.scatter(-1, own, -torch.inf)], 1)
    maps = both[..., -member.shape[2] :].softmax(-1)
    return torch.einsum("iwhrk,igkc,igqr->igwhqc", maps, member, weight)


def _label(
    values: Float[np.ndarray, "picture laid without_own layer head object region_or_prefix"],
    jobs: _Jobs,
    layouts: Layouts,
    member: Float[np.ndarray, "layout patch region"],
    weight: Float[np.ndarray, "layout object patch"],
) -> xr.Dataset:
    """The shares of every layout on its own picture, their mean over its null, and the areas."""
    area, area_others = areas(member, weight)
    fields: dict = {
        "area": (("image", "region"), area),
        "area_others": (("image", "query", "region"), area_others),
    }
    labels = {"image": layouts.keys, "query": list(OBJECTS), "region": list(REGIONS)}
    found = xr.Dataset(fields, labels).reindex(region=[*REGIONS, "prefix"][: values.shape[-1]])
    for name, null in (("share", False), ("null_share", True)):
        mean = _mean_per_layout(values[jobs.is_null == null], jobs.layout[jobs.is_null == null])
        for n, suffix in enumerate(("", "_others")):
            found[name + suffix] = (DIMS, mean[:, n])
    return found.assign_coords({dim: np.arange(found.sizes[dim]) for dim in ("layer", "head")})


def _mean_per_layout(
    values: Float[np.ndarray, "laid ..."], layout: Int[np.ndarray, " laid"]
) -> Float[np.ndarray, "layout ..."]:
    times = np.bincount(layout)
    total = np.zeros((len(times), *values.shape[1:]), dtype=np.float32)
    np.add.at(total, layout, values)
    return total / times.reshape(-1, *[1] * (values.ndim - 1)).astype(np.float32)


def _counts(layouts: Layouts, weight: Float[np.ndarray, "layout object patch"]) -> dict[str, int]:
    """How many samples were left out, and why; how many have no distractor that can be a query."""
    left_out = {f"left out: {reason}": count for reason, count in layouts.left_out.items()}
    without = int(np.isnan(weight[:, OBJECTS.index("distractor"), 0]).sum())
    return left_out | {"distractor too small": without}


def _identity(
    model: Model,
    asked: dict[str, str],
    layouts: Layouts,
    masks: Sequence[np.ndarray],
    null_images: Sequence[Image.Image],
) -> store.Identity:
    """What the study's numbers depend on, by its parts."""
    pictures = [*layouts.checksum, *(store.digest(image.convert("RGB")) for image in null_images)]
    return {
        "model": model.identity,
        "preprocessing": repr(model.transform),
        "options": asked,
        "code_version": version("qkutils"),
        "pictures": store.digest(" ".join(pictures).encode()),
        "keys": store.digest("\0".join(layouts.keys).encode("utf-8", "surrogatepass")),
        "masks": [store.digest(mask) for mask in masks],
    }


def share_excess(shares: xr.Dataset, others: bool = True) -> xr.DataArray:
    """Subtract the null share from the share: what the picture adds to geometry.

    Parameters
    ----------
    shares
        What `odd_one_out` gave.
    others
        Whether to leave out the query's own patch.

    Returns
    -------
    xr.DataArray
        Over (image, layer, head, query, region).

    Raises
    ------
    ValueError
        For a dataset without shares.

    Examples
    --------
    >>> import qkutils as qk
    >>> shares = qk.studies.odd_one_out("tiny-supervised", qk.world.samples(0, 0, 4))
    >>> excess = qk.studies.share_excess(shares)
    >>> bool(abs(excess.sum("region")).max() < 1e-5)
    True
    """
    suffix = "_others" if options.flag("others", others) else ""
    options.with_fields("shares", shares, f"share{suffix}", f"null_share{suffix}")
    return (shares[f"share{suffix}"] - shares[f"null_share{suffix}"]).rename("excess")


def relations(values: xr.DataArray) -> xr.DataArray:
    """Group queries and regions into the three relations of the paper's figure 2, by their means.

    `same`: the target on the target, and distractors on distractors.  `different`: each on the
    other.  `background`: both on the background.  Paper figure 2.

    Parameters
    ----------
    values
        Numbers over query, region and other dimensions, such as `shares.share`.

    Returns
    -------
    xr.DataArray
        Over `relation`, in the place of query and region.  NaN for an image in which the target or
        the distractors can't be asked.

    Raises
    ------
    ValueError
        For values without the dimensions query and region.

    Examples
    --------
    >>> import qkutils as qk
    >>> shares = qk.studies.odd_one_out("tiny-supervised", qk.world.samples(0, 0, 4))
    >>> means = qk.studies.relations(shares.share)
    >>> means.relation.values.tolist()
    ['same', 'different', 'background']
    """
    options.with_dims("values", values, "query", "region")
    target, distractor = (values.sel(query=q, drop=True) for q in OBJECTS)
    pairs = {
        "same": (target.sel(region="target"), distractor.sel(region="distractor")),
        "different": (target.sel(region="distractor"), distractor.sel(region="target")),
        "background": (target.sel(region="background"), distractor.sel(region="background")),
    }
    means = [(a.drop_vars("region") + b.drop_vars("region")) / 2 for a, b in pairs.values()]
    return xr.concat(means, pd.Index(pairs, name="relation")).rename(values.name)


def area_of_relations(shares: xr.Dataset) -> xr.DataArray:
    """Say what each relation would get if attention were spread evenly over the patches.

    Parameters
    ----------
    shares
        What `odd_one_out` gave.

    Returns
    -------
    xr.DataArray
        Over `relation`; the mean over images.

    Raises
    ------
    ValueError
        For a dataset without areas.

    Examples
    --------
    >>> import qkutils as qk
    >>> shares = qk.studies.odd_one_out("tiny-supervised", qk.world.samples(0, 0, 4))
    >>> [round(float(area), 2) for area in qk.studies.area_of_relations(shares)]
    [0.14, 0.14, 0.72]
    """
    options.with_fields("shares", shares, "area")
    area = shares.area.mean("image").expand_dims(query=list(OBJECTS))
    return relations(area.rename("area"))


def late_minus_early(shares: xr.Dataset, relation: str = "same", others: bool = True) -> xr.Dataset:
    """Compare the excess over the null in the last third of layers with that in the first third.

    This is the one contrast per model.  The paper says that attention on the same object leads
    early, so that the contrast is below zero for `same`.

    Parameters
    ----------
    shares
        What `odd_one_out` gave.
    relation
        `same`, `different` or `background`: see `relations`.
    others
        Whether to leave out the query's own patch.

    Returns
    -------
    xr.Dataset
        `estimate`, `low` and `high`: the late mean minus the early mean, over heads, and its
        interval over images.

    Raises
    ------
    ValueError
        For an unknown relation, and for a dataset without shares.

    Examples
    --------
    >>> import qkutils as qk
    >>> shares = qk.studies.odd_one_out("tiny-supervised", qk.world.samples(0, 0, 4))
    >>> contrast = qk.studies.late_minus_early(shares)
    >>> bool(contrast.low < contrast.estimate < contrast.high)
    True
    """
    options.choice("relation", relation, RELATIONS)
    values = relations(share_excess(shares, others)).sel(relation=relation).mean("head")
    return statistics.late_minus_early(values)

"""Grouping as people see it: attention within a person's segment against attention across."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from qkutils import models, options
from qkutils.attention import SALIENCE, kept, score_factors, scores
from qkutils.models import AnyModel, Model
from qkutils.passes import normalise, streaming
from qkutils.provenance import with_origin
from qkutils.records import Segmentations
from qkutils.studies._layouts import check, pairing, picture_batches, segments_of_patches

MATCHING = ("none", "distance", "displacement")
PAIRS = ("same", "different")
_AT_HAND = 128  # layouts whose weights are kept, about a megabyte each
_DIMS = ("image", "matching", "layer", "head")


def grouping(
    model: AnyModel,
    segmentations: Segmentations,
    *,
    modes: xr.Dataset | None = None,
    salience: Sequence[str] = SALIENCE,
    nulls: int = 1,
    batch_size: int = 16,
) -> xr.Dataset:
    """Measure attention between patches of one segment, and between patches of two segments.

    A query patch attends to the other patches; prefix tokens and its own patch are left out.  The
    unit is the mean of its attention over them, so 1 is even attention.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    segmentations
        Pictures with label maps, at least two.  Where a picture has several, each person's
        comparison counts alike.
    modes, salience
        As for `rebuild_attention`; without, the model's own attention.
    nulls
        On how many other pictures the segments of each picture are laid for the null.
    batch_size
        How many pictures go through the model together.

    Returns
    -------
    xr.Dataset
        `same`, `different`, `null_same` and `null_different` over (image, matching, layer, head).
        The null is the mean over the other pictures.  A picture without pairs to compare is NaN;
        the attributes count such pictures.

        `matching` says which pairs are compared: all, wherever they lie (`none`), those at equal
        `distance`, or those at equal `displacement` in rows and columns.  Both means give the same
        weight to a distance or displacement.  It counts more where it has many pairs of both
        kinds, and not at all where one kind is missing.

    Raises
    ------
    ValueError
        For options and pictures that don't fit.

    Examples
    --------
    >>> import qkutils as qk
    >>> pictures = qk.world.segmentations(0, 0, 4)
    >>> found = qk.studies.grouping("tiny-supervised", pictures)
    >>> dict(found.same.sizes)
    {'image': 4, 'matching': 3, 'layer': 8, 'head': 4}
    """
    check(segmentations, batch_size)
    options.count("nulls", nulls, 1, len(segmentations) - 1)
    loaded = models.load(model)
    factors = score_factors(loaded, modes, salience)
    keys, people = _read(loaded, segmentations)
    guests = pairing(keys, nulls)
    own, null = _measure(loaded, segmentations, people, guests, factors, batch_size)
    fields = {name: (_DIMS, own[:, :, n]) for n, name in enumerate(PAIRS)}
    fields |= {f"null_{name}": (_DIMS, null[:, :, n]) for n, name in enumerate(PAIRS)}
    coords: dict = {"image": keys, "matching": list(MATCHING)}
    coords |= {dim: np.arange(own.shape[n]) for dim, n in (("layer", 3), ("head", 4))}
    without = {
        f"pictures without pairs, matching {name}": int(np.isnan(own[:, n, 0, 0, 0]).sum())
        for n, name in enumerate(MATCHING)
    }
    without |= {"nulls": nulls, "people": sum(len(labels) for labels in people)}
    said = kept(modes, salience) | without
    return with_origin(xr.Dataset(fields, coords), loaded, "exact", "float32", **said)


def grouping_excess(found: xr.Dataset) -> xr.DataArray:
    """Subtract the null's difference between same and different from the picture's own.

    Matching leaves what a patch's position and the picture's border do to pairs.  The null takes
    it away.

    Parameters
    ----------
    found
        What `grouping` gave.

    Returns
    -------
    xr.DataArray
        Over (image, matching, layer, head).

    Raises
    ------
    ValueError
        For a dataset that is not of `grouping`.

    Examples
    --------
    >>> import qkutils as qk
    >>> found = qk.studies.grouping("tiny-supervised", qk.world.segmentations(0, 0, 4))
    >>> excess = qk.studies.grouping_excess(found)
    >>> excess.name, excess.dims
    ('excess', ('image', 'matching', 'layer', 'head'))
    """
    options.with_fields("found", found, "same", "different", "null_same", "null_different")
    own, null = found.same - found.different, found.null_same - found.null_different
    return (own - null).rename("excess").assign_attrs(found.attrs)


def _read(
    model: Model, segmentations: Segmentations
) -> tuple[list[str], list[Int[np.ndarray, "_ patch"]]]:
    """Key and segments of every picture."""
    seen = [
        (segmented.key, segments_of_patches(model, segmented))
        for segmented in tqdm(segmentations, desc="segments")
    ]
    keys, people = zip(*seen, strict=True)
    return list(keys), list(people)


def _measure(
    model: Model,
    segmentations: Segmentations,
    people: list[Int[np.ndarray, "_ patch"]],
    guests: Int[np.ndarray, "picture guest"],
    factors: tuple[Tensor, Tensor, Tensor],
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Means [layout, matching, same or different, layer, head] on its picture and on others."""
    query, key, kappa = factors
    bins = pair_bins(model.grid)
    weights = lru_cache(_AT_HAND)(lambda n: pair_weights(people[n], bins))
    shape = (len(people), len(MATCHING), len(PAIRS), *query.shape[:2])
    own, null = np.empty(shape), np.zeros(shape)
    heads, places = model.heads, range(len(people))
    with streaming(model) as run:
        for which, images in picture_batches(model, segmentations, places, batch_size):
            laid = np.concatenate([np.array(which)[:, None], guests[which]], 1)
            each = np.stack([[weights(n) for n in row] for row in laid.tolist()])
            weight = torch.from_numpy(each).to(model.device)
            layers: list[Tensor] = []

            def visit(layer: int, x: Tensor, weight=weight, layers=layers) -> None:
                z = normalise(x.float(), heads.ln_eps)
                logits = scores(z, query[layer], key[layer], kappa[layer]) * heads.scale
                layers.append(_means(logits, weight, model.prefix_tokens))

            run(images, visit)
            values = torch.stack(layers, -2).cpu().double().numpy()
            own[which] = values[:, 0]
            np.add.at(null, laid[:, 1:], values[:, 1:])
    return own, null / guests.shape[1]


def _means(
    logits: Float[Tensor, "image head query key"],
    weight: Float[Tensor, "image laid matching pairs patch other"],
    prefix_tokens: int,
) -> Float[Tensor, "image laid matching pairs head"]:
    """Weighted means of attention on other patches, in units of its mean over them."""
    patches = logits[..., prefix_tokens:, prefix_tokens:]
    own = torch.eye(patches.shape[-1], dtype=torch.bool, device=logits.device)
    attention = patches.masked_fill(own, -torch.inf).softmax(-1) * (len(own) - 1)
    return torch.einsum("ihqk,igmpqk->igmph", attention, weight)


def pair_bins(grid: tuple[int, int]) -> dict[str, Int[np.ndarray, "patch other"]]:
    """A number for every pair of patches, alike where a matching takes pairs as comparable."""
    row, column = (each.ravel() for each in np.indices(grid))
    down, right = (each[None] - each[:, None] for each in (row, column))
    displacement = (down + grid[0]) * 2 * grid[1] + right + grid[1]
    values = (np.zeros_like(down), down**2 + right**2, displacement)
    return dict(zip(MATCHING, values, strict=True))


def pair_weights(
    people: Int[np.ndarray, "person patch"], bins: dict[str, Int[np.ndarray, "patch other"]]
) -> Float[np.ndarray, "matching pairs patch other"]:
    """Weights of pairs of patches in the mean over same and over different segments.

    A bin with s pairs of the same and d of different segments has the weight s·d / (s + d) in both
    means, which is smallest in variance where all pairs vary alike; a bin that lacks one has none.
    Patches in no segment (-1) and a patch with itself are no pair.  NaN where nobody has a bin.
    """
    matched = [np.stack([_one_person(labels, of) for labels in people]) for of in bins.values()]
    there = [~np.isnan(each[:, 0, 0, 0]) for each in matched]
    nobody = np.full(matched[0].shape[1:], np.nan, dtype=np.float32)
    return np.stack(
        [
            each[some].mean(0) if some.any() else nobody
            for each, some in zip(matched, there, strict=True)
        ]
    )


def _one_person(
    labels: Int[np.ndarray, " patch"], bins: Int[np.ndarray, "patch other"]
) -> Float[np.ndarray, "pairs patch other"]:
    named = labels >= 0
    pair = named[:, None] & named & ~np.eye(len(labels), dtype=bool)
    alike = labels[:, None] == labels
    kinds = (pair & alike, pair & ~alike)
    same, different = (np.bincount(bins[kind], minlength=bins.max() + 1) for kind in kinds)
    both = (same > 0) & (different > 0)
    if not both.any():
        return np.full((len(kinds), *bins.shape), np.nan, dtype=np.float32)
    weight = np.where(both, same * different / np.maximum(same + different, 1), 0)
    weight /= weight.sum()
    parts = [
        kind * (weight / np.maximum(count, 1))[bins]
        for kind, count in zip(kinds, (same, different), strict=True)
    ]
    return np.stack(parts).astype(np.float32)

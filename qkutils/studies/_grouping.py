"""Grouping as people see it: attention within a person's segment against attention across."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from qkutils import models, options
from qkutils.attention import SALIENCE, ScoreFactors, kept, score_factors
from qkutils.models import AnyModel, Model
from qkutils.passes import Watch
from qkutils.provenance import with_origin
from qkutils.records import Segmentations
from qkutils.studies._regions import segments_of_patches
from qkutils.studies._streaming import check, pairing, stream

MATCHING = ("none", "distance", "displacement")
PAIRS = ("same", "different")
_AT_HAND = 128  # layouts whose weights are kept, about a megabyte each
_DIMS = ("image", "matching", "layer", "head")

Laid = Int[np.ndarray, "picture laid"]  # whose segments: its own first, then its guests'
Pairs = Float[np.ndarray, "matching pairs patch other"]


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
    seen = [(segments_of_patches(loaded, s), s.key) for s in tqdm(segmentations, desc="segments")]
    people, keys = zip(*seen, strict=True)
    bins = pair_bins(loaded.grid)
    weights = lru_cache(_AT_HAND)(lambda n: pair_weights(people[n], bins))
    laid = np.column_stack([np.arange(len(keys)), pairing(keys, nulls)])
    begin = partial(_begin, loaded, factors, weights, laid)
    found = _label(stream(loaded, segmentations, batch_size, begin), laid, list(keys))
    empty = found.same.isnull().all(("layer", "head")).sum("image")
    without = zip(MATCHING, empty.values.tolist(), strict=True)
    said = {f"pictures without pairs, matching {name}": count for name, count in without}
    said |= {"nulls": nulls, "people": sum(map(len, people)), **kept(modes, salience)}
    return with_origin(found, loaded, "exact", "float32", **said)


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


def _begin(
    model: Model, factors: ScoreFactors, weights: Callable[[int], Pairs], laid: Laid, at: slice
) -> Watch:
    """What measures some pictures' means of attention, on their own segments and on the null's."""
    each = np.stack([[weights(n) for n in row] for row in laid[at].tolist()])
    weight = torch.from_numpy(each).to(model.device)

    def measure(layer: int, x: Tensor) -> Tensor:
        return _means(factors.logits(layer, x), weight, model.prefix_tokens)

    return measure


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


def _label(
    values: Float[np.ndarray, "picture layer laid matching pairs head"], laid: Laid, keys: list[str]
) -> xr.Dataset:
    """Means on each picture itself, and over the other pictures that carry its segments."""
    on = values.astype(np.float64).transpose(2, 4, 0, 3, 1, 5)  # [laid, pairs, *_DIMS]
    null = np.zeros_like(on[0])
    for guests, of in zip(laid[:, 1:].T, on[1:], strict=True):
        null[:, guests] += of / (len(on) - 1)  # guests hold every picture once
    means = zip((*PAIRS, *(f"null_{name}" for name in PAIRS)), (*on[0], *null), strict=True)
    coords: dict = {dim: np.arange(n) for dim, n in zip(_DIMS, null.shape[1:], strict=True)}
    coords |= {"image": keys, "matching": list(MATCHING)}
    return xr.Dataset({name: (_DIMS, mean) for name, mean in means}, coords)


def pair_bins(grid: tuple[int, int]) -> dict[str, Int[np.ndarray, "patch other"]]:
    """A number for every pair of patches, alike where a matching takes pairs as comparable."""
    row, column = (each.ravel() for each in np.indices(grid))
    down, right = (each[None] - each[:, None] for each in (row, column))
    displacement = (down + grid[0]) * 2 * grid[1] + right + grid[1]
    values = (np.zeros_like(down), down**2 + right**2, displacement)
    return dict(zip(MATCHING, values, strict=True))


def pair_weights(
    people: Int[np.ndarray, "person patch"], bins: dict[str, Int[np.ndarray, "patch other"]]
) -> Pairs:
    """Weights of pairs of patches in the mean over same and over different segments.

    A bin with s pairs of the same and d of different segments has the weight s·d / (s + d) in both
    means, which is smallest in variance where all pairs vary alike; a bin that lacks one has none.
    Patches in no segment (-1) and a patch with itself are no pair.  NaN where nobody has a bin.
    """
    means = []
    for of in bins.values():
        each = [w for labels in people if (w := _one_person(labels, of)) is not None]
        nobody = np.full((len(PAIRS), *of.shape), np.nan, dtype=np.float32)
        means.append(np.mean(each, 0) if each else nobody)
    return np.stack(means)


def _one_person(
    labels: Int[np.ndarray, " patch"], bins: Int[np.ndarray, "patch other"]
) -> Float[np.ndarray, "pairs patch other"] | None:
    """One person's weights; None where no bin has pairs of both kinds."""
    named = labels >= 0
    pair = named[:, None] & named & ~np.eye(len(labels), dtype=bool)
    alike = labels[:, None] == labels
    kinds = (pair & alike, pair & ~alike)
    same, different = (np.bincount(bins[kind], minlength=bins.max() + 1) for kind in kinds)
    weight = same * different / np.maximum(same + different, 1)
    if not weight.any():
        return None
    of_pair = [(weight / weight.sum() / np.maximum(n, 1))[bins] for n in (same, different)]
    return np.stack([kind * w for kind, w in zip(kinds, of_pair, strict=True)]).astype(np.float32)

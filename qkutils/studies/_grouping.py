"""Grouping as people see it: attention within a person's segment against attention across."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from tqdm import tqdm

from qkutils import models, options, pictures
from qkutils.models import AnyModel, Model
from qkutils.passes import Watch
from qkutils.provenance import with_origin
from qkutils.records import Segmentations, Segmented
from qkutils.scores import SALIENCE, ScoreFactors, kept, score_factors
from qkutils.studies._regions import segments_of_patches
from qkutils.studies._streaming import check, pairing, stream

MATCHING = ("none", "distance", "displacement")
PAIRS = ("same", "different")
SHARPNESS = (1, 2, 4, 8, 16, 32)  # how many times finer than the spread of a picture's own colours
FOLLOWED = ("own segments", "another person's segments", *(f"colour {n}" for n in SHARPNESS))
_FAR = 1e4  # below the others, a logit of no weight; alone, all are alike
_AT_HAND = 128  # layouts whose weights are kept, about a megabyte each
_DIMS = ("image", "matching", "layer", "head")

Laid = Int[np.ndarray, "picture laid"]  # whose segments: its own first, then its guests'
Pairs = Float[np.ndarray, "matching pairs patch other"]
Maps = Float[Tensor, "map patch other"]


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
    loaded = models.load(model)
    factors = score_factors(loaded, modes, salience)
    people, keys, laid = _layouts(loaded, segmentations, nulls)
    bins = pair_bins(loaded.grid)
    weights = lru_cache(_AT_HAND)(lambda n: pair_weights(people[n], bins))
    begin = partial(_begin, loaded, factors, weights, laid)
    found = _label(stream(loaded, segmentations, batch_size, begin), laid, keys)
    empty = found.same.isnull().all(("layer", "head")).sum("image")
    without = zip(MATCHING, empty.values.tolist(), strict=True)
    said = {f"pictures without pairs, matching {name}": count for name, count in without}
    said |= {"nulls": nulls, "people": sum(map(len, people)), **kept(modes, salience)}
    return with_origin(found, loaded, "exact", "float32", **said)


def grouping_references(
    model: AnyModel, segmentations: Segmentations, *, nulls: int = 1
) -> xr.Dataset:
    """Measure the same of attention that follows a person's segments, or that follows colour alone.

    No network attends here: the model only says how a picture is cut into patches.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    segmentations
        Pictures with label maps, at least two.
    nulls
        On how many other pictures the segments of each picture are laid for the null.

    Returns
    -------
    xr.Dataset
        `same`, `different`, `null_same` and `null_different` as `grouping` gives them, over (image,
        matching, of).

        `of` says what attention follows.  `own segments`: it spreads evenly over a person's segment
        and is judged by the same person.  `another person's segments`: it is judged by the others,
        NaN where there are none.  `colour N`: it falls with the squared distance of two patches'
        mean colours, as a normal density N times narrower than the picture's spread of colours.

    Raises
    ------
    ValueError
        For options and pictures that don't fit.

    Examples
    --------
    >>> import qkutils as qk
    >>> found = qk.studies.grouping_references("tiny-simmim", qk.world.segmentations(0, 0, 4))
    >>> dict(found.same.sizes)
    {'image': 4, 'matching': 3, 'of': 8}
    """
    check(segmentations, 1)
    loaded = models.load(model)
    people, keys, laid = _layouts(loaded, segmentations, nulls)
    bins = pair_bins(loaded.grid)
    values = []
    for n, segmented in enumerate(tqdm(segmentations, desc="references")):
        segments, colours = _by_segment(people[n]), _by_colour(loaded, segmented)
        on = [_by_own_and_others(segments, people[n], bins)]
        guests = (_judged(segments, people[g], bins).mean(-1) for g in laid[n, 1:])
        on += [np.stack([of, of], -1) for of in guests]
        alike = [_judged(colours, people[g], bins) for g in laid[n]]
        values.append(np.concatenate([on, alike], -1))
    found = _label(np.array(values)[:, None], laid, keys).isel(layer=0, drop=True)
    named = found.rename(head="of").assign_coords(of=list(FOLLOWED))
    return with_origin(named, loaded, "exact", "float32", nulls=nulls, people=sum(map(len, people)))


def grouping_excess(found: xr.Dataset) -> xr.DataArray:
    """Subtract the null's difference between same and different from the picture's own.

    Matching leaves what a patch's position and the picture's border do to pairs.  The null takes
    it away.

    Parameters
    ----------
    found
        What `grouping` or `grouping_references` gave.

    Returns
    -------
    xr.DataArray
        Over the dimensions of what is given.

    Raises
    ------
    ValueError
        For a dataset that is of neither.

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


def _layouts(
    model: Model, segmentations: Segmentations, nulls: int
) -> tuple[list[Int[np.ndarray, "person patch"]], list[str], Laid]:
    """Every picture's segments of patches and key, and whose segments are laid on it."""
    options.count("nulls", nulls, 1, len(segmentations) - 1)
    seen = [(segments_of_patches(model, s), s.key) for s in tqdm(segmentations, desc="segments")]
    people, keys = map(list, zip(*seen, strict=True))
    return people, keys, np.column_stack([np.arange(len(keys)), pairing(keys, nulls)])


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


def _by_segment(people: Int[np.ndarray, "person patch"]) -> Maps:
    """Logits of attention on a person's own segment alone, even where the patch is in none."""
    labels = torch.from_numpy(people)
    alike = (labels[:, :, None] == labels[:, None]) & (labels >= 0)[:, None]
    return (alike.float() - 1) * _FAR


def _by_colour(model: Model, segmented: Segmented) -> Maps:
    """Logits that fall with the squared distance of patches' mean colours, for each sharpness."""
    image = model.transform(pictures.in_mode(segmented.image))[None]
    seen = torch.from_numpy(pictures.visible(model, image)).movedim(-1, 1).float()
    colour = adaptive_avg_pool2d(seen, model.grid)[0].flatten(1).T
    far = torch.cdist(colour, colour).square()
    return torch.stack([-far / far.mean().clamp(min=1e-12) * n**2 / 2 for n in SHARPNESS])


def _judged(
    maps: Maps, people: Int[np.ndarray, "person patch"], bins: dict[str, np.ndarray]
) -> Float[np.ndarray, "matching pairs map"]:
    """Means of maps within and across the segments of some people."""
    weight = torch.from_numpy(pair_weights(people, bins))
    return _means(maps[None], weight[None, None], 0)[0, 0].numpy()


def _by_own_and_others(
    maps: Maps, people: Int[np.ndarray, "person patch"], bins: dict[str, np.ndarray]
) -> Float[np.ndarray, "matching pairs judge"]:
    """Means of each person's map by that person, and by the others; averaged over persons."""
    each = [
        [_judged(maps[[n]], by, bins)[..., 0] for by in (people[[n]], np.delete(people, n, 0))]
        for n in range(len(people))
    ]
    return xr.DataArray(np.stack(each)).mean("dim_0").transpose(..., "dim_1").values


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

"""Statistics: every estimate with its interval, and the verdict that a claim gets from it.

An estimate has one shape, a Dataset with `estimate`, `low` and `high` of its 95 % interval over
whatever dimensions are left; one number has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from qkutils import options

LEVEL = 0.95
ENDS = ("estimate", "low", "high")
FEWEST_IMAGES = 20
NONE_LARGER, HOLDS, CONTRADICTED = "none larger than", "holds", "contradicted"
CANNOT_BE_TOLD, NOT_RUN = "cannot be told", "not run here"
MARGINS: Mapping[str, float] = {
    "weighted cosine": 0.05,
    "share of attention": 0.02,
    "same object": 0.05,
    "grouping": 0.10,
    "explained share": 0.02,
    "attention moved": 0.02,
    "accuracy": 0.02,
    "correlation": 0.10,
}


# ---- estimates with their intervals --------------------------------------------------------------


def interval(estimate: Any, low: Any, high: Any) -> xr.Dataset:
    """One number, or labelled numbers, with the ends of their interval."""
    return xr.Dataset({"estimate": estimate, "low": low, "high": high}, attrs={"level": LEVEL})


def bootstrap(
    values: xr.DataArray, over: str = "image", draws: int = 2000, seed: int = 0
) -> xr.Dataset:
    """Take the mean over a dimension, with its bootstrap interval.

    Parameters
    ----------
    values
        What is averaged; NaN does not count.
    over
        The dimension whose members are drawn again, each with all that belongs to it.
    draws
        How many times the members are drawn, at least 2.
    seed
        Where the random generator begins.

    Returns
    -------
    xr.Dataset
        `estimate`, `low` and `high` over the other dimensions.  Its attributes say `over`, and the
        `count` of members that have a value everywhere.

    Raises
    ------
    ValueError
        Where fewer than two members have a value, and for bad options.

    Examples
    --------
    >>> import qkutils as qk, xarray as xr
    >>> values = xr.DataArray([0.1, 0.2, 0.2, 0.3, 0.4], dims="image")
    >>> qk.statistics.text(qk.statistics.bootstrap(values))
    '+0.24 [+0.16, +0.32]'
    """
    draws, seed = options.count("draws", draws, 2), options.seed(seed)
    table = options.with_dims("values", values, over).transpose(over, ...)
    flat = table.values.reshape(table.sizes[over], -1).astype(np.float64)
    there = np.isfinite(flat)
    least = int(there.sum(0).min(initial=len(flat)))
    if least < 2 or not flat.size:
        named = values.name or "values"
        raise ValueError(f"{named}: {least} with a value over {over}; an interval needs two")
    count = len(flat)
    picked = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    present = picked @ there.astype(np.float64)
    means = picked @ np.where(there, flat, 0) / np.where(present > 0, present, np.nan)
    one = table.isel({over: 0}, drop=True)
    parts = np.nanmean(flat, 0), *ends(means)
    found = interval(*(one.copy(data=part.reshape(one.shape)) for part in parts))
    return found.assign_attrs(over=over, count=least, draws=draws)


def rank_correlation(
    x: xr.DataArray,
    y: xr.DataArray,
    over: str,
    given: Sequence[xr.DataArray] = (),
    draws: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Spearman's correlation of all values, with the bootstrap interval over one dimension.

    Parameters
    ----------
    x, y
        Values over the same dimensions.
    over
        The dimension whose members are drawn again, each with all that belongs to it.
    given
        Values whose ranks are held constant: the correlation is then a partial one.
    draws
        How many times the members are drawn, at least 2.
    seed
        Where the random generator begins.

    Returns
    -------
    xr.Dataset
        `estimate`, `low` and `high`, each one number.

    Raises
    ------
    ValueError
        For values that are not finite or not over `over`, and for bad options.

    Examples
    --------
    >>> import qkutils as qk, xarray as xr
    >>> x = xr.DataArray([1.0, 2.0, 3.0, 4.0, 5.0], dims="mode")
    >>> round(float(qk.statistics.rank_correlation(x, x**3, "mode").estimate), 3)
    1.0
    """
    draws, seed = options.count("draws", draws, 2), options.seed(seed)
    options.with_dims("x", x, over)
    table = xr.concat([x, y, *given], "value").transpose("value", over, ...).values
    table = options.finite("values", table.reshape(*table.shape[:2], -1), ndim=3)
    count, generator = table.shape[1], np.random.default_rng(seed)
    picked = generator.integers(count, size=(draws, count))
    again = [_of_ranks(table[:, each].reshape(len(table), -1)) for each in picked]
    found = interval(_of_ranks(table.reshape(len(table), -1)), *map(float, ends(np.array(again))))
    return found.assign_attrs(over=over, count=count, draws=draws)


def _of_ranks(rows: np.ndarray) -> float:
    """The correlation of the ranks of the first two rows, those of the others held constant."""
    ranks = stats.rankdata(rows, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    pair, given = ranks[:2], ranks[2:]
    left = pair - pair @ np.linalg.pinv(given) @ given if len(given) else pair
    with np.errstate(invalid="ignore"):  # a draw of one member alone has no correlation
        return float(np.corrcoef(left)[0, 1])


def ends(draws: np.ndarray) -> np.ndarray:
    """Both ends of the interval that holds 95 % of values drawn again, along the first axis."""
    return np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


def over_runs(values: Sequence[float]) -> xr.Dataset:
    """Take the mean of one number per training run, with Student's interval over the runs.

    For a difference between two objectives, pass the differences within each seed: a seed gives
    both objectives the same first weights.

    Parameters
    ----------
    values
        One number for each run.

    Returns
    -------
    xr.Dataset
        `estimate`, `low` and `high`, each one number.  One run has no interval: it is infinite.

    Raises
    ------
    ValueError
        Where there is no number, or one that is not finite.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.statistics.text(qk.statistics.over_runs([0.1, 0.4, 0.3]))
    '+0.27 [-0.11, +0.65]'
    """
    runs = options.finite("values", values, ndim=1)
    mean, reach = float(runs.mean()), np.inf
    if runs.size > 1:
        reach = float(stats.t.ppf((1 + LEVEL) / 2, runs.size - 1) * stats.sem(runs))
    found = interval(mean, mean - reach, mean + reach)
    return found.assign_attrs(over="run", count=int(runs.size))


def of_shares(shares: Sequence[float], count: int) -> xr.Dataset:
    """Shares of `count` cases, each with Wilson's interval, over `share`."""
    values = options.finite("shares", shares, ndim=1)
    options.count("count", count)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"shares={shares!r}: each lies between 0 and 1")
    tests = [stats.binomtest(round(share * count), count) for share in values.tolist()]
    limits = np.array([each.proportion_ci(LEVEL, method="wilson") for each in tests])
    found = interval(*(("share", part) for part in (values, *limits.T)))
    return found.assign_attrs(over="case", count=count)


def difference(one: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """The first less the second, with the widest interval that theirs allow.

    However the two hang together, the standard deviation of a difference is at most the sum of
    theirs; so the interval holds at least what both of them hold.
    """
    found = interval(one.estimate - other.estimate, one.low - other.high, one.high - other.low)
    return found.assign_attrs(one.attrs)


def mean(found: xr.Dataset, over: str) -> xr.Dataset:
    """Mean over a dimension of estimates, with the widest interval that theirs allow.

    As for a `difference`: the mean of half widths is enough, however the estimates hang together.
    """
    options.with_dims("found", options.with_fields("found", found, *ENDS).estimate, over)
    return found.mean(over, keep_attrs=True)


# ---- over depth: contrasts fixed beforehand ------------------------------------------------------


def late_minus_early(values: xr.DataArray) -> xr.Dataset:
    """Subtract the mean of the first third of the layers from the mean of the last third.

    Parameters
    ----------
    values
        Over (image, layer), or over (layer, head).  `over_depth` says what is drawn again for each.

    Returns
    -------
    xr.Dataset
        `estimate`, `low` and `high`, each one number.

    Raises
    ------
    ValueError
        For fewer than three layers, and for values over other dimensions.

    Examples
    --------
    >>> import qkutils as qk
    >>> cosine = qk.weighted_cosine("tiny-supervised")
    >>> qk.statistics.text(qk.statistics.late_minus_early(cosine))
    '-0.06 [-0.27, +0.15]'
    """
    early, _, last = _thirds(values)
    return over_depth(values, last - early)


def last_minus_middle(values: xr.DataArray) -> xr.Dataset:
    """The last layer minus the mean of the middle third: does a curve that fell rise again?"""
    _, middle, _ = _thirds(values)
    return over_depth(values, np.eye(len(middle))[-1] - middle)


def middle(values: xr.DataArray) -> xr.Dataset:
    """Mean of the middle third of the layers: see `over_depth`."""
    return over_depth(values, _thirds(values)[1])


def late(values: xr.DataArray) -> xr.Dataset:
    """Mean of the last third of the layers: see `over_depth`."""
    return over_depth(values, _thirds(values)[2])


def _thirds(values: xr.DataArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights that take the mean over the first, the middle and the last third of the layers."""
    layers = options.with_dims("values", values, "layer").sizes["layer"]
    third = layers // 3
    if third == 0:
        raise ValueError(f"{layers} layers: thirds of the depth need at least three")
    at = np.arange(layers)
    parts = (at < third, (at >= third) & (at < layers - third), at >= layers - third)
    return tuple(part / part.sum() for part in parts)  # type: ignore[return-value]


def over_depth(
    values: xr.DataArray, weights: Sequence[float] | np.ndarray, draws: int = 2000, seed: int = 0
) -> xr.Dataset:
    """Σ weights × layer means of a value, with a bootstrap interval over images or over heads.

    Values per (image, layer) are those of one model: images are drawn again, each with all its
    layers.  Values per (layer, head): heads are drawn again within each layer, and the interval
    tells how much the sum hangs on single heads; with three or four heads a layer it is too narrow,
    and heads of one network are no independent replicates of a training objective.
    """
    layers = options.with_dims("values", values, "layer").sizes["layer"]
    weights = options.finite("weights", weights, ndim=1)
    if len(weights) != layers:
        raise ValueError(f"{len(weights)} weights for {layers} layers: give one for each")
    if set(values.dims) == {"image", "layer"}:
        of_image = values.transpose("image", "layer").dot(xr.DataArray(weights, dims="layer"))
        return bootstrap(of_image, "image", draws, seed)
    if set(values.dims) != {"layer", "head"}:
        needed = "(image, layer) or (layer, head) are needed; take the mean over the others"
        raise ValueError(f"values over {values.dims}: {needed}")
    table = options.finite("values", values.transpose("layer", "head").values)
    draws, seed = options.count("draws", draws, 2), options.seed(seed)
    heads = table.shape[1]
    picks = np.random.default_rng(seed).integers(heads, size=(draws, layers, heads))
    sums = table[np.arange(layers)[:, None], picks].mean(-1) @ weights
    found = interval(float(table.mean(1) @ weights), *map(float, ends(sums)))
    return found.assign_attrs(over="head", count=heads, draws=draws)


# ---- in words ------------------------------------------------------------------------------------


def sign(found: xr.Dataset) -> xr.DataArray:
    """1 or -1 where the interval lies on one side of zero, else 0: no telling."""
    return ((found.low > 0).astype(int) - (found.high < 0).astype(int)).rename("sign")


def text(found: xr.Dataset, form: str = ".2f") -> str:
    """Write one estimate with its interval.

    Parameters
    ----------
    found
        `estimate`, `low` and `high`, each one number.
    form
        How each number is written, as a format specification.  A leading `-` leaves out the plus
        signs, for what cannot be negative.

    Returns
    -------
    str
        The estimate and both ends of its interval; for one run, that it has no interval.

    Raises
    ------
    ValueError
        For several estimates, and for what is no interval.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.statistics.text(qk.statistics.interval(0.3, 0.25, 0.34))
    '+0.30 [+0.25, +0.34]'
    >>> qk.statistics.text(qk.statistics.interval(0.3, 0.25, 0.34), "-.2f")
    '0.30 [0.25, 0.34]'
    """
    estimate, low, high = _numbers(found)
    form = ("-z" if form.startswith("-") else "+z") + form.removeprefix("-")
    if not np.isfinite([low, high]).all():
        return f"{estimate:{form}} (one run: no interval)"
    return f"{estimate:{form}} [{low:{form}}, {high:{form}}]"


def verdict(
    found: xr.Dataset | None, direction: int, measure: str, images: int | None = None
) -> str:
    """Say what one claim gets from one estimate.

    This is the only rule for verdicts, in the only words.

    Parameters
    ----------
    found
        The estimate over the right replicate: training runs where there are several, else images,
        else heads.  None where nothing was computed.
    direction
        1 where the claim says that the number lies above zero, -1 for below.
    measure
        What the number measures, one of `MARGINS`.
    images
        How many images the data set of the claim has.  By default, what a bootstrap over images
        counted.

    Returns
    -------
    str
        `none larger than` the measure's margin, where the interval lies inside the margin.  Else
        `holds` or `contradicted`, where the interval excludes zero.  Else `cannot be told`.
        `not run here` where there is no number, or fewer than 20 images.

    Raises
    ------
    ValueError
        For another direction or measure, for several estimates, and for what is no interval.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.statistics.verdict(qk.statistics.interval(0.3, 0.2, 0.4), 1, "weighted cosine")
    'holds'
    >>> qk.statistics.verdict(qk.statistics.interval(0.02, 0.01, 0.03), 1, "weighted cosine")
    'none larger than 0.05 (above zero)'
    """
    direction = options.choice("direction", direction, (1, -1))
    margin = MARGINS[options.choice("measure", measure, MARGINS)]
    if found is None:
        return NOT_RUN
    estimate, low, high = _numbers(found)
    if images is None and found.attrs.get("over") == "image":
        images = found.attrs["count"]
    if images is not None and options.count("images", images, 0) < FEWEST_IMAGES:
        return NOT_RUN
    side = int(sign(found))
    if -margin <= low and high <= margin:
        points = {1: " (above zero)", -1: " (below zero)", 0: ""}[side]
        return f"{NONE_LARGER} {margin:.2f}{points}"
    if side == 0:
        # Half as wide: narrower than the distance to zero, or than the room within the margin.
        enough = max(abs(estimate), margin - abs(estimate))
        return f"{CANNOT_BE_TOLD} (an interval of less than ±{enough:.2f} would tell)"
    return HOLDS if side == direction else CONTRADICTED


def verdict_of_identity(error: float, tolerance: float) -> str:
    """What a claim gets that two numbers are equal up to rounding, which needs no interval."""
    error = options.number("error", error, 0, closed=True)
    return HOLDS if error <= options.number("tolerance", tolerance, 0) else CONTRADICTED


def _numbers(found: xr.Dataset) -> tuple[float, float, float]:
    """Estimate, low and high of one number; ValueError for several, and for what is no interval."""
    parts = [options.with_fields("found", found, *ENDS)[name] for name in ENDS]
    if any(part.ndim for part in parts):
        raise ValueError(f"estimates over {dict(found.sizes)}: choose one of them")
    estimate, low, high = map(float, parts)
    if not (np.isfinite(estimate) and low <= high):
        raise ValueError(f"{estimate} [{low}, {high}]: an estimate with its interval is needed")
    return estimate, low, high

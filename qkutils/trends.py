"""Trends over depth: a few contrasts of layers, fixed beforehand, each with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import stats

from qkutils import intervals
from qkutils.heads import CONVENTIONS
from qkutils.modes import AnyModel, decompose, null_band, null_from_strengths


@dataclass(frozen=True)
class Contrast:
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float

    @classmethod
    def of(cls, found: xr.Dataset) -> Contrast:
        """What an interval of `intervals` holds."""
        return cls(*(float(found[name]) for name in ("estimate", "low", "high")))

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of zero, else 0: no telling."""
        return int(self.low > 0) - int(self.high < 0)

    def __format__(self, spec: str) -> str:
        """The estimate and its interval, each in this format, such as `.3f`."""
        estimate, low, high = (
            f"{v:+{spec or '.2f'}}" for v in (self.estimate, self.low, self.high)
        )
        if not np.isfinite([self.low, self.high]).all():
            return f"{estimate} (one run: no interval)"
        return f"{estimate} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self)


def curves(model: AnyModel) -> xr.Dataset:
    """`weighted_cosine` over (convention, layer, head), and `null` over (convention, layer).

    `null` is the half width of the band that holds 95 % of a layer's means if the heads kept their
    strengths and only their directions were random.  Paper figure 3; taught in chapter 2.
    """
    found = []
    for convention in CONVENTIONS:
        parts = decompose(model, convention)
        weighted = parts.cosine.weighted(parts.sigma).mean("mode")
        spread = null_from_strengths(parts.sigma, null_band(model, convention))
        null = 1.96 * (spread**2).mean("head") ** 0.5 / spread.sizes["head"] ** 0.5
        found.append(xr.Dataset({"weighted_cosine": weighted, "null": null}, attrs=parts.attrs))
    both = xr.concat(found, xr.Variable("convention", list(CONVENTIONS)), combine_attrs="drop")
    return both.assign_attrs({k: found[0].attrs[k] for k in ("model", "fingerprint")})


def late_minus_early(values: xr.DataArray) -> Contrast:
    """Mean of the last third of the layers minus the mean of the first third (paper figure 3)."""
    early, _, late = _thirds(values)
    return contrast(values, late - early)


def last_minus_middle(values: xr.DataArray) -> Contrast:
    """The last layer minus the mean of the middle third: does a curve that fell rise again?"""
    _, middle, _ = _thirds(values)
    last = np.eye(len(middle))[-1]
    return contrast(values, last - middle)


def late(values: xr.DataArray) -> Contrast:
    """Mean of the last third of the layers."""
    return contrast(values, _thirds(values)[2])


def _thirds(values: xr.DataArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights that take the mean over the first, the middle and the last third of the layers."""
    layers = values.sizes["layer"]
    third = layers // 3
    if third == 0:
        raise ValueError(f"{layers} layers: thirds of the depth need at least three")
    at = np.arange(layers)
    parts = (at < third, (at >= third) & (at < layers - third), at >= layers - third)
    return tuple(part / part.sum() for part in parts)  # type: ignore[return-value]


def contrast(
    values: xr.DataArray, weights: np.ndarray, draws: int = 2000, seed: int = 0
) -> Contrast:
    """Σ weights × layer means of a value, with a bootstrap interval over images or else over heads.

    Values per (image, layer) are those of one model: images are drawn again, each with all its
    layers.  Values per (layer, head): heads are drawn again within each layer, and the interval
    tells how much the sum hangs on single heads; with three or four heads a layer it is too narrow,
    and heads of one network are no independent replicates of a training objective.  Taught in
    chapter 2.
    """
    if "image" in values.dims:
        of_image = values.transpose("image", "layer").dot(xr.DataArray(weights, dims="layer"))
        found = intervals.over_images(of_image, draws, seed)
        return Contrast.of(found)
    table = values.transpose("layer", "head").values
    layers, heads = table.shape
    picks = np.random.default_rng(seed).integers(heads, size=(draws, layers, heads))
    sums = table[np.arange(layers)[:, None], picks].mean(-1) @ weights
    low, high = np.quantile(sums, [0.025, 0.975])
    return Contrast(float(table.mean(1) @ weights), float(low), float(high))


def over_seeds(values: Sequence[float]) -> Contrast:
    """The mean of one number per training run, with Student's 95 % interval over the runs.

    For a difference between two objectives hand in the differences within each seed, since a seed
    gives both the same first weights.  One run has no interval: it is infinite.
    Taught in chapter 4.
    """
    runs = np.asarray(values, dtype=float)
    if runs.size == 0 or not np.isfinite(runs).all():
        raise ValueError(f"over_seeds({values}): one finite number per run is needed")
    if runs.size == 1:
        return Contrast(float(runs[0]), -np.inf, np.inf)
    reach = stats.t.ppf(0.975, runs.size - 1) * runs.std(ddof=1) / runs.size**0.5
    return Contrast(float(runs.mean()), float(runs.mean() - reach), float(runs.mean() + reach))

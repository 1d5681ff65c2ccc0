"""Trends over depth: one contrast per model, stated before looking, with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Contrast:
    """The mean of a model's last third of layers minus its first third, with a 95 % interval."""

    estimate: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """What the interval allows to say."""
        return "falls" if self.high < 0 else "rises" if self.low > 0 else "no clear change"

    def __str__(self) -> str:
        return f"{self.estimate:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def late_minus_early(values: xr.DataArray, draws: int = 2000, seed: int = 0) -> Contrast:
    """Contrast of a value per (layer, head) between the last and the first third of the layers.

    The interval resamples heads within each layer.  It tells how much the contrast depends on
    single heads; heads of one network are no independent replicates of a training objective.
    Raises ValueError for fewer than three layers.  Paper figure 3; taught in chapter 2.
    """
    table = values.transpose("layer", "head").values
    layers, heads = table.shape
    third = layers // 3
    if third == 0:
        raise ValueError(f"{layers} layers: a contrast of thirds needs at least three")
    picks = np.random.default_rng(seed).integers(heads, size=(draws, layers, heads))
    means = table[np.arange(layers)[:, None], picks].mean(-1)  # [draw, layer]
    contrasts = means[:, -third:].mean(1) - means[:, :third].mean(1)
    low, high = np.quantile(contrasts, [0.025, 0.975])
    estimate = table[-third:].mean() - table[:third].mean()
    return Contrast(float(estimate), float(low), float(high))

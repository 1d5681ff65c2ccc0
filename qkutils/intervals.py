"""Intervals: how much a mean over images hangs on which images were at hand."""

from __future__ import annotations

import numpy as np
import xarray as xr

LEVEL = 0.95


def over_images(values: xr.DataArray, draws: int = 2000, seed: int = 0) -> xr.Dataset:
    """Mean over `image` as `estimate`, with `low` and `high` of its 95 % bootstrap interval.

    Whole images are drawn again, so what belongs to one image stays together.  Images whose value
    is NaN do not count.  Raises ValueError where fewer than two images are left.  Taught in the
    chapter on odd ones out.
    """
    table = values.transpose("image", ...)
    flat = table.values.reshape(table.sizes["image"], -1).astype(np.float64)
    there = np.isfinite(flat)
    if there.sum(0).min() < 2:
        raise ValueError(
            f"{values.name or 'values'}: an interval over images needs at least two of them with a "
            f"value; there are {there.sum(0).min()}"
        )
    count = len(flat)
    picked = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    present = picked @ there.astype(np.float64)
    means = picked @ np.where(there, flat, 0) / np.where(present > 0, present, np.nan)
    low, high = np.nanquantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    parts = {"estimate": np.nanmean(flat, axis=0), "low": low, "high": high}
    one = table.isel(image=0, drop=True)
    fields = {name: one.copy(data=part.reshape(one.shape)) for name, part in parts.items()}
    return xr.Dataset(fields, attrs={"images": count, "draws": draws, "level": LEVEL})

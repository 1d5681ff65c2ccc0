"""The contrast of late against early layers."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from qkutils import trends


def per_head(values):
    return xr.DataArray(np.asarray(values, dtype=float), dims=("layer", "head"))


def test_estimate_is_last_third_minus_first_third():
    values = per_head(np.repeat(np.arange(12.0)[:, None], 3, axis=1))
    contrast = trends.late_minus_early(values)
    assert contrast.estimate == np.mean([8, 9, 10, 11]) - np.mean([0, 1, 2, 3])
    assert contrast.low == contrast.high == contrast.estimate  # heads alike: nothing to resample


def test_interval_covers_the_standard_error_of_independent_heads():
    noise = np.random.default_rng(0).normal(size=(9, 16))
    contrast = trends.late_minus_early(per_head(noise), draws=4000)
    sampling_error = np.sqrt(2 / (3 * 16))
    assert (contrast.high - contrast.low) / (2 * 1.96) == pytest.approx(sampling_error, rel=0.25)


@pytest.mark.parametrize(
    ("slope", "word"), [(-0.1, "falls"), (0.1, "rises"), (0.0, "no clear change")]
)
def test_word_follows_the_interval(slope, word):
    noise = np.random.default_rng(1).normal(scale=0.05, size=(12, 4))
    values = per_head(slope * np.arange(12)[:, None] + noise - noise.mean(1, keepdims=True))
    assert trends.late_minus_early(values).word == word


def test_order_of_dimensions_does_not_matter():
    values = per_head(np.random.default_rng(2).normal(size=(6, 5)))
    assert trends.late_minus_early(values) == trends.late_minus_early(values.T)


def test_two_layers_have_no_thirds():
    with pytest.raises(ValueError, match="2 layers.*at least three"):
        trends.late_minus_early(per_head(np.zeros((2, 3))))

"""Contrasts of layers, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from qkutils import trends


def per_head(values):
    return xr.DataArray(np.asarray(values, dtype=float), dims=("layer", "head"))


def test_contrasts_of_a_straight_line():
    values = per_head(np.repeat(np.arange(12.0)[:, None], 3, axis=1))
    late_minus_early = trends.late_minus_early(values)
    assert late_minus_early.estimate == pytest.approx(
        np.mean([8, 9, 10, 11]) - np.mean([0, 1, 2, 3])
    )
    assert late_minus_early.low == pytest.approx(late_minus_early.high)  # heads are alike
    assert trends.last_minus_middle(values).estimate == pytest.approx(11 - np.mean([4, 5, 6, 7]))
    assert trends.late(values).estimate == pytest.approx(9.5)


def test_thirds_of_a_depth_that_three_does_not_divide():
    values = per_head(np.arange(8.0)[:, None] * np.ones(2))
    assert trends.late_minus_early(values).estimate == pytest.approx(6.5 - 0.5)
    assert trends.last_minus_middle(values).estimate == pytest.approx(7 - np.mean([2, 3, 4, 5]))


def test_interval_covers_the_standard_error_of_independent_heads():
    noise = np.random.default_rng(0).normal(size=(9, 16))
    contrast = trends.late_minus_early(per_head(noise))
    sampling_error = np.sqrt(2 / (3 * 16))
    assert (contrast.high - contrast.low) / (2 * 1.96) == pytest.approx(sampling_error, rel=0.25)


@pytest.mark.parametrize(("slope", "sign"), [(-0.1, -1), (0.1, 1), (0.0, 0)])
def test_sign_is_told_only_where_the_interval_allows(slope, sign):
    noise = np.random.default_rng(1).normal(scale=0.05, size=(12, 4))
    values = per_head(slope * np.arange(12)[:, None] + noise - noise.mean(1, keepdims=True))
    assert trends.late_minus_early(values).sign == sign


def test_order_of_dimensions_does_not_matter():
    values = per_head(np.random.default_rng(2).normal(size=(6, 5)))
    assert trends.late_minus_early(values) == trends.late_minus_early(values.T)


def test_two_layers_have_no_thirds():
    with pytest.raises(ValueError, match="2 layers.*at least three"):
        trends.late_minus_early(per_head(np.zeros((2, 3))))


def test_interval_over_seeds_is_students():
    runs = [0.1, 0.4, 0.3]
    found = trends.over_seeds(runs)
    expected = stats.ttest_1samp(runs, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.estimate == pytest.approx(np.mean(runs)) and found.sign == 0


def test_interval_over_seeds_covers_nineteen_times_in_twenty():
    draws = np.random.default_rng(0).normal(1.0, 0.3, size=(2000, 3))
    found = [trends.over_seeds(runs) for runs in draws.tolist()]
    assert np.mean([c.low <= 1 <= c.high for c in found]) == pytest.approx(0.95, abs=0.015)


def test_one_seed_tells_nothing_and_none_is_refused():
    alone = trends.over_seeds([0.7])
    assert alone.estimate == 0.7 and alone.sign == 0
    assert str(alone) == "+0.70 (one run: no interval)"
    for bad in ([], [0.1, float("nan")]):
        with pytest.raises(ValueError, match="one finite number per run"):
            trends.over_seeds(bad)


def test_a_contrast_is_told_in_any_format():
    contrast = trends.Contrast(0.1234, 0.1, 0.2)
    assert f"{contrast:.3f}" == "+0.123 [+0.100, +0.200]"
    assert f"{contrast}" == str(contrast) == "+0.12 [+0.10, +0.20]"

"""Estimates, their intervals, contrasts of layers, and the verdicts that follow."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from qkutils import statistics
from qkutils.statistics import CANNOT_BE_TOLD, CONTRADICTED, HOLDS, NONE_LARGER, NOT_RUN


def per_head(values):
    return xr.DataArray(np.asarray(values, dtype=float), dims=("layer", "head"))


def of(found):
    return tuple(float(found[name]) for name in ("estimate", "low", "high"))


def test_contrasts_of_a_straight_line():
    values = per_head(np.repeat(np.arange(12.0)[:, None], 3, axis=1))
    found = statistics.late_minus_early(values)
    assert of(found) == pytest.approx([np.mean([8, 9, 10, 11]) - np.mean([0, 1, 2, 3])] * 3)
    last = statistics.last_minus_middle(values)
    assert float(last.estimate) == pytest.approx(11 - np.mean([4, 5, 6, 7]))
    assert float(statistics.late(values).estimate) == pytest.approx(9.5)


def test_thirds_of_a_depth_that_three_does_not_divide():
    values = per_head(np.arange(8.0)[:, None] * np.ones(2))
    assert float(statistics.late_minus_early(values).estimate) == pytest.approx(6.5 - 0.5)
    last = statistics.last_minus_middle(values)
    assert float(last.estimate) == pytest.approx(7 - np.mean([2, 3, 4, 5]))


def test_interval_covers_the_standard_error_of_independent_heads():
    noise = np.random.default_rng(0).normal(size=(9, 16))
    _, low, high = of(statistics.late_minus_early(per_head(noise)))
    assert (high - low) / (2 * 1.96) == pytest.approx(np.sqrt(2 / (3 * 16)), rel=0.25)


@pytest.mark.parametrize(("slope", "sign"), [(-0.1, -1), (0.1, 1), (0.0, 0)])
def test_sign_is_told_only_where_the_interval_allows(slope, sign):
    noise = np.random.default_rng(1).normal(scale=0.05, size=(12, 4))
    values = per_head(slope * np.arange(12)[:, None] + noise - noise.mean(1, keepdims=True))
    assert statistics.sign(statistics.late_minus_early(values)) == sign


def test_signs_of_many_estimates():
    found = xr.Dataset({n: ("layer", v) for n, v in (("low", [1, -1, -2]), ("high", [2, 1, -1]))})
    assert statistics.sign(found).values.tolist() == [1, 0, -1]


def test_order_of_dimensions_does_not_matter():
    values = per_head(np.random.default_rng(2).normal(size=(6, 5)))
    assert statistics.late_minus_early(values).identical(statistics.late_minus_early(values.T))


def test_one_dimension_is_drawn_again_and_the_others_stay_together():
    """Heads differ in level alone, so that the mean over heads differs between layers for sure."""
    level = np.random.default_rng(3).normal(size=40)
    found = statistics.bootstrap(per_head(np.stack([level, level + 2])), over="head")
    np.testing.assert_allclose(found.low[1] - found.low[0], 2)
    np.testing.assert_allclose(found.estimate, [level.mean(), level.mean() + 2])
    assert found.attrs["over"] == "head" and found.attrs["count"] == 40


def test_interval_over_runs_is_students():
    runs = [0.1, 0.4, 0.3]
    found = statistics.over_runs(runs)
    expected = stats.ttest_1samp(runs, 0).confidence_interval(0.95)
    assert of(found) == pytest.approx((np.mean(runs), expected.low, expected.high))
    assert statistics.sign(found) == 0


def test_interval_over_runs_covers_nineteen_times_in_twenty():
    draws = np.random.default_rng(0).normal(1.0, 0.3, size=(1000, 3))
    found = [of(statistics.over_runs(runs)) for runs in draws.tolist()]
    assert np.mean([low <= 1 <= high for _, low, high in found]) == pytest.approx(0.95, abs=0.02)


def test_one_run_tells_nothing():
    alone = statistics.over_runs([0.7])
    assert of(alone) == (0.7, -np.inf, np.inf) and statistics.sign(alone) == 0
    assert "no interval" in statistics.text(alone)
    assert statistics.verdict(alone, 1, "weighted cosine").startswith(CANNOT_BE_TOLD)


def test_shares_have_wilsons_interval():
    found = statistics.of_shares([0.0, 0.25, 1.0], 20)
    z2 = stats.norm.ppf(0.975) ** 2
    centre = (np.array([0, 5, 20]) + z2 / 2) / (20 + z2)
    np.testing.assert_allclose((found.low + found.high) / 2, centre, atol=1e-12)
    np.testing.assert_allclose(found.estimate, [0, 0.25, 1])


def test_a_difference_of_intervals_is_as_wide_as_both():
    found = statistics.difference(
        statistics.interval(0.5, 0.4, 0.6), statistics.interval(0.2, 0.15, 0.3)
    )
    assert of(found) == pytest.approx((0.3, 0.1, 0.45))


def test_an_estimate_is_told_in_any_format():
    found = statistics.interval(0.1234, 0.1, 0.2)
    assert statistics.text(found, ".3f") == "+0.123 [+0.100, +0.200]"
    assert statistics.text(found) == "+0.12 [+0.10, +0.20]"
    assert statistics.text(found, "-.1f") == "0.1 [0.1, 0.2]"
    assert statistics.text(statistics.interval(-0.1, -0.2, 0.1), "-.1f") == "-0.1 [-0.2, 0.1]"
    assert statistics.text(statistics.interval(-0.001, -0.1, 0.1), "-.1f").startswith("0.0 ")


# ---- verdicts: margin of weighted cosine is 0.05 -------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "direction", "outcome"),
    [
        (0.2, 0.4, 1, HOLDS),
        (0.2, 0.4, -1, CONTRADICTED),
        (-0.4, -0.2, -1, HOLDS),
        (-0.4, -0.2, 1, CONTRADICTED),
        (-0.1, 0.2, 1, CANNOT_BE_TOLD),
        (-0.2, 0.04, -1, CANNOT_BE_TOLD),
        (-0.05, 0.05, 1, f"{NONE_LARGER} 0.05"),  # the ends of the margin belong to it
        (-0.03, 0.04, -1, f"{NONE_LARGER} 0.05"),
        (0.0, 0.3, 1, CANNOT_BE_TOLD),  # zero is not excluded
        (-0.3, 0.0, 1, CANNOT_BE_TOLD),
        (0.0, 0.05, 1, f"{NONE_LARGER} 0.05"),
        (0.01, 0.04, 1, f"{NONE_LARGER} 0.05 (above zero)"),  # inside the margin comes first
        (-0.04, -0.01, 1, f"{NONE_LARGER} 0.05 (below zero)"),
        (0.01, 0.0500001, 1, HOLDS),
        (-0.0500001, -0.01, 1, CONTRADICTED),
        (-np.inf, np.inf, 1, CANNOT_BE_TOLD),
        (0.05, 0.05, 1, f"{NONE_LARGER} 0.05 (above zero)"),
    ],
)
def test_verdicts_follow_the_one_rule(low, high, direction, outcome):
    estimate = (low + high) / 2 if np.isfinite(low) else 0.1
    found = statistics.interval(estimate, low, high)
    given = statistics.verdict(found, direction, "weighted cosine")
    assert given.split(" (an")[0] == outcome


def test_a_verdict_has_its_measures_own_margin():
    found = statistics.interval(0.03, 0.01, 0.04)
    by_measure = {m: statistics.verdict(found, 1, m) for m in statistics.MARGINS}
    for measure, margin in statistics.MARGINS.items():
        assert by_measure[measure].startswith(NONE_LARGER) == (margin >= 0.04)
    assert (
        statistics.MARGINS["share of attention"] == 0.02 and statistics.MARGINS["grouping"] == 0.1
    )


def test_what_is_not_told_says_which_width_would_tell():
    """An interval just narrower than that is told; just wider, it is not."""
    for estimate in (0.0, 0.01, 0.045, 0.2):
        wide = statistics.interval(estimate, estimate - 1, estimate + 1)
        said = statistics.verdict(wide, 1, "weighted cosine")
        width = float(said.split("±")[1].split()[0])
        for reach, told in ((width - 0.006, True), (width + 0.006, False)):
            found = statistics.interval(estimate, estimate - reach, estimate + reach)
            given = statistics.verdict(found, 1, "weighted cosine")
            assert given.startswith(CANNOT_BE_TOLD) != told


def test_nothing_and_too_few_images_are_not_run_here():
    found = statistics.interval(0.3, 0.2, 0.4)
    assert statistics.verdict(None, 1, "grouping") == NOT_RUN
    assert statistics.verdict(found, 1, "grouping", images=19) == NOT_RUN
    assert statistics.verdict(found, 1, "grouping", images=20) == HOLDS
    for count in (19, 20):
        values = xr.DataArray(np.linspace(1, 2, count), dims="image")
        given = statistics.verdict(statistics.bootstrap(values), 1, "grouping")
        assert given == (HOLDS if count == 20 else NOT_RUN)


def test_images_without_a_value_are_no_images_of_a_claim():
    values = xr.DataArray([*np.linspace(1, 2, 19), np.nan], dims="image")
    assert statistics.verdict(statistics.bootstrap(values), 1, "grouping") == NOT_RUN


def test_an_identity_holds_up_to_rounding():
    assert statistics.verdict_of_identity(1e-12, 1e-9) == HOLDS
    assert statistics.verdict_of_identity(1e-3, 1e-9) == CONTRADICTED


NONSENSE = xr.DataArray(np.zeros((4, 6)), dims=("image", "layer"), name="share")
CASES = {
    "no such dimension": lambda: statistics.bootstrap(NONSENSE, over="head"),
    "one draw": lambda: statistics.bootstrap(NONSENSE, draws=1),
    "draws of True": lambda: statistics.bootstrap(NONSENSE, draws=True),
    "a negative seed": lambda: statistics.bootstrap(NONSENSE, seed=-1),
    "no value": lambda: statistics.bootstrap(NONSENSE * np.nan),
    "one image": lambda: statistics.bootstrap(NONSENSE[:1]),
    "no image": lambda: statistics.bootstrap(NONSENSE[:0]),
    "no runs": lambda: statistics.over_runs([]),
    "a run of NaN": lambda: statistics.over_runs([0.1, np.nan]),
    "runs in a table": lambda: statistics.over_runs([[0.1]]),
    "no layers": lambda: statistics.late_minus_early(NONSENSE.rename(layer="depth")),
    "two layers": lambda: statistics.late_minus_early(NONSENSE[:, :2]),
    "heads and images": lambda: statistics.late_minus_early(NONSENSE.expand_dims(head=2)),
    "a head of NaN": lambda: statistics.late(per_head(np.full((3, 2), np.nan))),
    "too few weights": lambda: statistics.over_depth(NONSENSE, [1.0]),
    "a share above 1": lambda: statistics.of_shares([1.2], 10),
    "no cases": lambda: statistics.of_shares([0.5], 0),
    "no such measure": lambda: statistics.verdict(statistics.interval(0, 0, 0), 1, "cosine"),
    "direction 2": lambda: statistics.verdict(statistics.interval(0, 0, 0), 2, "grouping"),
    "direction True": lambda: statistics.verdict(statistics.interval(0, 0, 0), True, "grouping"),
    "no estimate": lambda: statistics.verdict(statistics.interval(np.nan, 0, 0), 1, "grouping"),
    "ends of NaN": lambda: statistics.verdict(statistics.interval(0, np.nan, 0), 1, "grouping"),
    "ends astray": lambda: statistics.verdict(statistics.interval(0, 1, -1), 1, "grouping"),
    "many estimates": lambda: statistics.verdict(statistics.bootstrap(NONSENSE), 1, "grouping"),
    "images of half": lambda: statistics.verdict(
        statistics.interval(0, 0, 0), 1, "grouping", images=20.5
    ),
    "an error of NaN": lambda: statistics.verdict_of_identity(np.nan, 1.0),
    "no tolerance": lambda: statistics.verdict_of_identity(0.0, 0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_what_makes_no_sense_is_refused(case, unchecked):
    with pytest.raises(ValueError):
        CASES[case]()


def test_a_number_that_rounds_to_zero_is_written_without_a_minus():
    assert statistics.text(statistics.interval(-0.001, -0.02, -0.004)) == "+0.00 [-0.02, +0.00]"


def test_rank_correlation_is_scipys_and_its_partial_one_the_textbooks():
    noise = np.random.default_rng(0).normal(size=(3, 40, 6))
    x, y, z = (xr.DataArray(each, dims=("head", "mode")) for each in noise)
    y = np.exp(y + x + z)
    flat = [each.values.ravel() for each in (x, y, z)]
    xy, xz, yz = (stats.spearmanr(flat[a], flat[b])[0] for a, b in ((0, 1), (0, 2), (1, 2)))
    found = statistics.rank_correlation(x, y, "head")
    assert float(found.estimate) == pytest.approx(xy)
    assert found.attrs["count"] == 40
    partial = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    held = statistics.rank_correlation(x, y, "head", [z])
    assert float(held.estimate) == pytest.approx(partial)
    assert float(held.low) < partial < float(held.high)
    # Independent heads: as wide as the textbook's standard error of 240 pairs.
    assert float(found.high - found.low) == pytest.approx(4 * (1 - xy**2) / np.sqrt(240), rel=0.35)


def test_rank_correlation_refuses_what_is_missing():
    values = xr.DataArray([[1.0, np.nan]], dims=("head", "mode"))
    with pytest.raises(ValueError, match="finite"):
        statistics.rank_correlation(values, values, "head")

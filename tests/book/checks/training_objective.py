"""Answers to the exercises of chapter 4: some right in another way, some with a planted fault."""

import numpy as np
import xarray as xr
from scipy import stats

from qkutils.book.checks import training_objective as check


def common(one, other):
    seeds = sorted(one.keys() & other.keys())
    return np.array([[one[s] for s in seeds], [other[s] for s in seeds]])


def by_scipy(one, other):
    found = stats.ttest_rel(*common(one, other))
    ends = found.confidence_interval()
    return np.mean(ends), *ends


def by_test(values):
    return stats.ttest_1samp(values.mean(1), 0).pvalue < 0.05


def curvature(curve):
    """By a product with weights, which are given for 12 layers."""
    weights = np.repeat([-0.5, 1, -0.5], 4) / 4
    return weights @ curve.values.mean(1)


paper, exact = np.array([[0.3, 0.2, 0.6], [0.4, 0.5, 0.1]])[..., None] * np.ones(2)


def trend(scale):
    values = (("convention", "layer", "head"), scale * np.stack([paper, exact]))
    return xr.Dataset({"weighted_cosine": values}, {"convention": ["paper", "exact"]})


PAIR = trend(1), trend(0)
RIGHT = [
    (check.paired, by_scipy),
    (check.effect, by_test, 60),
    (check.closest, 2, "0.11", *PAIR),
    (check.peak, curvature),
]


def around(mean, half):
    return mean, mean - half, mean + half


def of_differences(factor):
    def interval(one, other):
        differences = np.subtract(*common(one, other))
        return around(differences.mean(), factor(differences))

    return interval


def exchanged(one, other):
    return by_scipy(other, one)


def unpaired(one, other):
    pair = common(one, other)
    ends = stats.ttest_ind(*pair).confidence_interval()
    return np.mean(ends), *ends


def all_runs(one, other):
    return around(np.mean([*one.values()]) - np.mean([*other.values()]), 1)


def by_order(one, other):
    pairs = zip(sorted(set(one) & set(other)), other, strict=True)
    differences = [one[first] - other[second] for first, second in pairs]
    return around(np.mean(differences), stats.t.ppf(0.975, 4) * stats.sem(differences))


def ends_first(one, other):
    mean, low, high = by_scipy(one, other)
    return low, high, mean


def lopsided(one, other):
    mean, low, high = by_scipy(one, other)
    return mean, low + 0.01, high + 0.01


def heads_as_runs(values):
    return stats.ttest_1samp(values.ravel(), 0).pvalue < 0.05


def runs_averaged(values):
    """The mean over the wrong axis: an interval over heads."""
    return stats.ttest_1samp(values.mean(0), 0).pvalue < 0.05


def never(values):
    return False


def too_careful(values):
    return stats.ttest_1samp(values.mean(1), 0).pvalue < 0.003


def upwards(values):
    return stats.ttest_1samp(values.mean(1), 0, alternative="greater").pvalue < 0.05


def one_each(values):
    return abs(values.mean(1)) > 1


def of_thirds(curve, weights):
    means = curve.values.mean(1).reshape(3, 4).mean(1)
    return means @ weights


def middle_alone(curve):
    return of_thirds(curve, [0, 1, 0])


def less_early(curve):
    return of_thirds(curve, [-1, 1, 0])


def summed(curve):
    return 4 * curvature(curve)


def highest(curve):
    """The largest layer over what the ends lie on; a dip has none."""
    return max(of_thirds(curve, [-0.5, 1, -0.5]), 0)


def larger_fall(curve):
    return np.sign(curvature(curve)) * abs(of_thirds(curve, [0, 1, -1]))


def each_head(curve):
    return curve.values[4:8].mean(0)


t = stats.t.ppf
WRONG = [
    (check.paired, ends_first, "Give three numbers"),
    (check.paired, exchanged, "the first from the second"),
    (check.paired, all_runs, "seeds that both have"),
    (check.paired, unpaired, "within each seed first"),
    (check.paired, by_order, "don't zip"),
    (check.paired, of_differences(lambda d: 1.96 * stats.sem(d)), "for many runs"),
    (check.paired, of_differences(lambda d: t(0.975, 4) * d.std(ddof=1)), "root of the number"),
    (check.paired, of_differences(lambda d: t(0.975, 4) * d.std() / 5**0.5), "ddof=1"),
    (check.paired, of_differences(lambda d: t(0.95, 4) * stats.sem(d)), "0.975, not 0.95"),
    (check.paired, lopsided, "plus and minus"),
    (check.effect, by_test, 200, "from 0 to 100"),
    (check.effect, heads_as_runs, 5, "Heads of one run"),
    (check.effect, runs_averaged, 5, "First the mean of each run"),
    (check.effect, one_each, 5, "gives 5 answers"),
    (check.effect, never, 5, "It is found in 0 of 100"),
    (check.effect, too_careful, 5, "5 are due"),
    (check.effect, upwards, 5, "Both signs"),
    (check.closest, 3, 0.1, *PAIR, "Layers go from 0 to 2"),
    (check.closest, 1, 0.2, *PAIR, "Switch to exact"),
    (check.closest, 0, 0.4, *PAIR, "not the dots"),
    (check.closest, 2, -0.1, *PAIR, "sign is turned"),
    (check.closest, 2, 0.6, *PAIR, "convention paper"),
    (check.closest, 2, 0.3, *PAIR, "one model after the other"),
    (check.peak, middle_alone, "outside the middle"),
    (check.peak, less_early, "alike"),
    (check.peak, summed, "and not sums"),
    (check.peak, highest, "take no maximum"),
    (check.peak, larger_fall, "Count both ends"),
    (check.peak, each_head, "it should be []"),
]

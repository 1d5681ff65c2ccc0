"""Answers to the exercises of chapter 11: some right in another way, some with a planted fault."""

import numpy as np
from scipy import stats

from qkutils import statistics
from qkutils.book.checks import what_survives as check


def judge_as_the_book(low, high, direction, margin):
    statistics_margin = statistics.MARGINS["grouping"] / margin  # the same intervals, rescaled
    ends = [statistics_margin * end for end in (low, high)]
    found = statistics.interval(sum(ends) / 2, *ends)
    words = statistics.verdict(found, direction, "grouping").split(" (")[0]
    return "none larger" if words.startswith("none larger") else words


def judge_mirrored(low, high, direction, margin):
    low, high = sorted((direction * low, direction * high))
    if max(-low, high) <= margin:
        return "none larger"
    if low > 0:
        return "holds"
    return "contradicted" if high < 0 else "cannot be told"


def outside_by_intervals(effect, error, draws, rng):
    estimate = effect + error * rng.standard_normal(draws)
    low, high = estimate - 1.96 * error, estimate + 1.96 * error
    return np.mean((low > 0) | (high < 0))


def outside_exactly(effect, error, draws, rng):
    return stats.norm.sf(1.96 - effect / error) + stats.norm.cdf(-1.96 - effect / error)


def survivors_by_closure(p, rate):
    """The definition: every set that holds the finding has to fail Bonferroni's test."""
    kept = []
    for at, value in enumerate(p):
        others = np.sort(np.delete(p, at))[::-1]
        sets = ([value, *others[:size]] for size in range(len(p)))  # the hardest of each size
        kept.append(all(min(each) <= rate / len(each) for each in sets))
    return kept


def survivors_by_loop(p, rate):
    kept = np.zeros(len(p), bool)
    for left, at in zip(range(len(p), 0, -1), np.argsort(p), strict=True):
        if p[at] > rate / left:
            break
        kept[at] = True
    return kept


RIGHT = [
    (check.judge, judge_as_the_book),
    (check.judge, judge_mirrored),
    (check.outside, outside_by_intervals, 20),
    (check.outside, outside_exactly, 5.0),
    (check.outside, outside_exactly, "5 %"),
    (check.least_and_most, (1, 2, 0.165), [10, 2, 0.484]),
    (check.least_and_most, (1, 2, 0.17), [10, 2, 0.48]),
    (check.survivors, survivors_by_closure),
    (check.survivors, survivors_by_loop),
]


def zero_first(low, high, direction, margin):
    if low > 0 or high < 0:
        return "holds" if direction * (low + high) > 0 else "contradicted"
    return "none larger" if max(-low, high) <= margin else "cannot be told"


def without_direction(low, high, direction, margin):
    return judge_mirrored(low, high, 1, margin)


def upper_end_alone(low, high, direction, margin):
    if high <= margin and low > -1:
        return "none larger"
    return judge_mirrored(low, high, direction, margin)


def by_the_middle(low, high, direction, margin):
    if max(-low, high) <= margin:
        return "none larger"
    return "holds" if direction * (low + high) > 0 else "contradicted"


def in_other_words(low, high, direction, margin):
    return judge_mirrored(low, high, direction, margin).replace("none larger", "small")


def beyond_the_margin(low, high, direction, margin):
    if max(-low, high) > margin > max(-high, low):
        return "cannot be told"
    return judge_mirrored(low, high, direction, margin)


def one_side(low, high, direction, margin):
    return "none larger" if high < margin else judge_mirrored(low, high, direction, margin)


def above_alone(effect, error, draws, rng):
    return np.mean(rng.normal(effect, error, draws) > 1.96 * error)


def one_error(effect, error, draws, rng):
    return np.mean(abs(rng.normal(effect, error, draws)) > error)


def uniform(effect, error, draws, rng):
    estimate = effect + error * 3**0.5 * rng.uniform(-1, 1, draws)
    return np.mean(abs(estimate) > 1.96 * error)


def inside(effect, error, draws, rng):
    return 1 - outside_by_intervals(effect, error, draws, rng)


def without_effect(effect, error, draws, rng):
    return outside_by_intervals(0, error, draws, rng)


def of_error_one(effect, error, draws, rng):
    return np.mean(abs(rng.normal(effect, error, draws)) > 1.96)


def counted(effect, error, draws, rng):
    return draws * outside_exactly(effect, error, draws, rng)


def one_interval_of_all(effect, error, draws, rng):
    low, high = np.percentile(rng.normal(effect, error, draws), [2.5, 97.5])
    return float(low > 0 or high < 0)


def each_alone(p, rate):
    return p <= rate


def divided(p, rate):
    return p <= rate / len(p)


def sorted_ones(p, rate):
    return survivors_by_loop(np.sort(p), rate)


def past_the_first_failure(p, rate):
    ranked = np.sort(p)
    passing = np.flatnonzero(ranked <= rate / np.arange(len(p), 0, -1))
    return p <= (ranked[passing[-1]] if len(passing) else -1)


def failing_at_the_first_of_none(p, rate):
    ranked = np.sort(p)
    return p < ranked[np.argmax(ranked > rate / np.arange(len(p), 0, -1))]


def before_the_first_failure_of_the_other_rule(p, rate):
    ranked = np.sort(p)
    failed = np.flatnonzero(ranked > rate * np.arange(1, len(p) + 1) / len(p))
    return p < (ranked[failed[0]] if len(failed) else 2)


def few_are_false(p, rate):
    return stats.false_discovery_control(p) <= rate


def at_least_one(p, rate):
    return np.array(survivors_by_loop(p, rate)) | (p == p.min())


def with_the_one_that_fails(p, rate):
    kept = survivors_by_loop(p, rate)
    return kept | (p == p[~kept].min())


def counted_from_zero(p, rate):
    kept = np.zeros(len(p), bool)
    for left, at in zip(range(len(p) - 1, -1, -1), np.argsort(p), strict=True):
        if left and p[at] > rate / left:
            break
        kept[at] = True
    return kept


def counted_from_two(p, rate):
    ranked = np.sort(p)
    passes = ranked <= rate / (len(p) + 1 - np.arange(len(p)))
    return p <= ranked[np.logical_and.accumulate(passes)].max(initial=-1)


def at_five_percent(p, _):
    return survivors_by_loop(p, 0.05)


def one_draw(effect, error, _, rng):
    return float(abs(rng.normal(effect, error)) > 1.96 * error)


WRONG = [
    (check.judge, in_other_words, "four answers"),
    (check.judge, beyond_the_margin, "outside zero is enough"),
    (check.judge, one_side, "two sides"),
    (check.survivors, past_the_first_failure, "also where a larger one passes"),
    (check.survivors, counted_from_zero, "the largest with rate"),
    (check.survivors, counted_from_two, "the largest with rate"),
    (check.survivors, at_five_percent, "not 0.05"),
    (check.judge, zero_first, "Ask for the margin first"),
    (check.judge, without_direction, "the side that the claim names"),
    (check.judge, upper_end_alone, "'holds'"),
    (check.judge, by_the_middle, "zero in it"),
    (check.outside, above_alone, 5, "both count"),
    (check.outside, one_error, 5, "not one"),
    (check.outside, uniform, 5, "no tails"),
    (check.outside, one_draw, 5, "as many estimates"),
    (check.outside, inside, 5, "do not hold zero"),
    (check.outside, without_effect, 5, "An effect moves"),
    (check.outside, of_error_one, 5, "Errors scale both"),
    (check.outside, counted, 5, "between 0 and 1"),
    (check.outside, one_interval_of_all, 5, "its own interval"),
    (check.outside, outside_exactly, -1, "from 0 to 100"),
    (check.outside, outside_exactly, 101, "from 0 to 100"),
    (check.outside, outside_exactly, 0.05, "a whole number"),
    (check.outside, outside_exactly, "few", "`prediction` is few"),
    (check.least_and_most, (1, 2, 0.059), (10, 2, 0.484), "Read the mean"),
    (check.least_and_most, (2, 1, 0.165), (10, 2, 0.484), "first, then the head"),
    (check.least_and_most, (1, 2, 0.0), (10, 2, 0.484), "Switch key salience off"),
    (check.least_and_most, (3, 2, 0.165), (10, 2, 0.484), "[1, 2, 4, 7, 8, 10]"),
    (check.least_and_most, (1, 2, 16.5), (10, 2, 48.4), "as a share, 0.165"),
    (check.least_and_most, (7, 1, 0.176), (10, 2, 0.484), "lose less than this one"),
    (check.least_and_most, (1, 2, 0.165), (10, 0, 0.448), "lose more than this one: 1 of 18"),
    (check.survivors, each_alone, "too wide"),
    (check.survivors, divided, "the next one is wider"),
    (check.survivors, sorted_ones, "in the order of p"),
    (check.survivors, few_are_false, "Exercise 5.3"),
    (check.survivors, before_the_first_failure_of_the_other_rule, "Exercise 5.3"),
    (check.survivors, failing_at_the_first_of_none, "all survive"),
    (check.survivors, with_the_one_that_fails, "falls, too"),
    (check.survivors, at_least_one, "nothing survives"),
]

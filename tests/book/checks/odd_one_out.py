"""Answers to the exercises of chapter 5: some right in another way, some with a planted fault."""

import numpy as np
from scipy import stats

from qkutils.book.checks import odd_one_out as check


def shares_by_loop(attention, regions, asks, prefix):
    others = [n for n in range(regions.shape[1]) if n != asks]
    seen = attention[prefix + asks][prefix:][others]
    return [(float((seen * region[others]).sum() / seen.sum())) for region in regions]


def nearby_by_loop(rows, columns, asks, reach):
    made = np.zeros(rows * columns)
    for n in range(rows * columns):
        far = np.hypot(n // columns - asks // columns, n % columns - asks % columns)
        made[n] = 0 if n == asks else np.exp(-((far / reach) ** 2) / 2)
    return (made / made.sum()).reshape(rows, columns)


def discoveries_by_adjusting(p, rate):
    order = p.argsort()[::-1]
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1))
    return adjusted <= rate


RANDOM = np.random.default_rng(0)
ROWS = RANDOM.dirichlet(np.ones(13), 4)
ROWS[:, 0] += [0.5, 0.1, 0.4, 0.2]
ROWS /= ROWS.sum(1, keepdims=True)
TARGET = RANDOM.dirichlet([1, 1], 12)[:, 0].reshape(3, 4)
AMONG = 100 * ROWS[:, 1:] @ TARGET.ravel() / ROWS[:, 1:].sum(1)
BEST, WORST = int(AMONG.argmax()), int(AMONG.argmin())
OF_VIEW = (ROWS, TARGET, 1)

RIGHT = [
    (check.shares_of, shares_by_loop),
    (check.nearby, nearby_by_loop, "Zero."),
    (check.discoveries, discoveries_by_adjusting),
    (check.reading, str(BEST), round(AMONG[BEST]), *OF_VIEW),
    (check.reading, f"H{BEST}", f"{AMONG[BEST]:.0f} %", *OF_VIEW),
]


def prefix_in_the_sum(attention, regions, asks, prefix):
    row = attention[prefix + asks].clone()
    row[prefix + asks] = 0
    return regions @ (row / row.sum())[prefix:]


def prefix_as_patches(attention, regions, asks, prefix):
    row = attention[prefix + asks, : regions.shape[1]].clone()
    row[asks] = 0
    return regions @ (row / row.sum())


def with_itself(attention, regions, asks, prefix):
    row = attention[prefix + asks, prefix:]
    return regions @ (row / row.sum())


def asked_by_another(attention, regions, asks, prefix):
    row = attention[asks, prefix:].clone()
    row[asks] = 0
    return regions @ (row / row.sum())


def without_another(attention, regions, asks, prefix):
    row = attention[prefix + asks].clone()
    row[asks] = 0
    return regions @ (row[prefix:] / row[prefix:].sum())


def prefix_cut_off_twice(attention, regions, asks, prefix):
    row = attention[prefix + asks, prefix:].clone()
    row[prefix + asks] = 0
    return regions @ (row / row.sum())


def of_column(attention, regions, asks, prefix):
    return shares_by_loop(attention.T, regions, asks, prefix)


def every_patch_alike(attention, regions, asks, prefix):
    there = attention[prefix + asks, prefix:] > 0
    there[asks] = False
    return regions @ (there / there.sum()).double()


def over_keys(attention, regions, asks, prefix):
    return attention[prefix:, prefix:] @ regions.T


def in_place(attention, regions, asks, prefix):
    row = attention[prefix + asks, prefix:]
    row[asks] = 0
    return regions @ (row / row.sum())


def sides_exchanged(rows, columns, asks, reach):
    return nearby_by_loop(rows, columns, asks % columns * columns + asks // columns, reach)


def not_divided(rows, columns, asks, reach):
    return 3 * nearby_by_loop(rows, columns, asks, reach)


def too_wide(rows, columns, asks, reach):
    return nearby_by_loop(rows, columns, asks, reach * 2**0.5)


def along_one_row(rows, columns, asks, reach):
    made = nearby_by_loop(1, columns, asks % columns, reach) * np.ones((rows, 1))
    made[divmod(asks, columns)] = 0
    return made / made.sum()


def with_asking_patch(rows, columns, asks, reach):
    made = nearby_by_loop(rows, columns, asks, reach)
    made[divmod(asks, columns)] = made.max()
    return made / made.sum()


def reach_outside(rows, columns, asks, reach):
    return nearby_by_loop(rows, columns, asks, 1 / reach)


def distance_not_squared(rows, columns, asks, reach):
    down, right = np.indices((rows, columns)) - np.reshape(divmod(asks, columns), (2, 1, 1))
    made = np.exp(-np.hypot(down, right) / (2 * reach**2))
    made[divmod(asks, columns)] = 0
    return made / made.sum()


def flat(rows, columns, asks, reach):
    return nearby_by_loop(columns, rows, 0, reach)


def uncorrected(p, rate):
    return p <= rate


def bonferroni(p, rate):
    return p <= rate / len(p)


def until_the_first(p, rate):
    met = np.sort(p) <= rate * np.arange(1, len(p) + 1) / len(p)
    count = int(np.logical_and.accumulate(met).sum())
    return np.isin(p, np.sort(p)[:count])


def rate_forgotten(p, rate):
    return discoveries_by_adjusting(p, 0.05)


def below_its_bound(p, rate):
    return stats.false_discovery_control(p) < rate


def counted_from_0(p, rate):
    met = np.flatnonzero(np.sort(p) <= rate * np.arange(len(p)) / len(p))
    return p <= np.sort(p)[met[-1]] if len(met) else p < 0


def sorted_answers(p, rate):
    return np.sort(stats.false_discovery_control(p)) <= rate


def as_numbers(p, rate):
    return np.flatnonzero(stats.false_discovery_control(p) <= rate)


WRONG = [
    (check.shares_of, prefix_in_the_sum, "neither prefix tokens"),
    (check.shares_of, prefix_as_patches, "Prefix tokens are counted as patches"),
    (check.shares_of, with_itself, "The asking patch still counts"),
    (check.shares_of, asked_by_another, "Another token asks"),
    (check.shares_of, without_another, "Another patch is left out"),
    (check.shares_of, prefix_cut_off_twice, "You cut the prefix off"),
    (check.shares_of, of_column, "Rows ask"),
    (check.shares_of, every_patch_alike, "If two others"),
    (check.shares_of, over_keys, "[15, 3]"),
    (check.shares_of, in_place, "changed it"),
    (check.nearby, nearby_by_loop, "large", '"zero"'),
    (check.nearby, sides_exchanged, "zero", "row by row"),
    (check.nearby, not_divided, "zero", "sums to 3"),
    (check.nearby, too_wide, "zero", "0.5 times as fast"),
    (check.nearby, along_one_row, "zero", "plus columns apart"),
    (check.nearby, with_asking_patch, "zero", "Set its number to 0"),
    (check.nearby, reach_outside, "zero", "brackets around"),
    (check.nearby, distance_not_squared, "zero", "with correlation"),
    (check.nearby, flat, "zero", "[5, 3]"),
    (check.discoveries, uncorrected, "bound 0.05."),
    (check.discoveries, bonferroni, "Bonferroni"),
    (check.discoveries, until_the_first, "first that fails"),
    (check.discoveries, rate_forgotten, "Use `rate`"),
    (check.discoveries, below_its_bound, "equal is enough"),
    (check.discoveries, counted_from_0, "k starts at 1"),
    (check.discoveries, sorted_answers, "but others"),
    (check.discoveries, as_numbers, "it should be [30]"),
    (check.reading, 4, 30, *OF_VIEW, "counts heads from 0"),
    (check.reading, BEST, float(100 * ROWS[BEST, 1:] @ TARGET.ravel()), *OF_VIEW, "prefix token"),
    (check.reading, BEST, AMONG[BEST] / 100, *OF_VIEW, "Write 40"),
    (check.reading, WORST, AMONG[WORST], *OF_VIEW, "the mean over heads is"),
    (check.reading, WORST, AMONG[WORST] + 30, *OF_VIEW, "Is it the last layer?"),
]

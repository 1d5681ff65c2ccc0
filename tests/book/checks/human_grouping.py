"""Answers to the exercises of chapter 7: some right in another way, some with a planted fault."""

from itertools import product

import numpy as np

from qkutils.book.checks import human_grouping as check


def at_step_by_slices(attention, segments, down, right):
    rows, columns = segments.shape
    grid = attention.reshape(rows, columns, rows, columns)
    sums, counts = np.zeros(2), np.zeros(2)
    for r, c in product(range(rows - down), range(columns - right)):
        one, other = segments[r, c], segments[r + down, c + right]
        if one >= 0 and other >= 0:
            sums[int(one != other)] += grid[r, c, r + down, c + right]
            counts[int(one != other)] += 1
    return sums[0] / counts[0] - sums[1] / counts[1]


def attracted_by_loop(segments):
    made = np.zeros([len(segments)] * 2)
    for query, key in product(range(len(segments)), repeat=2):
        made[query, key] = (query != key) * (1.0 if segments[key] == -1 else 2.0)
    return [row * (len(row) - 1) / row.sum() for row in made]


def judged_by_loop(mine, yours):
    within, across = [], []
    for n, m in product(range(len(mine)), repeat=2):
        if n != m:
            mates = sum(mine == mine[n]) - 1
            value = (len(mine) - 1) / mates if mine[n] == mine[m] else 0
            (within if yours[n] == yours[m] else across).append(value)
    return sum(within) / len(within) - sum(across) / len(across)


CUTS = ("aabb aabb ccbb cccc", "aabb aabb cccc dddd")
OWN = np.array([[0.1, 0.5, 0.2], [0.3, 0.1, 0.9], [0.0, -0.4, 0.1]])
NULL = np.array([[0.1, 0.3, 0.1], [0.2, 0.7, 0.5], [0.0, 0.1, 0.0]])

RIGHT = [
    (check.at_step, at_step_by_slices),
    (check.attracted, attracted_by_loop, "Zero."),
    (check.judged, judged_by_loop, *CUTS),
    (check.reading, "1", 0.12, 0.68, OWN, NULL),
]


def pairs(segments, down, right):
    labels = segments.ravel()
    row, column = np.divmod(np.arange(labels.size), segments.shape[1])
    there = (row - row[:, None] == down) & (column - column[:, None] == right)
    return there, labels[:, None] == labels, (labels[:, None] >= 0) & (labels >= 0)


def background_as_segment(attention, segments, down, right):
    there, same, _ = pairs(segments, down, right)
    return attention[there & same].mean() - attention[there & ~same].mean()


def around_the_border(attention, segments, down, right):
    places = np.arange(segments.size).reshape(segments.shape)
    keys = np.roll(places, (-down, -right), (0, 1))
    one, other = segments.ravel(), segments.ravel()[keys.ravel()]
    values, named = attention[places.ravel(), keys.ravel()], (one >= 0) & (other >= 0)
    return values[named & (one == other)].mean() - values[named & (one != other)].mean()


def transposed(attention, segments, down, right):
    return at_step_by_slices(attention.T, segments, down, right)


def sums(attention, segments, down, right):
    there, same, named = pairs(segments, down, right)
    there &= named
    return attention[there & same].sum() - attention[there & ~same].sum()


def all_displacements(attention, segments, down, right):
    _, same, named = pairs(segments, down, right)
    return attention[named & same].mean() - attention[named & ~same].mean()


def mean_of_rows(attention, segments, down, right):
    """Each row of queries counts alike, however many pairs it has."""
    there, same, named = pairs(segments, down, right)
    means = []
    for kind in (same, ~same):
        rows = (there & named & kind).reshape(len(segments), -1)
        values = attention.reshape(len(segments), -1)
        means.append(np.mean([v[r].mean() for v, r in zip(values, rows, strict=True) if r.any()]))
    return means[0] - means[1]


def maxima(attention, segments, down, right):
    there, same, named = pairs(segments, down, right)
    there &= named
    return attention[there & same].max() - attention[there & ~same].max()


def background_as_object(segments):
    return attracted_by_loop(np.where(segments.astype(bool), 1, -1))


def by_query(segments):
    made = np.where(segments[:, None] >= 0, 2.0, 1.0) * ~np.eye(len(segments), dtype=bool)
    return made * (len(made) - 1) / made.sum(1, keepdims=True)


def itself_too(segments):
    made = np.tile(np.where(segments >= 0, 2.0, 1.0), (len(segments), 1))
    return made / made.mean(1, keepdims=True)


def not_divided(segments):
    return np.where(segments >= 0, 2.0, 1.0) * ~np.eye(len(segments), dtype=bool)


def repelled(segments):
    return attracted_by_loop(np.where(segments >= 0, -1, 0))


def roles_exchanged(mine, yours):
    return judged_by_loop(yours, mine)


def in_shares(mine, yours):
    return judged_by_loop(mine, yours) / (len(mine) - 1)


def with_itself(mine, yours):
    alike, same = (of[:, None] == of for of in (mine, yours))
    attention = (len(mine) - 1) * alike / alike.sum(1, keepdims=True)
    return attention[same].mean() - attention[~same].mean()


def means_of_means(mine, yours):
    alike, same = (of[:, None] == of for of in (mine, yours))
    others = ~np.eye(len(mine), dtype=bool)
    attention = (len(mine) - 1) * (alike & others) / np.maximum(alike.sum(1) - 1, 1)[:, None]
    within = [row[pair].mean() for row, pair in zip(attention, same & others, strict=True)]
    return np.mean(within) - attention[~same].mean()


def the_rest_forgotten(mine, yours):
    alike, same = (of[:, None] == of for of in (mine, yours))
    others = ~np.eye(len(mine), dtype=bool)
    attention = (len(mine) - 1) * (alike & others) / np.maximum(alike.sum(1) - 1, 1)[:, None]
    return attention[same & others].mean()


def alone_to_all(mine, yours):
    """Who is alone looks at everybody."""
    alone = (mine[:, None] == mine).sum(1) == 1
    return judged_by_loop(mine, yours) + alone.mean()


def between_persons(mine, yours):
    alike = mine[:, None] == yours
    return alike[alike.T].mean() - alike[~alike.T].mean()


WRONG = [
    (check.at_step, background_as_segment, "background counts as a segment"),
    (check.at_step, around_the_border, "around the border"),
    (check.at_step, transposed, "Query and key"),
    (check.at_step, mean_of_rows, "single pairs differ"),
    (check.at_step, maxima, "All of them together give"),
    (check.at_step, sums, "not the sum"),
    (check.at_step, all_displacements, "Other pairs"),
    (check.attracted, attracted_by_loop, "less", '"zero"'),
    (check.attracted, background_as_object, "zero", "The background is −1"),
    (check.attracted, by_query, "zero", "the column"),
    (check.attracted, itself_too, "zero", "diagonal"),
    (check.attracted, not_divided, "zero", "Each row is a query"),
    (check.attracted, repelled, "zero", "between 0.5 and 0.5"),
    (check.judged, judged_by_loop, "aabb", CUTS[1], "4 letters"),
    (check.judged, roles_exchanged, *CUTS, "Your neighbour attends"),
    (check.judged, in_shares, *CUTS, "even attention"),
    (check.judged, with_itself, *CUTS, "A field attends to itself"),
    (check.judged, the_rest_forgotten, *CUTS, "mean of the rest"),
    (check.judged, means_of_means, *CUTS, "means of means"),
    (check.judged, alone_to_all, *CUTS, "They give 1"),
    (check.judged, between_persons, *CUTS, "label"),
    (check.reading, 3, 1, 0.2, OWN, NULL, "from 0"),
    (check.reading, 0, 0.5, 0.3, OWN, NULL, "another layer"),
    (check.reading, 1, 0.7, 0.1, OWN, NULL, "on the left"),
    (check.reading, 1, 0.9, 0.5, OWN, NULL, "one line"),
]

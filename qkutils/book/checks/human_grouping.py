"""Checks of chapter 7, grouping as people do it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from qkutils.book.checks import Rule, array, checked, near, predicted

SEGMENTS = np.array(  # of patches, -1 where there is none
    [[0, 0, 1, 1, -1], [0, 0, -1, 1, 1], [-1, 2, 2, 2, -1], [3, 3, -1, -1, 2]]
)
STEPS = [(0, 1), (1, 0), (1, 1)]
FOURS, EIGHTS = np.arange(16) // 4, np.arange(16) // 8  # segments of 16 fields
UNEQUAL = np.minimum(FOURS, 1)  # four and twelve
READ = 0.06  # of the axis, by which what is read off a view may differ


@checked
def at_step(at_step: Any) -> Iterator[Rule]:
    """Same minus different at one displacement, of patches in segments alone."""
    size = SEGMENTS.size

    def weighed(*step: int) -> np.ndarray:
        single = np.eye(size**2).reshape(-1, size, size)  # attention 1 of one patch to one other
        each = [at_step(attention, SEGMENTS.copy(), *step) for attention in single]
        found = array(each, size**2, name="The contrast of single pairs")
        return found.round(9).reshape(size, size)

    even = [at_step(np.ones((size, size)), SEGMENTS.copy(), *step) for step in STEPS]
    found = array(even, len(STEPS), name="The contrast at three displacements")
    told = f"It gives {np.round(found, 3).tolist()} at three displacements."
    hint = "Compare the mean over pairs, not the sum: there are not as many pairs of both kinds."
    yield Rule(abs(found).max() < 1e-9, "Even attention gives 0.", told, hint)
    weights, kind = (np.stack([of(*step) for step in STEPS]) for of in (weighed, _kind))
    told, hint = _which_pairs(weights, kind)
    rule = "More attention in one segment adds, between two it takes away, elsewhere it is nothing."
    yield Rule(bool((np.sign(weights) == kind).all()), rule, told, hint)
    yield from _alike(weights, kind)


def _alike(weights: np.ndarray, kind: np.ndarray) -> Iterator[Rule]:
    """All pairs of a kind count alike, as in a mean, at each displacement."""
    for name, sign in (("one segment", 1), ("two segments", -1)):
        parts = [weights[step][kind[step] == sign] for step in range(len(STEPS))]
        total = np.array([part.sum() for part in parts])
        spread = max(float(np.ptp(part)) for part in parts)
        told = f"All of them together give {np.round(total, 3).tolist()}."
        if near(total, np.full(len(STEPS), sign)):
            told = f"Together they give {sign}, but single pairs differ by up to {spread:.2g}."
        fits = near(total, np.full(len(STEPS), sign)) and spread < 1e-6
        hint = "Sum over all pairs of a kind, and divide once, by their number."
        yield Rule(fits, f"The pairs in {name} count alike, and give {sign} together.", told, hint)


def _kind(down: int, right: int) -> np.ndarray:
    """1 for pairs in one segment, −1 in two, 0 for pairs that are not asked for, [query, key]."""
    place, labels = np.indices(SEGMENTS.shape).reshape(2, -1), SEGMENTS.ravel()
    apart = place[:, None] - place[..., None]
    asked = (apart[0] == down) & (apart[1] == right) & (labels >= 0) & (labels[:, None] >= 0)
    return asked * np.where(labels[:, None] == labels, 1, -1)


def _which_pairs(weights: np.ndarray, kind: np.ndarray) -> tuple[str, str]:
    """The first pair that counts in a wrong way, and what it may come from."""
    labels, wrong = SEGMENTS.ravel(), np.sign(weights) != kind
    if not wrong.any():
        return "", ""
    step, query, key = np.argwhere(wrong)[0]
    down, right = STEPS[step]
    told = f"At ({down}, {right}), attention 1 of patch {query} to patch {key} alone gives "
    told += f"{weights[step, query, key]:+.2g}. Their segments are {labels[query]}, {labels[key]}."
    beside = wrong & (labels >= 0) & (labels[:, None] >= 0)
    across = np.indices(SEGMENTS.shape).reshape(2, -1)[1]
    around = (across[:, None] > across) & (weights != 0)
    if not beside.any():
        return told, "The background counts as a segment; leave out every pair with −1."
    if (np.sign(weights).swapaxes(1, 2) == kind).all():
        return told, "Query and key are exchanged: in `attention[i, j]`, i asks."
    if around.any() and ((weights != 0).sum((1, 2)) <= labels.size).all():
        return told, "Pairs go around the border; skip a key that lies outside of the grid."
    return told, "Other pairs are compared. Patch n: row n // columns, column n % columns."


@checked
def attracted(attracted: Any, prediction: Any) -> Iterator[Rule]:
    """Attention that objects attract, twice as much as the background does."""
    yield predicted(prediction, "above zero", "zero", "below zero")
    labels = SEGMENTS.ravel()
    size = len(labels)
    made = array(attracted(labels.copy()), size, size, name="The attention")
    told = f"A patch gives itself {abs(np.diag(made)).max():.3g}."
    yield Rule(not np.diag(made).any(), "No patch attends to itself.", told, "Clear the diagonal.")
    means = made.sum(1) / (size - 1)
    told = f"A mean is {means[abs(means - 1).argmax()]:.3g}."
    hint = "Each row is a query: divide it by its mean over the *other* patches."
    yield Rule(near(means, np.ones(size)), "A query's mean over others is 1.", told, hint)
    others = np.where(np.eye(size, dtype=bool), np.nan, made)
    kinds = (labels >= 0, labels < 0, labels == 0)
    mean = [np.nanmean(others[:, kind], 1) for kind in kinds]
    times = mean[0] / mean[1]
    told = f"They get between {times.min():.3g} and {times.max():.3g} times as much."
    hint = "The key attracts, the column, whoever asks. −1 is the background, and no object."
    if not near(mean[0], mean[2]):
        told += " Object 0 gets another share than the other objects."
        hint = "The background is −1. Segment 0 is an object, like any other."
    yield Rule(near(times, np.full(size, 2)), "Objects get twice what background gets.", told, hint)


@checked
def judged(judged: Any, mine: Any, yours: Any) -> Iterator[Rule]:
    """Even attention over one person's segments, judged by another's."""
    for name, cut in (("mine", mine), ("yours", yours)):
        letters = cut.replace(" ", "")
        told = f"It has {len(letters)} letters, {len(set(letters))} of them different."
        fits = len(letters) == 16 and len(set(letters)) > 1
        yield Rule(fits, f"`{name}` cuts 16 fields.", told, "Write four letters for each row.")

    def asked(*cuts: np.ndarray) -> float:
        return float(array(judged(*map(np.copy, cuts)), name="The score"))

    found = [asked(FOURS, FOURS), asked(FOURS, (FOURS + 1) % 4)]
    told = f"With exchanged letters the score is {found[1]:.3g} instead of {found[0]:.3g}."
    hint = "Compare letters of one cut only, never one label with another's."
    yield Rule(near(*found), "Which letters your neighbour takes does not matter.", told, hint)
    found = [asked(FOURS, FOURS)]
    told, hint = (
        f"It is {found[0]:.3g}.",
        "15 units of each field go to its 3 mates, none elsewhere.",
    )
    if near(found, [1 / 3]):
        told = f"{told} These are shares, not units of even attention."
    if near(found, [15 / 4]):
        told = f"{told} A field attends to itself."
    yield Rule(near(found, [5]), "Two equal cuts in four fours score 15/3.", told, hint)
    found = [asked(FOURS, EIGHTS), asked(EIGHTS, FOURS)]
    told, hint = f"They are {found[0]:.3g} and {found[1]:.3g}.", "Subtract the mean of the rest."
    if near(found, [10 / 7, 15 / 7]):
        hint = "Your neighbour attends, and you judge: `mine` makes the attention."
    rule = "Fours judged by eights score 15/7, eights by fours 15/7 − 5/7."
    yield Rule(near(found, [15 / 7, 10 / 7]), rule, told, hint)
    found = [asked(UNEQUAL, UNEQUAL)]
    told = f"It is {found[0]:.3g}."
    hint = "All pairs that your neighbour puts together have one mean: don't take means of means."
    rule = "One segment of 4 fields and one of 12, judged by themselves, score 240/144."
    yield Rule(near(found, [240 / 144]), rule, told, hint)
    found = [asked(np.arange(16), FOURS)]
    told, hint = f"They give {found[0]:.3g}.", "Divide by `np.maximum(mates, 1)`."
    yield Rule(found == [0], "Fields that are alone attend to nothing.", told, hint)


@checked
def reading(layer: Any, left: Any, right: Any, own: Any, null: Any) -> Iterator[Rule]:
    """The head that stands highest in the null, as read in the view."""
    own, null = np.asarray(own, dtype=float), np.asarray(null, dtype=float)
    slack = READ * (max(own.max(), null.max()) - min(own.min(), null.min()))
    told, hint = f"You wrote {layer!r}.", "The slider counts layers from 0."
    yield Rule(float(layer) in range(len(own)), f"It is one of {len(own)} layers.", told, hint)
    best = null[int(layer)].max()
    told = f"The highest there is {best:.2f}; another layer has one of {null.max():.2f}."
    hint = "Look at the right side alone, and step through all layers."
    yield Rule(best >= null.max() - slack, "A head there ends highest in the null.", told, hint)
    read = array([left, right], 2, name="What you read")
    ends = np.stack([own, null], 1)[int(layer)][:, null[int(layer)] >= best - slack]
    told, hint = f"You wrote {left:g} and {right:g}.", "Follow one line from end to end."
    if (abs(ends - read[::-1, None]).max(0) <= slack).any():
        hint = "The true picture is on the left, the null on the right."
    fits = bool((abs(ends - read[:, None]).max(0) <= slack).any())
    yield Rule(fits, "The ends of its line are read.", told, hint)

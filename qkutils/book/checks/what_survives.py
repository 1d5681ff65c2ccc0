"""Checks of chapter 11, the verdicts of the ledger."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from qkutils.book import stored_views
from qkutils.book.checks import Rule, array, checked, near

VIEWED = "deit_tiny_patch16_224.fb_in1k"
READ = 0.006  # of attention: what a reader of the view may be off
DRAWS = 40_000
ENDS = "The smallest p value is compared with rate / count, and the largest with rate."
OTHER_RULE = "These are the bounds of Exercise 5.3, which promise less."
# At a rate of 0.1: the first twenty pass whatever the rule; those in the middle divide the
# right rule from some that are nearly right.
MIDDLE = [0.0015, 0.002, 0.0026, 0.00275, 0.0028]
MANY = np.concatenate([np.linspace(1e-6, 1e-4, 20), MIDDLE, np.linspace(0.02, 1, 35)])
RANKED = (  # at a rate of 0.1
    np.array([0.09, 0.032, 0.9, 0.01, 0.03]),  # the second fails, the third would pass
    np.array([0.022, 0.6, 0.001, 0.045, 0.03]),  # all but the largest pass
    np.array([0.03, 0.001, 0.02]),  # all pass
    np.full(3, 0.5),
)
# Each verdict: (low, high, direction) with a margin of 0.1, and what is easily overlooked.
CASES = {
    "none larger": (
        [(-0.05, 0.02, 1), (0.02, 0.08, 1), (0.02, 0.08, -1), (-0.09, -0.01, -1)],
        "Ask for the margin first: an interval may exclude zero and still lie inside the margin.",
    ),
    "holds": (
        [(0.2, 0.4, 1), (0.05, 0.3, 1), (0.02, 0.18, 1), (0.4, 0.45, 1), (-0.4, -0.2, -1)],
        "The whole interval lies on one side of zero. Is it the side that the claim names?",
    ),
    "contradicted": (
        [(-0.4, -0.2, 1), (-0.3, -0.05, 1), (0.2, 0.4, -1), (0.05, 0.3, -1)],
        "A claim with the direction −1 says that the number lies below zero.",
    ),
    "cannot be told": (
        [(-0.3, 0.2, 1), (-0.05, 0.4, 1), (-0.4, 0.05, -1), (-0.3, 0.05, 1)],
        "Look at both ends. An interval with zero in it, and an end past the margin, is wide.",
    ),
}


@checked
def judge(judge: Any) -> Iterator[Rule]:
    """Every row of the table of verdicts, in both directions and with two margins."""
    for verdict, (cases, hint) in CASES.items():
        for factor in (1, 0.4):
            for low, high, direction in cases:
                ends = round(factor * low, 3), round(factor * high, 3)
                found = judge(*ends, direction, 0.1 * factor)
                told = f"[{ends[0]}, {ends[1]}] with the margin {0.1 * factor:g} and the direction"
                told += f" {direction} gives {found!r}."
                why = _misjudged(verdict, found) or hint
                if found != verdict:
                    yield Rule(False, f"The verdict is {verdict!r}.", told, why)
        yield Rule(True, f"Where the table says {verdict!r}, so do you.", "", hint)


def _misjudged(verdict: str, found: Any) -> str:
    """What a wrong verdict says of a rule, whatever the interval; or nothing."""
    if str(found) not in CASES:
        return f"That is not one of the four answers: {', '.join(CASES)}."
    if found == "none larger":
        return "The margin has two sides: both ends lie inside."
    if found == "cannot be told" and verdict in ("holds", "contradicted"):
        return "To lie outside zero is enough: an end may lie inside the margin."
    return ""


@checked
def outside(outside: Any, prediction: Any) -> Iterator[Rule]:
    """The share of 95 % intervals that exclude zero: by luck, and by power."""
    number = str(prediction).strip(" %").removesuffix(".0")
    known = number.isdecimal() and int(number) <= 100
    told = f"`prediction` is {prediction}."
    hint = "How many of a hundred claims about nothing? Write a whole number from 0 to 100."
    yield Rule(known, "A prediction is made.", told, hint)
    found = {
        at: float(array(outside(*at, DRAWS, np.random.default_rng(4)), name="The share"))
        for at in ((0.0, 1.0), (3.0, 1.0), (-3.0, 1.0), (1.0, 0.5), (0.0, 0.2))
    }
    null = found[0.0, 1.0]
    told = f"With no effect and an error of 1, it is {null:g}."
    hint = "Divide by the number of draws."
    yield Rule(0 <= null <= 1, "A share lies between 0 and 1.", told, hint)
    told = f"With no effect and an error of 1, it is {null:.3f}."
    hints = {
        0.95: "Count the intervals that do not hold zero.",
        0.025: "An interval can lie above zero or below it: both count.",
        0.317: "A 95 % interval reaches 1.96 standard errors to each side, not one.",
        0.0: "Draw as many estimates as `draws` says, from a normal distribution: a uniform one "
        "has no tails. Each estimate has its own interval.",
    }
    hint = hints[min(hints, key=lambda share: abs(share - null))]
    yield Rule(abs(null - 0.05) < 0.01, "By luck, one in twenty excludes zero.", told, hint)
    up, down = found[3.0, 1.0], found[-3.0, 1.0]
    told = f"An effect of 3 is seen in {up:.2f}, an effect of −3 in {down:.2f}."
    hint = "An effect moves the estimates: draw them around it. Each has its own interval."
    yield Rule(up > 0.8 and abs(up - down) < 0.02, "Both signs are seen alike.", told, hint)
    told = f"An effect of two errors is seen in {found[1.0, 0.5]:.2f} of the draws."
    told += f" With no effect and a smaller error, it is {found[0.0, 0.2]:.3f}."
    hint = "Errors scale both: how far estimates scatter, and how far an interval reaches."
    power = abs(found[1.0, 0.5] - 0.516) < 0.02 and abs(found[0.0, 0.2] - 0.05) < 0.01
    yield Rule(power, "What counts is the effect in units of its error.", told, hint)


@checked
def least_and_most(least: Any, most: Any) -> Iterator[Rule]:
    """Two heads of the view and what they lose without key salience, as read there."""
    moved, framed = _without_salience()
    for name, answer in {"least": least, "most": most}.items():
        layer, head, read = array(answer, 3, name=f"`{name}`")
        place = (int(layer), int(head))
        told = f"You wrote layer {layer:g}, head {head:g}."
        hint = f"It has the layers {sorted({at[0] for at in moved})}, and three heads of each."
        yield Rule(place in moved, f"The view has the head of `{name}`.", told, hint)
        told, hint = f"You wrote {read:g}.", "Add up all 64 modes, and switch key salience off."
        if read > 1:
            hint = f"Write it as a share, {read / 100:g}."
        elif abs(read - moved.get(place[::-1], 9)) <= READ:
            hint = "That is the number of another head. Write the layer first, then the head."
        elif abs(read - framed[place]) <= READ:
            told, hint = "It is that of the framed patch.", "Read the mean over all patches."
        elif abs(read) <= READ:
            told, hint = f"You wrote {read:g}: nothing is missing.", "Switch key salience off."
        held = abs(read - moved[place]) <= READ
        yield Rule(held, f"The number of `{name}` is what the view says.", told, hint)
        sign = 1 if name == "least" else -1
        beaten = sum(sign * other < sign * moved[place] for other in moved.values())
        more = {"least": "less", "most": "more"}[name]
        told = f"Heads that lose {more} than this one: {beaten} of {len(moved)}."
        hint = "Go through all layers and all heads; the switches stay as they are."
        yield Rule(beaten == 0, f"No head of the view loses {more}.", told, hint)


@functools.cache
def _without_salience() -> tuple[dict, dict]:
    """Attention elsewhere with all modes and no key salience: as a mean, and framed."""
    found = stored_views.one_image(VIEWED).found
    moved, framed = {}, {}
    for layer in found.layer.values.tolist():
        for head in found["head"].values.tolist():
            one = found.sel(layer=layer, head=head).astype(float)
            bare = found.scale * (one["query"] * one.sigma).values @ one["key"].values.T
            maps = [np.exp(each) for each in (bare, bare + one.salience.values)]
            maps = [each / each.sum(1, keepdims=True) for each in maps]
            far = abs(maps[0] - maps[1]).sum(1) / 2
            moved[layer, head] = float(far[1:].mean())
            framed[layer, head] = float(far[1 + found.patch])
    return moved, framed


@checked
def survivors(survivors: Any) -> Iterator[Rule]:
    """What is left if the chance of even one false finding is bounded (Holm, 1979)."""
    rate = 0.1
    for p in (np.random.default_rng(5).permutation(MANY), *RANKED):
        name = f"The answer for {len(p)} values of p"
        found = array(survivors(p.copy(), rate), len(p), name=name)
        wanted = _holm(p, rate)
        told = f"Of {len(p)} findings, yours keeps {found.sum():g}, and the rule {wanted.sum()}."
        rule = f"Of {len(p)} findings, those survive that pass before the first one fails."
        yield Rule(near(found, wanted), rule, told, _kept_wrongly(found, wanted, p, rate))


def _holm(p: np.ndarray, rate: float) -> np.ndarray:
    """A value survives if it, and each smaller one, is within rate / how many are not smaller."""
    within = p <= rate / (p[None] >= p[:, None]).sum(1)
    return np.array([within[p <= value].all() for value in p])


def _kept_wrongly(found: np.ndarray, wanted: np.ndarray, p: np.ndarray, rate: float) -> str:
    """A hint for findings that are not the wanted ones."""
    places = np.arange(1, len(p) + 1)
    left = places[::-1]  # how many are not smaller
    bounds, other_rule = rate / left, rate * places / len(p)
    slips = (
        (_until_a_failure(p, 0.05 / left), f"The rate is given: here it is {rate:g}, not 0.05."),
        (_until_a_failure(p, rate / (left + 1)), ENDS),
        (_until_a_failure(p, rate / np.maximum(left - 1, 1)), ENDS),
        (p <= rate, "A bound on each test alone is too wide: it depends on how many there are."),
        (p <= rate / len(p), "This bound is that of the smallest p value; the next one is wider."),
        (
            _until_the_last(p, bounds),
            "Stop at the first that fails, also where a larger one passes.",
        ),
        (_until_the_last(p, other_rule), OTHER_RULE),
        (_until_a_failure(p, other_rule), OTHER_RULE),
    )
    for kept, hint in slips:
        if near(found, kept):
            return hint
    if wanted.all() or not wanted.any():
        return "No p value fails here: all survive." if wanted.all() else "Here nothing survives."
    if found.sum() == wanted.sum():
        return "The number is right. Give the answers in the order of p, not of the sorted values."
    return "Compare number n, from 1, with rate / (count − n + 1). The first that fails falls, too."


def _until_a_failure(p: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The values that lie, in their order of size, before the first one beyond its bound."""
    ordered = np.sort(p)
    return p <= ordered[np.logical_and.accumulate(ordered <= bounds)].max(initial=-1)


def _until_the_last(p: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The values up to the last one, in their order of size, that is within its bound."""
    ordered = np.sort(p)
    return p <= ordered[ordered <= bounds].max(initial=-1)

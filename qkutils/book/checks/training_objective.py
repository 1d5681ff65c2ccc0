"""Checks of chapter 4, contrasts over training runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from qkutils.book.checks import NotYet, Rule, array, checked, near

WORLDS, RUNS, HEADS = 300, 5, 4
READ = 0.02  # how well a number is read off a view


@checked
def paired(paired: Any) -> Iterator[Rule]:
    """The mean difference within seeds, with Student's 95 % interval."""
    random = np.random.default_rng(0)
    start = dict(enumerate(random.normal(0, 3, 6)))
    one = {seed: value + random.normal(1, 0.5) for seed, value in start.items()}
    other = {seed: start[seed] for seed in (4, 1, 0, 2, 3)}
    found = array(paired(one, other), 3, name="What you give")
    ordered = bool(found[1] < found[0] < found[2])
    told = f"You give {np.round(found, 2).tolist()}."
    hint = "Give three numbers: the mean difference, the lower end, the upper end."
    yield Rule(ordered, "The mean difference lies inside its interval.", told, hint)
    both = np.array([[one[seed], other[seed]] for seed in sorted(other)]).T
    exact = stats.ttest_rel(*both)
    low, high = exact.confidence_interval(0.95)
    mean = float(np.subtract(*both).mean())
    told = f"It is {found[0]:.3f}."
    hint = "Take the seeds that both have, and subtract the second from the first."
    if near(found[0], -mean):
        hint = "You subtract the first from the second."
    yield Rule(near(found[0], mean), "The mean difference is over common seeds.", told, hint)
    half, wanted = (found[2] - found[1]) / 2, (high - low) / 2
    yield _as_wide(half, wanted, both)
    even = near(found[2] - found[0], found[0] - found[1])
    told = f"It reaches {found[0] - found[1]:.3f} down and {found[2] - found[0]:.3f} up."
    hint = "The interval is the mean, plus and minus one number."
    yield Rule(even, "It reaches equally far to both sides.", told, hint)


def _as_wide(half: float, wanted: float, both: np.ndarray) -> Rule:
    """The interval is as wide as Student's over differences; if not, what it is instead."""
    runs, t = both.shape[1], stats.t.ppf(0.975, both.shape[1] - 1)
    unpaired = stats.ttest_ind(*both).confidence_interval(0.95)
    crossed = np.subtract(both[0], np.array([both[1][n] for n in (4, 1, 0, 2, 3)]))
    others = {
        wanted * runs**0.5: "Divide the standard deviation by the root of the number of runs.",
        wanted * 1.96 / t: "1.96 is for many runs. For a few, take `stats.t.ppf(0.975, runs - 1)`.",
        wanted * ((runs - 1) / runs) ** 0.5: "Divide by one less than the number: `ddof=1`.",
        wanted * stats.t.ppf(0.95, runs - 1) / t: "2.5 % lie beyond each end: 0.975, not 0.95.",
        (unpaired.high - unpaired.low) / 2: "Subtract within each seed first.",
        t * stats.sem(crossed): "Subtract runs of the same seed: look them up, don't zip them.",
    }
    close = [hint for width, hint in others.items() if near(half, width, 1e-3)]
    told, hint = f"Yours is {half / wanted:.2f} times as wide.", "One difference for each seed."
    rule = "The interval is Student's, over differences."
    return Rule(near(half, wanted), rule, told, close[0] if close else hint)


@checked
def effect(effect: Any, prediction: Any) -> Iterator[Rule]:
    """Where there is no effect, one is found in 5 of 100 worlds; a large one is found."""
    told, hint = f"You predicted {prediction!r}.", "Write a number from 0 to 100."
    yield Rule(0 <= float(prediction) <= 100, "A prediction is made.", told, hint)
    random = np.random.default_rng(0)
    worlds = random.normal(size=(WORLDS, RUNS, 1))
    worlds = worlds + 0.3 * random.normal(size=(WORLDS, RUNS, HEADS))
    false = 100 * np.mean([_told(effect, world) for world in worlds])
    told = f"In worlds without an effect, your rule finds one in {false:.0f} of 100."
    hint = "Heads of one run go up and down together. First the mean of each run, then an interval."
    yield Rule(false <= 8, "Without an effect, one is seldom found.", told, hint)
    seen = 100 * np.mean([_told(effect, world + 5) for world in worlds[:50]])
    told = f"It is found in {seen:.0f} of 100 worlds."
    hint = "There is an effect where the interval over runs does not hold 0."
    yield Rule(seen >= 90, "A large effect is found.", told, hint)
    told = f"Without an effect, your rule finds one in {false:.0f} of 100 worlds: 5 are due."
    hint = "Is it the interval of 95 %, from Student's t with one less than the number of runs?"
    yield Rule(false >= 2, "The interval is no wider than it has to be.", told, hint)
    seen = 100 * np.mean([_told(effect, world - 5) for world in worlds[:50]])
    told = f"It is found in {seen:.0f} of 100 worlds."
    yield Rule(seen >= 90, "So is a large effect downwards.", told, "Both signs are effects.")


def _told(effect: Any, world: np.ndarray) -> bool:
    answer = effect(world)
    if np.size(answer) != 1:
        raise NotYet(f"`{effect.__name__}` gives {np.size(answer)} answers; it should give one.")
    return bool(answer)


@checked
def closest(layer: Any, gap: Any, one: Any, other: Any) -> Iterator[Rule]:
    """The layer in which two curves come closest, and how far they stay apart."""
    curves = (each.weighted_cosine.mean("head") for each in (one, other))
    apart = np.subtract(*(each.sel(convention=["paper", "exact"]).values for each in curves))
    paper, exact = apart
    told, hint = f"You wrote {layer}.", f"Layers go from 0 to {len(exact) - 1}."
    yield Rule(float(layer) in range(len(exact)), "It is a layer of these models.", told, hint)
    at, least = int(layer), abs(exact).min()
    told = f"There they are {abs(exact[at]):.2f} apart, elsewhere only {least:.2f}."
    hint = "Compare the lines of means, and not the dots of heads."
    if abs(paper[at]) == abs(paper).min():
        hint = "In the convention paper it would be this layer. Switch to exact."
    yield Rule(abs(exact[at]) <= least + READ, "No other layer is clearly closer.", told, hint)
    read, told = float(gap), f"You wrote {float(gap):+.2f}."
    hint = "Read both means at this layer: choose one model after the other."
    if abs(read + exact[at]) <= READ:
        hint = "The sign is turned: it is the first minus the second."
    elif abs(read - paper[at]) <= READ:
        hint = "This is the distance in the convention paper. Switch to exact."
    yield Rule(abs(read - exact[at]) <= 2 * READ, "The distance is read.", told, hint)


@checked
def peak(peak: Any) -> Iterator[Rule]:
    """A number for a bump in the middle, that neither a level nor a slope can move."""
    depth = np.arange(12.0)
    middle = ((depth >= 4) & (depth < 8)).astype(float)
    cases = {
        "A flat curve has no peak.": (np.ones(12), 0.0, "Subtract what lies outside the middle."),
        "A straight line has no peak.": (depth, 0.0, "Subtract early and late layers alike."),
        "A bump of 1 in the middle third gives 1.": (middle, 1.0, "Subtract means, and not sums."),
        "A dip of 1 gives −1.": (-middle, -1.0, "A dip has the other sign: take no maximum."),
        "A last third that is 1 lower gives 0.5.": (
            (depth < 8) * 1.0,
            0.5,
            "Count both ends alike.",
        ),
    }
    for rule, (values, wanted, hint) in cases.items():
        found = float(array(peak(_curve(values)), name="The number"))
        yield Rule(near(found + 2, wanted + 2), rule, f"It gives {found:.3g}.", hint)


def _curve(values: np.ndarray) -> xr.DataArray:
    """A curve whose heads lie around these means."""
    heads = values[:, None] + np.array([-0.2, 0.1, 0.1])
    return xr.DataArray(heads, dims=("layer", "head"))

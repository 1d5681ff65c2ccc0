"""Checks of chapter 5, the odd one out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import stats

from qkutils.book.checks import Rule, array, checked, near, predicted

PREFIX, ROWS, COLUMNS, ASKS = 2, 3, 5, 7
READ = 1.5  # percent points by which what is read off a view may differ


@checked
def shares_of(shares_of: Any) -> Iterator[Rule]:
    """Shares on regions sum to 1, without prefix tokens and without the patch that asks."""
    random = torch.Generator().manual_seed(0)
    patches = ROWS * COLUMNS
    attention = torch.randn(*[PREFIX + patches] * 2, generator=random).double().softmax(-1)
    regions = torch.randn(3, patches, generator=random).double().softmax(0)
    given = attention.clone()
    found = array(shares_of(given, regions, ASKS, PREFIX), 3, name="What you return")
    kept = bool((given == attention).all())
    hint = "A slice shows the numbers of the whole: take a `clone` of it before you write."
    told = "Your function changed it."
    yield Rule(kept, "The attention that you are given stays as it is.", told, hint)
    told = f"They sum to {found.sum():.3g}."
    hint = "Divide by what is left: neither prefix tokens nor the asking patch are in that sum."
    yield Rule(near(found.sum(), 1), "The three shares sum to 1.", told, hint)
    told, hint = _whose_share(found, attention.numpy(), regions.numpy())
    others = [{patch: 0.5} for patch in range(patches) if patch != ASKS]
    cases = {
        "If one other patch gets attention, the shares are its areas.": others,
        "If two others get attention, each counts by what it gets.": [{2: 0.4, 12: 0.1}],
    }
    for rule, gifts in cases.items():
        same = True
        for gift in gifts:
            shares = array(shares_of(_giving(attention, gift), regions, ASKS, PREFIX), 3)
            areas = sum(regions[:, patch] * part / 0.5 for patch, part in gift.items())
            same &= near(shares, areas)
        yield Rule(same, rule, told, hint)


def _giving(attention: torch.Tensor, gift: dict[int, float]) -> torch.Tensor:
    """The asking patch gives half to others, the rest to itself and to the prefix tokens."""
    made = attention.clone()
    row = made[PREFIX + ASKS]
    row[:] = 0
    row[:PREFIX], row[PREFIX + ASKS] = 0.2 / PREFIX, 0.3
    for patch, part in gift.items():
        row[PREFIX + patch] = part
    return made


def _shares(
    attention: np.ndarray, regions: np.ndarray, row: int, first: int, own: int | None
) -> np.ndarray:
    """Shares from a row, if patches start at a key and one is left out: to name faults."""
    there = [patch for patch in range(regions.shape[1]) if patch != own]
    on = [attention[row, first + patch] for patch in there]
    return np.array([np.dot(on, region[there]) / sum(on) for region in regions])


def _whose_share(found: np.ndarray, attention: np.ndarray, regions: np.ndarray) -> tuple[str, str]:
    """What the shares are, if not those that are asked for."""
    row = PREFIX + ASKS
    column = _shares(attention.T, regions, row, PREFIX, ASKS)
    if near(found, column):
        return "A column of the attention is used.", "Rows ask: `attention[query, key]`."
    faults = {
        (row, PREFIX, ASKS + PREFIX): (
            "Another patch is left out, and the asking patch still counts.",
            "You cut the prefix off, so the asking patch is number `asks`.",
        ),
        (row, PREFIX, None): ("The asking patch still counts.", "Set its own key to 0 first."),
        (ASKS, PREFIX, ASKS): ("Another token asks.", "Patch 0 is token `prefix`, not token 0."),
        (row, PREFIX, ASKS - PREFIX): (
            "Another patch is left out, and the asking patch still counts.",
            "Take the patches out of the row first; then patch 0 is number 0.",
        ),
        (row, 0, ASKS): (
            "Prefix tokens are counted as patches.",
            "The first patch is the key number `prefix`.",
        ),
    }
    for given, told in faults.items():
        if near(found, _shares(attention, regions, *given)):
            return told
    return "You get other numbers.", "A region's share is the sum over patches of map × area."


@checked
def nearby(nearby: Any, prediction: Any) -> Iterator[Rule]:
    """A map that falls with distance, and a prediction of its excess."""
    yield predicted(prediction, "above zero", "zero", "below zero")
    reach = 1.5
    made = array(nearby(ROWS, COLUMNS, ASKS, reach), ROWS, COLUMNS, name="The map")
    own = made[divmod(ASKS, COLUMNS)]
    told = f"It gets {own:.3g}; {int((made == 0).sum())} patches get 0."
    hint = "Patches are counted row by row: `divmod(asks, columns)` gives its row and column."
    if made.all():
        hint = "Set its number to 0 before you divide."
    yield Rule(own == 0, f"Patch {ASKS}, which asks, gets nothing.", told, hint)
    told = f"It sums to {made.sum():.3g}."
    hint = "Divide by the sum, after you took the asking patch out."
    yield Rule(near(made.sum(), 1), "The map sums to 1.", told, hint)
    down, right = np.indices(made.shape) - np.reshape(divmod(ASKS, COLUMNS), (2, 1, 1))
    other = made > 0
    fall = np.log(made[other]), -(down**2 + right**2)[other] / (2 * reach**2)
    times, _, fit, *_ = stats.linregress(fall[1], fall[0])
    told = f"Its logarithm falls {times:.3g} times as fast as −d²/(2 reach²)"
    told += f", with correlation {fit:.3g}."
    hint = "d² is the squared distance: rows apart, squared, plus columns apart, squared."
    if near(fit, 1):
        hint = "The shape is right. Look at the brackets around 2 reach²."
    rule = "Attention falls with the distance alone, as fast as the reach says."
    yield Rule(other.sum() == made.size - 1 and near([times, fit], [1, 1]), rule, told, hint)


@checked
def discoveries(discoveries: Any) -> Iterator[Rule]:
    """Which tests pass at a false discovery rate, as scipy decides it."""
    random = np.random.default_rng(0)
    real = stats.norm.sf(random.normal(2.5, 1, 20))
    some = np.append(real, random.uniform(size=40))
    uneven = np.array([0.9, 0.039, 0.001, 0.033, 0.015])
    cases = {
        "Of 30 tests of chance, those pass that have to.": (random.uniform(size=30), 0.05),
        "Of 20 real effects among 60 tests, the right ones pass.": (some, 0.05),
        "A test passes, too, if a later one meets its bound.": (uneven, 0.05),
        "With another rate, other tests pass.": (some, 0.25),
        "A test that equals its bound passes.": (np.array([0.1875, 0.05, 0.9, 0.1]), 0.25),
    }
    for rule, (of, rate) in cases.items():
        given = random.permutation(of)
        exact = stats.false_discovery_control(given) <= rate
        found = array(discoveries(given.copy(), rate), len(given), name="What you return") != 0
        yield Rule((found == exact).all(), rule, *_which_pass(found, given, exact, rate))


def _which_pass(
    found: np.ndarray, given: np.ndarray, exact: np.ndarray, rate: float
) -> tuple[str, str]:
    """How many pass, and by which other rule."""
    met = np.sort(given) <= rate * np.arange(1, len(given) + 1) / len(given)
    told = f"{found.sum()} pass; {exact.sum()} should."
    if (found == (given <= rate)).all():
        return f"{told} Each test has the bound {rate}.", "So many tests need a stricter bound."
    if (found == (given <= rate / len(given))).all():
        hint = "This is Bonferroni's bound: stricter. The k-th smallest has k times as much."
        return f"{told} Each test has the bound {rate} / n.", hint
    if (found == (stats.false_discovery_control(given) <= 0.05)).all():
        return f"{told} The rate is {rate}.", "Use `rate` for the bounds, and not 0.05."
    if found.sum() == np.logical_and.accumulate(met).sum() < exact.sum():
        return told, "Don't stop at the first that fails: look for the *last* that meets its bound."
    if found.sum() == exact.sum():
        return "As many pass as should, but others.", "Say it in the order in which they came."
    hint = "Compare the k-th smallest with rate × k / n; k starts at 1, and equal is enough."
    return told, f"{hint} All pass up to the last that met."


@checked
def reading(head: Any, percent: Any, rows: Any, target: Any, prefix: Any) -> Iterator[Rule]:
    """A head above the mean over heads, and its share among patches, as read in the view."""
    rows, on = np.asarray(rows, dtype=float), np.asarray(target, dtype=float).ravel()
    in_all = 100 * rows[:, prefix:] @ on
    among = in_all / rows[:, prefix:].sum(1)
    mean = in_all.mean() / rows[:, prefix:].sum(1).mean()  # of all heads' attention
    number, read = float(str(head).strip("H ")), float(str(percent).strip("% "))
    there = number in range(len(rows))
    told, hint = f"You wrote {head!r}.", "The slider counts heads from 0."
    yield Rule(there, f"It is one of the {len(rows)} heads.", told, hint)
    told = f"You wrote {read:g}."
    hint = "Is it the last layer? Read the row of the target, in percent."
    own = among[int(number)]
    if abs(read - in_all[int(number)]) <= READ:
        told += " This is the share of all attention: the prefix token is counted."
        hint = "Read the line *among patches alone*."
    elif abs(read - mean) <= READ:
        told += " This is the mean over heads."
    elif abs(100 * read - own) <= READ:
        hint = "Write 40 for 40 %."
    rule = "It is the target's share among patches, as the view shows it."
    yield Rule(abs(read - own) <= READ, rule, told, hint)
    told = f"It gives {own:.0f} %, and the mean over heads is {mean:.0f} %."
    hint = "Step through the heads of the last layer, with the target's patch asking."
    yield Rule(own > mean - READ, "It gives more than the mean over heads.", told, hint)

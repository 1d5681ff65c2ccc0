"""Checks of chapter 9, names and causes of modes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import softmax

from qkutils.book.checks import Rule, array, checked, near, predicted

PATCHES, LABELS, KEYS, NAMES = 240, 40, 64, 200


@checked
def explained(explained: Any, prediction: Any) -> Iterator[Rule]:
    """Means of one half explain the other half: all, nothing, or as a least-squares fit does."""
    yield predicted(prediction, "above", "zero", "below")
    random = np.random.default_rng(0)
    fit = np.arange(PATCHES) < PATCHES // 2

    def share(y: np.ndarray, label: np.ndarray, fit: np.ndarray = fit) -> float:
        return float(array(explained(y, label, fit), name="The explained share"))

    label = random.permuted(np.arange(PATCHES).reshape(2, -1) % LABELS, axis=1).ravel()
    level = random.normal(size=LABELS)
    all_of_it = share(level[label], label)
    hint = "Without an error, the sum of squared errors that the labels leave is 0."
    rule = "Labels that tell everything explain all."
    yield Rule(near(all_of_it, 1), rule, f"They explain {all_of_it:.0%}.", hint)
    y = (level[label] + random.normal(size=PATCHES)).reshape(2, -1)
    y = (y - y.mean(1, keepdims=True)).ravel()
    found, moved = share(y, label), share(2 * y + 7, label)
    told = f"It goes from {found:.0%} to {moved:.0%}."
    hint = "Subtract the mean of y first, and divide by the sum of all y²."
    yield Rule(near(found, moved), "Neither the mean of y nor its unit matters.", told, hint)
    noise = random.normal(size=(30, PATCHES))
    nothing = float(np.mean([share(each, label) for each in noise]))
    told = f"They explain {nothing:+.0%} on average."
    hint = "Means come from patches in `fit`. Errors are counted on the other patches."
    yield Rule(nothing < 0, "Labels that mean nothing do not help on new patches.", told, hint)
    yield _as_least_squares(found, y, label, fit)


def _as_least_squares(found: float, y: np.ndarray, label: np.ndarray, fit: np.ndarray) -> Rule:
    """The share is what a least-squares fit of one half leaves of the other."""

    def by_fit(on: np.ndarray, tried: np.ndarray) -> float:
        hot = np.eye(LABELS)[label]
        level = np.linalg.lstsq(hot[on], y[on], rcond=None)[0]
        return float(1 - ((y - hot @ level)[tried] ** 2).sum() / (y[tried] ** 2).sum())

    wanted = by_fit(fit, ~fit)
    told, hint = f"It is {found:.3g}; the fit leaves {wanted:.3g}.", "Follow the formula."
    if near(found, by_fit(~fit, fit)):
        told, hint = "The halves are exchanged.", "Means come from `fit`."
    return Rule(near(found, wanted), "It agrees with a least-squares fit.", told, hint)


@checked
def discoveries(discoveries: Any) -> Iterator[Rule]:
    """Chance rarely passes, few random directions let nothing pass, and true names do pass."""
    random = np.random.default_rng(0)

    def passing(share: np.ndarray, null: np.ndarray) -> np.ndarray:
        found = array(discoveries(share, null, 0.05), NAMES, name="What passes")
        return found.astype(bool)

    null = random.normal(size=20_000)
    draws = sum(passing(random.normal(size=NAMES), null).any() for _ in range(40))
    told, hint = f"In {draws} of 40 trials, some pass.", f"{NAMES} tests need a correction."
    yield Rule(draws <= 8, "If all names are chance, names rarely pass.", told, hint)
    best = np.r_[np.full(5, 9.0), random.normal(size=NAMES - 5)]
    count = int(passing(best, null)[:5].sum())
    told = f"Of five such names, {count} pass."
    hint = "p is small where few random directions reach the share: count those at or above it."
    yield Rule(count == 5, "Names that beat all of 20000 random directions pass.", told, hint)
    count = int(passing(best, null[:99]).sum())
    told = f"{count} of {NAMES} pass."
    hint = "The name counts as one direction, too: p is (1 + reached) / (1 + directions)."
    yield Rule(count == 0, "With 99 random directions, five best names can't pass.", told, hint)
    good = np.r_[np.full(NAMES // 2, np.quantile(null, 0.99)), np.full(NAMES // 2, -9.0)]
    count = int(passing(good, null)[: NAMES // 2].sum())
    told = f"Of {NAMES // 2} names with p of 0.01, {count} pass."
    hint = "Of those that pass, 5 % may be false. Dividing 0.05 by all tests allows none."
    yield Rule(count == NAMES // 2, "Many good names help each other.", told, hint)


@checked
def loud_and_quiet(quiet: Any, loud: Any, attended: Any) -> Iterator[Rule]:
    """Two changes of equal variance move attention by nothing and by much; a measure tells."""
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=KEYS)
    logits[random.integers(KEYS)] += 9
    for change, name in ((quiet, "quiet"), (loud, "loud")):
        own = array(change(logits), KEYS, name=f"The change of `{name}`")
        told, hint = f"It is {own.var():.3g}.", "Divide the change by its standard deviation."
        yield Rule(near(own.var(), 1), f"The variance of `{name}` is 1.", told, hint)
        moved = abs(softmax(logits + own) - softmax(logits)).sum() / 2
        told = f"It moves {moved:.2f} of the attention."
        if name == "quiet":
            hint = "Which key has no attention to lose? Mind the sign: it must not win any."
            yield Rule(moved < 0.01, "`quiet` moves less than 0.01 of the attention.", told, hint)
        else:
            hint = "Take it from the key that has most, or give it to another one."
            yield Rule(moved > 0.5, "`loud` moves more than 0.5 of the attention.", told, hint)
    change = random.normal(size=KEYS)
    found, even = (
        float(array(attended(each, change), name="`attended`")) for each in (logits, 0 * logits)
    )
    told = f"It is {even:.3g} instead of {change.var():.3g}."
    hint = "Equal attention is 1 / 64 each. Weights sum to 1."
    yield Rule(near(even, change.var()), "Equal attention gives the plain variance.", told, hint)
    yield _as_divergence(found, logits, change)


def _as_divergence(found: float, logits: np.ndarray, change: np.ndarray) -> Rule:
    """The weighted variance is twice what a small change costs in relative entropy."""
    small, attention = 1e-3, softmax(logits)
    after = softmax(logits + small * change)
    wanted = 2 * float(attention @ np.log(attention / after)) / small**2
    told, hint = f"It is {found:.3g} instead of {wanted:.3g}.", "Weights are softmax(logits)."
    if near(found, change.var()):
        told, hint = "It is the plain variance.", "Weight each key by its attention."
    elif near(found, attention @ (change - change.mean()) ** 2):
        told, hint = "Its mean is the plain one.", "The mean is weighted by attention, too."
    rule = "It is what a small change costs in relative entropy, twice."
    return Rule(near(found, wanted, 0.01), rule, told, hint)


@checked
def by_eye(mode_at: Any, family: Any, names: Any, carried: Any) -> Iterator[Rule]:
    """A family that was read by eye explains at least half of what the best family does."""
    known = names.family_name.values.tolist()
    told, hint = f"You wrote {family!r}.", f"There are {', '.join(known)}."
    yield Rule(family in known, "It is one of the seven families.", told, hint)
    numbers = array(mode_at, 3, name="The place").astype(int).tolist()
    place = dict(zip(("layer", "head", "mode"), numbers, strict=True))
    share = float(carried.sel(place))
    told, hint = f"It carries {share:.1%}.", "Look at the carried share below the pictures."
    yield Rule(share >= 0.05, "The mode carries a twentieth.", told, hint)
    told, hint = _told_of(names.share_of.sel(place | {"side": "query"}), family)
    rule = "Your family explains half of what the best one does, or more."
    yield Rule(not told, rule, told, hint)


def _told_of(shares: xr.DataArray, family: str) -> tuple[str, str]:
    """What speaks against a family, if anything, and a hint."""
    own, best = float(shares.sel(family_name=family)), float(shares.max())
    leader = shares.family_name.values[int(shares.values.argmax())]
    if best < 0.05:
        return f"No family explains more than {best:.0%} of this query.", "Choose another mode."
    if own >= best / 2:
        return "", ""
    hint = "Show the query alone. What do red patches have in common in all pictures?"
    return f"Of this query's variance {family} explains {own:.0%}, {leader} {best:.0%}.", hint

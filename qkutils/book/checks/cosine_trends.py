"""Checks of chapter 3, the weighted cosine over depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from qkutils.book.checks import Rule, array, checked, near

LAYERS, HEADS, MODES, WIDTH, DRAWS = 5, 3, 16, 48, 4000
READ = 0.02  # how well a number is read off a view
AXES = {(HEADS,): "head", (MODES,): "mode", (LAYERS, HEADS): "head of each layer"}
AXES |= {(LAYERS, MODES): "mode of each layer", (): "model"}


@checked
def curve(curve: Any) -> Iterator[Rule]:
    """A layer's number: weighted over modes, then a plain mean over heads."""
    random = np.random.default_rng(0)
    cosine = random.uniform(-1, 1, (LAYERS, HEADS, MODES))
    sigma = random.uniform(1, 3, cosine.shape)
    shape = np.shape(curve(cosine, sigma))
    told = f"There is one for each {AXES[shape]}." if shape in AXES else f"Shape: {list(shape)}."
    hint = "The axes are [layer, head, mode]. Take means over the last one, then over heads."
    yield Rule(shape == (LAYERS,), "There is one number for each layer.", told, hint)

    def of(cosine: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        return array(curve(cosine, sigma), LAYERS, name="The curve")

    level = np.linspace(-0.5, 0.5, LAYERS)
    even = of(np.broadcast_to(level[:, None, None], cosine.shape), sigma)
    told = f"Where all are {level[0]:g}, it gives {even[0]:.3g}."
    hint = "Divide by the sum of the strengths over the same axis."
    yield Rule(near(even, level), "Where all cosines are equal, the curve has them.", told, hint)
    idle, turned = sigma.copy(), cosine.copy()
    idle[:, 0, 2], turned[:, 0, 2] = 0, -cosine[:, 0, 2]
    moved = abs(of(cosine, idle) - of(turned, idle)).max()
    told = f"Its cosine moves the curve by {moved:.2g}."
    hint = "Each cosine is weighted by the strength of its mode."
    yield Rule(moved < 1e-9, "A mode with strength 0 counts nothing.", told, hint)
    moved = abs(of(cosine, sigma) - of(cosine, sigma * [[10], [1], [1]])).max()
    told = f"A head with ten times the strengths moves it by {moved:.2g}."
    hint = "First a number for each head, over its modes alone; then the plain mean over heads."
    yield Rule(moved < 1e-9, "Every head counts alike.", told, hint)


@checked
def by_chance(by_chance: Any, prediction: Any) -> Iterator[Rule]:
    """Weighted cosines of random directions: mean zero, and a spread that follows the strengths."""
    known = str(prediction).strip().replace(".", "", 1).isdigit()
    told, hint = f"You predicted {prediction!r}.", "Write a plain number: 0.5 is half as wide."
    yield Rule(known, "A prediction is made.", told, hint)
    sigma = torch.ones(MODES, dtype=torch.float64)
    sigma[0] = MODES / 2
    found = array(by_chance(sigma, WIDTH, DRAWS), DRAWS, name="What is drawn")
    mean, spread = found.mean(), found.std()
    told = f"It is {mean:.2f}."
    hint = "`randn` gives negative numbers, `rand` does not. The second direction is a new draw."
    hint += " Keep the sign of the cosine."
    yield Rule(abs(mean) <= 5 * spread / DRAWS**0.5, "Their mean is zero.", told, hint)
    yield _as_wide(spread, sigma.numpy())
    most = abs(array(by_chance(sigma[:1], 2, DRAWS), DRAWS, name="What is drawn")).max()
    told = f"For one mode in 2 dimensions, the largest is {most:.3g}."
    hint = "Draw two directions for each mode, and take their cosine."
    yield Rule(most <= 1 + 1e-9, "No weighted cosine is larger than 1.", told, hint)


def _as_wide(spread: float, sigma: np.ndarray) -> Rule:
    """The spread is that of the strengths; if not, what it is instead."""
    one = WIDTH**-0.5
    wanted = one * (sigma**2).sum() ** 0.5 / sigma.sum()
    others = {
        one: ("as a single cosine does", "Each mode has a pair of directions of its own."),
        one / MODES**0.5: ("as the plain mean does", "Weight each cosine by its strength."),
        wanted * sigma.sum(): ("as a sum does", "Divide by the sum of the strengths."),
        wanted * WIDTH: ("as dot products do", "Divide each direction by its length."),
    }
    told, hint = f"is {spread / wanted:.2g} times as wide", "Is there a new draw for each number?"
    for width, (name, what) in others.items():
        if near(spread, width, 0.05):
            told, hint = f"varies {name}", what
    rule = "Their spread is that of random directions."
    return Rule(near(spread, wanted, 0.05), rule, f"What you draw {told}.", hint)


@checked
def furthest(layer: Any, highest: Any, lowest: Any, trend: Any) -> Iterator[Rule]:
    """The layer whose heads lie furthest apart, and its outermost heads, as the view shows them."""
    paper, exact = (trend.weighted_cosine.sel(convention=c).values for c in ("paper", "exact"))
    apart = np.ptp(exact, axis=1)
    there = float(layer) in range(len(exact))
    told, hint = f"You wrote {layer}.", f"Layers go from 0 to {len(exact) - 1}."
    yield Rule(there, "It is a layer of this model.", told, hint)
    at = int(layer)
    told = f"In layer {at} they lie {apart[at]:.2f} apart, elsewhere up to {apart.max():.2f}."
    hint = "Choose this model and the convention exact. Look at its dots, not at the lines."
    most = apart[at] >= apart.max() - READ
    yield Rule(most, "Its heads lie furthest apart, or nearly.", told, hint)
    read = {"highest": float(highest), "lowest": float(lowest)}
    for name, number in read.items():
        pick = np.max if name == "highest" else np.min
        told, hint = f"You read {number:+.2f}.", "Below the curves stands the value of every head."
        if abs(number - pick(paper[at])) <= READ:
            told, hint = "You read the convention paper.", "Switch the convention to exact."
        elif read["highest"] < read["lowest"]:
            told, hint = "The two are exchanged.", "The highest head has the larger number."
        off = abs(number - pick(exact[at]))
        yield Rule(off <= READ, f"The {name} head is read.", told, hint)


@checked
def sides(sides: Any) -> Iterator[Rule]:
    """How much of a head's strength takes sides: 0 for unrelated modes, 1 for like or opposite."""
    cases = {
        "Modes that relate unrelated things give 0.": ((0, 0, 0, 0), 0.0),
        "Modes that group like with like give 1.": ((1, 1, 1, 1), 1.0),
        "Modes that look for the opposite give 1.": ((-1, -1, -1, -1), 1.0),
        "Modes of both signs that cancel give 1.": ((1, -1, -1, 1), 1.0),
        "A strong mode counts more.": ((0.5, -0.5, 0, 1), 0.45),
    }
    hints = (
        "A trace can't tell. Take the columns of u and of v, and of these those with strength.",
        "Divide by the sum of the strengths.",
        "Is it the size of a cosine that counts, or its sign?",
        "Take the size of each mode's cosine, before the mean.",
        "Weight each mode by its strength. Take |cos|, not its square.",
    )
    for (rule, (cosines, wanted)), hint in zip(cases.items(), hints, strict=True):
        found = float(array(sides(*_head(cosines)), name="The number"))
        yield Rule(near(found + 1, wanted + 1), rule, f"You get {found:.3g}.", hint)
    w_q, w_k = _head((1, 1, 1, 1))
    crossed = float(array(sides(w_q, w_k[[1, 0, 3, 2]]), name="The number"))
    told = f"You get {crossed:.3g}."
    hint = "An eigenvalue of M mixes modes. Take u and v of each mode, from `svd`."
    yield Rule(near(crossed + 1, 1), "Two modes that only look for each other give 0.", told, hint)
    turn = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    w_q, w_k = _head((0.5, -0.5, 0, 1))
    moved = float(array(sides(turn.T @ w_q, torch.linalg.solve(turn, w_k)), name="The number"))
    told = f"In other coordinates you get {moved:.3g}."
    hint = "Rows of W_q and W_k are no directions of the head. Modes are those of M."
    yield Rule(near(moved, found), "The number belongs to the head.", told, hint)


def _head(cosines: tuple[float | int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """A head with strengths 4, 3, 2, 1 and these cosines."""
    random = torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions = torch.linalg.qr(random)[0]
    u, aside = directions[:4], directions[4:8]
    cosine = torch.tensor(cosines, dtype=torch.float64)[:, None]
    v = cosine * u + (1 - cosine**2).sqrt() * aside
    return torch.tensor([4.0, 3, 2, 1]).double()[:, None] * u, v

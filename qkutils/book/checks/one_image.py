"""Checks of chapter 10, the attention of one image."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from qkutils.book import stored_views
from qkutils.book.checks import Rule, array, checked, near, predicted

PARTS, KEYS = 5, 40
RANK, D_MODEL, DRAWS = 6, 15, 200
HEADS, MODES, KEPT = 20, 12, 3
VIEWED, LAYER, HEAD, BELOW = "deit_tiny_patch16_224.fb_in1k", 1, 2, 0.10
ASKERS = ("framed patch", "mean over all patches")
READ = 0.003  # of attention: what a reader of the view may be off


@checked
def shares(shares: Any, prediction: Any) -> Iterator[Rule]:
    """Shares add up to one, forget what all keys have, and go with the whole logit."""
    yield predicted(prediction, "same", "another")
    parts = np.random.default_rng(1).normal(size=(PARTS, KEYS)) * np.arange(1, PARTS + 1)[:, None]
    parts[1] -= parts[4] / 2  # a mode that works against another one
    found = array(shares(parts), PARTS, name="The shares of 5 parts")
    alone = near(found, parts.var(1) / parts.sum(0).var())
    told = f"They add up to {found.sum():.3g}."
    hint = "Subtract from each part its own mean over keys; the keys are the last dimension."
    if alone:
        told += " Each is the variance of its part alone."
        hint = "A variance forgets how the parts go together: take the covariance with the whole."
    yield Rule(near(found.sum(), 1), "Shares add up to one.", told, hint)
    lifted = array(shares(parts + np.arange(PARTS)[:, None]), PARTS)
    told = f"With more for all keys, the first share goes from {found[0]:.3f} to {lifted[0]:.3f}."
    hint = "The softmax does not see what all keys have: subtract each part's mean over keys."
    yield Rule(near(lifted, found), "A number for all keys changes no share.", told, hint)
    exact = np.cov(parts, parts.sum(0))[-1, :-1] / parts.sum(0).var(ddof=1)
    told = f"The share of a part that works against the others is {found[1]:+.3f}."
    hint = "A share is the covariance with the whole logit, by its variance; it may be negative."
    yield Rule(near(found, exact), "Each share is as numpy's covariance says.", told, hint)


@checked
def random_basis(random_basis: Any) -> Iterator[Rule]:
    """Parts of a random basis are the same head, turned by a rotation without a favourite."""
    rng = np.random.default_rng(2)
    u, v = (np.linalg.qr(rng.normal(size=(D_MODEL, RANK)))[0].T for _ in range(2))
    sigma = np.linspace(3, 1, RANK)
    draws = [random_basis(u, sigma, v, rng) for _ in range(DRAWS)]
    names = ("left", "right")
    left, right = (
        np.stack([array(draw[n], RANK, D_MODEL, name=f"`{name}`") for draw in draws])
        for n, name in enumerate(names)
    )
    yield _same_head(left[0].T @ right[0], (u.T * sigma) @ v, (u.T * sigma**2) @ v)
    longest = abs(left[0].T @ left[0] - (u.T * sigma) @ u).max()
    told = f"Products of its left sides are off by up to {longest:.2g}."
    hint = "Any invertible matrix and its inverse keep the head; a rotation keeps lengths, too."
    yield Rule(longest < 1e-9, "The head is turned by a rotation.", told, hint)
    turns = left @ u.T / np.sqrt(sigma)  # [draw, part, mode]
    told, hint = _favourite(turns)
    yield Rule(not told, "The rotation has no favourite.", told, hint)


def _same_head(total: np.ndarray, exact: np.ndarray, squared: np.ndarray) -> Rule:
    """The parts add up to the head's matrix; if not, what they add up to."""
    told, hint = "It is another matrix.", "Turn both sides by one and the same rotation."
    if near(total, exact.T):
        told, hint = "They add up to its transpose.", "u belongs to the left side, v to the right."
    elif near(total, squared):
        told, hint = "Each strength counts twice.", "Each side takes the root of the strengths."
    return Rule(near(total, exact), "The parts add up to the head's matrix.", told, hint)


def _favourite(turns: np.ndarray) -> tuple[str, str]:
    """How a rotation differs from a random one, if it does."""
    if np.ptp(turns, axis=0).max() < 1e-9:
        return "Each draw gives the same parts.", "Take the numbers from the `rng` that is given."
    if (turns**2).max(-1).min() > 1 - 1e-9:
        return "Each part is one mode.", "A rotation mixes the modes; an order does not."
    pairs = np.einsum("dan,dam->anm", turns, turns), np.einsum("dan,dbn->nab", turns, turns)
    most = max(abs(pair / len(turns) * (1 - np.eye(RANK))).max() for pair in pairs)
    hint = "`qr` of normal numbers gives a random rotation; uniform numbers all point one way."
    return ("Over many draws, two of its numbers go together." if most > 0.07 else ""), hint


@checked
def crossing(by_contribution: Any, by_strength: Any) -> Iterator[Rule]:
    """From the modes read in the view on, less than a tenth of the attention lies elsewhere."""
    read = {"contribution": by_contribution, "σ": by_strength}
    for name, numbers in read.items():
        both = array(numbers, 2, name=f"What you read by {name}")
        known = bool(((both >= 1) & (both <= 64) & (both == both.round())).all())
        told = f"You wrote {both.tolist()}."
        rule = f"By {name}, two numbers of modes were read."
        yield Rule(known, rule, told, "The slider *add up the first* goes from 0 to 64.")
        for n, who in enumerate(ASKERS):
            yield _crosses(int(both[n]), name, who)


def _crosses(kept: int, order: str, who: str) -> Rule:
    """The curve falls below a tenth at this number of modes; if not, where it stands."""
    curve = _curves(order)[who]
    told = f"With {kept} modes, {curve[kept]:.3f} lies elsewhere."
    hint = f"Choose layer {LAYER}, head {HEAD}, order by {order}, and leave key salience on."
    if curve[kept] < BELOW:
        told = f"With {kept} modes it is below 0.10, and with fewer modes, too."
        hint = "Move the slider back, step by step, until the number is above 0.10 again."
    for other in ("contribution", "σ"):
        for whose, values in _curves(other).items():
            if (other, whose) != (order, who) and np.argmax(values < BELOW) == kept:
                told = f"That is the number by {other} for the {whose}."
                hint = "Look at *order by*. Solid: the framed patch. Dashed: the mean."
    holds = curve[kept] < BELOW + READ and curve[:kept].min() >= BELOW - READ
    return Rule(holds, f"By {order}, {who}: the first number below 0.10.", told, hint)


@functools.cache
def _curves(order: str) -> dict[str, np.ndarray]:
    """Attention elsewhere by the number of modes: of the framed patch, and as a mean."""
    found = stored_views.one_image(VIEWED).found
    one = found.sel(layer=LAYER, head=HEAD).astype(float)
    query, key, asks = one["query"].values, one["key"].values, 1 + found.patch
    query = query * found.scale * one.sigma.values
    ranks = np.arange(len(one.sigma))
    if order == "contribution":
        reach = [(s * query[asks]).clip(0) * (s * key[1:]).max(0).clip(0) for s in (1, -1)]
        ranks = np.argsort(-np.max(reach, 0), kind="stable")
    logits = torch.tensor(np.tile(one.salience.values, (len(query), 1)))
    steps = [torch.tensor(np.outer(query[:, n], key[:, n])) for n in ranks]
    own = (logits + sum(steps)).softmax(-1)
    far = [(logits.softmax(-1) - own).abs().sum(-1)]
    for step in steps:
        logits = logits + step
        far.append((logits.softmax(-1) - own).abs().sum(-1))
    curves = torch.stack(far).numpy() / 2
    return dict(zip(ASKERS, (curves[:, asks], curves[:, 1:].mean(1)), strict=True))


@checked
def order(order: Any) -> Iterator[Rule]:
    """Three modes of this order come nearly as near as the best three."""
    heads = _random_heads()
    mine = [array(order(*head), MODES, name="The order of 12 modes") for head in heads]
    named = all(sorted(each) == list(range(MODES)) for each in mine)
    told = f"It begins with {mine[0][:KEPT].tolist()} and names {len(set(mine[0]))} modes."
    hint = "Give the numbers of the modes, as positions in `logit`, and each of them once."
    yield Rule(named, "The order names each mode once.", told, hint)
    ways = {
        "by contribution": [logit.amax(1).argsort(descending=True) for logit, _ in heads],
        "by share": [_by_share(*head) for head in heads],
    }
    own = _elsewhere(heads, mine)
    for name, theirs in ways.items():
        far = _elsewhere(heads, theirs)
        told = f"Yours leaves {own:.3f} elsewhere; {name} it is {far:.3f}."
        hint = "Try each mode that is left, and take the one whose map is the nearest."
        if own > _elsewhere(heads, [each[::-1] for each in mine]):
            hint = "Your order is nearer when it is turned around: do you take the farthest?"
        yield Rule(own < far, f"Three modes come nearer than three {name}.", told, hint)
    best = _elsewhere(heads, [_best_three(*head) for head in heads])
    told = f"Yours leaves {own:.3f} elsewhere; the best three leave {best:.3f}."
    hint = "Add up scores, not attention. And does every map that you try contain key salience?"
    yield Rule(own < 1.2 * best, "Three modes come nearly as near as any three.", told, hint)


def _random_heads() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The parts [mode, key] and the key salience of one query in some heads."""
    random = torch.Generator().manual_seed(3)
    size = torch.linspace(1.5, 0.3, MODES, dtype=torch.float64)[:, None]
    draw = functools.partial(torch.randn, generator=random, dtype=torch.float64)
    return [(size * (draw(MODES, KEYS) + draw(MODES, 1)), 1.5 * draw(KEYS)) for _ in range(HEADS)]


def _whole(logit: torch.Tensor, salience: torch.Tensor) -> torch.Tensor:
    return logit.sum(0) + salience


def _best_three(logit: torch.Tensor, salience: torch.Tensor) -> torch.Tensor:
    every = torch.combinations(torch.arange(MODES), KEPT)
    built = (logit[every].sum(1) + salience).softmax(-1)
    return every[(built - _whole(logit, salience).softmax(-1)).abs().sum(-1).argmin()]


def _by_share(logit: torch.Tensor, salience: torch.Tensor) -> torch.Tensor:
    whole = _whole(logit, salience)
    return (logit @ (whole - whole.mean())).argsort(descending=True)


def _elsewhere(heads: list, orders: list) -> float:
    """Attention elsewhere with the first three modes of an order, as a mean over heads."""
    far = []
    for (logit, salience), one in zip(heads, orders, strict=True):
        built = logit[[int(n) for n in one[:KEPT]]].sum(0) + salience
        far.append((built.softmax(-1) - _whole(logit, salience).softmax(-1)).abs().sum() / 2)
    return float(sum(far) / len(far))

"""Checks of chapter 8, what modes look for in pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from qkutils.book.checks import NEAR, NotYet, Rule, array, checked, near

TOKENS, D_MODEL, D_HEAD, MODES = 40, 12, 4, 4
WORDS = {"grow": "grows", "shrink": "shrinks", "stay": "stays"}
SEEN = {  # what is chosen wrongly in `_projections`, and why
    -1: "There is a picture. Multiply by the sign before you take the maximum.",
    0: "Only its prefix token is large, and a prefix token is no patch.",
    1: "Nothing answers there: multiply the two maxima.",
    2: "It is the picture before the right one. Cut off tokens, not pictures: `[:, prefix:]`.",
    3: "Its patches lie at the end of the sign +.",
    4: "Its query and its key have opposite signs: the sign turns both sides.",
    5: "The same patch asks and answers there. Take each maximum on its own.",
    6: "Its patches lie at the end of the sign −.",
}


def _projections() -> tuple[np.ndarray, np.ndarray]:
    """Projections of seven pictures, of 17 tokens each, of which the first is a prefix token."""
    query, key = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 7, 17))
    query[0, 0], key[0, 0] = 9, 9
    query[1, 3] = 12
    query[3, 5], key[3, 9] = 3, 3
    query[4, 4], key[4, 8] = -4, 4
    query[5, 6], key[5, 6] = 2, 2
    query[6, 7], key[6, 2] = -5, -5
    return query, key


@checked
def optimal(optimal: Any) -> Iterator[Rule]:
    """Both maxima of one sign, over patches alone, make the optimal picture."""
    query, key = _projections()
    below = -abs(query)
    turned = "There are as many prefix tokens as `prefix` says; there may be none."
    none = "Two values below zero have a product above zero. Ask whether each is above zero."
    cases = {
        "Sign +: one patch asks, another one answers.": (query, key, 1, 1, 3, None),
        "Sign −: the other end has a picture of its own.": (query, key, -1, 1, 6, None),
        "No prefix token: the first token is a patch.": (query, key, 1, 0, 0, turned),
        "Two maxima below zero: there is no picture.": (below, below, 1, 1, -1, none),
    }
    for name, (*given, wanted, hint) in cases.items():
        found = int(array(optimal(*given), name="The number of the picture"))
        hint = hint or SEEN.get(
            found, "There are seven pictures. Return the number of one, not its score."
        )
        yield Rule(found == wanted, name, f"It chooses {found} instead of {wanted}.", hint)


def _tokens(seed: int = 1) -> np.ndarray:
    """Tokens that vary along some directions more than along others, around a mean far from 0."""
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.normal(size=(D_MODEL, D_MODEL)))[0]
    varied = random.normal(size=(TOKENS, D_MODEL)) * np.geomspace(3, 0.1, D_MODEL)
    varied[:, -1] += 20
    return varied @ turn


@checked
def variance(variance: Any, prediction: Any) -> Iterator[Rule]:
    """The variance over keys ignores what all keys share, and is that of the logits."""
    word = str(prediction).strip(" .").lower()
    word = WORDS.get(word, word)
    told, hint = f"You predicted {word!r}.", 'Write "grows", "shrinks" or "stays".'
    yield Rule(word in WORDS.values(), "A prediction is made.", told, hint)
    z, sigma = _tokens(), 3.0
    u, v = np.eye(D_MODEL)[:2]
    found, keys, queries = (
        float(array(variance(each, u, sigma, v, D_HEAD), name="The variance"))
        for each in (z, z + 5 * v, z + 5 * u)
    )
    hint = "The variance of one query's logits goes over keys. Then take the mean over queries."
    told = f"It goes from {found:.3g} to {keys:.3g}."
    rule = "5 v more in every token act on it as on the logits."
    if near(found, keys):
        rule = f"5 v more in every token: you predicted {word!r}, and the variance stays."
    yield Rule(near(found, keys), rule, told, hint)
    hint = "A query with much of u asks loudly. Its mean counts: take the mean of the squares."
    told = f"It stays {found:.3g}."
    yield Rule(not near(found, queries), "5 u more in every token changes it.", told, hint)
    yield _as_the_logits(found, sigma * np.outer(z @ u, z @ v) / D_HEAD**0.5, sigma)


def _as_the_logits(found: float, logits: np.ndarray, sigma: float) -> Rule:
    """The variance is that of the logits over keys; if not, what it is instead."""
    wanted = logits.var(1).mean()
    others = {
        "It takes the square of the mean query.": (
            logits.mean(0).var(),
            "Square first, then take the mean.",
        ),
        "It is that of the scores.": (wanted * D_HEAD, "A variance is divided by d_head."),
        "It is divided by √d_head.": (wanted * D_HEAD**0.5, "A variance has the square of it."),
        "It has σ once.": (wanted / sigma, "A variance grows with σ²."),
        "It divides by one key less.": (
            logits.var(1, ddof=1).mean(),
            "Take the mean over all keys.",
        ),
    }
    told, hint = "It is another number.", "Write down the logits [query, key] of the mode first."
    for name, (value, why) in others.items():
        told, hint = (name, why) if near(found, value) else (told, hint)
    rule = "It is the variance over keys of the mode's logits."
    return Rule(
        near(found, wanted), rule, f"{told} ({found:.3g}; it should be {wanted:.3g}.)", hint
    )


@checked
def idle_giant(idle_giant: Any) -> Iterator[Rule]:
    """A head, two orthonormal families with falling strengths, whose weakest mode carries most."""
    given = [_tokens(seed) for seed in (1, 2, 3)]
    heads = [_head(idle_giant(z, MODES)) for z in given]
    for place, name in ((0, "u"), (2, "v")):
        off = max(abs(head[place] @ head[place].T - np.eye(MODES)).max() for head in heads)
        told = f"Dot products are off by {off:.2g}."
        hint = "Each row is one direction, of length 1."
        yield Rule(off < 1e-6, f"The rows of `{name}` are orthonormal.", told, hint)
    sigma = np.array([head[1] for head in heads])
    falls = (sigma[:, 1:] <= 0.9 * sigma[:, :-1] * (1 + NEAR)).all() and (sigma > 0).all()
    told = f"They are {sigma[0].round(3).tolist()}."
    hint = "M0 is the strongest. Each strength is at most 0.9 of the one before."
    yield Rule(falls, "Strengths fall, and none is zero.", told, hint)
    z, head = min(zip(given, heads, strict=True), key=lambda both: _carried(*both)[-1])
    yield _weakest_wins(z, head)


def _head(found: Any) -> list[np.ndarray]:
    """Directions, strengths and directions of a head, each with its shape."""
    shapes = {"u": (MODES, D_MODEL), "sigma": (MODES,), "v": (MODES, D_MODEL)}
    parts = zip(found, shapes.items(), strict=True)
    return [array(part, *shape, name=f"`{name}`") for part, (name, shape) in parts]


def _carried(z: np.ndarray, head: list[np.ndarray]) -> np.ndarray:
    """What each mode carries of a head, on these tokens."""
    u, sigma, v = head
    carried = sigma**2 * ((z @ u.T) ** 2).mean(0) * (z @ v.T).var(0)
    return carried / carried.sum()


def _weakest_wins(z: np.ndarray, head: list[np.ndarray]) -> Rule:
    """Whether the weakest mode carries most; if not, whether directions or strengths say why."""
    carried, varies = _carried(z, head), (z @ head[2].T).var(0)
    most = np.linalg.eigvalsh(np.cov(z.T, bias=True))[-1]
    hint = "The direction is right, but σ falls too fast: keep near 0.9."
    if varies[-1] < 0.9 * most:
        hint = "Along which direction do tokens vary most? Give it to the weakest mode."
    elif varies[:-1].max() > 0.1 * most:
        hint = "The strong modes still vary: give them directions along which tokens hardly do."
    told = f"The weakest mode carries {carried[-1]:.0%}, M0 carries {carried[0]:.0%}."
    return Rule(carried[-1] > 0.5, "The weakest mode carries more than half.", told, hint)


@checked
def colours(apart_at: Any, white_at: Any, read: Any, found: Any) -> Iterator[Rule]:
    """Of two modes that carry enough, one has red and cyan apart, and one has them together."""
    cosines = array(read, 2, name="The pair of cosines")
    wanted = {
        "apart_at": "Its red and cyan lie apart.",
        "white_at": "Its red and cyan lie together.",
    }
    for (name, rule), at, own in zip(wanted.items(), (apart_at, white_at), cosines, strict=True):
        place = _pictured(array(at, 3, name=f"`{name}`"), name, found)
        share, overlap = float(found.carried.sel(place)), _overlap(found, place)
        told, hint = f"It carries {share:.1%}.", "Colour the heads by carried share."
        yield Rule(share >= 0.05, f"The mode `{name}` carries a twentieth.", told, hint)
        told = f"The two maps agree by {overlap:.2f}: 0 is apart, 1 is the same."
        hint = "Look at all pictures of both signs: how much of the colour is white?"
        yield Rule(overlap < 0.5 if name == "apart_at" else overlap > 0.8, rule, told, hint)
        cosine = float(found.cosine.sel(place))
        hint = "Mind the sign." if own * cosine < 0 else "It stands below the pictures."
        told = f"You read {own:+.2f}, it is {cosine:+.2f}."
        yield Rule(abs(own - cosine) < 0.01, f"The cosine of `{name}` is read.", told, hint)


def _pictured(at: np.ndarray, name: str, found: xr.Dataset) -> dict[str, int]:
    """The place of a mode, which must have pictures in the view."""
    place = dict(zip(("layer", "head", "mode"), at.astype(int).tolist(), strict=True))
    for part, number in place.items():
        there = found[f"shown_{part}"].values
        if number not in there:
            known = f"{there.min()} to {there.max()}"
            raise NotYet(f"`{name}`: the view has pictures of {part} {known}, not of {number}.")
    image = found.image.sel({f"shown_{part}": number for part, number in place.items()})
    if (image < 0).all():
        raise NotYet(f"`{name}`: this mode has no pictures; choose another.")
    return place


def _overlap(found: xr.Dataset, place: dict[str, int]) -> float:
    """The cosine of the red and the cyan map, mean over the pictures of both signs."""
    one = found.sel({f"shown_{part}": number for part, number in place.items()})
    query, key = (one[side].where(one.image >= 0) for side in ("query", "key"))
    sizes = [(side**2).sum(("row", "column")) for side in (query, key)]
    return float(((query * key).sum(("row", "column")) / (sizes[0] * sizes[1]) ** 0.5).mean())

"""Checks of chapter 6, the same object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from qkutils.book.checks import Rule, array, checked, near, predicted

SCENES, OBJECTS, PATCHES = 60, 4, 25
READ = 0.06  # of a probability, by which what is read off a view may differ


def _scenes(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """How much of each patch objects of different sizes cover, and random projections."""
    random = np.random.default_rng(seed)
    covers = np.zeros((SCENES, OBJECTS, PATCHES))
    for scene in covers:
        patches = iter(random.permutation(PATCHES))
        for which, size in enumerate((1, 2, 4, 8)):
            scene[which, [next(patches) for _ in range(size)]] = random.uniform(0.3, 1, size)
    return covers, random.normal(size=(2, SCENES, PATCHES))


@checked
def preferred(preferred: Any) -> Iterator[Rule]:
    """The object with the largest mean, each patch weighted by what the object covers of it."""
    share, (projection, _) = _scenes()

    def asked(projections: np.ndarray) -> np.ndarray:
        each = [preferred(p.copy(), s.copy()) for p, s in zip(projections, share, strict=True)]
        return array(each, SCENES, name="The choice in 60 scenes")

    low, high = asked(projection - 9), asked(projection + 9)
    told = f"{(low != high).mean():.0%} of the choices change if every projection grows alike."
    hint = "A sum favours large objects: divide by what the object covers. Keep the sign."
    yield Rule(near(low, high), "An object's size alone does not decide.", told, hint)
    known = np.isin(low, range(OBJECTS))
    told = f"You choose {low[known.argmin()]:g}."
    hint = "Objects are the rows of `share`: choose one of them, not a patch."
    yield Rule(known.all(), "It is the number of an object.", told, hint)
    lifted = np.stack([asked(projection + 99 * (share[:, n] > 0)) for n in range(OBJECTS)])
    wrong = lifted != np.arange(OBJECTS)[:, None]
    which, scene = np.unravel_index(wrong.argmax(), wrong.shape)
    told = f"Where object {which} is lifted, you choose {lifted[which, scene]:g}."
    if wrong.all():
        told += " It is the object with the smallest mean."
    hint = "`argmax` over objects gives the number of the one with the largest mean."
    yield Rule(not wrong.any(), "An object that is lifted above all others wins.", told, hint)
    covers = share[:, -1]
    balanced = projection - ((covers * projection).sum(1) / covers.sum(1))[:, None]
    for name, step in (("wins", 0.01), ("loses", -0.01)):
        put = np.where(covers > 0, balanced + step, 0)
        found = asked(put) == OBJECTS - 1
        told = (
            f"Its mean is {step:+g}, theirs are 0. You choose it {found.sum()} of {SCENES} times."
        )
        told += _other_mean(put, share, found)
        hint = "Weigh each projection by what the object covers, and divide by the sum of weights."
        rule = f"An object that lies a little {'above' if step > 0 else 'below'} the others {name}."
        yield Rule((found == (step > 0)).all(), rule, told, hint)


def _other_mean(projection: np.ndarray, share: np.ndarray, found: np.ndarray) -> str:
    """What decides instead of the mean, if it is known, for a choice of the last object."""
    whole = share > 0
    strongest = np.where(whole, projection[:, None], -np.inf).max(-1)
    in_full = np.einsum("sop,sp->so", whole, projection) / whole.sum(-1)
    faults = {
        " It is the object with the strongest single patch.": strongest,
        " Every patch that an object touches counts in full.": in_full,
    }
    chosen = {told: of.argmax(1) == OBJECTS - 1 for told, of in faults.items()}
    return next((told for told, other in chosen.items() if (found == other).all()), "")


@checked
def agreement(agreement: Any, prediction: Any) -> Iterator[Rule]:
    """How often two independent choices agree, on average over scenes."""
    yield predicted(prediction, "more often", "as often", "less often")
    even = np.array([[1, 1, 0, 0], [1, 1, 1, 1]]) * 6.0
    found = float(array(agreement(even.copy()), name="What you return"))
    told = f"For scenes with 2 and 4 objects it gives {found:.3g}."
    hint = "Divide each scene's numbers by their sum; then take the scenes' mean at the end."
    if near(found, 1 / 3):
        told, hint = f"{told} This is 1/3.", "The mean of 1/n is not 1 divided by the mean of n."
    elif near(found, 1 / 4):
        told, hint = f"{told} An absent object counts.", "A count of 0 adds nothing to the sum."
    elif near(found, 5 / 16):
        told, hint = "Scenes are averaged first.", "Objects of two scenes have nothing in common."
    rule = "Even choices among 2 and 4 objects agree in 3/8 of cases."
    yield Rule(near(found, 3 / 8), rule, told, hint)
    counts = np.random.default_rng(0).integers(0, 9, (7, 5)) + np.eye(7, 5)
    p = counts / counts.sum(1, keepdims=True)
    found = float(agreement(counts.copy()))
    told, hint = f"It gives {found:.3g}.", "Both choose object i with probability p times p."
    if near(found, p.max(1).mean()):
        hint = "The most frequent object alone is not enough: both may choose another one."
    by_pairs = np.mean([np.trace(np.outer(each, each)) for each in p])
    yield Rule(near(found, by_pairs), "So do choices that prefer some objects.", told, hint)


@checked
def over_masks(over_masks: Any) -> Iterator[Rule]:
    """What the true masks add for two equal maps, and for maps whose objects are known."""
    masks, (query, _) = _scenes()
    found = float(array(over_masks(query, query, masks), name="What you return"))
    told = f"It is {found:+.2f}. Equal maps agree on any masks."
    hint = "Take off how often they agree on the masks of another scene."
    if not near(found, 1):
        hint = "Move all objects of a scene together: roll the first dimension alone."
    rule = "Two equal maps gain nothing from the true masks."
    yield Rule(abs(found) < 1e-9, rule, told, hint)
    found = float(over_masks(*_maps_on_objects()))
    told = f"It is {found:+.2f}."
    hint = "For each scene, compare two objects of largest mean. Then take the mean over scenes."
    if near(found, -1 / 2):
        hint = "The sign is turned: it is the true masks minus the others."
    elif found == 0:
        hint = "The other masks come from another scene: roll the dimension of scenes."
    rule = "Maps that agree in 3/4 of scenes, and on other masks in 1/4, gain 1/2."
    yield Rule(near(found, 1 / 2), rule, told, hint)


def _maps_on_objects() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two maps and masks: they choose one object in 3/4 of scenes, on a neighbour's masks in 1/4.

    Scenes use the first patches and the next ones by turns, so another scene's masks lie elsewhere.
    """
    random = np.random.default_rng(0)
    owner = np.repeat(range(OBJECTS), (1, 2, 3, 6))
    maps, masks = np.ones((2, SCENES, PATCHES)), np.zeros((SCENES, OBJECTS, PATCHES))
    for scene, half in np.ndindex(SCENES, 2):
        patches = half * len(owner) + np.arange(len(owner))
        own = half == scene % 2
        if own:
            masks[scene, owner, patches] = random.uniform(0.3, 1, len(owner))
        together = (scene % 4 != 0) == own
        query = random.integers(OBJECTS)
        for of, chosen in zip(maps, (query, query if together else query - 1), strict=True):
            of[scene, patches[owner == chosen % OBJECTS]] = 2
    return maps[0], maps[1], masks


@checked
def reading(modes: Any, start: Any, random: Any, *curves: Any) -> Iterator[Rule]:
    """Three probabilities of the last layer, as read in the view at its last step."""
    read = array([modes, start, random], 3, name="What you read")
    of_layers = np.stack([np.asarray(curve, dtype=float) for curve in curves])
    told = f"You wrote {read.tolist()}."
    yield Rule(bool(((read >= 0) & (read <= 1)).all()), "They are probabilities.", told, "0 to 1.")
    ends, names = of_layers[:, -1], ("modes", "modes, not moved", "random directions")
    off = abs(read - ends) > READ
    first, side = int(off.argmax()), "low" if (read < ends)[off.argmax()] else "high"
    told = f"For the {names[first]} you wrote {read[first]:g}, which is too {side}."
    hint = "Solid lines hold for the moved masks, dotted lines for masks in their place."
    if off.any() and (abs(read - of_layers[:, 0]) <= READ).all():
        told, hint = "These are the first layer's.", "The last layer is on the right."
    elif off.any() and (abs(np.sort(read) - np.sort(ends)) <= READ).all():
        told = f"{told} The lines are exchanged."
    yield Rule(not off.any(), "They are read at the last layer.", told, hint)

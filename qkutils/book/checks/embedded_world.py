"""Checks of chapter 2, the drawn world."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from qkutils import world
from qkutils.book.checks import Rule, array, checked, near, predicted

PATCH, PATCHES = 8, 64
MANY = 100  # scenes of each sort
CLOSE = 1.3  # two targets whose areas differ by less look alike


@checked
def covered(covered: Any) -> Iterator[Rule]:
    """The share of each patch that a mask covers."""
    mask = torch.rand(2, 3 * PATCH, 5 * PATCH, generator=torch.Generator().manual_seed(0)) < 0.3
    mask[0, :PATCH, :PATCH], mask[1, :PATCH, -PATCH:] = True, False
    found = array(covered(mask, PATCH), 2, 3, 5, name="What you give for 2 masks of 24 × 40 pixels")
    corners = [found[0, 0, 0], found[1, 0, -1]]
    told = f"They give {corners[0]:.3g} and {corners[1]:.3g}."
    hint = "A share is a mean, not a sum, and both directions of a patch belong to it."
    yield Rule(near(corners, [1, 0]), "A full patch gives 1, an empty one 0.", told, hint)
    size = mask[0].numel()
    single = torch.eye(size).bool().reshape(size, *mask.shape[1:])  # masks of one pixel
    found = array(covered(single, PATCH), size, 3, 5, name=f"What you give for {size} masks")
    row, column = np.indices(mask.shape[1:]).reshape(2, -1)
    exact = np.zeros_like(found)
    exact[np.arange(size), row // PATCH, column // PATCH] = PATCH**-2
    wrong = abs(found - exact) > 1e-6
    which = wrong.any((1, 2)).argmax()
    given, wanted = (_place(each[which]) for each in (found, exact))
    told = f"The pixel in row {row[which]}, column {column[which]} gives patch {given} "
    told += f"{found[which].max():.3g}; it should give patch {wanted} 1/64."
    hint = "Which pixels are the rows of one patch, which its columns?"
    of_patch = found.reshape(3, PATCH, 5, PATCH, 3, 5)
    if not found.any():
        hint = "Don't round: half a patch gives 0.5."
    elif not np.ptp(of_patch, axis=(1, 3)).any():
        hint = "Patches are right, but stand elsewhere: rows of patches come before columns."
    yield Rule(not wrong.any(), "Each pixel counts 1/64, in its patch alone.", told, hint)


def _place(patches: np.ndarray) -> list[int]:
    """Row and column of the largest number."""
    return [int(each) for each in np.unravel_index(patches.argmax(), patches.shape)]


@checked
def same_colour(same_colour: Any, prediction: Any) -> Iterator[Rule]:
    """The same scenes with the target in a distractor's colour, and nothing else changed."""
    yield predicted(prediction, "yes", "no")
    given, kept = (world.draw(2, 0, MANY, odd=["colour"]) for _ in range(2))
    found = same_colour(given)
    names = [each.name for each in fields(world.Factors)]
    changed = [n for n in names if not torch.equal(getattr(given, n), getattr(kept, n))]
    told = f"Your function has changed `{' and '.join(changed)}` of what it was given."
    hint = "Make a new tensor, as `where` and `masked_fill` do, and put it in with `replace`."
    yield Rule(not changed, "The scenes that you were given stay as they are.", told, hint)
    rest = [n for n in names if not torch.equal(getattr(found, n), getattr(kept, n))]
    rest = [n for n in rest if n != "colour"]
    told = f"`{' and '.join(rest)}` changed, too."
    hint = "Change one thing. The target stays a target, of its kind and in its place."
    yield Rule(not rest, "Nothing but colours changes.", told, hint)
    others = kept.role == world.DISTRACTOR
    moved = int((found.colour != kept.colour)[others].sum())
    told = f"{moved} distractors are painted anew."
    hint = "Choose the target by its role, and paint the target alone."
    yield Rule(not moved, "Distractors keep their colours.", told, hint)
    of_target = found.colour.gather(1, kept.target[:, None])
    alike = ((found.colour == of_target) & others).any(1)
    told = f"In {int((~alike).sum())} of {MANY} scenes it does not."
    hint = "Its new colour comes from its own scene: find the slot of one distractor there."
    yield Rule(alike.all(), "The target has the colour of a distractor.", told, hint)


@checked
def smallest(step: Any, patches: Any, scenes: Any) -> Iterator[Rule]:
    """What is odd where a target is smallest, and how many patches it would fill."""
    area = {odd: _patches(each) for odd, each in scenes.items() if odd != "none"}
    told, hint = f"You wrote {step!r}.", f"Choose from {', '.join(area)}."
    yield Rule(step in area, "It is what is odd in a step with targets.", told, hint)
    least, own = min(map(min, area.values())), min(area[step])
    told = f"Its smaller one is {own / least:.1f} times as large as another step's."
    hint = "Compare the orange areas of all steps with masks. Look at both scenes."
    yield Rule(own <= CLOSE * least, "No step has a clearly smaller target.", told, hint)
    read = float(patches)
    told, hint = f"You wrote {read:g}.", "The picture has 8 × 8 patches: how wide is one of them?"
    if near(read, own / PATCHES, 0.5):
        told, hint = f"{read:g} is its share of the picture.", "Multiply by the number of patches."
    elif near(read, own * PATCH**2, 0.5):
        told, hint = f"{read:g} is its number of pixels.", "A patch has 8 × 8 pixels."
    yield Rule(0.5 <= read / own <= 2, "So many patches it fills, up to a factor of 2.", told, hint)


def _patches(scenes: world.Scenes) -> list[float]:
    """How many patches the targets would fill."""
    return (PATCHES * scenes.mask(world.TARGET).float().mean((1, 2))).tolist()


@checked
def by_size(by_size: Any) -> Iterator[Rule]:
    """A rule that knows scenes odd in position by the size of their distractors alone."""
    drawn = {odd: world.draw(5, 0, MANY, odd=[odd]) for odd in world.ODD_FACTORS}
    drawn = {odd: replace(f, odd=torch.zeros_like(f.odd)) for odd, f in drawn.items()}
    said = {odd: _said(by_size, f) for odd, f in drawn.items()}
    hits = said.pop("position").mean()
    told = f"It finds {hits:.0%} of them."
    hint = "How large are distractors there, in `radius`? Take those whose role is DISTRACTOR."
    yield Rule(hits >= 0.95, "It knows scenes in which position is odd.", told, hint)
    odd = max(said, key=lambda one: said[one].mean())
    told = f"Of scenes with the odd factor {odd}, it takes {said[odd].mean():.0%} for them."
    hint = "Compare the largest distractors. Where size is odd, some are smaller still."
    yield Rule(said[odd].mean() <= 0.1, "It takes few others for them.", told, hint)
    for sort in ("position", "size"):
        f = drawn[sort]
        is_target = f.role == world.TARGET
        half = is_target & (torch.arange(MANY) % 2 == 0)[:, None]
        empty = f.role.masked_fill(half, world.ABSENT)
        gone = replace(f, role=empty, radius=f.radius.masked_fill(is_target, 0.45))
        turned = int((_said(by_size, gone) != _said(by_size, f)).sum())
        told = f"With it hidden or large, {turned} of {MANY} answers change."
        hint = "Leave out the radius of the target, and of slots that are empty."
        yield Rule(not turned, f"The target does not matter (odd: {sort}).", told, hint)
        moved = replace(f, offset=f.offset.flip(0))
        turned = int((_said(by_size, moved) != _said(by_size, f)).sum())
        told = f"In other places, {turned} of {MANY} answers change."
        hint = "Use `radius`, not `offset`: the model of this chapter does not need places."
        yield Rule(not turned, f"Places do not matter (odd: {sort}).", told, hint)


def _said(by_size: Any, factors: world.Factors) -> np.ndarray:
    return array(by_size(factors), MANY, name=f"What you say of {MANY} scenes")

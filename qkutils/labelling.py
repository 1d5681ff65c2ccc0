"""Labelling: what every patch of a drawn scene shows, from its place to the part of an object."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from qkutils.scenes import COLOURS, KINDS, PARTS, TARGET, TEXTURES, Scenes

FAMILIES = ("place", "object", "role", "colour", "kind", "texture", "part")
CLEAR, PART_SHARE = 0.5, 0.1  # of a patch's pixels: to be on an object, to show a part


@dataclass(frozen=True)
class Labels:
    """A label for every patch of every scene, −1 for none, beside the coarser one it refines."""

    names: tuple[str, ...]
    fine: Int[Tensor, "scene row column"]
    base: Int[Tensor, "scene row column"]

    def to(self, device: torch.device) -> Labels:
        """The same on another device."""
        return Labels(self.names, self.fine.to(device), self.base.to(device))


def patch_labels(world: Scenes, patch: int) -> dict[str, Labels]:
    """What every patch shows, in seven families of labels.

    place: which patch it is.  object: an object or the background, whichever covers more than
    half.  role, colour, kind, texture: of the object on it; no label on the background.  part: the
    part that covers at least a tenth of it, else the body; it refines kind, since parts go with
    kinds.
    """
    slot, part = (_pixels(values, patch) for values in (world.slot, world.part))
    top = slot.mode(-1).values
    clear = (slot == top[..., None]).float().mean(-1) > CLEAR
    on_object = clear & (top >= 0)
    count, rows, columns = top.shape

    def of_object(table: Int[Tensor, "scene slot"]) -> Int[Tensor, "scene row column"]:
        found = table.gather(1, top.clamp(min=0).flatten(1)).view_as(top)
        return found.where(on_object, -1)

    anything = torch.zeros_like(top)
    an_object = anything.where(on_object, -1)
    place = torch.arange(rows * columns).view(1, rows, columns).expand(count, -1, -1)
    spots = tuple(f"row {n // columns}, column {n % columns}" for n in range(rows * columns))
    shown = torch.stack([(part == p).float().mean(-1) for p in range(2, len(PARTS))], -1)
    share, which = shown.max(-1)
    kind = of_object(world.factors.kind)
    of_part = kind * (len(PARTS) - 1) + torch.where(share >= PART_SHARE, which + 1, 0)
    pairs = tuple(f"{part} of a {kind}" for kind in KINDS for part in PARTS[1:])
    role = (of_object(world.factors.role) == TARGET).long().where(on_object, -1)
    return {
        "place": Labels(spots, place, anything),
        "object": Labels(("background", "object"), on_object.long().where(clear, -1), anything),
        "role": Labels(("distractor", "target"), role, an_object),
        "colour": Labels(COLOURS, of_object(world.factors.colour), an_object),
        "kind": Labels(KINDS, kind, an_object),
        "texture": Labels(TEXTURES, of_object(world.factors.texture), an_object),
        "part": Labels(pairs, of_part.where(on_object, -1), kind),
    }


def _pixels(
    values: Int[Tensor, "scene height width"], patch: int
) -> Int[Tensor, "scene row column pixel"]:
    """The pixels of every patch."""
    return values.long().unfold(1, patch, patch).unfold(2, patch, patch).flatten(-2)


def some(labels: Labels, scene: Tensor) -> Labels:
    """The labels of some scenes, in this order."""
    return Labels(labels.names, labels.fine[scene], labels.base[scene])


def misplaced(labels: Labels, generator: torch.Generator) -> Labels:
    """The labels of other scenes at the same places: the same labels, which mean nothing here.

    A scene's labels stay together, so that the patches of one object do not count as many cases,
    and where they stand stays, so that a projection of mere place gains nothing.  Places, which are
    alike in all scenes, are moved round the grid instead, in each scene by another step.
    """
    count, rows, columns = labels.fine.shape
    if (labels.fine != labels.fine[:1]).any():
        return some(labels, torch.randperm(count, generator=generator))
    down, right = (torch.randint(n, (count, 1, 1), generator=generator) for n in (rows, columns))
    row = (torch.arange(rows)[:, None] + down) % rows
    column = (torch.arange(columns) + right) % columns
    at = (torch.arange(count)[:, None, None], row, column)
    return Labels(labels.names, labels.fine[at], labels.base[at])

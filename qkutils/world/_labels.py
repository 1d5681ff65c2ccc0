"""Labelling: what every patch of a drawn scene shows, from its place to the part of an object."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkutils.models import Model
from qkutils.studies import Labels
from qkutils.world._factors import COLOURS, KINDS, PARTS, TARGET, TEXTURES
from qkutils.world._rendering import Scenes, make

FAMILIES = ("place", "object", "role", "colour", "kind", "texture", "part")
CLEAR, PART_SHARE = 0.5, 0.1  # of a patch's pixels: to be on an object, to show a part


NAMED_ON = 6_000_000  # the world seed of the scenes that modes are named on; no model saw it


def labelled(
    model: Model, count: int = 256
) -> tuple[Float[Tensor, "scene channel height width"], dict[str, Labels]]:
    """Draw scenes as a model takes them, and label what every patch of them shows.

    No embedded model saw these scenes.

    Parameters
    ----------
    model
        What `load` gave.
    count
        How many scenes.

    Returns
    -------
    tuple
        The images [scene, channel, height, width], and the labels by family: see `patch_labels`.

    Raises
    ------
    ValueError
        For a model whose pictures or patch grid are not square, as scenes are.

    Examples
    --------
    >>> import qkutils as qk
    >>> images, families = qk.world.labelled(qk.load("tiny-supervised"), 4)
    >>> images.shape, families["kind"].fine.shape
    (torch.Size([4, 3, 64, 64]), torch.Size([4, 8, 8]))
    """
    (height, width), (rows, columns) = model.image_size, model.grid
    if height != width or rows != columns:
        raise ValueError(
            f"{model.name} takes pictures of {model.image_size} pixels in {model.grid} patches; "
            "drawn scenes are square, and so have the model's pictures to be"
        )
    scenes = make(NAMED_ON, 0, count, height)
    return model.transform.transforms[-1](scenes.image), patch_labels(scenes, height // rows)


def patch_labels(world: Scenes, patch: int) -> dict[str, Labels]:
    """Label what every patch shows, in seven families of labels.

    `place`: which patch it is.  `object`: an object or the background, whichever covers more than
    half.  `role`, `colour`, `kind` and `texture`: of the object on the patch.  They have no label
    on the background.  `part`: the part that covers at least a tenth of the patch, else the body.
    It refines kind, because parts go with kinds.

    Parameters
    ----------
    world
        What `make` or `render` gave.
    patch
        Pixels of a patch's side.

    Returns
    -------
    dict[str, Labels]
        Labels by family, each [scene, row, column], -1 for none.

    Examples
    --------
    >>> import qkutils as qk
    >>> families = qk.world.patch_labels(qk.world.make(0, 0, 4), 8)
    >>> list(families)
    ['place', 'object', 'role', 'colour', 'kind', 'texture', 'part']
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
        "place": Labels(spots, place, anything, 1),
        "object": Labels(("background", "object"), on_object.long().where(clear, -1), anything, 1),
        "role": Labels(("distractor", "target"), role, an_object, 1),
        "colour": Labels(COLOURS, of_object(world.factors.colour), an_object, 1),
        "kind": Labels(KINDS, kind, an_object, 1),
        "texture": Labels(TEXTURES, of_object(world.factors.texture), an_object, 1),
        "part": Labels(pairs, of_part.where(on_object, -1), kind, len(KINDS)),
    }


def _pixels(
    values: Int[Tensor, "scene height width"], patch: int
) -> Int[Tensor, "scene row column pixel"]:
    """The pixels of every patch."""
    return values.long().unfold(1, patch, patch).unfold(2, patch, patch).flatten(-2)

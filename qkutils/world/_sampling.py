"""Scenes as others take them: pictures with masks, with segments, and with labels of patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from qkutils import options
from qkutils.models import Model
from qkutils.records import Item, Records, Sample, Segmented
from qkutils.studies import Labels
from qkutils.world import _things as things
from qkutils.world._drawing import of_slots
from qkutils.world._rendering import Scenes, make

WITH_TARGET = things.ODD_FACTORS[:-1]
CLEAR, PART_SHARE = 0.5, 0.1  # of a patch's pixels: to be on an object, to show a part
_BATCH = 64  # scenes that are rendered together

By = Literal["object", "part"]
Recorder = Callable[[str, Scenes, int], Item]


# ---- pictures, rendered when they are asked for --------------------------------------------------


def pictures(
    seed: int, start: int, stop: int, odd: Sequence[str] = things.ODD_FACTORS, size: int = 64
) -> Records[Image.Image]:
    """Draw scenes `start` to `stop` of a seed, as pictures alone.

    They are rendered in batches, when one of a batch is asked for.

    Parameters
    ----------
    seed
        Which run of scenes, a whole number from 0.
    start, stop
        The first scene, and the one after the last.
    odd
        What may be odd about the target: some of `ODD_FACTORS`.
    size
        Pixels of a picture's side.

    Returns
    -------
    Records[Image.Image]
        RGB pictures.

    Raises
    ------
    ValueError
        For an empty range and for an odd factor that the world does not have.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.world.pictures(0, 0, 100)[99].size
    (64, 64)
    """
    return _records(_picture, seed, start, stop, odd, size)


def samples(
    seed: int, start: int, stop: int, odd: Sequence[str] = WITH_TARGET, size: int = 64
) -> Records[Sample]:
    """Draw scenes `start` to `stop` of a seed, with the masks `target` and `distractor`.

    They are rendered in batches, when one of a batch is asked for.

    Parameters
    ----------
    seed
        Which run of scenes, a whole number from 0.
    start, stop
        The first scene, and the one after the last.
    odd
        What may be odd about the target: some of `ODD_FACTORS`; by default every scene has a
        target.
    size
        Pixels of a picture's side.

    Returns
    -------
    Records[Sample]
        Pictures with exact masks [height, width].

    Raises
    ------
    ValueError
        For an empty range and for an odd factor that the world does not have.

    Examples
    --------
    >>> import qkutils as qk
    >>> sample = qk.world.samples(0, 0, 100)[0]
    >>> sample.key, sorted(sample.masks)
    ('scene-0-0', ['distractor', 'target'])
    """
    return _records(_sample, seed, start, stop, odd, size)


def segmentations(
    seed: int,
    start: int,
    stop: int,
    by: By = "object",
    background: bool = False,
    odd: Sequence[str] = things.ODD_FACTORS,
    size: int = 64,
) -> Records[Segmented]:
    """Draw scenes `start` to `stop` of a seed, each with one exact label map.

    They are rendered in batches, when one of a batch is asked for.

    Parameters
    ----------
    seed
        Which run of scenes, a whole number from 0.
    start, stop
        The first scene, and the one after the last.
    by
        What a number of the label map is.  `object`: one object.  `part`: the parts of one sort
        that belong to one object, such as both wheels of a cart, or the body of a cup.
    background
        Whether the background is a segment too; else it is -1.
    odd
        What may be odd about the target: some of `ODD_FACTORS`.
    size
        Pixels of a picture's side.

    Returns
    -------
    Records[Segmented]
        Pictures with one label map [height, width], and the segments' names by number.

    Raises
    ------
    ValueError
        For an empty range, for an odd factor that the world does not have, and for another `by`.

    Examples
    --------
    >>> import qkutils as qk
    >>> segmented = qk.world.segmentations(0, 0, 100, by="part")[0]
    >>> sorted(set(segmented.names.values()))
    ['red face, body', 'red face, eye']
    """
    options.choice("by", by, get_args(By))
    return _records(partial(_segmented, by, background), seed, start, stop, odd, size)


def _records(
    record: Recorder[Item], seed: int, start: int, stop: int, odd: Sequence[str], size: int
) -> Records[Item]:
    """The record of every scene; the last batch that was rendered is at hand."""
    limits = {"seed": seed, "start": start, "stop": stop}
    seed, start, stop = (options.count(name, n, least=0) for name, n in limits.items())
    make(seed, start, min(start + 1, stop), size, odd=odd)  # refuses bad input at the door

    @lru_cache(maxsize=1)
    def batch(first: int) -> Scenes:
        return make(seed, first, min(first + _BATCH, stop), size, odd=odd)

    def read(number: int) -> Item:
        place = (number - start) % _BATCH
        return record(f"scene-{seed}-{number}", batch(number - place), place)

    return Records(range(start, stop), read)


def _picture(key: str, world: Scenes, at: int) -> Image.Image:
    pixels = (world.image[at] * 255).round().byte().movedim(0, -1)
    return Image.fromarray(pixels.numpy())


def _sample(key: str, world: Scenes, at: int) -> Sample:
    roles = {"target": things.TARGET, "distractor": things.DISTRACTOR}
    masks = {name: world.mask(role)[at].numpy() for name, role in roles.items()}
    return Sample(key, _picture(key, world, at), masks)


def _segmented(by: By, background: bool, key: str, world: Scenes, at: int) -> Segmented:
    slot, part, factors = world.slot[at], world.part[at], world.factors
    number = slot if by == "object" else slot * len(things.PARTS) + part
    beyond = things.SLOTS * len(things.PARTS)  # a number that no object has
    labels = torch.where(slot >= 0, number, beyond if background else -1)
    names = {beyond: "background"} if background else {}
    for each in set(labels.unique().tolist()) - {-1, beyond}:
        where, sort = (each, 0) if by == "object" else divmod(each, len(things.PARTS))
        colour = things.COLOURS[factors.colour[at, where]]
        kind = things.KINDS[factors.kind[at, where]]
        names[each] = f"{colour} {kind}" + (f", {things.PARTS[sort]}" if by == "part" else "")
    return Segmented(key, _picture(key, world, at), (labels.int().numpy(),), names)


# ---- labels of patches ---------------------------------------------------------------------------


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
        shape = f"{model.image_size} pixels in {model.grid} patches"
        raise ValueError(f"{model.name} takes {shape}; drawn scenes are square: take another model")
    scenes = make(things.NAMED_ON, 0, count, height)
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
    pixels = torch.stack([world.slot, world.part]).unfold(2, patch, patch).unfold(3, patch, patch)
    slot, part = pixels.flatten(-2).long()
    top = slot.mode(-1).values
    clear = (slot == top[..., None]).float().mean(-1) > CLEAR
    on_object = clear & (top >= 0)
    anything = torch.zeros_like(top)
    an_object = anything.where(on_object, -1)

    def of_object(names: tuple[str, ...], table: Int[Tensor, "scene slot"]) -> Labels:
        return Labels(names, of_slots(table, top).where(on_object, -1), an_object, 1)

    rows, columns = top.shape[1:]
    place = torch.arange(rows * columns, device=top.device).view(rows, columns).expand_as(top)
    spots = tuple(f"row {n // columns}, column {n % columns}" for n in range(rows * columns))
    kinds = torch.arange(2, len(things.PARTS), device=part.device)
    share, which = (part[..., None] == kinds).float().mean(-2).max(-1)
    factors, kind = world.factors, of_object(things.KINDS, world.factors.kind)
    of_part = kind.fine * (len(things.PARTS) - 1) + torch.where(share >= PART_SHARE, which + 1, 0)
    pairs = tuple(f"{part} of a {kind}" for kind in things.KINDS for part in things.PARTS[1:])
    return {
        "place": Labels(spots, place, anything, 1),
        "object": Labels(("background", "object"), on_object.long().where(clear, -1), anything, 1),
        "role": of_object(("distractor", "target"), (factors.role == things.TARGET).long()),
        "colour": of_object(things.COLOURS, factors.colour),
        "kind": kind,
        "texture": of_object(things.TEXTURES, factors.texture),
        "part": Labels(pairs, of_part.where(on_object, -1), kind.fine, len(things.KINDS)),
    }

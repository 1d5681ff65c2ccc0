"""Scenes as data sets: pictures, with masks or with segments, rendered when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Literal, get_args

import numpy as np
import torch
from PIL import Image

from qkutils import options
from qkutils.records import Item, Records, Sample, Segmented
from qkutils.world._factors import COLOURS, DISTRACTOR, KINDS, ODD_FACTORS, PARTS, SLOTS, TARGET
from qkutils.world._rendering import Scenes, make

_BATCH = 64  # scenes that are rendered together
WITH_TARGET = ODD_FACTORS[:-1]
By = Literal["object", "part"]


def pictures(
    seed: int, start: int, stop: int, odd: Sequence[str] = ODD_FACTORS, size: int = 64
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
    return _records(seed, start, stop, odd, size, _picture)


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
    return _records(seed, start, stop, odd, size, _sample)


def segmentations(
    seed: int,
    start: int,
    stop: int,
    by: By = "object",
    background: bool = False,
    odd: Sequence[str] = ODD_FACTORS,
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
    return _records(seed, start, stop, odd, size, partial(_segmented, by, background))


def _records(
    seed: int,
    start: int,
    stop: int,
    odd: Sequence[str],
    size: int,
    record: Callable[[str, Scenes, int], Item],
) -> Records[Item]:
    limits = {"seed": seed, "start": start, "stop": stop}
    seed, start, stop = (options.count(name, n, least=0) for name, n in limits.items())
    make(seed, start, min(start + 1, stop), size, odd=odd)  # refuses bad input at the door
    return Records(range(start, stop), _Rendering(seed, start, stop, odd, size, record))


@dataclass
class _Rendering(Generic[Item]):
    """Makes the record of a scene; the last batch that was rendered is at hand."""

    seed: int
    start: int
    stop: int
    odd: Sequence[str]
    size: int
    record: Callable[[str, Scenes, int], Item]
    batch: tuple[int, Scenes] | None = None

    def __call__(self, number: int) -> Item:
        place = (number - self.start) % _BATCH
        first, batch = number - place, self.batch  # which another thread may replace
        if batch is None or batch[0] != first:
            last = min(first + _BATCH, self.stop)
            batch = self.batch = first, make(self.seed, first, last, self.size, odd=self.odd)
        return self.record(f"scene-{self.seed}-{number}", batch[1], place)


def _picture(key: str, world: Scenes, at: int) -> Image.Image:
    pixels = (world.image[at] * 255).round().byte().movedim(0, -1).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels))


def _sample(key: str, world: Scenes, at: int) -> Sample:
    masks = {"target": world.mask(TARGET)[at], "distractor": world.mask(DISTRACTOR)[at]}
    return Sample(
        key, _picture(key, world, at), {name: mask.numpy() for name, mask in masks.items()}
    )


def _segmented(by: By, background: bool, key: str, world: Scenes, at: int) -> Segmented:
    slot, part, factors = world.slot[at], world.part[at], world.factors
    number = slot if by == "object" else slot * len(PARTS) + part
    beyond = SLOTS * len(PARTS)  # a number that no object has
    labels = torch.where(slot >= 0, number, beyond if background else -1)
    names = {beyond: "background"} if background else {}
    for each in set(labels.unique().tolist()) - {-1, beyond}:
        where, sort = (each, 0) if by == "object" else divmod(each, len(PARTS))
        colour, kind = COLOURS[factors.colour[at, where]], KINDS[factors.kind[at, where]]
        names[each] = f"{colour} {kind}" + (f", {PARTS[sort]}" if by == "part" else "")
    return Segmented(key, _picture(key, world, at), (labels.int().numpy(),), names)

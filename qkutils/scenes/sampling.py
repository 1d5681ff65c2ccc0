"""Scenes as samples: pictures with masks of target and distractors, rendered when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np
from PIL import Image

from qkutils.scenes.factors import DISTRACTOR, ODD_FACTORS, TARGET
from qkutils.scenes.rendering import Scenes, make

_BATCH = 64  # scenes that are rendered together
WITH_TARGET = ODD_FACTORS[:-1]


def samples(
    seed: int, start: int, stop: int, odd: Sequence[str] = WITH_TARGET, size: int = 64
) -> RenderedSamples:
    """Scenes `start` to `stop` of a seed, with the masks `target` and `distractor`.

    They are rendered in batches, when one of a batch is asked for.  Raises ValueError as `draw`
    does.
    """
    make(seed, start, min(start + 1, stop), size, odd=odd)  # refuses bad input at the door
    return RenderedSamples(seed, start, stop, odd, size)


class RenderedSamples(Sequence):
    """The scenes of a range as `Sample`s; the last batch that was rendered is at hand."""

    def __init__(self, seed: int, start: int, stop: int, odd: Sequence[str], size: int) -> None:
        self._seed, self._start, self._stop = seed, start, stop
        self._odd, self._size = odd, size
        self._batch: tuple[int, Scenes] | None = None

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, at: Any) -> Any:
        place = range(len(self))[index(at)]
        first = self._start + place - place % _BATCH
        if self._batch is None or self._batch[0] != first:
            last = min(first + _BATCH, self._stop)
            self._batch = first, make(self._seed, first, last, self._size, odd=self._odd)
        return _sample(f"scene-{self._seed}-{self._start + place}", self._batch[1], place % _BATCH)


def _sample(key: str, world: Scenes, at: int) -> Any:
    from qkutils.data.samples import Sample  # at the top, it would need models, which need scenes

    pixels = (world.image[at] * 255).round().byte().movedim(0, -1).numpy()
    masks = {"target": world.mask(TARGET)[at], "distractor": world.mask(DISTRACTOR)[at]}
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return Sample(key, image, {name: mask.numpy() for name, mask in masks.items()})

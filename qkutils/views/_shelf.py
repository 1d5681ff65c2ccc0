"""What a page carries of an atlas: some modes' pictures, each once, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import PIL.Image
import xarray as xr

from qkutils import models
from qkutils.pictures import Pictures, visible
from qkutils.views._arrays import encoded

BUDGET = 1_450_000  # characters that a view may bring to a page
SIDE = 96  # pixels of a large picture, as it is sent
FRAME = 4_000  # of them for names and sizes of arrays
MOST_MODES = 6
Named = Callable[..., dict[str, list[list[str]]]]


class Shelf:
    """The pictures of a source as they are sent: in the model's crop, each made only once."""

    def __init__(self, model: models.Model, pictures: Pictures) -> None:
        self.model, self.pictures = model, pictures
        self.made: dict[int, dict[str, Any]] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in which pictures are sent: whole pixels for each patch."""
        size = self.model.image_size
        if max(size) <= SIDE:
            return size
        pixels = max(1, SIDE // max(self.model.grid))
        return self.model.grid[0] * pixels, self.model.grid[1] * pixels

    def __getitem__(self, number: int) -> dict[str, Any]:
        if number not in self.made:
            seen = visible(self.model, self.pictures.read(number)[None])[0]
            image = PIL.Image.fromarray((seen * 255).round().astype(np.uint8))
            small = image.resize(self.shape[::-1], PIL.Image.Resampling.LANCZOS)
            self.made[number] = {"key": self.pictures.keys[number]} | encoded(small, smallest=True)
        return self.made[number]


def fitting(whole: xr.Dataset, atlas: xr.Dataset, shelf: Shelf, named: Named) -> xr.Dataset:
    """As many of the first modes as fit in the budget; else one mode, fewer pictures, layers."""
    counts = range(1, min(MOST_MODES, whole.sizes["mode"]) + 1)
    found = None
    for part in (whole.isel(mode=slice(count)) for count in counts):
        if not fits(part, atlas, shelf, named):
            break
        found = part
    if found is not None:
        return found
    one = whole.isel(mode=slice(1))
    fewer = [one.isel(rank=slice(n)) for n in range(one.sizes["rank"], 0, -1)]
    thinner = [fewer[-1].isel(layer=slice(None, None, n)) for n in range(2, one.sizes["layer"])]
    for part in fewer + thinner:
        if fits(part, atlas, shelf, named):
            return part
    raise ValueError("no choice of modes fits on a page; name a few with modes=, heads=, layers=")


def fits(part: xr.Dataset, atlas: xr.Dataset, shelf: Shelf, named: Named) -> bool:
    """Whether facts of all modes, and pictures and names of some, fit; base64 adds a third."""
    rows, columns = shelf.model.grid
    places = product(*(part[name].values.tolist() for name in ("layer", "head", "mode")))
    room = BUDGET - FRAME - sum(len(str(named(*place))) + 15 for place in places)
    room -= 4 / 3 * (6 * 4 * atlas.sigma.size + part.image.size * (2 * rows * columns + 16))
    for number in numbers_of(part):
        sent = shelf[number]
        room -= 4 / 3 * len(sent["bytes"]) + len(sent["key"]) + 80
        if room < 0:
            return False
    return room >= 0


def numbers_of(part: xr.Dataset) -> list[int]:
    """Those pictures that some mode responds to most, each once."""
    return [int(n) for n in np.unique(part.image.values) if n >= 0]


def pictures_in(shelf: Shelf, part: xr.Dataset) -> dict[str, Any]:
    """These pictures as they are sent, by number."""
    return {str(number): shelf[number] for number in numbers_of(part)}


def in_words(part: xr.Dataset, atlas: xr.Dataset, count: int) -> str:
    """The part of the modes whose pictures a page has, in words."""
    kept = [(name, [int(n) for n in part[name].values]) for name in ("mode", "head", "layer")]
    said = [
        f"all {name}s" if len(values) == atlas.sizes[name] else _listed(name, values)
        for name, values in kept
    ]
    return (
        f"Carried here: facts of all modes; pictures of {' of '.join(said)}, "
        f"{part.sizes['rank']} for each sign ({count} different ones)."
    )


def _listed(name: str, values: list[int]) -> str:
    if len(values) == 1:
        return f"{name} {values[0]}"
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{name}s {values[0]} to {values[-1]}"
    return f"{name}s {', '.join(map(str, values[:-1]))} and {values[-1]}"

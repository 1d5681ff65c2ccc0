"""What a page carries of an atlas: some modes' pictures, each once, within a budget of bytes."""

from __future__ import annotations

from itertools import product, takewhile
from typing import Any

import numpy as np
import PIL.Image
import xarray as xr

from qkutils.atlas import galleries
from qkutils.models import Model
from qkutils.modes import decompose
from qkutils.pictures import Pictures
from qkutils.provenance import convention_of
from qkutils.views._arrays import encoded, packed, seen

BUDGET = 1_450_000  # characters that a view may bring to a page
SIDE = 96  # pixels of a large picture, as it is sent
FRAME = 4_000  # of them for names and sizes of arrays
MOST_MODES = 6
PLACE = ("layer", "head", "mode")
OF_PICTURES = ("image", "score", "query_patch", "key_patch")
SIDES = ("query", "key")
Names = dict[tuple[int, ...], list[dict[str, Any]]]  # what is known of the names of each mode
Sent = dict[str, dict[str, Any]]  # pictures as the browser takes them, by number


class Shelf:
    """Modes, their names, and pictures in the model's crop, as they are sent, made once."""

    def __init__(self, model: Model, pictures: Pictures, best: xr.Dataset, names: Names) -> None:
        """`best`: an atlas with as many pictures of a mode as may be sent."""
        self.model, self.pictures, self.best, self.names = model, pictures, best, names
        self.parts = decompose(model, convention=convention_of(best))
        self.made: dict[int, dict[str, Any]] = {}

    def picture(self, number: int) -> dict[str, Any]:
        """One picture of the source."""
        if number not in self.made:
            image = seen(self.model, self.pictures.read(number))
            self.made[number] = sent_picture(self.pictures.keys[number], image, self.model.grid)
        return self.made[number]

    def sent(self, part: xr.Dataset) -> Sent:
        """Those pictures that some mode responds to most, each once, by number."""
        return {str(n): self.picture(n) for n in numbers(part.image)}

    def gallery(self, part: xr.Dataset) -> xr.Dataset:
        """Some modes' optimal pictures by number, their maps, and the projection of full colour."""
        shown = galleries(self.model, self.pictures, part, self.parts)
        made = part[[*OF_PICTURES]].fillna(0)
        for side in SIDES:
            limit = shown[side].max(("sign", "rank", "row", "column")).clip(min=1e-12)
            made[f"{side}_limit"] = limit
            made[side] = (shown[side] / limit).clip(0, 1)
        return made

    def fits(self, part: xr.Dataset) -> bool:
        """Whether facts of all modes, and pictures and names of some, fit; base64 adds a third."""
        rows, columns = self.model.grid
        room = BUDGET - FRAME
        room -= sum(len(str(self.names.get(at, []))) + 15 for at in _places(part))
        room -= 4 / 3 * (6 * 4 * self.best.sigma.size + part.image.size * (2 * rows * columns + 16))
        for number in numbers(part.image):
            sent = self.picture(number)
            room -= 4 / 3 * len(sent["bytes"]) + len(sent["key"]) + 80
            if room < 0:
                return False
        return room >= 0

    def fitting(self, whole: xr.Dataset) -> xr.Dataset:
        """As many of the first modes as fit; else one mode, and fewer pictures, then layers."""
        counts = range(1, min(MOST_MODES, whole.sizes["mode"]) + 1)
        if found := list(takewhile(self.fits, (whole.isel(mode=slice(n)) for n in counts))):
            return found[-1]
        one = whole.isel(mode=slice(1))
        fewer = [one.isel(rank=slice(n)) for n in range(one.sizes["rank"], 0, -1)]
        thinner = [fewer[-1].isel(layer=slice(None, None, n)) for n in range(2, one.sizes["layer"])]
        for part in fewer + thinner:
            if self.fits(part):
                return part
        raise ValueError("no choice of modes fits on a page; name a few: modes=, heads=, layers=")


def sent_picture(key: str, image: PIL.Image.Image, grid: tuple[int, int]) -> dict[str, Any]:
    """A picture as it is sent: a large one has as many whole pixels for each patch as fit."""
    size = image.size
    if max(size) > SIDE:
        pixels = max(1, SIDE // max(grid))
        size = grid[1] * pixels, grid[0] * pixels
    small = image.resize(size, PIL.Image.Resampling.LANCZOS)
    return {"key": key} | encoded(small, smallest=True)


def sent_gallery(gallery: xr.Dataset, names: Names) -> dict[str, Any]:
    """What `Shelf.gallery` gave as the browser takes it, with names."""
    sent: dict[str, Any] = {f"{name}s": gallery[name].values.tolist() for name in PLACE}
    sent |= {name: packed(gallery[name].values, "uint8") for name in SIDES}
    rest = (*OF_PICTURES, *(f"{side}_limit" for side in SIDES))
    sent |= {name: packed(gallery[name].values, "float32") for name in rest}
    named = {" ".join(map(str, at)): names.get(at, []) for at in _places(gallery)}
    return sent | {"names": named}


def numbers(image: xr.DataArray) -> list[int]:
    """The numbers of the pictures of a gallery, each once."""
    return [int(n) for n in np.unique(image.values) if n >= 0]


def _places(part: xr.Dataset) -> list[tuple[int, ...]]:
    return list(product(*(part[name].values.tolist() for name in PLACE)))

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
Names = dict[tuple[int, ...], list[dict[str, Any]]]  # what is known of the names of each mode


class Shelf:
    """Modes, their names and pictures as they are sent; pictures in the model's crop, made once."""

    def __init__(self, model: Model, pictures: Pictures, best: xr.Dataset, names: Names) -> None:
        """`best`: an atlas with as many pictures of a mode as may be sent."""
        self.model, self.pictures, self.best, self.names = model, pictures, best, names
        self.parts = decompose(model, convention=convention_of(best))
        self.made: dict[int, dict[str, Any]] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in which pictures are sent: whole pixels for each patch."""
        size = self.model.image_size
        if max(size) <= SIDE:
            return size
        pixels = max(1, SIDE // max(self.model.grid))
        return self.model.grid[0] * pixels, self.model.grid[1] * pixels

    def picture(self, number: int) -> dict[str, Any]:
        """One picture of the source."""
        if number not in self.made:
            image = seen(self.model, self.pictures.read(number))
            small = image.resize(self.shape[::-1], PIL.Image.Resampling.LANCZOS)
            self.made[number] = {"key": self.pictures.keys[number]} | encoded(small, smallest=True)
        return self.made[number]

    def sent(self, part: xr.Dataset) -> dict[str, dict[str, Any]]:
        """Those pictures that some mode responds to most, each once, by number."""
        return {str(n): self.picture(n) for n in _numbers(part)}

    def gallery(self, part: xr.Dataset) -> dict[str, Any]:
        """Some modes' optimal pictures by number, their maps, and the projection of full colour."""
        shown = galleries(self.model, self.pictures, part, self.parts)
        made: dict[str, Any] = {f"{name}s": part[name].values.tolist() for name in PLACE}
        made |= {name: packed(part[name].fillna(0).values, "float32") for name in OF_PICTURES}
        for side in ("query", "key"):
            limit = shown[side].max(("sign", "rank", "row", "column")).clip(min=1e-12)
            share = (shown[side] / limit).clip(0, 1)
            made[side] = packed(share.values, "uint8")
            made[f"{side}_limit"] = packed(limit.values, "float32")
        names = {" ".join(map(str, at)): self.names.get(at, []) for at in _places(part)}
        return made | {"names": names}

    def fits(self, part: xr.Dataset) -> bool:
        """Whether facts of all modes, and pictures and names of some, fit; base64 adds a third."""
        rows, columns = self.model.grid
        room = BUDGET - FRAME
        room -= sum(len(str(self.names.get(at, []))) + 15 for at in _places(part))
        room -= 4 / 3 * (6 * 4 * self.best.sigma.size + part.image.size * (2 * rows * columns + 16))
        for number in _numbers(part):
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


def _numbers(part: xr.Dataset) -> list[int]:
    return [int(n) for n in np.unique(part.image.values) if n >= 0]


def _places(part: xr.Dataset) -> list[tuple[int, ...]]:
    return list(product(*(part[name].values.tolist() for name in PLACE)))

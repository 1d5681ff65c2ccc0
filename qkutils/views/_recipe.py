"""How a browser makes of a picture what a model takes."""

from __future__ import annotations

import qkutils._torchvision

from typing import Any

from torchvision.transforms import CenterCrop, InterpolationMode, Normalize, Resize, ToTensor

from qkutils.models import Model

_FILTERS = {InterpolationMode.BILINEAR: "bilinear", InterpolationMode.BICUBIC: "bicubic"}


def recipe(model: Model) -> dict[str, Any]:
    """A model's preprocessing up to pixels from 0 to 1, for `prepared` in `front/math/resample.js`.

    `resize` is the shorter side, or height and width; `size` is what is cut out of the middle.
    Raises ValueError for a transform that scripts do not know.
    """
    told = ""
    match model.transform.transforms:
        case [Resize() as resize, CenterCrop(size=size), ToTensor(), Normalize()]:
            pass
        case [Resize(size=[_, _] as size) as resize, ToTensor(), Normalize()]:
            pass
        case steps:
            told = ", ".join(type(step).__name__ for step in steps)
    if told or resize.interpolation not in _FILTERS or resize.max_size is not None:
        known = "Resize (bilinear or bicubic, no max_size), CenterCrop, ToTensor, Normalize"
        raise ValueError(f"{model.name}: its transform is {told or resize}; a page knows {known}")
    sides = [resize.size] if isinstance(resize.size, int) else list(resize.size)
    return {
        "resize": sides if sides[1:] else sides[0],
        "filter": _FILTERS[resize.interpolation],
        "size": list(size),
    }

"""Numbers and pictures for the browser, in few bytes."""

from __future__ import annotations

import io
from typing import Any, Literal, get_args

import numpy as np
import PIL.Image
from jaxtyping import Float, Shaped
from torch import Tensor

from qkutils import options
from qkutils.models import Model
from qkutils.pictures import visible

Form = Literal["uint8", "float16", "float32"]


def packed(values: Shaped[np.ndarray, ...], form: Form = "float16") -> dict[str, Any]:
    """An array for the front end's `unpack`; `uint8` keeps 256 steps from the least to the most.

    Raises ValueError where a number is not finite in the form, so that no map is drawn from it.
    """
    options.choice("form", form, get_args(Form))
    given = np.asarray(values)
    made: dict[str, Any] = {"shape": list(given.shape), "form": form, "low": 0.0, "high": 0.0}
    if not np.isfinite(given).all() or (form == "float16" and abs(given).max(initial=0) > 65504):
        raise ValueError(f"an array of shape {given.shape} holds numbers that {form} can't carry")
    if form == "uint8":
        made["low"], made["high"] = float(given.min(initial=0)), float(given.max(initial=0))
        span = made["high"] - made["low"] or 1.0
        given = ((given - made["low"]) / span * 255).round()
    return made | {"bytes": given.astype(form).tobytes()}


def seen(model: Model, image: Float[Tensor, "3 height width"]) -> PIL.Image.Image:
    """What a model sees of an image, as a person would."""
    pixels = 255 * visible(model, image[None])[0]
    return PIL.Image.fromarray(pixels.round().astype(np.uint8))


def encoded(image: PIL.Image.Image, smallest: bool = False) -> dict[str, Any]:
    """A picture as PNG where it is small, else as JPEG.

    `smallest`: as whichever of the two has fewer bytes, with a little less quality.
    """
    if smallest:
        both = [_saved(image, form, quality=75) for form in ("png", "jpeg")]
        return min(both, key=lambda made: len(made["bytes"]))
    return _saved(image, "png" if max(image.size) <= 128 else "jpeg", quality=85)


def decoded(sent: dict[str, Any]) -> Float[np.ndarray, "height width 3"]:
    """What a browser shows of an encoded picture, from 0 to 1."""
    return np.asarray(PIL.Image.open(io.BytesIO(sent["bytes"])).convert("RGB")) / 255


def _saved(image: PIL.Image.Image, form: str, quality: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format=form, quality=quality, optimize=True)
    return {"type": f"image/{form}", "bytes": buffer.getvalue()}

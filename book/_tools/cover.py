"""The living figure of the front page: a photograph, and what asks and answers, layer by layer."""

from pathlib import Path

import mount
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from qkutils import views
from qkutils.book import stored_maps
from qkutils.views import _page, gallery_figures

MODEL = "vit_small_patch14_dinov2.lvd142m"
HERE = "<!-- the living figure -->"
LABEL = "layer"


def figure() -> views.View:
    """All stored modes of a model on the photograph where the last of them scores highest."""
    maps = stored_maps.on_photographs(MODEL)
    number = int(maps.score.isel(chosen=-1).max("sign").argmax("image"))
    on_one = maps.isel(image=number)
    picture = stored_maps.photograph(maps, str(on_one.image.item()))
    modes = [on_one.isel(chosen=n) for n in range(maps.sizes["chosen"])]
    frames = [frame(picture, mode) for mode in modes]
    layers = [int(mode.layer) for mode in modes]
    view = views.stepper(frames, layers, [said(mode) for mode in modes], LABEL)
    view.state = view.state | {"step": len(layers) - 1}
    view.still = _page.still_picture(frame(picture, modes[-1]), said(modes[-1]))
    return view


def frame(picture: np.ndarray, mode: xr.Dataset) -> Figure:
    """The photograph, and a mode laid over it, in the sign that scores higher."""
    sign = int(mode.sign[int(mode.score.argmax("sign"))])
    query, key = (sign * mode[side].values for side in stored_maps.SIDES)
    limits = max(query.max(), 1e-9), max(key.max(), 1e-9)
    made = Figure(figsize=(6.4, 3.5), layout="constrained")
    left, right = made.subplots(1, 2)
    left.imshow(picture)
    right.imshow(gallery_figures.overlay(picture, query, key, limits))
    left.set(xticks=[], yticks=[], title="the photograph")
    right.set(xticks=[], yticks=[], title=f"layer {int(mode.layer)}: red asks, cyan answers")
    return made


def said(mode: xr.Dataset) -> str:
    """A frame in words."""
    place = "layer {}, head {}, mode {}".format(*(int(mode[n]) for n in ("layer", "head", "mode")))
    return f"A photograph, and over it what asks and what answers in {place}."


def write(page: Path, stage: Path) -> None:
    """Put the figure into the front page."""
    mount.put(figure(), page, HERE, stage, "qk-cover")

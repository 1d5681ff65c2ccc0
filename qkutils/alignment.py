"""Masks on the model's pixels: what resize and crop do to a picture, they do to its masks."""

from __future__ import annotations

import qkutils._torchvision

import copy
from itertools import takewhile
from typing import Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, Float, Int
from timm.data.transforms import CenterCropOrPad, ResizeKeepRatio
from torch import Tensor
from torchvision.transforms import CenterCrop, InterpolationMode, Resize, ToTensor

from qkutils.models import Model
from qkutils.pictures._opening import in_mode
from qkutils.records import Segmented, same_shape

_GEOMETRY = (Resize, ResizeKeepRatio, CenterCrop, CenterCropOrPad)


def align(
    model: Model, image: PIL.Image.Image, masks: Bool[np.ndarray, "mask height width"]
) -> tuple[Float[Tensor, "3 rows columns"], Bool[Tensor, "mask rows columns"]]:
    """Bring a picture and its masks, of any size, onto the pixels that the model sees.

    The picture is resized as the model wants it, and normalised.  The masks go through the same
    resize and crop, by nearest neighbour.

    Parameters
    ----------
    model
        What `load` gave.
    image
        The picture.
    masks
        Boolean, [mask, height, width], in the shape of the picture, up to scale.

    Returns
    -------
    tuple
        The picture as a tensor [channel, row, column], and the masks as booleans [mask, row,
        column].

    Raises
    ------
    ValueError
        For masks that are not boolean or have another shape than the picture, and for a model whose
        resize and crop can't be followed.

    Examples
    --------
    >>> import qkutils as qk, numpy as np
    >>> from PIL import Image
    >>> left = np.zeros((1, 100, 100), dtype=bool)
    >>> left[:, :, :50] = True
    >>> model, picture = qk.load("tiny-supervised"), Image.new("RGB", (100, 100))
    >>> seen, masks = qk.alignment.align(model, picture, left)
    >>> seen.shape, masks.shape, round(float(masks.float().mean()), 2)
    (torch.Size([3, 64, 64]), torch.Size([1, 64, 64]), 0.5)
    """
    masks = np.asarray(masks)
    if masks.ndim != 3 or masks.dtype != bool or not isinstance(image, PIL.Image.Image):
        raise ValueError(
            f"{type(image).__name__} with masks of shape {masks.shape} that hold {masks.dtype}: a "
            "PIL image and boolean ones are needed, [mask, height, width]"
        )
    moved = [_move(model, image, mask.astype(np.int32)) for mask in masks]
    empty = np.zeros((0, *model.image_size), dtype=bool)
    seen = np.stack(moved).astype(bool) if moved else empty
    return model.transform(in_mode(image)), torch.from_numpy(seen)


def align_labels(
    model: Model, image: PIL.Image.Image, labels: Int[np.ndarray, "height width"]
) -> Int[Tensor, "rows columns"]:
    """Bring a picture's label map, of any size, onto the pixels that the model sees.

    Parameters
    ----------
    model
        What `load` gave.
    image
        The picture.
    labels
        Whole numbers, [height, width], in the shape of the picture, up to scale.

    Returns
    -------
    Tensor
        The labels as whole numbers [row, column].  A label is -1 where a border was added.

    Raises
    ------
    ValueError
        For labels that are not whole numbers or have another shape than the picture, and for a
        model whose resize and crop can't be followed.

    Examples
    --------
    >>> import qkutils as qk, numpy as np
    >>> from PIL import Image
    >>> left = np.repeat([[1, 2]], 50, axis=1).repeat(100, axis=0)
    >>> model, picture = qk.load("tiny-supervised"), Image.new("RGB", (100, 100))
    >>> labels = qk.alignment.align_labels(model, picture, left)
    >>> labels.shape, labels.unique().tolist()
    (torch.Size([64, 64]), [1, 2])
    """
    (whole,) = Segmented("labels", image, (labels,)).labels
    shifted = _move(model, image, whole + 1)  # borders are filled with 0
    return torch.from_numpy(shifted.astype(np.int64) - 1)


def _move(
    model: Model, image: PIL.Image.Image, values: Int[np.ndarray, "height width"]
) -> Int[np.ndarray, "rows columns"]:
    """A map of numbers, through the model's resize and crop by nearest neighbour."""
    height, width = values.shape
    if not same_shape(image.size, (width, height)):
        raise ValueError(
            f"a mask of {width} × {height} pixels does not fit a picture of {image.width} × "
            f"{image.height}; give the mask that belongs to this picture"
        )
    # At the picture's own size first, so that rounding is the picture's.
    moved = PIL.Image.fromarray(values).resize(image.size, PIL.Image.Resampling.NEAREST)
    for step in takewhile(lambda step: not isinstance(step, ToTensor), model.transform.transforms):
        moved = _nearest(model, step)(moved)
    return np.asarray(moved)


def _nearest(model: Model, step: Any) -> Any:
    if not isinstance(step, _GEOMETRY):
        raise ValueError(
            f"{model.name}: its preprocessing has {type(step).__name__}, which masks can't follow; "
            "use one that only resizes and crops"
        )
    step = copy.copy(step)
    if hasattr(step, "interpolation"):
        step.interpolation = InterpolationMode.NEAREST
    if hasattr(step, "fill"):
        step.fill = 0
    return step

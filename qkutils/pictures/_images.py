"""Images: pictures of a folder or of a sequence, ready for a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from qkutils import options
from qkutils.models import Model
from qkutils.passes import check_images
from qkutils.pictures._folders import picture_files
from qkutils.pictures._opening import open_picture, upright
from qkutils.records import Records

Source = str | Path | Tensor | Sequence


def pictures(source: Source, count: int) -> list[Image.Image]:
    """Take some pictures of a source, spread evenly over it, in their own size.

    Parameters
    ----------
    source
        A folder, or a sequence of pictures, or of records with an `image`.
    count
        How many pictures to take.

    Returns
    -------
    list
        PIL images, the right way up, in the order of the source.

    Raises
    ------
    FileNotFoundError
        For a folder that is missing or holds no picture.
    ValueError
        For a file that can't be read, and for a source of fewer pictures.

    Examples
    --------
    >>> import qkutils as qk
    >>> [picture.size for picture in qk.pictures.pictures(qk.world.pictures(0, 0, 8), count=2)]
    [(64, 64), (64, 64)]
    """
    return [_picture(seen(each)) for each in _spread(source, count)]


def images(
    source: Source, model: Model, count: int = 16
) -> Float[Tensor, "image channel height width"]:
    """Take some pictures of a source through the model's own resize, crop and normalisation.

    The pictures are spread evenly over the source.

    Parameters
    ----------
    source
        A folder; a sequence of pictures, records with an `image`, or tensors; or one tensor of
        images that are ready.
    model
        What `load` gave.
    count
        How many pictures to take.

    Returns
    -------
    Tensor
        Over [image, channel, height, width], as the model takes them.

    Raises
    ------
    FileNotFoundError
        For a folder that is missing or holds no picture.
    ValueError
        For a file that can't be read, for a source of fewer pictures, and for tensors that the
        model does not take.

    Examples
    --------
    >>> import qkutils as qk
    >>> model = qk.load("tiny-supervised")
    >>> qk.pictures.images(qk.world.pictures(0, 0, 8), model, count=2).shape
    torch.Size([2, 3, 64, 64])
    """
    return torch.stack([ready(seen(each), model) for each in _spread(source, count)])


def _spread(source: Any, count: Any) -> list:
    """`count` items of a source, spread evenly over it."""
    count = options.count("count", count)
    if isinstance(source, str | Path) and str(source):
        items: Any = Records(list(picture_files(Path(source)).values()), open_picture)
    elif isinstance(source, Sequence | Tensor) and not isinstance(source, str):
        items = source
    else:
        raise ValueError(f"source={source!r}: a folder or a sequence of pictures is needed")
    if len(items) < count:
        raise ValueError(f"count={count}: the source has {len(items)} pictures; ask for fewer")
    return [items[n * len(items) // count] for n in range(count)]


def seen(item: Any) -> Any:
    """What is seen of one item of a sequence: its tensor, or its picture, upright."""
    item = getattr(item, "image", item)
    return upright(item) if isinstance(item, Image.Image) else item


def _picture(item: Any) -> Image.Image:
    if not isinstance(item, Image.Image):
        raise ValueError(
            f"{type(item).__name__} is not a picture: a PIL image or a record with one is needed"
        )
    return item


def ready(item: Any, model: Model) -> Float[Tensor, "channel height width"]:
    """A picture or a tensor as the model takes it; raises ValueError for what it can't take."""
    image = item if isinstance(item, Tensor) else model.transform(_picture(item))
    check_images(model, image[None])
    return image


def visible(
    model: Model, images: Float[Tensor, "image channel height width"]
) -> Float[np.ndarray, "image height width channel"]:
    """Show images as a person sees them.

    The model's normalisation is undone.  Its resize and crop are kept.

    Parameters
    ----------
    model
        What `load` gave.
    images
        As the model takes them.

    Returns
    -------
    np.ndarray
        Over [image, height, width, channel], from 0 (black) to 1 (white).

    Examples
    --------
    >>> import qkutils as qk
    >>> model = qk.load("tiny-supervised")
    >>> images = qk.pictures.images(qk.world.pictures(0, 0, 2), model, count=2)
    >>> seen = qk.pictures.visible(model, images)
    >>> seen.shape, bool(seen.min() >= 0 and seen.max() <= 1)
    ((2, 64, 64, 3), True)
    """
    normalise = model.transform.transforms[-1]
    mean, std = (torch.as_tensor(v).view(-1, 1, 1) for v in (normalise.mean, normalise.std))
    return (images * std + mean).clamp(0, 1).movedim(1, -1).numpy()

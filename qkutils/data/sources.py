"""Images: pictures from a folder or from the embedded world, ready for a model."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from qkutils import scenes
from qkutils.models import Model

BOOK_SCENES = 0  # the world seed whose scenes the chapters show
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
# What PIL raises for a file that is broken, depending on its kind and on where it is broken.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def pictures(source: str | Path, count: int, size: int = 64) -> list[Image.Image]:
    """`count` pictures spread evenly over a folder's files; scenes where source is "".

    Scenes come in `size` × `size` pixels, files in their own size.  Raises FileNotFoundError for a
    folder that is missing or holds no picture, ValueError for a file that can't be read.
    """
    if count < 1:
        raise ValueError(f"count={count}: ask for at least one picture")
    if not str(source):
        image = scenes.make(BOOK_SCENES, 0, count, size).image
        pixels = (image * 255).round().byte().movedim(1, -1).numpy()
        return [Image.fromarray(np.ascontiguousarray(p)) for p in pixels]
    files = picture_files(Path(source))
    if len(files) < count:
        raise ValueError(
            f"{source}: holds {len(files)} pictures, and {count} are needed; add some, or name "
            "another folder"
        )
    return [open_picture(files[i * len(files) // count]) for i in range(count)]


def picture_files(folder: Path) -> list[Path]:
    """The picture files of a folder and of its subfolders, sorted; raises where there are none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder of pictures; check the path")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(
            f"{folder}: holds no picture ({', '.join(sorted(SUFFIXES))}); name another folder"
        )
    return files


def open_picture(file: Path | BytesIO, mode: str = "RGB", name: str = "") -> Image.Image:
    """Reads one file as an upright picture, whatever its colour mode.

    Raises ValueError for a file that can't be read, which it calls by its path or `name`.
    """
    try:
        with Image.open(file) as picture:
            return upright(picture, mode)
    except _UNREADABLE as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "it is no kind of picture that Pillow knows" if unknown else error
        raise ValueError(
            f"{name or file}: can't be read as a picture ({reason}); remove or mend it"
        ) from error


def upright(picture: Image.Image, mode: str = "RGB") -> Image.Image:
    """A picture the right way up and in this colour mode, from one of any mode."""
    turned = ImageOps.exif_transpose(picture)
    if turned.mode.startswith("I;16"):  # PIL would cut off at 255 instead of scaling
        turned = Image.fromarray((np.asarray(turned) / 257).round().astype(np.uint8))
    return turned.convert(mode)


def images(
    source: str | Path, model: Model, count: int = 16
) -> Float[Tensor, "image channel height width"]:
    """`count` pictures of a source through the model's own resize, crop and normalisation.

    Taught in chapter 1.
    """
    size = model.image_size[0]
    return torch.stack([model.transform(p) for p in pictures(source, count, size)])


def visible(
    model: Model, images: Float[Tensor, "image channel height width"]
) -> Float[np.ndarray, "image height width channel"]:
    """Images as a person sees them: the model's normalisation undone, its resize and crop kept."""
    normalise = model.transform.transforms[-1]
    mean, std = (torch.as_tensor(v).view(-1, 1, 1) for v in (normalise.mean, normalise.std))
    return (images * std + mean).clamp(0, 1).movedim(1, -1).numpy()

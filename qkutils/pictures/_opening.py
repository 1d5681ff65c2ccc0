"""Opening pictures: every file comes in here, whatever its kind, depth, turn or fault."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

# By the EXIF tag Orientation, from 2 on.
_TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90"


def shown(path: str | Path) -> str:
    r"""A path as text that can be written anywhere: bytes that are not UTF-8 become \x…."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def open_file(path: Path) -> BinaryIO:
    """Opens a regular file; raises ValueError that says what is in the way."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return open(path, "rb")
        if stat.S_ISDIR(mode):
            os.listdir(path)  # raises where that is what was in the way
        why = "it is a folder" if stat.S_ISDIR(mode) else "it is a pipe, a socket or a device"
    except FileNotFoundError:
        link = path.is_symlink() and shown(os.readlink(path))
        why = f"it is a link to {link}, which is not there" if link else "there is no such file"
    except PermissionError:
        why = "permission is denied; `chmod u+rX` allows reading"
    except OSError as error:
        why = error.strerror or str(error)
    raise ValueError(f"{shown(path)}: can't be read ({why}); remove or mend it")


def open_picture(file: Path | BytesIO, mode: str = "RGB", name: str = "") -> Image.Image:
    """Reads one file as an upright picture, whatever its colour mode; of several, the first.

    Raises ValueError for a file that can't be read, which it calls by its path or `name`.
    """
    name = name or shown(str(file))
    with open_file(file) if isinstance(file, Path) else file as content:
        try:
            with Image.open(content) as picture:
                return upright(picture, mode)
        except Exception as error:  # for a broken file, Pillow raises many unrelated classes
            unknown = isinstance(error, UnidentifiedImageError)
            why = "it is no kind of picture that Pillow knows" if unknown else error
            told = f"{name}: can't be read as a picture ({why}); remove or mend it"
            raise ValueError(told) from error


def upright(picture: Image.Image, mode: str = "RGB") -> Image.Image:
    """A picture the right way up and in this colour mode, from one of any mode.

    Raises ValueError for numbers whose range is not known.
    """
    picture.load()  # which turns a TIFF file already
    picture = _as_tagged(signed(picture), getattr(picture, "tag_v2", {}))
    try:
        turn = int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # EXIF of a wrong form raises anything, and the picture is whole
        turn = 1
    if 2 <= turn <= 8:
        picture = picture.transpose(Image.Transpose[_TURNS.split()[turn - 2]])
    seen = in_mode(picture, mode)
    seen.info.clear()  # or it would be turned again
    return seen


def signed(picture: Image.Image) -> Image.Image:
    """A picture with the sign of 8 bits that a TIFF file's tags tell, and Pillow leaves out."""
    if picture.mode == "L" and getattr(picture, "tag_v2", {}).get(339) == (2,):
        return Image.fromarray(np.asarray(picture).view(np.int8).astype(np.int32))
    return picture


def _as_tagged(picture: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """A picture with its numbers as the tags of a TIFF file have them, where Pillow has not.

    They tell fewer than 16 bits, and that 0 is white.  The largest number that is used is taken for
    white where it is that of 9 to 15 bits; where nothing tells, 16 bits are.
    """
    photometric, most = (tags.get(tag) for tag in (262, 281))
    if not tags or not picture.mode.startswith("I;16"):
        return picture
    depths = ((bits, 2**bits - 1) for bits in range(9, 16))
    whites = [white for bits, white in depths if (bits,) == tags[258] or (white,) == most]
    values = np.asarray(picture) / (*whites, 65535)[0]
    return Image.fromarray((1 - values if photometric == 0 else values).astype(np.float32))


def in_mode(picture: Image.Image, mode: str = "RGB") -> Image.Image:
    """A picture in this colour mode; deep ones are scaled, where Pillow would cut off at 255.

    Raises ValueError for numbers whose range is not known.
    """
    if not all(picture.size):
        raise ValueError("it has no pixels")
    if picture.mode == "F" or picture.mode.startswith("I"):
        picture = Image.fromarray(_eight_bits(np.asarray(picture)))
    return picture.convert(mode)


def _eight_bits(values: Shaped[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    """Numbers from 0 to 255, of 16 bits, of floating point from 0 to 1, or of 32 bits.

    Those of 32 bits count as 8 bits where none is larger than 255, as 16 bits where one is.
    """
    low, high = values.min(), values.max()
    white = 1 if values.dtype.kind == "f" else 65535
    if values.dtype.itemsize == 4 and white > 1 and high <= 255:
        white = 255
    if not (low >= 0 and high <= white):  # so is NaN
        raise ValueError(
            f"it has values from {low:g} to {high:g}; bring them to 0 … 65535 or 0.0 … 1.0"
        )
    return (values / (white / 255)).round().astype(np.uint8)

"""Odd one out: the photographs of O3 and the patterns of P3, with target and distractors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from qkutils.datasets._reading import Part, Reading, reading
from qkutils.pictures._folders import SUFFIXES, check_folder, counts
from qkutils.pictures._opening import open_picture, shown
from qkutils.records import Sample

_ON = 128  # masks are JPEG files, whose black and white are approximate


def odd_one_out(folder: str | Path, on_error: str = "raise") -> Reading[Sample]:
    """Read O3 or P3 (Kotseruba et al., 2019): pictures with masks "target" and "distractor".

    Every file is read once to check it.  After that a picture is read when it is asked for.

    Parameters
    ----------
    folder
        Holds `images`, `targ_labels` and `dist_labels`, or folders that do, such as P3's `colors`.
        In older copies the masks lie in `targ_images` and `dist_images`.
    on_error
        `raise`, or `skip` to leave out the items that can't be used; `report` then names them.

    Returns
    -------
    Reading[Sample]
        One item per picture, in the order of its keys.

    Raises
    ------
    FileNotFoundError
        Where a folder is missing.
    ValueError
        With one list of all files that are missing, unreadable, empty or of unlike shapes, unless
        they are skipped.

    Examples
    --------
    >>> import tempfile, pathlib, PIL.Image, qkutils as qk
    >>> with tempfile.TemporaryDirectory() as name:
    ...     for part in ("images", "targ_labels", "dist_labels"):
    ...         folder = pathlib.Path(name) / part
    ...         folder.mkdir()
    ...         PIL.Image.new("L", (64, 48), 255).save(folder / "mugs.png")
    ...     samples = qk.datasets.odd_one_out(name)
    ...     samples.keys, sorted(samples[0].masks)
    (['mugs'], ['distractor', 'target'])
    """
    folder = Path(folder)
    sets = [each for each in _in(folder) if (each / "images").is_dir()]
    if not sets:
        told = "name the one that `qkutils datasets fetch o3` made"
        raise FileNotFoundError(f"{shown(folder)}: holds no folder `images`; {told}")
    sets = sets[:1] if sets[0] == folder else sets
    return reading(folder, "images", _PARTS, _sample, on_error, sets)


def has_odd_ones(folder: str | Path) -> bool:
    """Say whether a folder is laid out as `odd_one_out` reads it, with masks beside the pictures.

    Parameters
    ----------
    folder
        Any folder.

    Returns
    -------
    bool
        True where it, or a folder in it, holds target masks.

    Raises
    ------
    OSError
        For a folder that is not there or can't be listed.

    Examples
    --------
    >>> import tempfile, qkutils as qk
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     qk.datasets.has_odd_ones(folder)
    False
    """
    return any(_PARTS["target"].place(each).is_dir() for each in _in(Path(folder)))


def _in(folder: Path) -> list[Path]:
    """The folder itself, and what counts in it."""
    check_folder(folder)
    return [folder, *sorted(filter(counts, folder.iterdir()))]


def _sample(key: str, image: Any, target: Any, distractor: Any) -> Sample:
    return Sample(key, image, {"target": target, "distractor": distractor})


def _mask(path: Path) -> Bool[np.ndarray, "height width"]:
    """Where a mask is bright and not transparent."""
    grey, opaque = np.moveaxis(np.asarray(open_picture(path, "RGBA").convert("LA")), -1, 0)
    mask = (grey >= _ON) & (opaque >= _ON)
    if not mask.any():
        raise ValueError(f"the mask is empty, no pixel is {_ON} or brighter")
    return mask


_PARTS = {  # in older copies, the masks lie in the folders that are named second
    "target": Part(("targ_labels", "targ_images"), SUFFIXES, _mask),
    "distractor": Part(("dist_labels", "dist_images"), SUFFIXES, _mask),
}

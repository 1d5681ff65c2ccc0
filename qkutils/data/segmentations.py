"""Segmented pictures: ADE20K, CamVid and folders like them, and the people of BSDS500."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
from jaxtyping import Int
from scipy.io import loadmat

from qkutils.data.alignment import same_shape
from qkutils.data.reading import Files, Reading, gather, pair, reading
from qkutils.data.samples import Segmented
from qkutils.data.sources import SUFFIXES, open_picture

_CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign", "fence", "car", "pedestrian", "bicyclist"),
)
CAMVID = dict(enumerate(_CLASSES))
_LOSSLESS = {".png", ".bmp", ".gif", ".tif", ".tiff"}


def label_maps(
    folder: str | Path,
    images: str = "images",
    labels: str = "annotations",
    unlabelled: int | None = None,
    names: dict[int, str] | None = None,
    on_error: str = "raise",
) -> Reading[Segmented]:
    """A folder of pictures and one of label maps, whose grey values are the classes.

    `unlabelled` is the value that means none; it becomes -1.  Where `names` are given, another
    value is a fault.  Every file is read once to check it.  Raises FileNotFoundError where a folder
    is missing, and ValueError with one list of all files that are missing, unreadable, empty or
    of unlike shapes, unless `on_error="skip"`.
    """
    folder, known = Path(folder), names or {}
    paired = pair(
        _existing(folder, {"image": images, "labels": labels}),
        {"image": SUFFIXES, "labels": _LOSSLESS},
    )

    def read(key: str, files: Files) -> Segmented:
        image, found = gather(
            partial(open_picture, files["image"]),
            partial(_labels, files["labels"], unlabelled, known),
        )
        _check_shape(files["labels"], image, found)
        return Segmented(key, image, (found,), known)

    return reading(folder.name, paired, read, on_error)


def ade20k(
    folder: str | Path, split: str = "validation", on_error: str = "raise"
) -> Reading[Segmented]:
    """ADE20K for scene parsing (Zhou et al., 2017): 150 classes, numbered from 1.

    The folder holds `images/SPLIT` and `annotations/SPLIT`; the names come from its
    objectInfo150.txt, where there is one.  Raises what `label_maps` raises.
    """
    listing = Path(folder) / "objectInfo150.txt"
    names = _ade20k_names(listing) if listing.is_file() else None
    return label_maps(folder, f"images/{split}", f"annotations/{split}", 0, names, on_error)


def _ade20k_names(path: Path) -> dict[int, str]:
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()[1:]]
    try:
        return {int(row[0]): row[-1].strip() for row in rows if row[1:]}
    except ValueError as error:
        raise ValueError(f"{path}: is no table of class names ({error}); mend it") from error


def camvid(
    folder: str | Path,
    images: str = "images",
    labels: str = "annotations",
    on_error: str = "raise",
) -> Reading[Segmented]:
    """CamVid (Brostow et al., 2009) with its eleven classes, 0 to 10; 11 is unlabelled.

    Raises what `label_maps` raises.
    """
    return label_maps(folder, images, labels, 11, CAMVID, on_error)


def has_segments(folder: str | Path) -> bool:
    """Whether a folder is laid out as `bsds500` reads it, with people's segments.

    Raises FileNotFoundError for a folder that is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder; check the path")
    return (folder / "images").is_dir() and (folder / "groundTruth").is_dir()


def bsds500(folder: str | Path, split: str = "", on_error: str = "raise") -> Reading[Segmented]:
    """BSDS500 (Arbeláez et al., 2011): pictures, each cut into segments by several people.

    The folder holds `images` and `groundTruth`, with `train`, `val` and `test` in both; one `split`
    or all are read.  Raises what `label_maps` raises.
    """
    folder = Path(folder)
    folders = _existing(folder, {"image": f"images/{split}", "labels": f"groundTruth/{split}"})
    paired = pair(folders, {"image": SUFFIXES, "labels": {".mat"}})
    return reading(folder.name, paired, _people, on_error)


def _people(key: str, files: Files) -> Segmented:
    image, people = gather(
        partial(open_picture, files["image"]), partial(_segmentations, files["labels"])
    )
    for labels in people:
        _check_shape(files["labels"], image, labels)
    return Segmented(key, image, people)


def _existing(folder: Path, names: dict[str, str]) -> dict[str, Path]:
    missing = [str(folder / name) for name in names.values() if not (folder / name).is_dir()]
    if missing:
        raise FileNotFoundError(f"there is no folder {' and no '.join(missing)}; check the path")
    return {part: folder / name for part, name in names.items()}


def _check_shape(path: Path, image: PIL.Image.Image, labels: np.ndarray) -> None:
    height, width = labels.shape
    if not same_shape(image.size, (width, height)):
        raise ValueError(
            f"{path}: {width} × {height} pixels do not match the picture's {image.width} × "
            f"{image.height}"
        )


def _labels(
    path: Path, unlabelled: int | None, names: dict[int, str]
) -> Int[np.ndarray, "height width"]:
    """Reads a label map's numbers as they are, without the colours of a palette."""
    try:
        with PIL.Image.open(path) as picture:
            labels = np.asarray(picture).astype(np.int32)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: can't be read as a label map ({error})") from error
    if labels.ndim != 2:
        raise ValueError(f"{path}: is in colour; a label map has one number per pixel")
    if unlabelled is not None:
        labels[labels == unlabelled] = -1
    values = set(np.unique(labels).tolist()) - {-1}
    if not values:
        raise ValueError(f"{path}: the label map is empty, no pixel has a class")
    if names and values - names.keys():
        raise ValueError(
            f"{path}: has the values {sorted(values - names.keys())}, no known classes"
        )
    return labels


def _segmentations(path: Path) -> tuple[Int[np.ndarray, "height width"], ...]:
    """The segmentations of all people in one `.mat` file."""
    try:
        people = loadmat(path)["groundTruth"].ravel()
        found = tuple(each["Segmentation"][0, 0].astype(np.int32) for each in people)
    except Exception as error:  # for a broken file, scipy raises many unrelated classes
        raise ValueError(
            f"{path}: can't be read as people's segmentations ({type(error).__name__}: {error})"
        ) from error
    if not found or any(each.ndim != 2 or not each.size for each in found):
        raise ValueError(f"{path}: holds no segmentation")
    return found

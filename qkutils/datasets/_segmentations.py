"""Segmented pictures: ADE20K, CamVid and folders like them, and the people of BSDS500."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
from jaxtyping import Shaped

from qkutils import options
from qkutils.datasets import _matlab
from qkutils.datasets._reading import Part, Reading, reading
from qkutils.pictures._folders import check_folder
from qkutils.pictures._opening import open_file, shown, signed
from qkutils.records import Segmented

LabelMaps = tuple[Shaped[np.ndarray, "height width"], ...]
_CLASSES = "sky building pole road pavement tree sign fence car pedestrian bicyclist"
CAMVID = dict(enumerate(_CLASSES.split()))
_LOSSLESS = {".png", ".bmp", ".gif", ".tif", ".tiff"}


def label_maps(
    folder: str | Path,
    images: str = "images",
    labels: str = "annotations",
    unlabelled: int | None = None,
    names: dict[int, str] | None = None,
    on_error: str = "raise",
) -> Reading[Segmented]:
    """Read a folder of pictures and one of label maps, whose grey values are the classes.

    Every file is read once to check it.  After that a picture is read when it is asked for.

    Parameters
    ----------
    folder
        Holds both folders.
    images, labels
        Their names.  A label map has the name of its picture and is lossless, such as a PNG.
    unlabelled
        The value that means no class; it becomes -1.
    names
        The classes' names by value.  Where they are given, another value is a fault.
    on_error
        `raise`, or `skip` to leave out the items that can't be used; `report` then names them.

    Returns
    -------
    Reading[Segmented]
        One item per picture, with one label map.

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
    ...     for part in ("images", "annotations"):
    ...         folder = pathlib.Path(name) / part
    ...         folder.mkdir()
    ...         PIL.Image.new("L", (64, 48), 3).save(folder / "street.png")
    ...     pictures = qk.datasets.label_maps(name, names={3: "road"})
    ...     pictures.keys, pictures[0].labels[0].shape
    (['street'], (48, 64))
    """
    if unlabelled is not None:
        options.count("unlabelled", unlabelled, least=0)
    read = partial(_labels, unlabelled=unlabelled, names=names or {})
    parts = {"labels": Part((labels,), _LOSSLESS, read)}
    return reading(Path(folder), images, parts, partial(Segmented, names=names or {}), on_error)


def ade20k(
    folder: str | Path, split: str = "validation", on_error: str = "raise"
) -> Reading[Segmented]:
    """Read ADE20K for scene parsing (Zhou et al., 2017): 150 classes, numbered from 1.

    Parameters
    ----------
    folder
        Holds `images/SPLIT` and `annotations/SPLIT`.  The classes' names come from its
        objectInfo150.txt, where there is one.
    split
        `training` or `validation`.
    on_error
        `raise`, or `skip` to leave out the items that can't be used; `report` then names them.

    Returns
    -------
    Reading[Segmented]
        One item per picture, with one label map; -1 where there is no class.

    Raises
    ------
    FileNotFoundError, ValueError
        As `label_maps`, and for an unknown split.

    Examples
    --------
    >>> import tempfile, pathlib, PIL.Image, qkutils as qk
    >>> with tempfile.TemporaryDirectory() as name:
    ...     for part in ("images", "annotations"):
    ...         folder = pathlib.Path(name) / part / "validation"
    ...         folder.mkdir(parents=True)
    ...         PIL.Image.new("L", (64, 48), 150).save(folder / "hall.png")
    ...     qk.datasets.ade20k(name).keys
    ['hall']
    """
    options.choice("split", split, ("training", "validation"))
    listing = Path(folder) / "objectInfo150.txt"
    names = _ade20k_names(listing) if listing.is_file() else None
    return label_maps(folder, f"images/{split}", f"annotations/{split}", 0, names, on_error)


def _ade20k_names(path: Path) -> dict[int, str]:
    try:
        rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()[1:]]
        return {int(row[0]): row[-1].strip() for row in rows if row[1:]}
    except ValueError as error:
        raise ValueError(f"{shown(path)}: is no table of class names ({error}); mend it") from error


def camvid(
    folder: str | Path, images: str = "images", labels: str = "annotations", on_error: str = "raise"
) -> Reading[Segmented]:
    """Read CamVid (Brostow et al., 2009) with its eleven classes, 0 to 10; 11 is unlabelled.

    Parameters
    ----------
    folder
        Holds both folders.
    images, labels
        Their names.
    on_error
        `raise`, or `skip` to leave out the items that can't be used; `report` then names them.

    Returns
    -------
    Reading[Segmented]
        One item per picture, with one label map and the classes' names; -1 where there is no
        class.

    Raises
    ------
    FileNotFoundError, ValueError
        As `label_maps`.

    Examples
    --------
    >>> import tempfile, pathlib, PIL.Image, qkutils as qk
    >>> with tempfile.TemporaryDirectory() as name:
    ...     for part in ("images", "annotations"):
    ...         folder = pathlib.Path(name) / part
    ...         folder.mkdir()
    ...         PIL.Image.new("L", (64, 48), 3).save(folder / "street.png")
    ...     qk.datasets.camvid(name)[0].names[3]
    'road'
    """
    return label_maps(folder, images, labels, 11, CAMVID, on_error)


def has_segments(folder: str | Path) -> bool:
    """Say whether a folder is laid out as `bsds500` reads it, with people's segments.

    Parameters
    ----------
    folder
        Any folder.

    Returns
    -------
    bool
        True where it holds `images` and `groundTruth`.

    Raises
    ------
    OSError
        For a folder that is not there or can't be listed.

    Examples
    --------
    >>> import tempfile, qkutils as qk
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     qk.datasets.has_segments(folder)
    False
    """
    folder = Path(folder)
    check_folder(folder)
    return (folder / "images").is_dir() and (folder / "groundTruth").is_dir()


def bsds500(folder: str | Path, split: str = "", on_error: str = "raise") -> Reading[Segmented]:
    """Read BSDS500 (Arbeláez et al., 2011): pictures, each cut into segments by several people.

    Parameters
    ----------
    folder
        Holds `images` and `groundTruth`, with `train`, `val` and `test` in both.
    split
        One of the three; without, all are read.
    on_error
        `raise`, or `skip` to leave out the items that can't be used; `report` then names them.

    Returns
    -------
    Reading[Segmented]
        One item per picture, with one label map per person.

    Raises
    ------
    FileNotFoundError, ValueError
        As `label_maps`, and for an unknown split.

    Examples
    --------
    >>> import tempfile, pathlib, numpy, scipy.io, PIL.Image, qkutils as qk
    >>> people = numpy.empty((1, 2), object)
    >>> people[:] = {"Segmentation": numpy.ones((48, 64), int)}
    >>> with tempfile.TemporaryDirectory() as name:
    ...     images, truth = (pathlib.Path(name) / part for part in ("images", "groundTruth"))
    ...     images.mkdir()
    ...     truth.mkdir()
    ...     PIL.Image.new("RGB", (64, 48)).save(images / "lake.png")
    ...     scipy.io.savemat(truth / "lake.mat", {"groundTruth": people})
    ...     len(qk.datasets.bsds500(name)[0].labels)
    2
    """
    options.choice("split", split, ("", "train", "val", "test"))
    parts = {"labels": Part((f"groundTruth/{split}",), {".mat"}, _people)}
    return reading(Path(folder), f"images/{split}", parts, Segmented, on_error)


def _labels(path: Path, unlabelled: int | None, names: dict[int, str]) -> LabelMaps:
    """Reads a label map's numbers as they are, without the colours of a palette."""
    with open_file(path) as file, PIL.Image.open(file) as picture:
        labels = np.asarray(signed(picture))
    if labels.ndim != 2:
        raise ValueError("is in colour; a label map has one number per pixel")
    labels = labels if labels.dtype.kind == "f" else labels.astype(np.int64)
    values = set(np.unique(labels).tolist()) - {unlabelled, -1}
    if not values:
        raise ValueError("the label map is empty, no pixel has a class")
    if names and values - names.keys():
        raise ValueError(f"has the values {sorted(values - names.keys())}, no known classes")
    return (labels if unlabelled is None else np.where(labels == unlabelled, -1, labels),)


def _people(path: Path) -> LabelMaps:
    """The segmentations of all people in one `.mat` file."""
    with open_file(path) as file:
        people = _matlab.read(file.read())["groundTruth"]
    found = tuple(each["Segmentation"] for each in people)
    if not found or any(each.ndim != 2 or not each.size for each in found):
        raise ValueError("holds no segmentation")
    return found

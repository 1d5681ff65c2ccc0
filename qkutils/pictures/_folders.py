"""Folders: the files in them that count, each by a key that is plain text."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

from qkutils.pictures._opening import shown

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".jp2", ".avif"),
}
_NEVER = {"__MACOSX", "@eaDir", "$RECYCLE.BIN"}  # what systems and servers add
_HINDRANCES = {
    FileNotFoundError: "there is no such folder; check the path",
    NotADirectoryError: "is a file; name the folder that it lies in",
    PermissionError: "can't be listed, permission is denied; `chmod u+rx` allows it",
}


def check_folder(folder: Path) -> None:
    """Raises FileNotFoundError, NotADirectoryError or PermissionError, saying what is wrong."""
    try:
        os.scandir(folder).close()
    except tuple(_HINDRANCES) as error:
        raise type(error)(f"{shown(folder)}: {_HINDRANCES[type(error)]}") from None


def counts(path: Path) -> bool:
    """Whether a file or folder is neither hidden nor one that a system leaves behind."""
    return not path.name.startswith(".") and path.name not in _NEVER


def key_of(path: Path, folder: Path) -> str:
    """A path in a folder as text: in Unicode's composed form, and writable anywhere."""
    return unicodedata.normalize("NFC", shown(path.relative_to(folder).as_posix()))


def files_in(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """The files of these kinds in a folder and in all below it; links are followed.

    A link that leads nowhere and a folder that can't be listed are given too: opening them says
    what is wrong.
    """
    return _walk(folder, suffixes, ())


def _walk(folder: Path, suffixes: Collection[str], above: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that it lies in
        return
    try:
        inside = sorted(folder.iterdir())
    except PermissionError:
        yield folder
        return
    for path in filter(counts, inside):
        if os.path.isdir(path):
            yield from _walk(path, suffixes, (*above, real))
        elif path.suffix.lower() in suffixes or not (path.suffix or os.path.exists(path)):
            yield path


def picture_files(folder: Path) -> dict[str, Path]:
    """The picture files of a folder and of its subfolders, by key, in the order of the keys.

    Raises FileNotFoundError where there are none, ValueError where two have the same key.
    """
    check_folder(folder)
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files_in(folder, SUFFIXES):
        found[key_of(path, folder)].append(path)
    if not found:
        kinds = ", ".join(sorted(SUFFIXES))
        raise FileNotFoundError(f"{shown(folder)}: holds no picture ({kinds}); name another folder")
    if twins := ", ".join(repr(key) for key, paths in found.items() if paths[1:]):
        raise ValueError(f"{shown(folder)}: several files are called {twins}; rename all but one")
    return {key: found[key][0] for key in sorted(found)}

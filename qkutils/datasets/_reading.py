"""Data sets in folders: files that belong together, checked once, opened when asked for."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from qkutils import options
from qkutils.pictures._folders import SUFFIXES, check_folder, files_in, key_of
from qkutils.pictures._opening import open_picture, shown
from qkutils.records import Item, Records

Look = Callable[[], tuple[Any, str]]  # gives what one file holds, or what is wrong with it


@dataclass(frozen=True)
class Report:
    """How many items of a data set can be used, and what is wrong with each of the others."""

    source: str
    usable: int
    faults: dict[str, str]

    @property
    def skipped(self) -> int:
        """How many items are left out."""
        return len(self.faults)

    def __str__(self) -> str:
        total = self.usable + self.skipped
        head = f"{self.source}: {self.usable} of {total} items can be used"
        return "\n".join([head, *(f"  {key}: {fault}" for key, fault in self.faults.items())])


class Reading(Records[Item]):
    """The items of a data set in the order of their keys; `report` says what was left out."""

    def __init__(self, keys: Sequence[str], read: Callable[[str], Item], report: Report) -> None:
        super().__init__(list(keys), read)
        self.report = report

    @property
    def keys(self) -> list[str]:
        """The names of the items, one for each."""
        return list(self._places)

    def __repr__(self) -> str:
        return f"{len(self)} items of {self.report.source}, {self.report.skipped} skipped"


class Part(NamedTuple):
    """A file beside every picture: the names that its folder may have, kinds of file, the reader.

    The reader raises ValueError for a file that holds something else.
    """

    names: tuple[str, ...]
    suffixes: Collection[str]
    read: Callable[[Path], Any]

    def place(self, folder: Path) -> Path:
        """Its folder in that of the data set."""
        paths = [folder / name for name in self.names]
        return next(filter(Path.is_dir, paths), paths[0])


def reading(
    folder: Path,
    images: str,
    parts: dict[str, Part],
    make: Callable[..., Item],
    on_error: str,
    sets: Sequence[Path] = (),
) -> Reading[Item]:
    """Checks every item by reading it once; one report names all that can't be used.

    `make` makes an item of its key, its picture, from the folder `images`, and what its parts hold.
    `sets` are the folders that hold these folders, where `folder` itself does not.

    Raises ValueError with that report, or for a data set that holds nothing of use; OSError for a
    folder that is missing or can't be listed.
    """
    options.choice("on_error", on_error, ("raise", "skip"))
    parts = {"image": Part((images,), SUFFIXES, open_picture)} | parts
    found: dict[str, list[Look]] = {}
    for each in sets or [folder]:
        prefix = f"{key_of(each, folder)}/" if sets[1:] else ""
        found |= {prefix + key: readers for key, readers in _items(each, parts).items()}

    def read(key: str) -> Item:
        contents, faults = zip(*(look() for look in found[key]), strict=True)
        if any(faults):
            raise ValueError("; ".join(filter(None, faults)))
        return make(key, *contents)

    source = shown(folder.name)
    faults = _faults(source, list(found), read)
    usable = [key for key in found if key not in faults]
    report = Report(source, len(usable), faults)
    if not usable:
        raise ValueError(f"{report}\nnothing is left to read; check the folder")
    if faults and on_error == "raise":
        raise ValueError(f'{report}\nmend or remove these, or leave them out with on_error="skip"')
    return Reading(usable, read, report)


def _items(folder: Path, parts: dict[str, Part]) -> dict[str, list[Look]]:
    """What reads each part of every item, by the name that the item's files have in common."""
    check_folder(folder)
    places = {name: part.place(folder) for name, part in parts.items()}
    missing = [name for name, place in places.items() if not place.is_dir()]
    if missing:
        told = " and no ".join(f"{' or '.join(parts[name].names)} ({name})" for name in missing)
        raise FileNotFoundError(f"{shown(folder)}: holds no folder {told}; check the path")
    files = {name: _files(place, parts[name].suffixes) for name, place in places.items()}
    return {
        key: [partial(_look, parts[name], places[name] / key, files[name][key]) for name in parts]
        for key in sorted({key for each in files.values() for key in each})
    }


def _files(folder: Path, suffixes: Collection[str]) -> dict[str, list[Path]]:
    """The files of these kinds in a folder, by name without the suffix."""
    check_folder(folder)
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files_in(folder, suffixes):
        found[key_of(path.with_suffix(""), folder)].append(path)
    return found


def _look(part: Part, stem: Path, paths: list[Path]) -> tuple[Any, str]:
    """What an item's file of one part holds, or why it can't be had."""
    if not paths:
        return None, f"{shown(stem)}.*: there is no such file ({', '.join(sorted(part.suffixes))})"
    path = ", ".join(map(shown, paths))
    if paths[1:]:
        return None, f"{path}: which one?"
    try:
        return part.read(paths[0]), ""
    except ValueError as error:
        return None, f"{path}: {str(error).removeprefix(f'{path}: ')}"
    except Exception as error:  # for a broken file, decoders raise many unrelated classes
        return None, f"{path}: can't be read ({type(error).__name__}: {error})"


def _faults(source: str, keys: list[str], read: Callable[[str], Any]) -> dict[str, str]:
    """What is wrong with each item that can't be read."""

    def fault(key: str) -> str:
        try:
            read(key)
        except ValueError as error:
            return str(error).removeprefix(f"{key!r}: ")
        return ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves Python's lock
        told = list(tqdm(pool.map(fault, keys), f"checking {source}", len(keys), leave=False))
    return {key: each for key, each in zip(keys, told, strict=True) if each}

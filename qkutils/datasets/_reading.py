"""Data sets in folders: files that belong together, checked once, opened when asked for."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from qkutils import options
from qkutils.pictures._folders import check_folder, files_in, key_of
from qkutils.pictures._opening import open_file, shown
from qkutils.records import Item, Records

Files = dict[str, Path]  # the files of one item, by what they are


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


def pair(folders: dict[str, Path], suffixes: dict[str, Collection[str]]) -> dict[str, Files | str]:
    """The files of the same name in several folders, by that name; or what hinders pairing them.

    Raises OSError for a folder that is missing or can't be listed.
    """
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for part, folder in folders.items():
        check_folder(folder)
        for path in files_in(folder, suffixes[part]):
            found[key_of(path.with_suffix(""), folder)][part].append(path)
    wanted = {
        part: f"{shown(folder)}/%s.*: there is no such file ({', '.join(sorted(suffixes[part]))})"
        for part, folder in folders.items()
    }
    return {key: _matched(key, found[key], wanted) for key in sorted(found)}


def _matched(key: str, found: dict[str, list[Path]], wanted: dict[str, str]) -> Files | str:
    missing = [told % key for part, told in wanted.items() if part not in found]
    doubled = [
        f"{', '.join(map(shown, paths))}: which one?" for paths in found.values() if paths[1:]
    ]
    files = {part: paths[0] for part, paths in found.items()}
    return "; ".join(missing + doubled + [*filter(None, map(_hindrance, files.values()))]) or files


def _hindrance(path: Path) -> str:
    """Why a file can't be opened."""
    try:
        open_file(path).close()
    except ValueError as error:
        return str(error)
    return ""


def gather(*parts: Callable[[], object]) -> list:
    """What each part gives; raises one ValueError that names everything that failed."""
    values, faults = [], []
    for part in parts:
        try:
            values.append(part())
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("; ".join(faults))
    return values


def reading(
    source: str,
    paired: dict[str, Files | str],
    read: Callable[[str, Files], Item],
    on_error: str,
) -> Reading[Item]:
    """Checks every item by reading it once; one report names all that can't be used.

    Raises ValueError with that report, or for a data set that holds nothing of use.
    """
    options.choice("on_error", on_error, ("raise", "skip"))
    files = {key: each for key, each in paired.items() if not isinstance(each, str)}
    faults = {key: each for key, each in paired.items() if isinstance(each, str)}
    faults |= _faults(source, files, read)
    usable = [key for key in files if key not in faults]
    report = Report(source, len(usable), dict(sorted(faults.items())))
    if not usable:
        raise ValueError(f"{report}\nnothing is left to read; check the folder")
    if faults and on_error == "raise":
        raise ValueError(f'{report}\nmend or remove these, or leave them out with on_error="skip"')
    return Reading(usable, lambda key: read(key, files[key]), report)


def _faults(
    source: str, files: dict[str, Files], read: Callable[[str, Files], Item]
) -> dict[str, str]:
    def fault(key: str) -> str:
        try:
            read(key, files[key])
        except ValueError as error:
            return str(error).removeprefix(f"{key!r}: ")
        return ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves Python's lock
        checked = pool.map(fault, files)
        told = list(tqdm(checked, f"checking {source}", len(files), leave=False))
    return {key: each for key, each in zip(files, told, strict=True) if each}

"""Data sets from their authors' hosts: a download that goes on where it stopped, and unpacking."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import tarfile
import time
import tomllib
import urllib.request
import zipfile
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from tqdm import tqdm

from qkutils import options, store

ATTEMPTS = 5  # in a row without a new byte
PAUSE = 2.0  # seconds between them
_CHUNK = 1 << 20
_CUT_OFF = (URLError, HTTPException, ConnectionError, TimeoutError, SSLError)


@dataclass(frozen=True)
class Dataset:
    """Where a data set's archive lies, the page with its terms, and what reads it."""

    urls: list[str]
    page: str
    reader: str
    inside: str = ""  # what to read in the archive, where it is not the top


_TABLE = tomllib.loads(Path(__file__).with_name("datasets.toml").read_text("utf-8"))
DATASETS = {name: Dataset(**row) for name, row in _TABLE.items()}


def fetch(name: str, to: str | Path, url: str = "", sha256: str = "") -> Path:
    """Fetch a data set into a folder and unpack it there.

    What was fetched already is used again: an unpacked data set, an archive, or part of one.  The
    checksum that is found first is kept beside the archive.  It is compared the next time.

    Parameters
    ----------
    name
        One of `DATASETS`.
    to
        The folder to keep it in.
    url
        Another address of the archive.
    sha256
        The checksum that the archive must have: 64 hexadecimal digits.

    Returns
    -------
    Path
        The folder to read.

    Raises
    ------
    ValueError
        For an unknown name, and for an archive that is broken, empty, changed or hostile.
    OSError
        Where it can't be fetched or written, or another process is fetching it.

    Examples
    --------
    >>> import qkutils as qk
    >>> sorted(qk.datasets.DATASETS)
    ['ade20k', 'bsds500', 'o3', 'p3']
    >>> qk.datasets.fetch("o3", to="data")  # doctest: +SKIP
    PosixPath('data/o3')
    """
    dataset, folder = DATASETS[options.choice("name", name, DATASETS)], Path(to) / name
    if sha256 and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"sha256={sha256!r}: 64 hexadecimal digits are needed")
    if url and not re.fullmatch(r"https?://[\w.:-]+/\S+", url):
        raise ValueError(f"url={url!r}: give an address that starts with http:// or https://")
    urls = [url] if url else dataset.urls
    archive = Path(to) / (PurePosixPath(urlsplit(urls[0]).path).name or f"{name}.archive")
    if folder.is_dir():
        print(f"{folder} is there already; remove it to unpack it again")
    else:
        try:
            with store.locked(archive):
                _bring(urls, archive, folder, dataset.page, sha256)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            advice = f"the disk of {to} is full; make room and run this again, to go on"
            raise OSError(error.errno, advice) from error
    inside = folder / dataset.inside
    return inside if inside.is_dir() else folder


def _bring(urls: list[str], archive: Path, folder: Path, page: str, sha256: str) -> None:
    """Downloads the archive from the first address that knows it, checks it and unpacks it."""
    told = []
    for url in [] if archive.is_file() else urls:
        try:
            download(url, archive)
            break
        except HTTPError as error:
            told.append(f"{url}: {error.code} {error.reason}")
    if not archive.is_file():
        advice = f"look at {page} and pass its address with --url, or put the file at {archive}"
        raise ConnectionError(f"{'; '.join(told)}; it may have moved: {advice}")
    kept = archive.with_name(f"{archive.name}.sha256")
    checksum = _check(archive, kept, sha256, urls[0])
    unpack(archive, folder)
    store.write(kept, f"{checksum}  {archive.name}\n")


def download(url: str, path: Path) -> None:
    """Downloads a file, going on where an earlier try stopped; PATH.partial until it is whole.

    Raises HTTPError where the host refuses, ConnectionError where it can't be reached or keeps
    breaking off.
    """
    partial = path.with_name(path.name + ".partial")
    if not partial.is_file() or partial.is_symlink():
        _remove(partial)
    failures, most = 0, _size(partial)
    while True:
        try:
            _go_on(url, partial)
            partial.replace(path)
            return
        except _CUT_OFF as error:
            if isinstance(error, HTTPError) and error.code < 500:
                raise
            failures = 1 if _size(partial) > most else failures + 1
            most = max(most, _size(partial))
            if failures >= ATTEMPTS:
                kept = f"{_size(partial)} bytes are kept in {partial}; " if most else ""
                told = (
                    f"{urlsplit(url).hostname} can't be reached or breaks off ({error}); {kept}run"
                )
                advice = f"this again later, or fetch {url} elsewhere and put it at {path}"
                raise ConnectionError(f"{told} {advice}") from error
            time.sleep(PAUSE)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _remove(path: Path) -> None:
    """Removes a file, a folder, or a link and not what it leads to; or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _go_on(url: str, partial: Path) -> None:
    """One connection: what is still missing is added to the partial file."""
    start = _size(partial)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":  # it was whole already
            return
        partial.unlink()
        raise ConnectionError("the kept part does not fit the file on the host") from error
    with response:
        start, total = _extent(response, start)
        shown = tqdm.wrapattr(response, "read", total, initial=start, desc=partial.stem)
        with open(partial, "ab" if start else "wb") as file, shown as stream:
            shutil.copyfileobj(stream, file, _CHUNK)
    if total not in (None, _size(partial)):
        raise ConnectionError(f"it ended after {_size(partial)} of {total} bytes")


def _extent(response: HTTPResponse, start: int) -> tuple[int, int | None]:
    """Where the answer begins in the file, and how long the whole file is, if that is told."""
    if response.status != 206:  # it sends everything again
        return 0, response.length
    told = response.headers.get("Content-Range", "")
    part = re.fullmatch(rf"bytes {start}-(\d+)/(\d+|\*)", told)
    if not part:
        raise ConnectionError(f"the host sent another part than asked for ({told})")
    return start, int(part[1]) + 1 if part[2] == "*" else int(part[2])


def _check(archive: Path, kept: Path, known: str, url: str) -> str:
    """Shows the checksum and compares it with the known one, or with that of the last time."""
    with open(archive, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    print(f"{archive}: {archive.stat().st_size} bytes, sha256 {found}")
    known = known or (kept.read_text("utf-8").partition(" ")[0] if kept.is_file() else "")
    if not known:
        way = "" if url.startswith("https:") else ", and it comes over plain http"
        print(f"no checksum of it is published{way}: nothing shows that it is its authors' own")
    elif found != known.lower():
        advice = f"remove it, and also {kept.name} if its authors have changed it"
        raise ValueError(f"{archive}: its sha256 is not {known}, as expected; {advice}")
    return found


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip or tar archive into a new folder, which appears only when all is there.

    Raises ValueError for an archive that is broken, empty, larger than the room on the disk, or
    that would write outside of the folder.
    """
    partial = folder.with_name(folder.name + ".partial")
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        (_unzip if zipfile.is_zipfile(archive) else _untar)(archive, partial)
        partial.replace(folder)
    except Exception as error:  # for a broken archive, its layers raise many unrelated classes
        if isinstance(error, ValueError) or getattr(error, "errno", None):
            raise
        advice = "it is no whole archive, so remove it and fetch it again"
        raise ValueError(f"{archive}: can't be unpacked ({error}); {advice}") from error
    finally:
        _remove(partial)


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        _check_members(archive, folder, {each.filename: each.file_size for each in members})
        opened.extractall(folder, tqdm(members, f"unpacking {archive.name}"))  # links as files


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        while opened.fileobj and opened.fileobj.read(_CHUNK):
            pass  # to the end, where its checksum is: a broken header would only look like the end
        members = opened.getmembers()
        _check_members(archive, folder, {each.name: each.size for each in members})
        # The filter refuses links that lead outside.
        opened.extractall(folder, tqdm(members, f"unpacking {archive.name}"), filter="data")


def _check_members(archive: Path, folder: Path, sizes: dict[str, int]) -> None:
    """Raises ValueError where there is nothing to unpack, too much, or something elsewhere."""
    size, free, home = sum(sizes.values()), shutil.disk_usage(folder).free, folder.resolve()
    if not size:
        raise ValueError(f"{archive}: is empty; remove it and fetch it again")
    if size > free:
        raise ValueError(f"{archive}: unpacks to {size} bytes, and {free} are free; make room")
    for name in sizes:
        if not (home / name).resolve().is_relative_to(home):
            raise ValueError(f"{archive}: {name!r} leaves its folder; do not use this archive")

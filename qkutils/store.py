"""Store: every file that is written, whole or not at all, by one process, for one computation."""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
import xarray as xr
from PIL import Image
from torch import Tensor

Identity = dict[str, Any]
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What text in netCDF can't hold: NUL, and the bytes of a file name that is not UTF-8.
_UNFIT = re.compile(r"[\\\0\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its name once it is whole, or else is removed.

    Raises OSError, in a sentence that names file and remedy, where it can't be written.
    """
    with _beside(Path(path)) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name for a temporary file, which is removed in the end; where it fails, `path` is named."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        full = error.errno in FULL
        if not full and str(error.filename) not in map(str, (temporary, *path.parents)):
            raise
        remedy = "make room on the disk" if full else "choose a folder that can be written"
        told = f"{path}: can't be written ({error.strerror}); {remedy}, or name another place"
        raise type(error)(told) from error
    finally:
        if os.path.lexists(temporary):
            temporary.unlink()


def write(path: str | Path, content: bytes | str) -> Path:
    """Writes a whole file, text as UTF-8, and returns where."""
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with writing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def check_writable(path: str | Path) -> Path:
    """The path, where a file can be written there; raises OSError where none can."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: is no regular file; name another")
    with _beside(path) as trial:
        trial.touch()
    return path


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keeps a file that is worked on from other processes; what a killed one left there is removed.

    Raises BlockingIOError that says who holds it, at once; OSError where it can't be written.  The
    lock goes with its process, however that ends.
    """
    path = check_writable(path)
    holder = path.with_name(f".{path.name}.lock")
    lock = filelock.FileLock(holder)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        who = holder.read_text("utf-8") if holder.is_file() else ""
        raise BlockingIOError(
            f"{path}: {who or 'another process'} writes it; wait for that, or name another file",
        ) from None
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", "utf-8")
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.writing"):
            left.unlink(missing_ok=True)
        yield
    finally:
        holder.unlink(missing_ok=True)  # before it is released: who opens it later finds it gone
        lock.release()


def save(path: str | Path, dataset: xr.Dataset) -> Path:
    """Writes a labelled result as netCDF, and returns where."""
    # Through memory: the library that writes netCDF crashes where the disk is full.
    content = _each_text(dataset, lambda text: _UNFIT.sub(_escape, text))
    return write(path, bytes(content.to_netcdf(engine="h5netcdf")))


def load(path: str | Path) -> xr.Dataset:
    """Reads what `save` wrote; raises ValueError for a file that is damaged or of another kind."""
    data = Path(path).read_bytes()
    try:
        found = xr.load_dataset(io.BytesIO(data), engine="h5netcdf", phony_dims="sort")
    except Exception as error:  # a damaged file raises whatever the layers under it raise
        what = "is damaged or cut short" if data.startswith(b"\x89HDF") else "holds no result"
        told = f"{path}: {what}; remove it, or name another file ({type(error).__name__})"
        raise ValueError(told) from error
    return _each_text(found, lambda text: _ESCAPED.sub(lambda code: chr(int(code[1], 16)), text))


def _escape(found: re.Match) -> str:
    return f"\\u{ord(found[0]):04x}"


def _each_text(dataset: xr.Dataset, change: Callable[[str], str]) -> xr.Dataset:
    """The same with every text changed, of variables and of attributes."""
    said = {name: change(v) if isinstance(v, str) else v for name, v in dataset.attrs.items()}
    texts = {
        name: values.copy(data=np.vectorize(change, otypes=[object])(values.values))
        for name, values in dataset.variables.items()
        if values.dtype.kind in "OU"
    }
    coords = {name: values for name, values in texts.items() if name in dataset.coords}
    return dataset.assign(texts).assign_coords(coords).assign_attrs(said)


def digest(content: Any) -> str:
    """32 hexadecimal digits of a file's bytes, a tensor, an array, a picture, or an identity.

    Raises ValueError for what is none of these.
    """
    data: Any = content
    if isinstance(content, Image.Image):
        said, data = f"{content.mode} {content.size}", content.tobytes()
    elif isinstance(content, Tensor | np.ndarray):
        tensor = torch.as_tensor(content, device="cpu").detach().contiguous()
        said = f"{tensor.dtype} {tuple(tensor.shape)}"
        data = tensor.flatten().view(torch.uint8).numpy()
    elif isinstance(content, dict):
        said, data = "identity", in_words(content).encode()
    elif isinstance(content, bytes):
        said = ""
    else:
        raise ValueError(f"{type(content).__name__} is not a picture, a tensor or a file's bytes")
    hasher = hashlib.blake2b(f"{said}\0".encode(), digest_size=16)
    hasher.update(data)
    return hasher.hexdigest()


def in_words(identity: Identity) -> str:
    """An identity as it stands in a file: JSON, its parts in the order of their names."""
    return json.dumps(identity, sort_keys=True)


def differing(found: Any, wanted: Identity) -> list[str]:
    """Names of the parts in which two identities differ, the parts of parts by their own names."""
    found = found if isinstance(found, dict) else {}
    names: list[str] = []
    for name in sorted({*found, *wanted}):
        one, other = found.get(name), wanted.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            names += differing(one, other)
        elif one != other:
            names.append(name)
    return names


def identity_of(dataset: xr.Dataset) -> Identity:
    """The identity that a result carries; empty where it carries none."""
    try:
        found = json.loads(dataset.attrs["identity"])
    except (KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def check_identity(path: Path, found: Identity, wanted: Identity) -> None:
    """Raises ValueError that names the parts in which a file differs from what is asked for."""
    differ = differing(found, json.loads(in_words(wanted)))
    if differ:
        raise ValueError(
            f"{path}: is the result of something else (other {', '.join(differ)}); name another "
            "file, or remove this one"
        )


def resumable(
    path: str | Path | None,
    identity: Callable[[], Identity],
    compute: Callable[[Path | None], xr.Dataset],
) -> xr.Dataset:
    """The result in a netCDF file; where there is none yet, computes and writes it.

    `compute` gets a folder for its parts (see `kept`), or None where nothing is to be written.  The
    folder goes when the result is whole.  `identity` tells model, preprocessing, options and
    pictures, and is only asked where there is a file: raises ValueError where that is of others.
    """
    if path is None:
        return compute(None)
    path, wanted = Path(path), identity()
    if path.is_file():
        found = load(path)
        check_identity(path, identity_of(found), wanted)
        if found.attrs.get("content") != _content(found):
            raise ValueError(f"{path}: is not as it was written; remove it, to compute it again")
        return found
    with locked(path):
        folder = path.with_name(f"{path.name}.{digest(wanted)}")
        folder.mkdir(exist_ok=True)
        result = compute(folder)
        result = result.assign_attrs(identity=in_words(wanted), content=_content(result))
        save(path, result)
        for parts in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 32}"):
            shutil.rmtree(parts)
    return result


def _content(result: xr.Dataset) -> str:
    """The digest of a result's numbers, by which a file is known that was damaged since."""
    return digest({str(name): digest(values.values) for name, values in result.data_vars.items()})


def kept(file: Path | None, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in a file; where there is none yet, computes it and, if there is a name, keeps it.

    Raises ValueError for a file that holds no array.
    """
    if file is None:
        return compute()
    if not file.exists():
        memory = io.BytesIO()
        np.save(memory, compute(), allow_pickle=False)
        write(file, memory.getvalue())
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file}: holds no whole array ({error}); remove it") from error

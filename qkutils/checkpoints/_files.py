"""Checkpoint files: told by their content, and read without running code."""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections import OrderedDict
from importlib import resources
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

Tensors = dict[str, Tensor]

METADATA = "qkutils"  # where our own safetensors files say what tensors can't
SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar", ".npz"}
_WHOLE = ("model.safetensors", "pytorch_model.bin")  # the hub's names, in the order they count
_INDEX = ".index.json"  # lists the files of a checkpoint in parts
_SNAPSHOT = (*_WHOLE, *(name + _INDEX for name in _WHOLE))
MOST_TENSORS = 10_000  # far above what anyone trains
KINDS = tomllib.loads(resources.files(__package__).joinpath("kinds.toml").read_text("utf-8"))


class _Nothing:
    """Stands for an object that no tensor depends on: takes what it is given, and keeps nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


# What stands for the objects of training files, by the names under which they are pickled; torch
# fills no other dict than an OrderedDict.
_STAND_INS: list[Any] = [(_Nothing, name) for name in KINDS["harmless"]["objects"]]
_STAND_INS += [(OrderedDict, name) for name in KINDS["harmless"]["dicts"]]
# How torch's files begin, and how its old ones.
_ZIP, _OLD = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def title(path: Path) -> str:
    """What a file's model is called: the file's name, or its folder's where many are named so."""
    if path.name in _SNAPSHOT:
        return path.absolute().parent.name
    while path.suffix.lower() in SUFFIXES:
        path = path.with_suffix("")
    return path.name


def in_folder(folder: Path) -> Path:
    """The checkpoint of a snapshot folder; raises ValueError where there is none, or several."""
    try:
        found = [folder / name for name in _SNAPSHOT if (folder / name).exists()]
        others = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    except PermissionError as error:
        raise PermissionError(f"{folder}: can't be read; mend its permissions") from error
    if not found and len(others) != 1:
        names = ", ".join(p.name for p in others) or "no checkpoint file"
        raise ValueError(f"{folder}: a folder with {names}; pass one checkpoint file")
    return (found or others)[0]


def read_tensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """All tensors of a file by their dotted names, and what our own files say beside them.

    Raises
    ------
    FileNotFoundError, PermissionError
        For a file that is not there or that this user may not read.
    ValueError
        For a file that is cut short or of another kind, or made of pickled objects.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"{path}: not a regular file; pass a checkpoint file")
        with path.open("rb") as file:
            head = file.read(512)
        if "\ufffd" in os.fsencode(path).decode("utf-8", "replace"):  # torch can't open it
            raise ValueError(f"{path}: its path is not UTF-8; rename the file or its folder")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{path}: there is no such file; check the path") from error
    except OSError as error:
        raise type(error)(f"{path}: can't be read; mend its permissions ({error})") from error
    said: dict[str, Any] = {}
    if path.name in _SNAPSHOT and path.name.endswith(_INDEX):
        found = _read_parts(path)
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1e8:
        found, said = _read_safetensors(path)
    elif head.startswith(_ZIP) and _holds_arrays(path):
        found = _read_arrays(path)
    elif head.startswith((_ZIP, _OLD)):
        found = _flatten(_read_torch(path, head.startswith(_ZIP)))
    else:
        raise ValueError(f"{path}: {_foreign('files', head.decode('latin-1'))}")
    if not found:
        raise ValueError(f"{path}: holds no named tensors; save the model's state dict")
    if len(found) > MOST_TENSORS:
        more = f"more than the {MOST_TENSORS} tensors that any vision transformer has"
        raise ValueError(f"{path}: {more}; save the model's state dict alone")
    return found, said


def _foreign(sort: str, text: str) -> str:
    """What is known of a file's beginning or of an archive's members; empty where nothing is."""
    found = (words for pattern, words in KINDS[sort].items() if re.match(pattern, text, re.DOTALL))
    return next(found, "")


def _fault_of_zip(path: Path) -> str:
    """Why an archive is not torch's, or would swell, and what to do; empty where it is fine."""
    try:
        with ZipFile(path) as archive:
            members = archive.infolist()
    except (BadZipFile, NotImplementedError, OSError, ValueError) as error:
        return f"not a complete torch checkpoint ({error}); fetch it again"
    names = [member.filename.rpartition("/")[2] for member in members]
    packed = any(member.compress_type != ZIP_STORED for member in members)
    if "data.pkl" not in names or "constants.pkl" in names:
        other = "a zip archive, no checkpoint; unpack it and load what is inside"
        return next(filter(None, (_foreign("archives", name) for name in names)), other)
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        return "a packed archive, which torch.save never writes; save the state dict again"
    return ""


def _read_parts(path: Path) -> Tensors:
    """The tensors of all files that an index lists, which lie beside it."""
    try:
        names = sorted(set(json.loads(path.read_text("utf-8"))["weight_map"].values()))
        if not names or any(Path(name).name != name or name.endswith(_INDEX) for name in names):
            raise ValueError("it names files of other folders, or none")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not the index of a checkpoint ({error}); fetch it again"
        ) from error
    parts = [read_tensors(path.with_name(name))[0] for name in names]
    return {name: tensor for part in parts for name, tensor in part.items()}


def _holds_arrays(path: Path) -> bool:
    """Whether an archive is NumPy's: all its members are arrays."""
    try:
        with ZipFile(path) as archive:
            members = archive.infolist()
    except (BadZipFile, NotImplementedError, OSError, ValueError):
        return False
    return bool(members) and all(member.filename.endswith(".npy") for member in members)


def _read_arrays(path: Path) -> Tensors:
    """The arrays of a NumPy archive, which may be packed to no less than a quarter."""
    try:
        with ZipFile(path) as archive:
            if sum(m.file_size for m in archive.infolist()) > 4 * path.stat().st_size:
                raise ValueError("it would swell when it is unpacked")
        with np.load(path, allow_pickle=False) as arrays:
            return {
                name: torch.from_numpy(arrays[name]) for name in arrays.files[: MOST_TENSORS + 1]
            }
    except Exception as error:  # numpy and zipfile meet damaged files with many classes
        words = f"no whole NumPy archive of numbers ({error}); fetch or save it again"
        raise ValueError(f"{path}: {words}") from error


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())[: MOST_TENSORS + 1]  # one more is refused anyway
            said = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            ours = isinstance(said, dict) and isinstance(said.get("config", {}), dict)
            if not ours or set(said) not in (set(), {"num_heads", "config"}):
                raise ValueError(f"its metadata {METADATA!r} is not ours")
            return {name: file.get_tensor(name) for name in names}, said
    except (SafetensorError, ValueError, AttributeError) as error:
        words = f"not a complete safetensors file ({error}); fetch it again"
        raise ValueError(f"{path}: {words}") from error


def _read_torch(path: Path, zipped: bool) -> object:
    fault = _fault_of_zip(path) if zipped else ""
    if fault:
        raise ValueError(f"{path}: {fault}")
    mapped = zipped and path.suffix != ".safetensors"  # which torch would not read as its own
    try:
        with path.open("rb") as file, safe_globals(_STAND_INS):
            source: Any = path if mapped else file
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch's safe unpickler meets foreign bytes with many classes
        said = str(error).rpartition("WeightsUnpickler error: ")[2]  # without torch's advice
        reason = said.partition("\n")[0] or type(error).__name__
        words = f"not a complete torch checkpoint ({reason}); fetch it again"
        first = re.findall(r"GLOBAL (\S+)", said)  # that the file wants to import
        if first:
            names = ", ".join(_imports(path) or first)
            words = f"holds {names!r:.200}: {_foreign('files', _OLD.decode('latin-1'))}"
        raise ValueError(f"{path}: {words}") from error


def _imports(path: Path) -> list[str]:
    """All that a file wants to import and may not; none where torch can't list it."""
    try:
        with safe_globals(_STAND_INS):
            return sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:  # for its old format, and for what its safe unpickler does not know
        return []


def _flatten(state: object) -> Tensors:
    """Every named tensor in nested dicts and lists, by its dotted name; each of these once."""
    found: Tensors = {}
    seen: set[int] = set()
    queue: list[tuple[str, object]] = [("", state)]
    for name, value in queue:  # grows while it is read: the outer dicts come first
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            queue += [
                (f"{name}.{k}" if name else str(k), each)
                for k, each in inside
                if isinstance(value, dict) or not isinstance(each, Tensor)
            ]
    return found

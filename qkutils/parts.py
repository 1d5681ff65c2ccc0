"""Parts of a long computation, kept in files, so that it can be interrupted and taken up again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr


def resumable(
    path: str | Path | None, identity: str, compute: Callable[[Path | None], xr.Dataset]
) -> xr.Dataset:
    """The result in a netCDF file; where there is none yet, computes and writes it.

    `compute` gets a folder for its parts (see `kept`), or None where nothing is to be written.  The
    folder goes when the result is whole.  `identity` names model, images and options: raises
    ValueError where the file holds the result of others.
    """
    if path is None:
        return compute(None)
    path = Path(path)
    if path.exists():
        return _finished(path, identity)
    folder = path.with_name(f"{path.name}.{identity}")
    folder.mkdir(parents=True, exist_ok=True)
    result = compute(folder).assign_attrs(identity=identity)
    partial = folder / "result.partial"
    result.to_netcdf(partial, engine="scipy")
    os.replace(partial, path)
    shutil.rmtree(folder)
    return result


def _finished(path: Path, identity: str) -> xr.Dataset:
    found = xr.load_dataset(path, engine="scipy")
    if found.attrs.get("identity") != identity:
        raise ValueError(
            f"{path}: holds the result of another model, other images or other options; name "
            "another file, or remove this one"
        )
    return found


def kept(file: Path | None, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in a file; where there is none yet, computes it and, if there is a name, keeps it.

    It is written under another name and renamed: a file is whole or not there.
    """
    if file is None:
        return compute()
    if not file.exists():
        partial = file.with_suffix(".partial")
        with partial.open("wb") as stream:
            np.save(stream, compute(), allow_pickle=False)
        os.replace(partial, file)
    return np.load(file, allow_pickle=False)

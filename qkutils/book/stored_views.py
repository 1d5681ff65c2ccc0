"""Stored views: modes of models that are not at hand, on the photographs of this package, alive.

`qkutils store MODEL --images DIR` writes what the views show; `mode_browser` and `one_image` show
it.  Photographs are not stored again: they come from this package, as the model saw them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import xarray as xr

import qkutils as qk
from qkutils.book import stored, stored_maps

TOP = 4  # photographs of a mode in either sign
SIDES = ("query", "key")
STEPS = 255  # of a map in 8 bits
# What the views need beside their numbers.
_SAID = {
    "mode_browser": ("top",),
    "one_image": ("name", "scale", "size", "grid", "prefix", "layer", "head", "patch"),
}


def mode_browser(name: str) -> qk.views.ModeBrowser:
    """Show the stored modes of a model on the photographs of this package.

    The facts are of all modes, and carried shares are of these photographs.  The pictures are of
    all heads, and of as many of the first six modes as a page has room for (1.45 MB).

    Parameters
    ----------
    name
        One of `stored.names("mode_browser")`.

    Returns
    -------
    ModeBrowser
        A widget that computes no more, with or without a kernel.

    Raises
    ------
    FileNotFoundError
        For a model without them.
    ValueError
        For a file that is not as it was written.

    Examples
    --------
    >>> from qkutils.book import stored_views
    >>> view = stored_views.mode_browser("deit_tiny_patch16_224.fb_in1k")
    >>> view.found.sizes["picture"]
    20
    """
    found = _read("mode_browser", name)
    full = found.assign({side: found[side] / STEPS for side in SIDES})
    return qk.views.ModeBrowser.of(full, {key: _seen(found, key) for key in found.picture.values})


def one_image(name: str) -> qk.views.OneImage:
    """Show what a model's modes do on one photograph of this package.

    The patch that asks at first, the layers and the head to begin with, in the middle of the depth,
    are those of `stored_maps.taken_apart`.  Of these layers there are all heads, or as many as a
    page has room for (1 MB of numbers).

    Parameters
    ----------
    name
        One of `stored.names("one_image")`.

    Returns
    -------
    OneImage
        A widget that computes no more, with or without a kernel.

    Raises
    ------
    FileNotFoundError
        For a model without it.
    ValueError
        For a file that is not as it was written.

    Examples
    --------
    >>> from qkutils.book import stored_views
    >>> view = stored_views.one_image("deit_tiny_patch16_224.fb_in1k")
    >>> dict(view.found["query"].sizes)
    {'layer': 6, 'head': 3, 'token': 197, 'mode': 64}
    """
    found = _read("one_image", name)
    return qk.views.OneImage(found, _seen(found, found.attrs["name"]))


def store_mode_browser(model: qk.Model, folder: Path = stored.FOLDER) -> Path:
    """Computes and stores what the mode browser shows of the photographs, its maps in 8 bits."""
    photographs = qk.pictures_of(qk.datasets.photographs(), model)
    atlas = qk.scan(model, photographs, k=TOP, statistics=["variance"], progress=False)
    found = qk.views.mode_browser(model, atlas, photographs, top=TOP).found
    small = {side: (STEPS * found[side]).round().astype("uint8") for side in SIDES}
    return _write(folder, "mode_browser", found.assign(small), model)


def store_one_image(model: qk.Model, folder: Path = stored.FOLDER) -> Path:
    """Computes and stores what the view of one image shows of a photograph, in half precision."""
    photographs = qk.pictures_of(qk.datasets.photographs(), model)
    image = photographs.read(photographs.keys.index(stored_maps.PHOTOGRAPH))
    asked, places = stored_maps.most_apart(model, image)
    layers, (layer, head) = [layer for layer, _ in places], places[len(places) // 2]
    at: dict[str, Any] = {"layer": layer, "head": head, "query_patch": asked}
    view = qk.views.one_image(model, image, layers=layers, **at)
    named = view.found.assign_attrs(name=stored_maps.PHOTOGRAPH)
    return _write(folder, "one_image", named, model)


def _write(folder: Path, kind: str, found: xr.Dataset, model: qk.Model) -> Path:
    """Writes what a view has found, and beside it what it comes from and its digest."""
    said = {name: found.attrs[name] for name in _SAID[kind]}
    facts = stored_maps.facts_of(found, model, said)
    wide = [name for name, values in found.items() if values.dtype == np.float64]
    small = found.assign(found[wide].astype("float32")).drop_attrs().assign_attrs(facts)
    for values in small.data_vars.values():
        values.encoding = {"zlib": True, "shuffle": True, "complevel": 9}
    whole = small.assign_attrs(content=_content(small))
    return qk.store.save(folder / f"{model.name}.{kind}.nc", whole)


def _read(kind: str, name: str) -> xr.Dataset:
    """What is stored of a model; raises ValueError for what is not as it was written."""
    path = stored.file_of(kind, name)
    found = qk.store.load(path)
    own = "model" in found.coords and found.model.item() == name
    if not own or found.attrs.get("content") != _content(found):
        raise ValueError(f"{path}: is not as `qkutils store {name}` wrote it; run that again")
    return found


def _content(found: xr.Dataset) -> str:
    """The digest of all that a file holds, by which it is known again."""
    said = {key: np.atleast_1d(v).tolist() for key, v in found.attrs.items() if key != "content"}
    parts = {
        str(name): values.values.tolist() if values.dtype.kind in "OU" else _digest(values)
        for name, values in found.variables.items()
    }
    return qk.store.digest({"said": said, "parts": parts})


def _digest(values: Any) -> str:
    return f"{values.dims} {qk.store.digest(values.values.copy())}"


def _seen(found: xr.Dataset, key: str) -> PIL.Image.Image:
    """A photograph as the model saw it."""
    pixels = 255 * stored_maps.photograph(found, key)
    return PIL.Image.fromarray(pixels.round().astype(np.uint8))

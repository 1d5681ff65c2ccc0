"""Whole atlases: merged, written, read again, and held against what a scan can have given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from qkutils import store
from qkutils.atlas._state import (
    DIMS,
    GEOMETRY,
    OF_PICTURES,
    PLACES,
    SIGNS,
    fields_of,
    is_sum,
    with_means,
)
from qkutils.heads import CONVENTIONS
from qkutils.provenance import ORIGIN, convention_of

OF_TWO_PASSES = ("ranked_again", "from_candidates")  # no whole has them, if its parts do


def merge(*atlases: xr.Dataset) -> xr.Dataset:
    """Merge the atlases of several sets of images into one.

    The result is what one scan of all the images would have given.

    Parameters
    ----------
    *atlases
        Whole atlases, as `scan` gave them: one or more.

    Returns
    -------
    xr.Dataset
        An atlas of all images, in the order of their keys.

    Raises
    ------
    ValueError
        For atlases of different models, conventions or options, for images that two of them share,
        and where there is no atlas.

    Examples
    --------
    >>> import qkutils as qk
    >>> scenes, keys = qk.world.pictures(0, 0, 4), ["a", "b", "c", "d"]
    >>> halves = [
    ...     qk.scan("tiny-supervised", scenes[part], k=2, keys=keys[part], progress=False)
    ...     for part in (slice(0, 2), slice(2, 4))
    ... ]
    >>> qk.merge(*halves).key.values.tolist()
    ['a', 'b', 'c', 'd']
    """
    if not atlases:
        raise ValueError("merge: at least one atlas is needed")
    for number, atlas in enumerate(atlases):
        check_atlas(atlas, f"atlas {number}", whole=True)
    _check_shards(*atlases)
    return _merged(*atlases) if atlases[1:] else atlases[0]


def _check_shards(first: xr.Dataset, *others: xr.Dataset) -> None:
    wanted = store.identity_of(first)
    for other in others:
        if differ := store.differing(wanted, store.identity_of(other)):
            raise ValueError(f"merge: atlases differ in {', '.join(differ)}; scan all in one way")
    counts = Counter(str(key) for each in (first, *others) for key in each.key.values)
    if shared := sorted(key for key, count in counts.items() if count > 1):
        raise ValueError(
            f"merge: {len(shared)} images are in two atlases, the first {shared[0]!r}; give every "
            "image to one shard"
        )


def _merged(*atlases: xr.Dataset) -> xr.Dataset:
    joined = {
        name: np.concatenate([each[name].values for each in atlases], -1)
        for name in (*PLACES, *OF_PICTURES)
    }
    order = sorted(range(len(joined["key"])), key=joined["key"].__getitem__)
    ends = np.cumsum([each.sizes["picture"] for each in atlases])
    places = np.split(np.argsort(order).astype(np.int32), ends[:-1])
    pairs = [(each.image.values, own) for each, own in zip(atlases, places, strict=True)]
    joined["image"] = np.concatenate([np.where(n >= 0, own[n], -1) for n, own in pairs], -1)
    best = np.lexsort((joined["image"], -np.nan_to_num(joined["score"])))
    best = best[..., : atlases[0].sizes["rank"]]
    fields: dict = {name: (DIMS, np.take_along_axis(joined[name], best, -1)) for name in PLACES}
    fields |= {name: ("picture", joined[name][order]) for name in OF_PICTURES}
    fields |= {name: sum(each[name] for each in atlases) for name in filter(is_sum, atlases[0])}
    bare = atlases[0].drop_dims("picture").drop_vars(OF_TWO_PASSES, errors="ignore")
    return with_means(bare.assign(fields).set_coords("key"))


def save(atlas: xr.Dataset, path: str | Path) -> Path:
    """Save an atlas as netCDF.

    The file is whole or not there.

    Parameters
    ----------
    atlas
        A whole atlas, as `scan` or `merge` gave it.
    path
        Where to write it.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        For what is no whole atlas.
    OSError
        Where the file can't be written.

    Examples
    --------
    >>> import qkutils as qk, tempfile
    >>> atlas = qk.scan("tiny-supervised", qk.world.pictures(0, 0, 4), k=2, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     qk.atlas.save(atlas, f"{folder}/atlas.nc").name
    'atlas.nc'
    """
    check_atlas(atlas, "the atlas", whole=True)
    # In one order, so that equal atlases are equal files.
    return store.save(path, atlas[sorted(map(str, atlas.variables))].drop_encoding())


def open_atlas(path: str | Path) -> xr.Dataset:
    """Read an atlas from the file that `save` or `scan` wrote.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    xr.Dataset
        The atlas, as `scan` gave it.

    Raises
    ------
    FileNotFoundError
        Where there is no such file, or a folder or a pipe.
    ValueError
        For a file that is damaged, or holds no whole atlas.

    Examples
    --------
    >>> import qkutils as qk, tempfile
    >>> atlas = qk.scan("tiny-supervised", qk.world.pictures(0, 0, 4), k=2, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     qk.open_atlas(qk.atlas.save(atlas, f"{folder}/atlas.nc")).equals(atlas)
    True
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such atlas; `scan(..., out=...)` writes one")
    atlas = store.load(path)
    check_atlas(atlas, str(path), whole=True)
    # Texts of one length come from the file as arrays that hold no longer ones.
    return atlas.assign({name: atlas[name].astype(object) for name in ("fault", "digest")})


def check_atlas(atlas: Any, name: str = "the atlas", whole: bool = False) -> None:
    """Refuse what is no atlas, and an atlas that can't be true.

    A selection of layers, heads, modes, signs or ranks is an atlas too.

    Parameters
    ----------
    atlas
        What is checked.
    name
        What the error calls it.
    whole
        Whether to refuse a selection.

    Raises
    ------
    ValueError
        Where it is none.  The error says what is wrong.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.atlas.check_atlas("atlas.nc")
    Traceback (most recent call last):
    ValueError: the atlas: is no atlas that a scan can have given: it is a str; scan again
    """
    if wrong := next(_faults(atlas, whole), ""):
        raise ValueError(f"{name}: is no atlas that a scan can have given: {wrong}; scan again")


def _faults(atlas: Any, whole: bool) -> Iterator[str]:
    """What is wrong with an atlas; what comes later relies on what was looked at before."""
    if not isinstance(atlas, xr.Dataset):
        yield f"it is a {type(atlas).__name__}"
    if wrong := ", ".join(_missing(atlas)):
        yield f"{wrong} missing, or of another kind or other dimensions"
    yield from _misshapen(atlas, whole)
    yield from _misplaced(atlas)
    yield from _misread(atlas)


def _missing(atlas: xr.Dataset) -> Iterator[str]:
    """What an atlas has to hold and this does not, or of another kind or over other dims."""
    asked = str(atlas.attrs.get("statistics", "")).split()
    for name, (dims, kind, _) in fields_of(asked).items():
        there = name in atlas and atlas[name].dims == dims
        if not there or atlas[name].dtype.kind.replace("U", "O") != kind:
            yield name
    yield from (name for name in ORIGIN if name not in atlas.coords)
    if "convention" in atlas.coords and convention_of(atlas) not in CONVENTIONS:
        yield "convention"
    if not isinstance(atlas.attrs.get("identity"), str):
        yield "identity"
    for name, count in ({"shape": len(DIMS)} | dict.fromkeys(GEOMETRY, 2)).items():
        numbers = np.atleast_1d(atlas.attrs.get(name, ()))
        if len(numbers) != count or numbers.dtype.kind != "i" or (numbers <= 0).any():
            yield name


def _misshapen(atlas: xr.Dataset, whole: bool) -> Iterator[str]:
    """Where sizes are not those that the attributes tell."""
    for name, wanted in zip(DIMS, atlas.attrs["shape"], strict=True):
        there = atlas[name].values.tolist()
        numbers = list(SIGNS) if name == "sign" else list(range(wanted))
        if whole and there != numbers:
            yield f"it holds {len(there)} of {wanted} in {name}, or in another order"
        if not set(there) <= set(numbers) or len(set(there)) < len(there):
            yield f"{name} holds other numbers than 0 to {wanted - 1}, or one twice"
    grid, patch, size = (np.array(atlas.attrs[name]) for name in GEOMETRY)
    if (np.abs(grid * patch - size) >= patch).any():
        yield f"grid {grid}, patch_size {patch} and image_size {size} don't fit"


def _misplaced(atlas: xr.Dataset) -> Iterator[str]:
    """What can't be true of the places: of their pictures, their scores or their patches."""
    image, score, count = atlas.image.values, atlas.score.values, atlas.sizes["picture"]
    there, patches = image >= 0, int(np.prod(atlas.attrs["grid"]))
    if (image < -1).any() or (image >= count).any():
        yield f"image holds numbers that none of the {count} pictures has"
    if not (atlas.done.values & (atlas.fault.values == ""))[image[there]].all():
        yield "image names pictures that are not done, or have a fault"
    if not np.where(there, np.isfinite(score) & (score > 0), np.isnan(score)).all():
        yield "score is not finite and positive where there is an image, or is without one"
    if (np.diff(np.where(there, score, 0), axis=-1) > 0).any():
        yield "score does not fall with the rank"
    for name in ("query_patch", "key_patch"):
        at = atlas[name].values
        if not np.where(there, (at >= 0) & (at < patches), at == -1).all():
            yield f"{name} lies outside the grid of {patches} patches"


def _misread(atlas: xr.Dataset) -> Iterator[str]:
    """What can't be true of the list of pictures, or of the modes."""
    done, sigma = atlas.done.values, atlas.sigma.values
    faulty, known = atlas.fault.values.astype(bool), atlas.digest.values.astype(bool)
    if len(set(map(str, atlas.key.values))) < len(done):
        yield "key names two pictures alike"
    twice = bool(atlas.attrs.get("candidates"))  # where a picture may fail in the second pass alone
    if (not twice and (done & faulty).any()) or (done & ~known).any():
        yield "done holds pictures with a fault, or without a digest"
    if not (np.isfinite(sigma) & (sigma >= 0)).all():
        yield "sigma is not finite, or negative"

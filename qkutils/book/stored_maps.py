"""Stored maps: modes of models that are not at hand, on the photographs of this package.

`qkutils store MODEL --images DIR` writes them, and `on_photographs` and `taken_apart` read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from timm.data import create_transform, resolve_model_data_config

import qkutils as qk
from qkutils.book import stored
from qkutils.passes import normalise, visit_layers

QUANTILES = np.linspace(0, 1, 21)
LAYERS, HEADS, MODES = 8, 6, 6
DIRECTIONS = 200
PHOTOGRAPH = "astronaut"  # the first by name, taken apart for every model
SIDES = ("query", "key")
_STEPS = 127  # of an 8-bit number on either side of zero
_SEEING = ("input_size", "interpolation", "crop_pct", "crop_mode")  # of its preprocessing
_PLACE = ("layer", "head", "mode")


def on_photographs(name: str) -> xr.Dataset:
    """Read a model's stored modes on the photographs of this package.

    In eight layers, spread evenly over the depth, it is the mode that carries the greatest share of
    the logits' variance on other people's photographs.

    Parameters
    ----------
    name
        One of `stored.names("photographs")`.

    Returns
    -------
    xr.Dataset
        `query` and `key`, the maps, over (chosen, image, row, column).  `score` over (chosen, sign,
        image): the product of their two largest values, 0 where one is not positive.  `spread` over
        (chosen, sign, quantile): of the same score on other people's photographs.  `layer`, `head`,
        `mode`, `sigma`, `cosine` and `carried`, a share, over chosen.  `place_random` over (chosen,
        direction): `of_place` of random sums of the layer's tokens, taken as directions.

    Raises
    ------
    FileNotFoundError
        For a model without them.

    Examples
    --------
    >>> from qkutils.book import stored_maps
    >>> maps = stored_maps.on_photographs("deit_tiny_patch16_224.fb_in1k")
    >>> dict(maps["query"].sizes)
    {'chosen': 8, 'image': 20, 'row': 14, 'column': 14}
    """
    return _read("photographs", name)


def of_place(maps: xr.DataArray) -> xr.DataArray:
    """Give the share of a map's variance that is the same on every image.

    Parameters
    ----------
    maps
        Over (image, row, column), and whatever else.

    Returns
    -------
    xr.DataArray
        From 0 to 1, without these dimensions.  For n images that have nothing in common, 1/n is
        expected.

    Raises
    ------
    ValueError
        For maps without one of the dimensions.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from qkutils.book import stored_maps
    >>> bands = np.broadcast_to([[0.0], [1.0]], (3, 2, 4))
    >>> float(stored_maps.of_place(xr.DataArray(bands, dims=("image", "row", "column"))))
    1.0
    """
    centred = maps - maps.mean(("image", "row", "column"))
    same = (centred.mean("image") ** 2).mean(("row", "column"))
    return same / (centred**2).mean(("image", "row", "column"))


def taken_apart(name: str) -> xr.Dataset:
    """Read what a model's modes do on one photograph of this package.

    The patch that asks is the one whose attention is least like that of the others.  In each sixth
    of the layers it is the head in which this patch's attention is least like that of the others.

    Parameters
    ----------
    name
        One of `stored.names("taken_apart")`.

    Returns
    -------
    xr.Dataset
        `query` and `key`, the maps, over (chosen, rank, row, column), for the six modes that
        contribute most.  `mode`, `cosine`, `contribution` and `share` over (chosen, rank), `layer`,
        `head` and `salience_share` over chosen.  `asked`, a patch, and `photograph` are attributes.

    Raises
    ------
    FileNotFoundError
        For a model without it.

    Examples
    --------
    >>> from qkutils.book import stored_maps
    >>> found = stored_maps.taken_apart("deit_tiny_patch16_224.fb_in1k")
    >>> dict(found["query"].sizes), found.attrs["photograph"]
    ({'chosen': 6, 'rank': 6, 'row': 14, 'column': 14}, 'astronaut')
    """
    return _read("taken_apart", name)


def photograph(maps: xr.Dataset, key: str) -> np.ndarray:
    """Give a photograph as the model of some maps saw it.

    Parameters
    ----------
    maps
        What `on_photographs` or `taken_apart` gave.
    key
        The name of a photograph.

    Returns
    -------
    np.ndarray
        Over (height, width, 3), from 0 to 1.

    Raises
    ------
    KeyError
        For a name that there is not.

    Examples
    --------
    >>> from qkutils.book import stored_maps
    >>> maps = stored_maps.on_photographs("deit_tiny_patch16_224.fb_in1k")
    >>> stored_maps.photograph(maps, "cat").shape
    (224, 224, 3)
    """
    all_of_them = qk.datasets.photographs()
    if key not in all_of_them.keys:
        raise KeyError(f"{key!r} is no photograph of {', '.join(all_of_them.keys)}")
    facts = {name: maps.attrs[name] for name in _SEEING}
    facts |= {"input_size": (3, *map(int, facts["input_size"])), "mean": (0,) * 3, "std": (1,) * 3}
    image = all_of_them[all_of_them.keys.index(key)].image
    return create_transform(**facts)(image).movedim(0, -1).numpy()


def facts_of(found: xr.Dataset, model: qk.Model, said: dict[str, Any]) -> dict[str, Any]:
    """What a stored file says of its making, and of how the model saw photographs."""
    config = resolve_model_data_config(model.net) | {"input_size": model.image_size}
    facts = {key: found.attrs[key] for key in ("dtype", "code_version", "assumed")}
    facts |= {key: config[key] for key in _SEEING}
    return facts | {"computed": date.today().isoformat()} | said


def gallery(maps: xr.Dataset, chosen: int, count: int = 4) -> xr.Dataset:
    """Give the photographs on which a stored mode scores highest, as `qk.optimal_pictures` does.

    Parameters
    ----------
    maps
        What `on_photographs` gave.
    chosen
        Which of its modes, counted from 0.
    count
        How many photographs for each sign.

    Returns
    -------
    xr.Dataset
        `picture`, `query`, `key` and `there`, as `qk.optimal_pictures` has them, and `score` and
        `above` over (sign, rank): the part of other people's photographs that score higher.

    Raises
    ------
    IndexError
        For a mode that is not stored.

    Examples
    --------
    >>> from qkutils.book import stored_maps
    >>> maps = stored_maps.on_photographs("deit_tiny_patch16_224.fb_in1k")
    >>> stored_maps.gallery(maps, 7)["picture"].shape
    (2, 4, 224, 224, 3)
    """
    one = maps.isel(chosen=chosen)
    best = np.argsort(-one.score.values, axis=1, kind="stable")[:, :count]
    score = np.take_along_axis(one.score.values, best, 1)
    seen = {n: photograph(maps, str(one.image.values[n])) for n in set(best.ravel().tolist())}
    above = [1 - np.interp(*pair, maps["quantile"]) for pair in zip(score, one.spread, strict=True)]
    turn = one.sign.values[:, None, None, None]
    places, on_grid = ("sign", "rank"), ("sign", "rank", "row", "column")
    fields: dict[str, Any] = {side: (on_grid, turn * one[side].values[best]) for side in SIDES}
    fields |= {"there": (places, score > 0), "score": (places, score), "above": (places, above)}
    pictures = np.stack([np.stack([seen[n] for n in row]) for row in best.tolist()])
    fields["picture"] = ((*places, "height", "width", "channel"), pictures)
    return xr.Dataset(fields, {"sign": one.sign})


def store_photographs(model: qk.Model, images: Path, folder: Path = stored.FOLDER) -> Path:
    """Computes and stores some modes on the photographs of this package.

    Which modes, and how their scores lie, is told by other people's photographs.
    """
    others = qk.pictures_of(images, model)
    atlas = qk.scan(model, others, k=len(others.keys), statistics=["variance"])
    chosen = [atlas.sel(place) for place in _carrying_most(atlas)]
    photographs = qk.pictures_of(qk.datasets.photographs(), model)
    seen = torch.stack([photographs.read(n) for n in range(len(photographs.keys))])
    scores = _over_chosen([one.score.where(one.image >= 0, 0) for one in chosen])
    maps = _over_chosen([_maps(model, seen, one) for one in chosen])
    maps = maps.assign_coords(image=photographs.keys)
    spread = scores.quantile(QUANTILES, "rank").transpose("chosen", "sign", "quantile")
    of_mode = _over_chosen([one[["sigma", "cosine", "carried"]] for one in chosen])
    found = maps.assign(of_mode.data_vars).assign(score=_scores(maps), spread=spread)
    found = found.assign(place_random=_place_by_chance(model, seen, found.layer.values.tolist()))
    said = {"images": f"{len(others.keys)} files of {images.resolve().name}"}
    return _write(folder, "photographs", found, model, said)


def store_taken_apart(model: qk.Model, folder: Path = stored.FOLDER) -> Path:
    """Computes and stores what modes do on one photograph of this package."""
    photographs = qk.pictures_of(qk.datasets.photographs(), model)
    image = photographs.read(photographs.keys.index(PHOTOGRAPH))
    asked, places = most_apart(model, image)
    found = [
        qk.studies.one_image(model, image, layer, head, query_patch=asked)
        .isel(mode=slice(MODES))
        .rename(query_map="query", key_map="key")
        .assign(layer=layer, head=head)
        for layer, head in places
    ]
    kept = ["query", "key", "contribution", "share", "cosine", "salience_share", "layer", "head"]
    parts = _over_chosen([_ranked(one[kept]) for one in found])
    return _write(folder, "taken_apart", parts, model, {"photograph": PHOTOGRAPH, "asked": asked})


def most_apart(model: qk.Model, image: torch.Tensor) -> tuple[int, list[tuple[int, int]]]:
    """The patch whose attention is least like that of the others, and where it is so most.

    That is a layer and head in each sixth of the depth.
    """
    rows = qk.observed_attention(model, image[None]).isel(image=0)
    rows = rows.isel(query=slice(model.prefix_tokens, None))
    apart = qk.total_variation(rows, rows.mean("query"))
    asked = int(apart.mean(("layer", "head")).values.argmax())
    parts = np.array_split(np.arange(apart.sizes["layer"]), HEADS)
    of = [apart.isel(query=asked, layer=part).stack(of=("layer", "head")) for part in parts]
    return asked, [each["of"].item(int(each.values.argmax())) for each in of]


def _carrying_most(atlas: xr.Dataset) -> list[dict[str, int]]:
    """In some layers, spread evenly, the mode with the greatest share of the logits' variance."""
    total = atlas.logit_variance.sum("mode") + atlas.salience_variance
    atlas["carried"] = atlas.logit_variance / total
    layers = np.linspace(0, atlas.sizes["layer"] - 1, LAYERS).round().astype(int)
    best = [atlas.carried.sel(layer=layer).argmax(("head", "mode")) for layer in layers]
    return [
        {"layer": int(layer), **{name: int(number) for name, number in one.items()}}
        for layer, one in zip(layers, best, strict=True)
    ]


def _maps(model: qk.Model, seen: torch.Tensor, mode: xr.Dataset) -> xr.Dataset:
    """The maps of one mode on some images."""
    layer, head, number = (int(mode[name]) for name in ("layer", "head", "mode"))
    return qk.mode_maps(model, seen, layer=layer, head=head).sel(mode=number)


def _place_by_chance(model: qk.Model, seen: torch.Tensor, layers: list[int]) -> xr.DataArray:
    """`of_place` of random sums of some layers' tokens, as directions of queries."""
    generator, found = torch.Generator().manual_seed(0), []

    def visit(layer: int, _: slice, x: torch.Tensor) -> None:
        if layer not in layers:
            return
        token = normalise(x[:, model.prefix_tokens :].float(), model.heads.ln_eps).cpu()
        flat = token.flatten(0, 1)
        # GᵀR, R being that of x = QR, has the distribution of Gᵀx with one normal number per token.
        lean = torch.linalg.qr(flat - flat.mean(0), mode="r").R
        chance = torch.randn(DIRECTIONS, len(lean), generator=generator) @ lean
        on_grid = (token @ chance.mT).unflatten(1, model.grid).numpy()
        found.append(of_place(xr.DataArray(on_grid, dims=("image", "row", "column", "direction"))))

    visit_layers(model, seen, visit, batch_size=len(seen))
    return xr.concat(found, "chosen")


def _scores(maps: xr.Dataset) -> xr.DataArray:
    """What a scan would call their score, in both signs."""
    signs = xr.DataArray([1, -1], {"sign": [1, -1]}, "sign")
    query, key = ((signs * maps[side]).max(("row", "column")).clip(0) for side in SIDES)
    return (query * key).transpose("chosen", "sign", "image")


def _over_chosen(parts: Sequence[Any]) -> Any:
    """Parts of a result side by side, each with its place as numbers over `chosen`."""
    return xr.concat([part.drop_vars("of", errors="ignore") for part in parts], "chosen")


def _ranked(one: xr.Dataset) -> xr.Dataset:
    """The modes of one head by their rank, and not by their number."""
    return one.reset_index("mode").reset_coords("mode").rename_dims(mode="rank")


def _write(
    folder: Path, kind: str, found: xr.Dataset, model: qk.Model, said: dict[str, Any]
) -> Path:
    """Writes maps in 8 bits, and beside them what they come from and how the model saw them."""
    facts = facts_of(found, model, said)
    found = found.reset_coords(_PLACE, drop=False).drop_attrs(deep=False).assign_attrs(facts)
    return qk.store.save(folder / f"{model.name}.{kind}.nc", _in_eight_bits(found))


def _in_eight_bits(found: xr.Dataset) -> xr.Dataset:
    """Maps as parts of each mode's largest value, to be written as whole numbers of 8 bits."""
    packed = {"dtype": "int8", "scale_factor": 1 / _STEPS, "_FillValue": -_STEPS - 1, "zlib": True}
    parts: dict[str, xr.DataArray] = {}
    for side in SIDES:
        within = [dim for dim in found[side].dims if dim not in ("chosen", "rank")]
        limit = abs(found[side]).max(within)
        parts |= {side: found[side] / limit, f"{side}_limit": limit}
    small = found.assign(parts)
    for side in SIDES:
        small[side].encoding = packed
    return small


def _read(kind: str, name: str) -> xr.Dataset:
    """What is stored of a model, its maps in their own units."""
    found = qk.store.load(stored.file_of(kind, name))
    limits = [f"{side}_limit" for side in SIDES]
    full = {side: found[side] * found[limit] for side, limit in zip(SIDES, limits, strict=True)}
    return found.assign(full).drop_vars(limits)

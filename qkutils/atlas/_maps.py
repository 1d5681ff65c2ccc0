"""Maps: where on some images the tokens stand that ask a head's modes, and those that answer."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from qkutils import models, options
from qkutils.atlas._whole import check_atlas
from qkutils.heads import Convention
from qkutils.models import AnyModel
from qkutils.modes import decompose_layer
from qkutils.passes import check_images, normalise, visit_layers
from qkutils.pictures import visible
from qkutils.pictures._stream import Pictures
from qkutils.provenance import convention_of, refuse_foreign, with_origin
from qkutils.store import digest

SIDES = ("query", "key")
BATCH = 32


def mode_maps(
    model: AnyModel,
    images: Float[Tensor, "image channel height width"],
    layer: int,
    head: int,
    *,
    convention: Convention = "exact",
) -> xr.Dataset:
    """Map where on some images the tokens stand that ask a head's modes, and those that answer.

    Paper figures 1 and 4.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    images
        As the model takes them.
    layer, head
        The numbers of the layer and of the head, counted from 0.
    convention
        `exact`: the modes act on LayerNorm's normalised token, as the model computes.  `paper`:
        they act on the raw residual stream, as in the paper.

    Returns
    -------
    xr.Dataset
        `query` (x·u) and `key` (x·v) over (image, mode, row, column), on the patch grid.

    Raises
    ------
    ValueError
        For a layer or head that the model does not have, and for other images.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> maps = qk.mode_maps("tiny-supervised", torch.zeros(2, 3, 64, 64), layer=3, head=1)
    >>> dict(maps.sizes)
    {'image': 2, 'mode': 24, 'row': 8, 'column': 8}
    """
    loaded = models.load(model)
    layers, heads = loaded.heads.w_q.shape[:2]
    options.index("layer", layer, layers)
    options.index("head", head, heads)
    check_images(loaded, images)
    parts = decompose_layer(loaded.heads, layer, convention)
    directions = torch.stack([parts[name][head] for name in ("u", "v")])[None, :, None]
    found = _maps(loaded, images, [layer], directions, convention)[0, :, :, 0]
    dims = ("image", "mode", "row", "column")
    fields = {side: (dims, found[:, n].numpy()) for n, side in enumerate(SIDES)}
    place = {"layer": layer, "head": head}
    return with_origin(xr.Dataset(fields, place), loaded, convention, "float32")


def _maps(
    model: models.Model,
    images: Float[Tensor, "image channel height width"],
    layers: list[int],
    directions: Float[Tensor, "layer side head mode d_model"],
    convention: Convention,
) -> Float[Tensor, "layer image side head mode row column"]:
    """The projections of some images' patches on directions in some layers."""
    found = torch.zeros(len(layers), len(images), *directions.shape[1:4], *model.grid)
    eps = model.heads.ln_eps

    def visit(layer: int, which: slice, x: Tensor) -> None:
        if layer not in layers:
            return
        token = x[:, model.prefix_tokens :].float()
        token = normalise(token, eps) if convention == "exact" else token
        at = layers.index(layer)
        on_modes = torch.einsum("btd,shmd->bshmt", token, directions[at].to(token))
        found[at, which] = on_modes.unflatten(-1, model.grid).cpu()

    visit_layers(model, images, visit)
    return found


def _read(
    pictures: Pictures, atlas: xr.Dataset, numbers: np.ndarray
) -> Float[Tensor, "image channel height width"]:
    """Pictures of an atlas; raises ValueError for one that is not what was scanned."""
    images = []
    for number, key in zip(numbers.tolist(), atlas.key.values[numbers], strict=True):
        item = pictures.item(number) if pictures.keys[number : number + 1] == [key] else b""
        if digest(item) != atlas.digest.values[number]:
            raise ValueError(f"pictures: {key!r} is not what was scanned; give those of the scan")
        images.append(pictures.decode(number, item))
    return torch.stack(images)


def optimal_pictures(
    model: AnyModel, pictures: Pictures, atlas: xr.Dataset, layer: int, head: int, mode: int
) -> xr.Dataset:
    """Collect the optimal pictures of one mode in both signs, with the mode's maps on them.

    The maps are multiplied by the sign, so that what the sign selects is positive.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    pictures
        The pictures that were scanned, as `pictures_of` gives them.
    atlas
        What `scan` gave for this model and these pictures.
    layer, head, mode
        The numbers of the layer, the head and the mode, counted from 0.

    Returns
    -------
    xr.Dataset
        `picture`, as the model sees it, over (sign, rank, height, width, channel).  `query` and
        `key`, the maps, over (sign, rank, row, column).  `there`, over (sign, rank), says where the
        atlas has a picture: elsewhere the others hold zeros.  Ranks that are empty in both signs
        are left out.

    Raises
    ------
    ValueError
        Where the atlas has no picture for this mode, and for an atlas of another model or of other
        pictures.

    Examples
    --------
    >>> import qkutils as qk
    >>> model, scenes = qk.load("tiny-supervised"), qk.world.pictures(0, 0, 8)
    >>> atlas = qk.scan(model, scenes, k=2, progress=False)
    >>> pictures = qk.pictures_of(scenes, model)
    >>> best = qk.optimal_pictures(model, pictures, atlas, layer=3, head=1, mode=0)
    >>> best["picture"].shape
    (2, 2, 64, 64, 3)
    """
    check_atlas(atlas)
    loaded = models.load(model)
    refuse_foreign("atlas", atlas, loaded)
    place = {"layer": layer, "head": head, "mode": mode}
    for name, number in place.items():
        whole = options.count(name, number, 0)
        place[name] = options.choice(name, whole, atlas[name].values.tolist())
    layer, head, mode = place.values()
    chosen = atlas.sel(place)
    there = chosen.image.values >= 0
    if not there.any():
        raise ValueError(f"layer {layer}, head {head}, mode {mode}: no picture has both its parts")
    numbers, at = np.unique(chosen.image.values[there], return_inverse=True)  # once for both signs
    images = _read(pictures, atlas, numbers)
    maps = mode_maps(loaded, images, layer=layer, head=head, convention=convention_of(atlas))
    turn = chosen.sign.broadcast_like(chosen.image).values[there][:, None, None]
    of_mode = {side: maps[side].sel(mode=mode).values[at] * turn for side in SIDES}
    fields: dict = {"there": (("sign", "rank"), there)}
    for name, values in ({"picture": visible(loaded, images)[at]} | of_mode).items():
        full = np.zeros((*there.shape, *values.shape[1:]), np.float32)
        full[there] = values
        dims = ("height", "width", "channel") if name == "picture" else ("row", "column")
        fields[name] = (("sign", "rank", *dims), full)
    attributes = place | {k: float(chosen[k]) for k in ("sigma", "cosine")}
    result = xr.Dataset(fields, {"sign": chosen.sign}, attributes)
    return result.isel(rank=there.any(0))


def galleries(
    model: AnyModel, pictures: Pictures, atlas: xr.Dataset, parts: xr.Dataset
) -> xr.Dataset:
    """Map every mode of an atlas on each of its optimal pictures.

    The maps are those of `optimal_pictures`.  Here every picture passes the model only once,
    however many modes it is shown for.  The maps are multiplied by the sign, so that what the sign
    selects is positive.  Paper figures 1 and 4.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    pictures
        The pictures that were scanned, as `pictures_of` gives them.
    atlas
        What `scan` gave for this model and these pictures, or a part of it.
    parts
        The modes, as `decompose` gives them in the convention of the atlas.

    Returns
    -------
    xr.Dataset
        `query` and `key` over (layer, head, mode, sign, rank, row, column).  They are zero where
        the atlas has no picture.

    Raises
    ------
    ValueError
        For an atlas of another model or of other pictures.

    Examples
    --------
    >>> import qkutils as qk
    >>> model, scenes = qk.load("tiny-supervised"), qk.world.pictures(0, 0, 8)
    >>> atlas = qk.scan(model, scenes, k=2, progress=False)
    >>> maps = qk.galleries(model, qk.pictures_of(scenes, model), atlas, qk.decompose(model))
    >>> dict(maps.sizes)
    {'layer': 8, 'head': 4, 'mode': 24, 'sign': 2, 'rank': 2, 'row': 8, 'column': 8}
    """
    check_atlas(atlas)
    loaded = models.load(model)
    refuse_foreign("atlas", atlas, loaded)
    refuse_foreign("parts", parts, loaded, convention_of(atlas))
    image = torch.from_numpy(atlas.image.values).long()
    chosen = parts.sel({name: atlas[name] for name in ("layer", "head", "mode")})
    directions = torch.stack([torch.from_numpy(chosen[name].values) for name in ("u", "v")], 1)
    layers, turn = atlas.layer.values.tolist(), torch.tensor(atlas.sign.values)
    found = torch.zeros(2, *image.shape, *loaded.grid)
    shown = image[image >= 0].unique()
    batches = shown.split(BATCH) if len(shown) else ()
    for numbers in tqdm(batches, desc="galleries", disable=len(batches) < 2):
        images = _read(pictures, atlas, numbers.numpy())
        maps = _maps(loaded, images, layers, directions, convention_of(atlas))
        *place, which = (image[..., None] == numbers).nonzero(as_tuple=True)
        layer, head, mode, sign, _ = place
        for side in range(2):
            on_modes = maps[layer, which, side, head, mode]
            found[side][tuple(place)] = on_modes * turn[sign][:, None, None]
    dims = (*atlas.image.dims, "row", "column")
    fields = {side: (dims, values.numpy()) for side, values in zip(SIDES, found, strict=True)}
    return xr.Dataset(fields, atlas.image.coords, atlas.attrs)

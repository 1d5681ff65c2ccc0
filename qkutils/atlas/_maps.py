"""Maps: where on some images the tokens stand that ask a head's modes, and those that answer."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from qkutils import models
from qkutils.heads import Convention
from qkutils.models import AnyModel
from qkutils.modes import decompose_layer
from qkutils.passes import normalise, visit_layers
from qkutils.pictures import visible
from qkutils.pictures._stream import Pictures
from qkutils.provenance import convention_of, with_origin

DIMS = ("image", "mode", "row", "column")


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
    heads = loaded.heads
    layers, count = heads.w_q.shape[:2]
    for name, value, limit in (("layer", layer, layers), ("head", head, count)):
        if not 0 <= value < limit:
            raise ValueError(f"{name}={value}: {loaded.name} has 0 to {limit - 1}")
    parts = decompose_layer(heads, layer, convention)
    sides = {"query": parts["u"][head].float(), "key": parts["v"][head].float()}
    found: dict[str, list[np.ndarray]] = {side: [] for side in sides}

    def visit(index: int, _: slice, x: Tensor) -> None:
        if index != layer:
            return
        token = x[:, loaded.prefix_tokens :].float()
        token = normalise(token, heads.ln_eps) if convention == "exact" else token
        for side, directions in sides.items():
            on_modes = (token @ directions.mT.to(token)).mT.unflatten(-1, loaded.grid)
            found[side].append(on_modes.cpu().numpy())

    visit_layers(loaded, images, visit)
    fields = {side: (DIMS, np.concatenate(values)) for side, values in found.items()}
    place = {"layer": layer, "head": head}
    return with_origin(xr.Dataset(fields, place), loaded, convention, "float32")


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
        Where the atlas has no picture for this mode.

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
    loaded = models.load(model)
    place = {"layer": layer, "head": head, "mode": mode}
    chosen = atlas.sel(place)
    there = (chosen.image >= 0).values  # [sign, rank]
    numbers = chosen.image.values[there]
    if len(numbers) == 0:
        raise ValueError(f"layer {layer}, head {head}, mode {mode}: no picture has both its parts")
    images = torch.stack([pictures.read(int(n)) for n in numbers])
    of_head = mode_maps(
        loaded, images, layer=layer, head=head, convention=convention_of(atlas)
    ).isel(mode=mode)
    turn = np.broadcast_to(chosen.sign.values[:, None], there.shape)[there][:, None, None]
    shown = {"picture": visible(loaded, images)}
    shown |= {side: of_head[side].values * turn for side in ("query", "key")}
    dims = {"picture": ("height", "width", "channel"), "query": DIMS[2:], "key": DIMS[2:]}
    fields: dict = {"there": (("sign", "rank"), there)}
    for name, values in shown.items():
        full = np.zeros((*there.shape, *values.shape[1:]), np.float32)
        full[there] = values
        fields[name] = (("sign", "rank", *dims[name]), full)
    attributes = place | {k: float(chosen[k]) for k in ("sigma", "cosine")}
    result = xr.Dataset(fields, {"sign": chosen.sign}, attributes)
    return result.isel(rank=there.any(0))

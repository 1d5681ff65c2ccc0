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
    convention: Convention = "exact",
) -> xr.Dataset:
    """`query` and `key`, x·u and x·v of every mode of a head on the patch grid of some images.

    Raises ValueError for a layer or head that the model does not have.  Paper figures 1 and 4.
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
    """The optimal pictures of one mode in both signs, as the model sees them, with their maps.

    `picture` over (sign, rank, height, width, channel); `query` and `key` over (sign, rank, row,
    column), times the sign, so that what the sign selects is positive.  Ranks that the atlas leaves
    empty in both signs are left out; in one, they are not `there`, and hold zeros.
    """
    loaded = models.load(model)
    place = {"layer": layer, "head": head, "mode": mode}
    chosen = atlas.sel(place)
    there = (chosen.image >= 0).values  # [sign, rank]
    numbers = chosen.image.values[there]
    if len(numbers) == 0:
        raise ValueError(f"layer {layer}, head {head}, mode {mode}: no picture has both its parts")
    images = torch.stack([pictures.read(int(n)) for n in numbers])
    of_head = mode_maps(loaded, images, layer, head, convention_of(atlas)).isel(mode=mode)
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

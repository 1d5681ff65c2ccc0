"""Galleries: the maps of many modes on their optimal pictures, from one forward pass each."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from qkutils import models
from qkutils.models import AnyModel
from qkutils.passes import normalise, visit_layers
from qkutils.pictures._stream import Pictures
from qkutils.provenance import convention_of

SIDES = {"query": "u", "key": "v"}
BATCH = 32


def galleries(
    model: AnyModel, pictures: Pictures, atlas: xr.Dataset, parts: xr.Dataset
) -> xr.Dataset:
    """`query` and `key`, the maps of every mode of an atlas on each of its optimal pictures.

    Over (layer, head, mode, sign, rank, row, column), times the sign, so that what the sign selects
    is positive; zero where the atlas has no picture.  They are those of `optimal`, but every
    picture passes the model once, whatever number of modes it is shown for.  `parts` are the
    modes as `decompose` gives them; `atlas` may be a part of a scan.  Paper figures 1 and 4.
    """
    loaded = models.load(model)
    image = torch.from_numpy(atlas.image.values).long()
    chosen = parts.sel({name: atlas[name] for name in ("layer", "head", "mode")})
    directions = torch.stack([torch.from_numpy(chosen[name].values) for name in SIDES.values()], 1)
    found = torch.zeros(2, *image.shape, *loaded.grid)
    shown = image[image >= 0].unique()
    batches = shown.split(BATCH) if len(shown) else ()
    for numbers in tqdm(batches, desc="galleries", disable=len(batches) < 2):
        seen = _projections(loaded, pictures, numbers, directions, atlas)
        for index, on_modes in enumerate(seen):
            *place, which = (image[index][..., None] == numbers).nonzero(as_tuple=True)
            heads, modes, signs, _ = place
            turn = torch.tensor(atlas.sign.values)[signs, None, None]
            for side in range(2):
                found[side, index][tuple(place)] = on_modes[which, side, heads, modes] * turn
    dims = (*atlas.image.dims, "row", "column")
    fields = {side: (dims, values.numpy()) for side, values in zip(SIDES, found, strict=True)}
    return xr.Dataset(fields, atlas.image.coords, atlas.attrs)


def _projections(
    model: models.Model,
    pictures: Pictures,
    numbers: Tensor,
    directions: Float[Tensor, "layer side head mode d_model"],
    atlas: xr.Dataset,
) -> list[Float[Tensor, "image side head mode row column"]]:
    """The maps of all modes in these layers on some pictures."""
    layers, eps = [int(n) for n in np.atleast_1d(atlas.layer.values)], model.heads.ln_eps
    found: dict[int, Tensor] = {}

    def visit(layer: int, _: slice, x: Tensor) -> None:
        if layer not in layers:
            return
        token = x[:, model.prefix_tokens :].float()
        token = normalise(token, eps) if convention_of(atlas) == "exact" else token
        along = directions[layers.index(layer)].to(token)
        on_modes = torch.einsum("btd,shmd->bshmt", token, along)
        found[layer] = on_modes.unflatten(-1, model.grid).cpu()

    visit_layers(model, torch.stack([pictures.read(int(n)) for n in numbers]), visit)
    return [found[layer] for layer in layers]

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

    Examples
    --------
    >>> import qkutils as qk
    >>> model, scenes = qk.load("tiny-supervised"), qk.world.pictures(0, 0, 8)
    >>> atlas = qk.scan(model, scenes, k=2, progress=False)
    >>> maps = qk.galleries(model, qk.pictures_of(scenes, model), atlas, qk.decompose(model))
    >>> dict(maps.sizes)
    {'layer': 8, 'head': 4, 'mode': 24, 'sign': 2, 'rank': 2, 'row': 8, 'column': 8}
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

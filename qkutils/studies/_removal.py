"""Removal: what changes when a head can no longer see one direction of its queries."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from qkutils import models, options
from qkutils.gauge import Layer, Projections, prepare
from qkutils.models import AnyModel
from qkutils.passes import watching
from qkutils.provenance import with_origin


def removal(
    model: AnyModel,
    images: Float[Tensor, "image channel height width"],
    layer: int,
    head: int,
    directions: Float[Tensor, "direction mode"],
) -> xr.Dataset:
    """Run the model with one direction of a head's queries held at its mean, for each in turn.

    A direction is given by its coordinates on the head's query directions u.  The n-th unit vector
    removes mode n inside the softmax: (I − u uᵀ) M̃ takes the place of M̃.  A random vector of
    length 1 removes a random direction of the same span.  A vector of length r < 1 removes the
    part r² of what the direction adds.

    The mean over images and tokens stays, so that the keys keep what they owe to all queries
    alike.  The model itself stays as it is.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    images
        As the model takes them.
    layer, head
        Which head misses the directions, numbered from 0.
    directions
        One direction in each row, of a length above 0 and up to 1.

    Returns
    -------
    xr.Dataset
        `moved` over direction: the mean total variation between the head's attention with and
        without the direction, 0 to 1.  `taken` over direction: the variance over keys of what the
        logits miss, mean over queries and images.  `output` over (direction, image, output): what
        the model then answers.  `intact` over (image, output): what it answers otherwise.

    Raises
    ------
    ValueError
        For directions that do not fit, and for a layer whose modes cannot be its own basis.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> model = qk.load("tiny-supervised")
    >>> images = qk.pictures.images(qk.world.pictures(0, 0, 4), model, 4)
    >>> removed = qk.studies.removal(model, images, 4, 1, torch.eye(24)[:2])
    >>> dict(removed.output.sizes)
    {'direction': 2, 'image': 4, 'output': 19}
    >>> bool(removed.moved[0] > removed.moved[1])
    True
    """
    loaded = models.load(model)
    projections = prepare(loaded, "exact")
    _check(projections, layer, head, directions)
    with watching(loaded, parameters=projections.parameters) as run:
        intact = run(images).float()
    found = [_without(projections, images, layer, head, each) for each in directions]
    outputs, moved, taken = zip(*found, strict=True)
    fields = {
        "moved": ("direction", np.array(moved)),
        "taken": ("direction", np.array(taken)),
        "output": (("direction", "image", "output"), torch.stack(outputs).cpu().numpy()),
        "intact": (("image", "output"), intact.cpu().numpy()),
    }
    place = {"layer": layer, "head": head}
    return with_origin(xr.Dataset(fields, place), loaded, "exact", "float32")


def _check(projections: Projections, layer: int, head: int, directions: Tensor) -> None:
    layers, heads, modes, _ = projections.heads.w_q.shape
    options.index("layer", layer, layers)
    options.index("head", head, heads)
    fits = isinstance(directions, Tensor) and directions.shape[1:] == (modes,)
    if not (fits and len(directions) and directions.is_floating_point()):
        raise ValueError(f"directions: a tensor [direction, mode] of {modes} modes is needed")
    length = directions.norm(dim=-1)
    if not ((length > 0) & (length < 1 + 1e-5)).all():
        raise ValueError(f"directions: lengths above 0, up to 1 are needed, not {length.tolist()}")
    if projections.layers[layer].rows is not None:
        raise ValueError(f"layer={layer}: it has null modes, or hides its queries; choose another")


def _without(
    projections: Projections, images: Tensor, layer: int, head: int, direction: Tensor
) -> tuple[Float[Tensor, "image output"], float, float]:
    """The answers while a head misses a direction; how far its attention moves, what is taken."""
    queries: list[Tensor] = []
    found: list[float] = []

    def change(at: int, query: Tensor) -> Tensor:
        if at != layer:
            return query
        changed = query.clone()
        changed[:, head] -= _along(projections.layers[layer], head, query[:, head], direction)
        queries.extend((query[:, head], changed[:, head]))
        return changed

    def measure(at: int, key: Tensor) -> None:
        if at == layer:
            before, after = (q @ key[:, head].mT * projections.heads.scale for q in queries)
            moved = (before.softmax(-1) - after.softmax(-1)).abs().sum(-1).mean() / 2
            found.extend((float(moved), float((before - after).var(-1, correction=0).mean())))

    parameters = projections.parameters
    with watching(projections.model, change=change, keys=measure, parameters=parameters) as run:
        output = run(images).float()
    moved, taken = found
    return output, moved, taken


def _along(
    layer: Layer, head: int, query: Float[Tensor, "image token mode"], direction: Tensor
) -> Float[Tensor, "image token mode"]:
    """What a query has along a direction, less its mean, in the model's own coordinates √σ z·u.

    The mean takes with it what the biases add to every query alike.
    """
    root, direction = layer.root[head], direction.to(query)
    amount = query / root @ direction
    return (amount - amount.mean())[..., None] * direction * root


def relative_change(removed: xr.Dataset) -> xr.DataArray:
    """Say how far a removal moves the answers, as a part of how far they differ between images.

    Both distances are root mean squares over images and outputs.  The second one is about the mean
    over images.

    Parameters
    ----------
    removed
        What `removal` gave.

    Returns
    -------
    xr.DataArray
        Over direction: 0 where nothing changes, 1 where the answers move as far as they differ.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> model = qk.load("tiny-supervised")
    >>> images = qk.pictures.images(qk.world.pictures(0, 0, 4), model, 4)
    >>> removed = qk.studies.removal(model, images, 4, 1, torch.eye(24)[:2])
    >>> change = qk.studies.relative_change(removed)
    >>> change.dims, bool(change[0] > change[1] > 0)
    (('direction',), True)
    """
    options.with_fields("removed", removed, "moved", "intact")
    change = ((removed.output - removed.intact) ** 2).mean(("image", "output"))
    spread = removed.intact.var("image").mean("output")
    return np.sqrt(change / spread).rename("change")

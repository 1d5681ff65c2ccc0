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
    """Runs the model with one direction of a head's queries held at its mean, one after the other.

    A direction is given by its coordinates on the head's query directions u.  Of length 1 the n-th
    unit vector removes mode n inside the softmax, (I − u uᵀ) M̃ in the place of M̃, and a random
    vector removes a random direction of the same span; a vector of length r < 1 removes the part r²
    of what the direction adds.  The mean over images and tokens stays, so
    the keys keep what they owe to all queries alike.  `moved` is the mean total variation between
    the head's attention with and without the direction; `taken` is the variance over keys of what
    its logits miss, mean over queries and images; `output` over (direction, image, output) is
    what the model then answers, beside `intact`.  The model itself stays as it is.  Raises
    ValueError for directions that do not fit, and for a layer whose modes cannot be its own basis.
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
    if not isinstance(directions, Tensor) or directions.ndim != 2 or len(directions) == 0:
        raise ValueError("directions: a tensor [direction, mode] with at least one is needed")
    length = directions.norm(dim=-1)
    if directions.shape[1] != modes or not ((length > 0) & (length < 1 + 1e-5)).all():
        raise ValueError(
            f"directions of {directions.shape[1]} numbers and lengths {length.min():.3g} to "
            f"{length.max():.3g}: {modes} coordinates on u and lengths above 0, up to 1, are needed"
        )
    if projections.layers[layer].rows is not None:
        raise ValueError(
            f"layer {layer} of {projections.model.name} has null modes, or does not show its "
            "queries and keys; choose another layer or model"
        )


def _without(
    projections: Projections, images: Tensor, layer: int, head: int, direction: Tensor
) -> tuple[Float[Tensor, "image output"], float, float]:
    """The answers while a head misses a direction; how far its attention moves, what is taken."""
    queries: list[Tensor] = []
    measured: list[Tensor] = []

    def change(at: int, query: Tensor) -> Tensor:
        if at != layer:
            return query
        changed = query.clone()
        changed[:, head] -= _along(projections.layers[layer], head, query[:, head], direction)
        queries.extend((query[:, head], changed[:, head]))
        return changed

    def measure(at: int, key: Tensor) -> None:
        if at != layer:
            return
        before, after = (q @ key[:, head].mT * projections.heads.scale for q in queries)
        measured.append((before.softmax(-1) - after.softmax(-1)).abs().sum(-1).mean() / 2)
        measured.append((before - after).var(-1, correction=0).mean())

    parameters = projections.parameters
    with watching(projections.model, change=change, keys=measure, parameters=parameters) as run:
        output = run(images).float()
    moved, taken = (float(each) for each in measured)
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
    """How far the answers move, as a part of how far they differ between images.

    Root mean squares over images and outputs, the second about the mean over images.
    """
    change = ((removed.output - removed.intact) ** 2).mean(("image", "output"))
    spread = removed.intact.var("image").mean("output")
    return np.sqrt(change / spread).rename("change")

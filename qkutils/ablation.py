"""Removal: what changes when a head can no longer see one direction of its queries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from qkutils import models
from qkutils.gallery.projections import Layer, Projections, prepare
from qkutils.heads import read
from qkutils.modes import AnyModel, provenance
from qkutils.tokens import check_images, full_precision


def remove(
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
    check_images(loaded, images)
    projections = prepare(loaded, "exact")
    _check(projections, layer, head, directions)
    intact = _run(projections, images)
    outputs, measured = [], []
    for direction in directions:
        with _removing(projections, layer, head, direction) as found:
            outputs.append(_run(projections, images))
        measured += found
    moved, taken = np.array(measured).reshape(-1, 2).T
    fields = {
        "moved": ("direction", moved),
        "taken": ("direction", taken),
        "output": (("direction", "image", "output"), torch.stack(outputs).cpu().numpy()),
        "intact": (("image", "output"), intact.cpu().numpy()),
    }
    place = {"layer": layer, "head": head}
    return xr.Dataset(fields, attrs=provenance(read(loaded), "exact", "float32") | place)


def _check(projections: Projections, layer: int, head: int, directions: Tensor) -> None:
    layers, heads, modes, _ = projections.heads.w_q.shape
    for name, value, limit in (("layer", layer, layers), ("head", head, heads)):
        if not 0 <= value < limit:
            raise ValueError(f"{name}={value}: {projections.model.name} has 0 to {limit - 1}")
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


def _run(projections: Projections, images: Tensor) -> Float[Tensor, "image output"]:
    net = projections.model.net
    with torch.inference_mode(), full_precision():
        pictures = images.to(projections.model.device)
        return torch.func.functional_call(net, projections.parameters, (pictures,)).float()


@contextmanager
def _removing(
    projections: Projections, layer: int, head: int, direction: Tensor
) -> Iterator[list[tuple[float, float]]]:
    """While it lasts, the head misses the direction; then the list has `moved` and `taken`."""
    attn = projections.model.net.blocks[layer].attn
    queries: list[tuple[Tensor, Tensor]] = []
    measured: list[tuple[float, float]] = []

    def change(_: Any, __: Any, query: Tensor) -> Tensor:
        changed = query.clone()
        changed[:, head] -= _along(projections.layers[layer], head, query[:, head], direction)
        queries.append((query[:, head], changed[:, head]))
        return changed

    def measure(_: Any, __: Any, key: Tensor) -> None:
        before, after = (q @ key[:, head].mT * projections.heads.scale for q in queries.pop())
        moved = (before.softmax(-1) - after.softmax(-1)).abs().sum(-1).mean() / 2
        taken = (before - after).var(-1, correction=0).mean()
        measured.append((float(moved), float(taken)))

    hooks = [attn.q_norm.register_forward_hook(change), attn.k_norm.register_forward_hook(measure)]
    try:
        yield measured
    finally:
        for hook in hooks:
            hook.remove()


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

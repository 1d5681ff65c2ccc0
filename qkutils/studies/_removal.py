"""Removal: what changes when a head can no longer see one direction of its queries."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from qkutils import models, options
from qkutils.gauge import Layer, Projections, prepare
from qkutils.models import AnyModel
from qkutils.passes import resuming, watching
from qkutils.provenance import with_origin

BATCH = 64  # images whose activations stay in the processor's cache
SIZES = ("moved", "taken", "attended")  # how large a removal is
RESUMED = 1e-3  # how far answers that begin at a layer may lie from those of the whole model


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
        logits miss, mean over queries and images.  `attended` is the same variance, in which each
        key counts as much as the head attends to it.  `output` over (direction, image, output):
        what the model then answers.  `intact` over (image, output): what it answers otherwise.

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
    opened = partial(watching, loaded, parameters=projections.parameters)
    with opened() as run:
        intact = run(images).float()
    found = [_without(opened, projections, images, layer, head, each) for each in directions]
    labelled = _label(found, intact, direction=len(found)).assign_coords(layer=layer, head=head)
    return with_origin(labelled, loaded, "exact", "float32")


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


def every_removal(
    model: AnyModel,
    images: Float[Tensor, "image channel height width"],
    *,
    random: int = 0,
    seed: int = 0,
) -> xr.Dataset:
    """Remove every mode of every head, each alone, and random directions beside them.

    Each removal is one of `removal`.  What lies before the layer is computed once for all of them.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    images
        As the model takes them.
    random
        How many random unit vectors in the span of each head's modes are removed too.
    seed
        Where the random generator begins.

    Returns
    -------
    xr.Dataset
        `moved`, `taken` and `attended` over (layer, head, direction), `output` over (layer, head,
        direction, image, output), and `intact`, as `removal` has them.  `mode` over direction: the
        number of the mode that is removed, -1 for a random direction.

    Raises
    ------
    ValueError
        For a layer whose modes cannot be its own basis, and for a model that computes more between
        its blocks than they do.

    Examples
    --------
    >>> import qkutils as qk
    >>> model = qk.load("tiny-untrained")
    >>> images = qk.pictures.images(qk.world.pictures(0, 0, 2), model, 2)
    >>> gone = qk.studies.every_removal(model, images)
    >>> dict(gone.moved.sizes)
    {'layer': 8, 'head': 4, 'direction': 24}
    """
    loaded = models.load(model)
    projections, parts = prepare(loaded, "exact"), []
    random, generator = options.count("random", random, 0), torch.Generator()
    generator.manual_seed(options.seed(seed))
    layers, heads, modes, _ = loaded.heads.w_q.shape
    streams, centres, intact = _streams(projections, images)
    for layer in tqdm(range(layers), "layers"):
        opened = partial(resuming, loaded, layer, parameters=projections.parameters)
        with opened() as run:
            again = torch.cat([run(x) for x in streams[layer].split(BATCH)]).float()
        if not torch.allclose(again, intact, atol=RESUMED * float(intact.abs().max())):
            raise ValueError(f"{loaded.name}, layer {layer}: its answers need more than its blocks")
        for head in range(heads):
            chance = normalize(torch.randn(random, modes, generator=generator), dim=-1)
            directions = torch.cat([torch.eye(modes), chance])
            _check(projections, layer, head, directions)
            given = (opened, projections, streams[layer], layer, head)
            parts += [_without(*given, each, centres[layer][head]) for each in directions]
    number = np.r_[np.arange(modes), np.full(random, -1)]
    found = _label(parts, intact, layer=layers, head=heads, direction=len(number))
    found = found.assign_coords(mode=("direction", number))
    return with_origin(found, loaded, "exact", "float32")


def _label(parts: list[tuple[Tensor, np.ndarray]], intact: Tensor, **sizes: int) -> xr.Dataset:
    """What removals in the order of these dimensions gave, beside the answers without any."""
    outputs, values = zip(*parts, strict=True)
    dims, shape = tuple(sizes), tuple(sizes.values())
    by_size = np.transpose(values).reshape(-1, *shape)
    fields: dict[str, Any] = {n: (dims, v) for n, v in zip(SIZES, by_size, strict=True)}
    fields["output"] = ((*dims, "image", "output"), torch.stack(outputs).unflatten(0, shape).cpu())
    fields["intact"] = (("image", "output"), intact.cpu().numpy())
    return xr.Dataset(fields)


def _streams(
    projections: Projections, images: Tensor
) -> tuple[list[Tensor], list[Float[Tensor, "head mode"]], Float[Tensor, "image output"]]:
    """Each layer's input, the means of its queries over images and tokens, and the answers."""
    model = projections.model
    streams: list[list[Tensor]] = [[] for _ in projections.layers]
    queries: list[list[Tensor]] = [[] for _ in projections.layers]
    with watching(
        model,
        tokens=lambda layer, x: streams[layer].append(x),
        queries=lambda layer, q: queries[layer].append(q.mean(2)),
        parameters=projections.parameters,
    ) as run:
        answers = [run(batch).float() for batch in images.split(BATCH)]
    centres = [torch.cat(each).mean(0) for each in queries]
    return [torch.cat(each) for each in streams], centres, torch.cat(answers)


def _without(
    opened: Callable[..., Any],
    projections: Projections,
    given: Tensor,
    layer: int,
    head: int,
    direction: Tensor,
    centre: Float[Tensor, " mode"] | None = None,
) -> tuple[Float[Tensor, "image output"], Float[np.ndarray, " size"]]:
    """The answers while a head misses a direction, and how large the removal is: see SIZES.

    `opened` opens a run, and `given` is what the run takes.  With the queries' mean as `centre` it
    is taken in batches.
    """
    queries: list[Tensor] = []
    found: list[list[float]] = []

    def change(at: int, query: Tensor) -> Tensor:
        if at != layer:
            return query
        own, changed = query[:, head], query.clone()
        middle = own.mean((0, 1)) if centre is None else centre
        changed[:, head] -= _along(projections.layers[layer], head, own - middle, direction)
        queries[:] = own, changed[:, head]
        return changed

    def measure(at: int, key: Tensor) -> None:
        if at == layer:
            logits = [q @ key[:, head].mT * projections.heads.scale for q in queries]
            own, left = (each.softmax(-1) for each in logits)
            missed = logits[0] - logits[1]
            about = missed - (own * missed).sum(-1, keepdim=True)
            moved, attended = (own - left).abs() / 2, own * about.square()
            taken = missed.var(-1, correction=0)
            found.append(
                [float(moved.sum(-1).mean()), float(taken.mean()), float(attended.sum(-1).mean())]
            )

    batches = given.split(len(given) if centre is None else BATCH)
    with opened(change=change, keys=measure) as run:
        output = torch.cat([run(batch).float() for batch in batches])
    return output, np.average(found, axis=0, weights=[len(batch) for batch in batches])


def _along(
    layer: Layer, head: int, query: Float[Tensor, "image token mode"], direction: Tensor
) -> Float[Tensor, "image token mode"]:
    """What a query less the mean has along a direction, in the model's own coordinates √σ z·u.

    The mean takes with it what the biases add to every query alike.
    """
    root, direction = layer.root[head], direction.to(query)
    return (query / root @ direction)[..., None] * direction * root


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

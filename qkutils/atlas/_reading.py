"""Reading: what one forward pass adds to an atlas, the best images and the statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qkutils.atlas._state import Atlas, exact
from qkutils.gauge import Layer, Projections, watching
from qkutils.passes import normalise

SINK_WEIGHT, SINK_QUERIES = 0.5, 0.9  # a sink gets this attention from this share of queries


def logit_variances(
    layer: Layer,
    query: Float[Tensor, "image head token mode"],
    key: Float[Tensor, "image head token mode"],
    scale: float,
) -> tuple[Float[Tensor, "image head mode"], Float[Tensor, "image head"]]:
    """Variance over keys that each mode adds to the logits, mean over queries; and that of κ."""
    query = query - layer.query_offset[:, None]
    key = key - key.mean(2, keepdim=True)
    power = query.square_().mean(2)
    of_salience = (key @ layer.salience[:, :, None]).square().mean((2, 3))
    strength = scale * layer.sigma.to(layer.root) / layer.root.square()
    return power * key.square_().mean(2) * strength**2, of_salience * scale**2


def centre_directions(
    projections: Projections, x: Float[Tensor, "image token d_model"]
) -> Float[Tensor, "image d_model"]:
    """The centre token's direction: of x in `paper`, of the normalised token in `exact`.

    A grid of even size has no one centre: the mean over the two or four in the middle is taken.
    """
    model = projections.model
    grid = x[:, model.prefix_tokens :].float().unflatten(1, model.grid)
    middle = grid[:, *(slice((n - 1) // 2, n // 2 + 1) for n in model.grid)].flatten(1, 2)
    if projections.convention == "exact":
        middle = normalise(middle, projections.heads.ln_eps)
    return torch.nn.functional.normalize(middle.mean(1).double(), dim=-1)


def sinks(
    attention: Float[Tensor, "image head query key"], prefix_tokens: int
) -> tuple[Bool[Tensor, "image head"], Bool[Tensor, "image head"]]:
    """Whether a head's queries meet on one token of an image; and whether on a prefix token."""
    meeting = (attention >= SINK_WEIGHT).float().mean(2)
    share, token = meeting.max(-1)
    sink = share >= SINK_QUERIES
    return sink, sink & (token < prefix_tokens)


@contextmanager
def reading(
    projections: Projections, atlas: Atlas
) -> Iterator[Callable[[list[int], Tensor], None]]:
    """A function that runs the model on numbered images and adds them to the atlas."""
    model, layers, scale = projections.model, projections.layers, projections.heads.scale
    prefix, sums = model.prefix_tokens, atlas.sums
    numbers = torch.empty(0, dtype=torch.int64)
    finite: list[Tensor] = []

    def add(name: str, index: int, terms: Tensor) -> None:
        sums[f"{name}_sum"][index] += exact(terms).sum(0)

    def visit(index: int, query: Tensor, key: Tensor) -> None:
        layer = layers[index]
        patches = query[:, :, prefix:], key[:, :, prefix:]
        finite.append(atlas.offer(index, numbers, layer, *patches))
        if index == len(layers) - 1:  # all at once: to ask, a GPU has to be waited for
            _refuse_infinite(finite)
        if "logit_variance_sum" in sums:
            of_modes, of_salience = logit_variances(layer, query.float(), key.float(), scale)
            add("logit_variance", index, of_modes)
            add("salience_variance", index, of_salience)

    def visit_tokens(index: int, x: Tensor) -> None:
        add("direction", index, centre_directions(projections, x))

    def visit_attention(index: int, attention: Tensor) -> None:
        for name, each in zip(("sink", "sink_on_prefix"), sinks(attention, prefix), strict=True):
            add(name, index, each)

    tokens = visit_tokens if "direction_sum" in sums else None
    attention = visit_attention if "sink_sum" in sums else None
    with watching(projections, visit, tokens, attention) as forward:

        def run(which: list[int], images: Tensor) -> None:
            nonlocal numbers
            numbers = torch.tensor(which, device=model.device)
            finite.clear()
            forward(images)

        yield run


def _refuse_infinite(finite: list[Tensor]) -> None:
    if not all(found := torch.stack(finite).tolist()):
        raise ArithmeticError(
            f"layer {found.index(False)}: projections that are not finite; the model or its number "
            "format can't take these images"
        )

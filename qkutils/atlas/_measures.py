"""Statistics of a scan: what each mode adds to the logits, the centre tokens, the sinks."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qkutils.gauge import Layer, Projections
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

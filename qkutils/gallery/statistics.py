"""Statistics of a scan: what each mode adds to the logits, the centre tokens, the sinks."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from qkutils.gallery.atlas import Atlas
from qkutils.gallery.projections import Layer, Projections
from qkutils.models import Model
from qkutils.tokens import normalise

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


@contextmanager
def watching_sinks(model: Model, atlas: Atlas):
    """Counts, while it lasts, the images in which a head's queries meet on one token."""
    blocks = list(model.net.blocks)
    fused = [block.attn.fused_attn for block in blocks]

    def count(index: int, attention: Tensor) -> None:
        meeting = (attention >= SINK_WEIGHT).float().mean(2)
        share, token = meeting.max(-1)
        sink = share >= SINK_QUERIES
        atlas.sums["sink"].add(index, sink)
        atlas.sums["sink_on_prefix"].add(index, sink & (token < model.prefix_tokens))

    hooks = [
        block.attn.attn_drop.register_forward_pre_hook(lambda _, args, n=n: count(n, args[0]))
        for n, block in enumerate(blocks)
    ]
    try:
        for block in blocks:  # the fused kernel never shows its attention
            block.attn.fused_attn = False
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for block, was in zip(blocks, fused, strict=True):
            block.attn.fused_attn = was

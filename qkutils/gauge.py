"""Projections: every token's coordinates on the modes, read inside one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from qkutils import passes
from qkutils.heads import Convention, Heads, fold, key_salience
from qkutils.models import Model
from qkutils.modes import decompose_layer
from qkutils.passes import Watch, normalise

GAUGE_LIMIT = 1e-9  # of the largest √σ: how well a change of basis must give the modes


@dataclass(frozen=True)
class Layer:
    """One layer's modes, and how what is read there becomes coordinates: (read − offset) / root.

    `rows` are None where the model itself computes what is read, else the directions on which
    the token is projected: first all queries', then all keys'.  The product of (read − offset) of
    keys with `salience`, summed over modes, is κ·z.
    """

    sigma: Float[Tensor, "head mode"]
    cosine: Float[Tensor, "head mode"]
    rows: Float[Tensor, "row d_model"] | None
    root: Float[Tensor, "head mode"]
    query_offset: Float[Tensor, "head mode"]
    key_offset: Float[Tensor, "head mode"]
    salience: Float[Tensor, "head mode"]


@dataclass(frozen=True)
class Projections:
    """All layers' projections, and the parameters that the model needs to compute them itself.

    In a `precision` below float32 the products of the forward pass are rounded to it.
    """

    model: Model
    heads: Heads
    convention: Convention
    layers: list[Layer]
    parameters: dict[str, Tensor]
    precision: torch.dtype = torch.float32


def prepare(model: Model, convention: Convention) -> Projections:
    """How to read every mode's projections of a model's tokens.

    `exact`: the model's own W_q and W_k are turned into the basis in which they are the modes
    (W_q ← Σ^½Uᵀ, W_k ← Σ^½Vᵀ), which leaves its attention as it is, so that the queries and keys
    that it computes anyway are the projections.  Where a layer has null modes, or does not show
    its queries and keys, and in `paper`, the token is projected in one product.
    """
    heads = model.heads
    kappa = torch.stack(key_salience(heads)).sum(0) * (convention == "exact")
    layers: list[Layer] = []
    parameters: dict[str, Tensor] = {}
    for index, block in enumerate(model.net.blocks):
        parts = decompose_layer(heads, index, convention)
        turns = _turns(heads, index, parts) if _turnable(block.attn, convention) else None
        root, rows = torch.ones_like(parts["sigma"]), None
        offsets = [torch.zeros_like(root)] * 2
        if turns is None:
            rows = torch.cat([parts["u"], parts["v"]]).flatten(0, 1)
        else:
            root, offsets = parts["sigma"].sqrt(), _constants(heads, index, turns)
            parameters |= _turned_parameters(block.attn, heads, index, turns)
        salience = torch.einsum("hmd,hd->hm", parts["v"], kappa[index]) / root
        met = [each.float().to(model.device) for each in (root, *offsets, salience)]
        rows = None if rows is None else rows.float().to(model.device)
        layers.append(Layer(parts["sigma"], parts["cosine"], rows, *met))
    return Projections(model, heads, convention, layers, parameters)


def _turnable(attn: Any, convention: Convention) -> bool:
    """Whether the attention hands its finished queries and keys through modules we can watch."""
    return convention == "exact" and hasattr(attn, "q_norm") and hasattr(attn, "k_norm")


def _turns(heads: Heads, layer: int, parts: dict[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    """The d_head × d_head matrices of the change of basis; None where there is no exact one."""
    if parts["null_mode"].any():
        return None
    w_q, w_k = fold(heads, layer, "exact")
    root = parts["sigma"].sqrt()[..., None]
    basis, triangle = torch.linalg.qr(w_q.mT)
    wanted = (root * parts["u"]) @ basis
    query = torch.linalg.solve_triangular(triangle, wanted.mT, upper=True).mT
    key = torch.linalg.inv(query).mT
    miss = torch.maximum(
        (query @ w_q - root * parts["u"]).abs().amax(), (key @ w_k - root * parts["v"]).abs().amax()
    )
    return (query, key) if miss <= GAUGE_LIMIT * root.amax() else None


def _constants(heads: Heads, layer: int, turns: tuple[Tensor, Tensor]) -> list[Tensor]:
    """What LayerNorm's shift and the biases add to every turned query and key."""
    shift = heads.ln_shift[layer].double()
    parts = zip(turns, (heads.w_q, heads.w_k), (heads.b_q, heads.b_k), strict=True)
    return [
        torch.einsum("hme,he->hm", turn, w[layer].double() @ shift + b[layer].double())
        for turn, w, b in parts
    ]


def _turned_parameters(
    attn: Any, heads: Heads, layer: int, turns: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """The attention's parameters after the change of basis, by their names in the model."""
    weights = [
        (turn @ w[layer].double()).flatten(0, 1)
        for turn, w in zip(turns, (heads.w_q, heads.w_k), strict=True)
    ]
    biases = [
        torch.einsum("hme,he->hm", turn, b[layer].double()).flatten()
        for turn, b in zip(turns, (heads.b_q, heads.b_k), strict=True)
    ]
    out: dict[str, Tensor] = {}
    for name, old in [*attn.named_parameters(), *attn.named_buffers()]:
        kind = name.rsplit(".", 1)[-1].rsplit("_", 1)[-1]
        new = weights if kind == "weight" else biases
        if name in ("qkv.weight", "qkv.bias"):
            changed = torch.cat([*new, old[2 * len(new[0]) :].double()])
        elif name in ("q_proj.weight", "q_proj.bias", "q_bias"):
            changed = new[0]
        elif name in ("k_proj.weight", "k_proj.bias", "k_bias"):
            changed = new[1]
        else:
            continue
        out[f"blocks.{layer}.attn.{name}"] = changed.to(old)
    return out


@contextmanager
def watching(
    projections: Projections,
    visit: Callable[[int, Tensor, Tensor], None],
    tokens: Watch | None = None,
    attention: Watch | None = None,
) -> Iterator[Callable[[Tensor], Tensor]]:
    """A forward pass that calls `visit(layer, query, key)`, both [image, head, token, mode].

    What it hands on is as read: `Layer` says how to make coordinates of it.  `tokens` gets
    the residual stream at each block's input, `attention` each layer's attention.
    """
    asked: list[Tensor] = []

    def at_tokens(layer: int, x: Tensor) -> None:
        if tokens is not None:
            tokens(layer, x)
        if projections.layers[layer].rows is not None:
            visit(layer, *_projected(projections, layer, x))

    def at_queries(layer: int, query: Tensor) -> None:
        if projections.layers[layer].rows is None:
            asked.append(query)

    def at_keys(layer: int, key: Tensor) -> None:
        if projections.layers[layer].rows is None:
            visit(layer, asked.pop(), key)

    with passes.watching(
        projections.model,
        tokens=at_tokens,
        queries=at_queries,
        keys=at_keys,
        attention=attention,
        parameters=projections.parameters,
        precision=projections.precision,
    ) as forward:
        yield forward


def _projected(projections: Projections, index: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Queries' and keys' coordinates of tokens, from one product."""
    layer, token = projections.layers[index], x.float()
    if projections.convention == "exact":
        token = normalise(token, projections.heads.ln_eps)
    assert layer.rows is not None, "layers that show their queries are not projected"
    both = torch.nn.functional.linear(token, layer.rows)
    query, key = both.unflatten(-1, (2, *layer.root.shape)).permute(2, 0, 3, 1, 4).unbind(0)
    return query, key

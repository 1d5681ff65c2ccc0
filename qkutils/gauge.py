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
from qkutils.passes import Watch, normalise
from qkutils.svd import decompose_layer

PerMode = Float[Tensor, "head mode"]
Turns = Float[Tensor, "side head mode d_head"]  # queries', then keys'

GAUGE_LIMIT = 1e-9  # of the largest √σ: how well a change of basis must give the modes


@dataclass(frozen=True)
class Layer:
    """One layer's modes, and how what is read there becomes coordinates: (read − offset) / root.

    `rows` are None where the model itself computes what is read, else the directions on which
    the token is projected: first all queries', then all keys'.  The product of (read − offset) of
    keys with `salience`, summed over modes, is κ·z.
    """

    sigma: PerMode
    cosine: PerMode
    rows: Float[Tensor, "row d_model"] | None
    root: PerMode
    query_offset: PerMode
    key_offset: PerMode
    salience: PerMode


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
        offsets = torch.zeros_like(torch.stack([root, root]))
        if turns is None:
            rows = torch.cat([parts["u"], parts["v"]]).flatten(0, 1).float().to(model.device)
        else:
            root = parts["sigma"].sqrt()
            changed, offsets = _turned(block.attn, heads, index, turns)
            parameters |= {f"blocks.{index}.attn.{name}": each for name, each in changed.items()}
        salience = torch.einsum("hmd,hd->hm", parts["v"], kappa[index]) / root
        met = [each.float().to(model.device) for each in (root, *offsets, salience)]
        layers.append(Layer(parts["sigma"], parts["cosine"], rows, *met))
    return Projections(model, heads, convention, layers, parameters)


def _turnable(attn: Any, convention: Convention) -> bool:
    """Whether the queries and keys can be watched, and come from weights that can be replaced.

    Weights that are computed from others, by a weight norm or by pruning, can't.
    """
    watched = hasattr(attn, "q_norm") and hasattr(attn, "k_norm")
    names = [n for n, _ in attn.named_parameters() if n.startswith(("qkv.", "q_proj.", "k_proj."))]
    plain = all(name.partition(".")[2] in ("weight", "bias") for name in names)
    return convention == "exact" and watched and plain


def _turns(heads: Heads, layer: int, parts: dict[str, Tensor]) -> Turns | None:
    """The d_head × d_head matrices of the change of basis; None where there is no exact one."""
    if parts["null_mode"].any():
        return None
    folded = torch.stack(fold(heads, layer, "exact"))
    root = parts["sigma"].sqrt()[..., None]
    wanted = root * torch.stack([parts["u"], parts["v"]])
    basis, triangle = torch.linalg.qr(folded[0].mT)
    query = torch.linalg.solve_triangular(triangle, (wanted[0] @ basis).mT, upper=True).mT
    turns = torch.stack([query, torch.linalg.inv(query).mT])
    miss = (turns @ folded - wanted).abs().amax()
    return turns if miss <= GAUGE_LIMIT * root.amax() else None


def _turned(
    attn: Any, heads: Heads, layer: int, turns: Turns
) -> tuple[dict[str, Tensor], Float[Tensor, "side head mode"]]:
    """The attention's parameters after the change of basis, by their names in it.

    Also what LayerNorm's shift and the biases add to every turned query and key.
    """
    w = torch.stack([heads.w_q[layer], heads.w_k[layer]]).double()
    b = torch.stack([heads.b_q[layer], heads.b_k[layer]]).double()
    weights, biases = (turns @ w).flatten(1, 2), (turns @ b[..., None]).flatten(1)
    new = {"q_bias": biases[0], "k_bias": biases[1]}
    for kind, sides in (("weight", weights), ("bias", biases)):
        new |= {f"qkv.{kind}": sides.flatten(0, 1)}
        new |= {f"q_proj.{kind}": sides[0], f"k_proj.{kind}": sides[1]}
    olds = dict([*attn.named_parameters(), *attn.named_buffers()])
    changed = {  # values, which follow queries and keys in one parameter, stay
        name: torch.cat([new[name], old[len(new[name]) :].double()]).to(old)
        for name, old in olds.items()
        if name in new
    }
    shift = heads.ln_shift[layer].double()
    return changed, (turns @ (w @ shift + b)[..., None])[..., 0]


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
    projected = [layer.rows is not None for layer in projections.layers]

    def at_tokens(layer: int, x: Tensor) -> None:
        if tokens is not None:
            tokens(layer, x)
        if projected[layer]:
            visit(layer, *_projected(projections, layer, x))

    def at_keys(layer: int, key: Tensor) -> None:
        query = asked.pop()
        if not projected[layer]:
            visit(layer, query, key)

    with passes.watching(
        projections.model,
        tokens=at_tokens,
        queries=lambda _, query: asked.append(query),
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

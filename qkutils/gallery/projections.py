"""Projections: every token's coordinates on the modes, read inside one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from qkutils.heads import Convention, Heads, fold, key_salience, read
from qkutils.models import Model
from qkutils.modes import decompose_layer
from qkutils.tokens import full_precision, normalise

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


Visit = Callable[[int, Tensor, Tensor], None]
VisitTokens = Callable[[int, Tensor], None]


def prepare(model: Model, convention: Convention) -> Projections:
    """How to read every mode's projections of a model's tokens.

    `exact`: the model's own W_q and W_k are turned into the basis in which they are the modes
    (W_q ← Σ^½Uᵀ, W_k ← Σ^½Vᵀ), which leaves its attention as it is, so that the queries and keys
    that it computes anyway are the projections.  Where a layer has null modes, or does not show
    its queries and keys, and in `paper`, the token is projected in one product.
    """
    heads = read(model)
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
    projections: Projections, visit: Visit, visit_tokens: VisitTokens | None = None
) -> Iterator[Callable[[Tensor], None]]:
    """A forward pass that calls `visit(layer, query, key)`, both [image, head, token, mode].

    What it hands on is as read: `Layer` says how to make coordinates of it.  `visit_tokens` gets
    the residual stream at each block's input.  The model is as it was when the context ends.
    """
    net, hooks = projections.model.net, []
    for index, (block, layer) in enumerate(zip(net.blocks, projections.layers, strict=True)):
        if layer.rows is None:
            hooks += _watch_own(block.attn, index, visit)
        else:
            project = _projecting(projections, index, layer.rows, visit)
            hooks.append(block.register_forward_pre_hook(project))
        if visit_tokens is not None:
            hooks.append(
                block.register_forward_pre_hook(lambda _, args, n=index: visit_tokens(n, args[0]))
            )

    def forward(images: Tensor) -> None:
        device, precision = projections.model.device, projections.precision
        rounded = torch.autocast(device.type, precision, enabled=precision != torch.float32)
        with torch.inference_mode(), full_precision(), rounded:
            pictures = images.to(device)
            functional_call(net, projections.parameters, (pictures,))

    try:
        yield forward
    finally:
        for hook in hooks:
            hook.remove()


def _watch_own(attn: Any, index: int, visit: Visit) -> list[Any]:
    queries: list[Tensor] = []
    return [
        attn.q_norm.register_forward_hook(lambda _, __, query: queries.append(query)),
        attn.k_norm.register_forward_hook(lambda _, __, key: visit(index, queries.pop(), key)),
    ]


def _projecting(projections: Projections, index: int, rows: Tensor, visit: Visit) -> Callable:
    def project(_: Any, args: tuple[Tensor, ...]) -> None:
        token = args[0].float()
        if projections.convention == "exact":
            token = normalise(token, projections.heads.ln_eps)
        both = torch.nn.functional.linear(token, rows)
        both = both.unflatten(-1, (2, *projections.layers[index].root.shape))
        query, key = both.permute(2, 0, 3, 1, 4).unbind(0)
        visit(index, query, key)

    return project

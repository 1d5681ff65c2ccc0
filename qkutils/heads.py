"""Attention heads: the weights of every layer, stacked, and what LayerNorm does to them."""

from __future__ import annotations

import qkutils._torchvision

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import timm
import torch
from jaxtyping import Float, Int
from timm.layers import Attention
from timm.models import beit, eva, vision_transformer
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from qkutils import options

Convention = Literal["paper", "exact"]
CONVENTIONS: tuple[Convention, ...] = ("paper", "exact")

# Blocks that normalise first and then attend: the only ones whose scores are as the book derives.
_PRE_NORM_BLOCKS = (vision_transformer.Block, eva.EvaBlock, beit.Block)
# Attention that is one softmax of queries times keys: not differential, not multi-query.
_ONE_SOFTMAX = (Attention, eva.EvaAttention, beit.Attention)

_OWN = tuple(os.path.join(*each.__path__, "") for each in (timm, torch))

Folded = Float[Tensor, "head d_head d_model"]  # one layer's
Salience = Float[Tensor, "layer head d_model"]


@dataclass(frozen=True)
class Heads:
    """All heads of a model: projections, biases, and the LayerNorm in front of them."""

    w_q: Float[Tensor, "layer head d_head d_model"]
    w_k: Float[Tensor, "layer head d_head d_model"]
    w_v: Float[Tensor, "layer head d_head d_model"]
    w_o: Float[Tensor, "layer head d_model d_head"]
    b_q: Float[Tensor, "layer head d_head"]
    b_k: Float[Tensor, "layer head d_head"]
    b_v: Float[Tensor, "layer head d_head"]
    ln_gain: Float[Tensor, "layer d_model"]
    ln_shift: Float[Tensor, "layer d_model"]
    ln_eps: float
    scale: float
    name: str
    position_bias: Float[Tensor, "layer head query key"] | None = None  # none: nothing is added

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that tell this checkpoint's queries and keys from others'."""
        digest = hashlib.sha256()
        parts = (self.w_q, self.w_k, self.b_q, self.b_k, self.ln_gain, self.ln_shift)
        for tensor in (*parts, *([] if self.position_bias is None else [self.position_bias])):
            digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def logits(
        self,
        layer: int,
        scores: Float[Tensor, "image head query key"],
        rows: Int[Tensor, "image query"] | None = None,
    ) -> Float[Tensor, "image head query key"]:
        """What the softmax takes: scores, scaled, and then the position bias.

        `rows`: which tokens the queries of each image are; without, all of them.
        """
        scaled = scores * self.scale
        if self.position_bias is None:
            return scaled
        bias = self.position_bias[layer]
        return scaled + (bias if rows is None else bias[:, rows].transpose(0, 1))


def check_blocks(net: Any, name: str) -> None:
    """Raise ValueError, naming the layer, for attention that the book's algebra does not cover."""
    if not len(net.blocks):
        raise ValueError(f"{name}: has no blocks; pass a vision transformer")
    for index, block in enumerate(net.blocks):
        reason = _refusal(net, block)
        if reason:
            raise ValueError(f"{name}, layer {index}: {reason}")


def read_heads(net: Any, name: str) -> Heads:
    """Read the heads of a timm module; raise ValueError where they can't be treated."""
    check_blocks(net, name)
    blocks = list(net.blocks)
    layers = [_read_layer(block) for block in blocks]
    shapes = {layer["w_q"].shape for layer in layers}
    if len(shapes) > 1 or len({(b.norm1.eps, b.attn.scale) for b in blocks}) > 1:
        raise ValueError(f"{name}: layers differ in number or width of heads, in eps or scale")
    stacked = {key: torch.stack([layer[key] for layer in layers]) for key in layers[0]}
    d_head, d_model = stacked["w_q"].shape[2:]
    if d_head > d_model:
        raise ValueError(f"{name}: heads of {d_head} units are wider than the model's {d_model}")
    eps = options.number(f"{name}: eps", blocks[0].norm1.eps, 0.0, closed=True)
    scale = options.number(f"{name}: scale", blocks[0].attn.scale, 0.0)
    bias = _position_bias(net, name)
    return Heads(**stacked, ln_eps=eps, scale=scale, name=name, position_bias=bias)


def is_timms(module: nn.Module | type, method: str = "forward") -> bool:
    """Whether a method is timm's or torch's own, and not one that was put in its place."""
    code = getattr(getattr(module, method, None), "__code__", None)
    return code is not None and code.co_filename.startswith(_OWN)


def _refusal(net: Any, block: Any) -> str | None:
    """Why this block can't be treated, in words; None where it can."""
    attn = getattr(block, "attn", None)
    if type(block) not in _PRE_NORM_BLOCKS or attn is None:
        return f"{type(block).__name__} is not a block that normalises first and then attends"
    of_beit = isinstance(net, beit.Beit) and type(attn) is beit.Attention
    if _position_tables(net, attn) and not of_beit:
        return "relative position bias is known as timm's Beit adds it, and in no other class"
    if getattr(net, "rope", None) is not None or "Rope" in type(attn).__name__:
        return "rotary embeddings turn queries and keys by position: no one matrix is the head"
    if not isinstance(getattr(attn, "q_norm", nn.Identity()), nn.Identity):
        return "qk-norm divides each query and key by its length, so scores are not bilinear"
    if not isinstance(block.norm1, nn.LayerNorm) or block.norm1.weight is None:
        return f"{type(block.norm1).__name__} before attention; a LayerNorm with gain is needed"
    if type(attn) not in _ONE_SOFTMAX:
        return f"{type(attn).__name__} is not one softmax over products of queries and keys"
    for part in (block, attn, block.norm1, *_position_tables(net, attn)):
        if not is_timms(type(part)):
            return f"{type(part).__name__}: its forward is not timm's; pass a plain timm module"
    separate = getattr(attn, "qkv", None) is None
    for part in ("q_proj", "k_proj", "v_proj", "proj") if separate else ("qkv", "proj"):
        linear = getattr(attn, part)
        kind = type(linear).__mro__[1] if is_parametrized(linear) else type(linear)
        if kind is not nn.Linear:  # the very class: another may compute something else
            name = kind.__name__
            return f"attn.{part} is {name}, not nn.Linear; merge adapters, or undo quantisation"
    return None


def _position_tables(net: Any, attn: Any) -> list[Any]:
    """The modules whose tables a layer's logits get a position bias from: shared, and its own."""
    parts = (getattr(net, "rel_pos_bias", None), attn)
    return [p for p in parts if getattr(p, "relative_position_bias_table", None) is not None]


def _position_bias(net: Any, name: str) -> Float[Tensor, "layer head query key"] | None:
    """What every layer adds to the scaled scores of two places; None where no layer does.

    Raises ValueError where the index into a table is not timm's for the patch grid.
    """
    tables = [_position_tables(net, block.attn) for block in net.blocks]
    if not any(tables):
        return None
    index = beit.gen_relative_position_index(net.patch_embed.grid_size)
    nothing = net.cls_token.new_zeros(*index.shape, net.blocks[0].attn.num_heads)
    biases = []
    for layer, parts in enumerate(tables):
        if not all(torch.equal(part.relative_position_index.cpu(), index) for part in parts):
            raise ValueError(
                f"{name}, layer {layer}: relative_position_index is not timm's for the patch grid; "
                "load the tables into a fresh timm module and pass that"
            )
        own = [part.relative_position_bias_table.detach()[index] for part in parts]
        biases.append(sum(own, nothing).movedim(-1, 0))
    return torch.stack(biases)


def _read_layer(block: Any) -> dict[str, Tensor]:
    """One block's projections per head, biases (zeros where it has none) and LayerNorm."""
    attn, norm = block.attn, block.norm1
    for module in attn.children():
        for hook in module._forward_pre_hooks.values():
            # torch's older weight norms and pruning renew a weight before each pass.
            if type(hook).__module__.startswith("torch.nn.utils"):
                hook(module, ())
    heads, d_model = attn.num_heads, len(norm.weight)
    layer = {"w_o": attn.proj.weight.view(d_model, heads, -1).movedim(1, 0)}
    for name, weight, bias in _projections(attn):
        layer[f"w_{name}"] = weight.view(heads, -1, d_model)
        layer[f"b_{name}"] = bias.view(heads, -1)
    shift = norm.bias if norm.bias is not None else torch.zeros_like(norm.weight)
    layer |= {"ln_gain": norm.weight, "ln_shift": shift}
    return {key: tensor.detach() for key, tensor in layer.items()}


def _projections(attn: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Weights and biases of queries, keys and values; a missing bias is a bias of zero."""
    fused = getattr(attn, "qkv", None)
    for n, name in enumerate("qkv"):
        linear = getattr(attn, f"{name}_proj") if fused is None else fused
        weight, bias = linear.weight, linear.bias
        if fused is not None:  # some models keep the biases of a fused projection apart
            weight = weight.chunk(3)[n]
            bias = getattr(attn, f"{name}_bias", None) if bias is None else bias.chunk(3)[n]
        yield name, weight, weight.new_zeros(len(weight)) if bias is None else bias


def fold(heads: Heads, layer: int, convention: Convention) -> tuple[Folded, Folded]:
    """One layer's W_q and W_k in float64, as they act on the token of this convention.

    `paper`: on the raw residual stream x, so as they are.  `exact`: on LayerNorm's normalised
    token z, so with its gain and centring folded in: W diag(g) C.
    """
    options.choice("convention", convention, CONVENTIONS)
    w_q, w_k = heads.w_q[layer].double(), heads.w_k[layer].double()
    if convention == "paper":
        return w_q, w_k
    gain = heads.ln_gain[layer].double()
    return centre(w_q * gain), centre(w_k * gain)


def centre(rows: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """Removes from each row its mean, the part that LayerNorm's centred token can't see."""
    return rows - rows.mean(-1, keepdim=True)


def key_salience(heads: Heads) -> tuple[Salience, Salience]:
    """What every query prefers in a key whatever the query is: κ, as its two parts.

    The first comes from the query bias b_q, the second from LayerNorm's shift through W_q; the
    score of a key gains their sum times its normalised token.
    """
    w_q, w_k = heads.w_q.double(), heads.w_k.double()
    gain = heads.ln_gain.double()[:, None]
    from_shift = torch.einsum("lhed,ld->lhe", w_q, heads.ln_shift.double())
    of_bias, of_shift = (
        centre(torch.einsum("lhe,lhed->lhd", part, w_k) * gain)
        for part in (heads.b_q.double(), from_shift)
    )
    return of_bias, of_shift

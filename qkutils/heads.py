"""Attention heads: the weights of every layer, stacked, and what LayerNorm does to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from timm.layers import Attention
from timm.models import beit, eva, vision_transformer
from torch import Tensor, nn

from qkutils.models import Model

Convention = Literal["paper", "exact"]
CONVENTIONS: tuple[Convention, ...] = ("paper", "exact")

# Blocks that normalise first and then attend: the only ones whose scores are as the book derives.
_PRE_NORM_BLOCKS = (vision_transformer.Block, eva.EvaBlock, beit.Block)
# Attention that is one softmax of queries times keys: not differential, not multi-query.
_ONE_SOFTMAX = (Attention, eva.EvaAttention, beit.Attention)


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

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that tell this checkpoint's queries and keys from others'."""
        digest = hashlib.sha256()
        for tensor in (self.w_q, self.w_k, self.b_q, self.b_k, self.ln_gain, self.ln_shift):
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]


def read(model: Model) -> Heads:
    """Reads the heads of a model; taught in chapter 1.

    Raises ValueError, naming the layer and the reason, for attention that the book's algebra does
    not cover and for weights that are not finite.
    """
    blocks = list(model.net.blocks)
    if not blocks:
        raise ValueError(f"{model.name}: has no blocks; pass a vision transformer")
    layers = []
    for index, block in enumerate(blocks):
        reason = _refusal(model.net, block)
        if reason:
            raise ValueError(f"{model.name}, layer {index}: {reason}")
        layers.append(_read_layer(block))
    if len({layer["w_q"].shape for layer in layers}) > 1:
        raise ValueError(f"{model.name}: layers differ in their number or width of heads")
    stacked = {key: torch.stack([layer[key] for layer in layers]) for key in layers[0]}
    _refuse_not_finite(model.name, stacked)
    first = blocks[0]
    return Heads(**stacked, ln_eps=first.norm1.eps, scale=float(first.attn.scale), name=model.name)


def _refusal(net: Any, block: Any) -> str | None:
    """Why this block can't be treated, in words; None where it can."""
    attn = getattr(block, "attn", None)
    if type(block) not in _PRE_NORM_BLOCKS or attn is None:
        return f"{type(block).__name__} is not a block that normalises first and then attends"
    if getattr(attn, "relative_position_bias_table", None) is not None or getattr(
        net, "rel_pos_bias", None
    ):
        return "relative position bias is not part of the scores that the book derives"
    if getattr(net, "rope", None) is not None or "Rope" in type(attn).__name__:
        return "rotary embeddings turn queries and keys by position: no one matrix is the head"
    if not isinstance(getattr(attn, "q_norm", nn.Identity()), nn.Identity):
        return "qk-norm divides each query and key by its length, so scores are not bilinear"
    if not isinstance(block.norm1, nn.LayerNorm) or block.norm1.weight is None:
        return f"{type(block.norm1).__name__} before attention; a LayerNorm with gain is needed"
    if type(attn) not in _ONE_SOFTMAX:
        return f"{type(attn).__name__} is not one softmax over products of queries and keys"
    return None


def _read_layer(block: Any) -> dict[str, Tensor]:
    """One block's projections per head, biases (zeros where it has none) and LayerNorm."""
    attn, norm = block.attn, block.norm1
    heads = attn.num_heads
    weights, biases = _fused(attn) if getattr(attn, "qkv", None) is not None else _separate(attn)
    d_model = weights[0].shape[1]
    layer = {f"w_{p}": w.view(heads, -1, d_model) for p, w in zip("qkv", weights, strict=True)}
    layer |= {f"b_{p}": b.view(heads, -1) for p, b in zip("qkv", biases, strict=True)}
    layer["w_o"] = attn.proj.weight.view(d_model, heads, -1).movedim(1, 0)
    shift = norm.bias if norm.bias is not None else torch.zeros_like(norm.weight)
    layer |= {"ln_gain": norm.weight, "ln_shift": shift}
    return {key: tensor.detach() for key, tensor in layer.items()}


def _fused(attn: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Weights and biases of a fused projection; some models keep its biases as three parameters."""
    weight = attn.qkv.weight
    parts: Any = [getattr(attn, f"{p}_bias", None) for p in "qkv"]
    bias = attn.qkv.bias
    if bias is None:
        missing = any(part is None for part in parts)
        bias = weight.new_zeros(len(weight)) if missing else torch.cat(parts)
    return weight.chunk(3), bias.chunk(3)


def _separate(attn: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Weights and biases of three projections; a missing bias is a bias of zero."""
    parts = [getattr(attn, f"{p}_proj") for p in "qkv"]
    biases = [
        p.bias if p.bias is not None else p.weight.new_zeros(p.weight.shape[0]) for p in parts
    ]
    return tuple(p.weight for p in parts), tuple(biases)


def _refuse_not_finite(name: str, stacked: dict[str, Tensor]) -> None:
    for key, tensor in stacked.items():
        bad = (~tensor.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"{name}: {key} holds NaN or infinity in layers {bad}; the checkpoint is damaged "
                "or its training diverged: fetch it again, or take an earlier one"
            )


def fold(
    heads: Heads, layer: int, convention: Convention
) -> tuple[Float[Tensor, "head d_head d_model"], Float[Tensor, "head d_head d_model"]]:
    """One layer's W_q and W_k in float64, as they act on the token of this convention.

    `paper`: on the raw residual stream x, so as they are.  `exact`: on LayerNorm's normalised
    token z, so with its gain and centring folded in: W diag(g) C.  Taught in chapter 1.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention={convention!r}: it is one of {', '.join(CONVENTIONS)}")
    w_q, w_k = heads.w_q[layer].double(), heads.w_k[layer].double()
    if convention == "paper":
        return w_q, w_k
    gain = heads.ln_gain[layer].double()
    return centre(w_q * gain), centre(w_k * gain)


def centre(rows: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """Removes from each row its mean, the part that LayerNorm's centred token can't see."""
    return rows - rows.mean(-1, keepdim=True)


def key_salience(
    heads: Heads,
) -> tuple[Float[Tensor, "layer head d_model"], Float[Tensor, "layer head d_model"]]:
    """What every query prefers in a key whatever the query is: κ, as its two parts.

    The first comes from the query bias b_q, the second from LayerNorm's shift through W_q; the
    score of a key gains their sum times its normalised token.  Taught in chapter 1.
    """
    w_q, w_k = heads.w_q.double(), heads.w_k.double()
    gain = heads.ln_gain.double()[:, None]
    from_shift = torch.einsum("lhed,ld->lhe", w_q, heads.ln_shift.double())
    parts = (heads.b_q.double(), from_shift)
    through_keys = [torch.einsum("lhe,lhed->lhd", part, w_k) for part in parts]
    return centre(through_keys[0] * gain), centre(through_keys[1] * gain)

"""Google's JAX files (.npz): kernels are transposed, heads are a dimension of their own."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from qkutils.checkpoints._files import Tensors
from qkutils.checkpoints._layouts import Layout

_BLOCK = r"Transformer/encoderblock_(\d+)/"
_ATTENTION = _BLOCK + r"MultiHeadDotProductAttention_1/"
_KINDS = ((r"kernel|scale", "weight"), ("bias", "bias"))


def _each(pattern: str, name: str) -> tuple[tuple[str, str], ...]:
    """Rules for the two tensors of a module."""
    return tuple((f"{pattern}/(?:{kinds})", f"{name}.{kind}") for kinds, kind in _KINDS)


def _as_weights(tensors: Tensors) -> Tensors:
    """Kernels [in, out] as weights [out, in], with the heads side by side."""
    return {name: _as_weight(name, tensor).contiguous() for name, tensor in tensors.items()}


def _told(tensors: Tensors) -> dict[str, Any]:
    """The number of heads, which the kernels' shape tells, and what all of these models share."""
    queries = (t for name, t in tensors.items() if re.fullmatch(_ATTENTION + "query/kernel", name))
    shape = next(queries, Tensor()).shape
    grey = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    assumed = ("GELU, eps 1e-6, blocks that normalise first, mean = std = 0.5",)
    return {"num_heads": shape[1], "config": grey, "assumed": assumed} if len(shape) == 3 else {}


def _as_weight(name: str, tensor: Tensor) -> Tensor:
    if name == "patch_embed.proj.weight" and tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1)
    if re.search(r"attn\.[qkv]\.", name):
        return tensor.flatten(1).mT if name.endswith("weight") else tensor.flatten()
    if name.endswith("attn.proj.weight"):
        return tensor.flatten(0, 1).mT
    return tensor.mT if tensor.ndim == 2 and name.endswith("weight") else tensor


GOOGLE = Layout(
    "Google's JAX files",
    embed="embedding/kernel",
    rules=(
        (r"cls", "cls_token"),
        (r"Transformer/posembed_input/pos_embedding", "pos_embed"),
        *_each("embedding", "patch_embed.proj"),
        *_each(_BLOCK + "LayerNorm_0", r"blocks.\1.norm1"),
        *_each(_BLOCK + "LayerNorm_2", r"blocks.\1.norm2"),
        *_each(_ATTENTION + "([qkv])[a-z]+", r"blocks.\1.attn.\2"),
        *_each(_ATTENTION + "out", r"blocks.\1.attn.proj"),
        *_each(_BLOCK + "MlpBlock_3/Dense_0", r"blocks.\1.mlp.fc1"),
        *_each(_BLOCK + "MlpBlock_3/Dense_1", r"blocks.\1.mlp.fc2"),
        *_each("Transformer/encoder_norm", "norm"),
        *_each("head", "head"),
        (r"pre_logits/.*", "pre_logits"),
    ),
    change=_as_weights,
    tell=_told,
)

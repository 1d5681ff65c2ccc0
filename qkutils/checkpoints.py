"""Checkpoint files: reading tensors safely, and telling the architecture by their shapes."""

from __future__ import annotations

import math
from pathlib import Path
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

_WRAPPERS = ("model", "state_dict")  # keys under which training scripts keep the weights

# Tensors that tell the architecture, with their numbers of dimensions.
_REQUIRED = {
    "patch_embed.proj.weight": 4,
    "pos_embed": 3,
    "blocks.0.attn.qkv.weight": 2,
    "blocks.0.mlp.fc1.weight": 2,
}
_OPTIONAL = {"reg_token": 3, "head.weight": 2}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors or torch file; never runs code that a file carries.

    Raises FileNotFoundError for a missing file and ValueError for one that is cut short, foreign,
    or made of pickled objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; check the path")
    try:
        if path.suffix == ".safetensors":
            return _unwrap(load_file(path), path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a complete safetensors file ({error}); fetch it again"
        ) from error
    except (RuntimeError, EOFError, BadZipFile) as error:
        raise ValueError(
            f"{path}: not a complete torch checkpoint ({error}); fetch it again"
        ) from error
    except Exception as error:  # torch's safe unpickler meets foreign bytes with many classes
        raise ValueError(
            f"{path}: not a complete torch checkpoint of tensors alone: cut short, foreign, or "
            "with other pickled Python objects, which could run code when read; fetch it again, "
            "or, where you trust it, load it and save its state dict with safetensors"
        ) from error
    return _unwrap(state, path)


def _unwrap(state: object, path: Path) -> dict[str, Tensor]:
    """Finds the tensors in what a training script saved; strips the prefix of a parallel run."""
    for key in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    named = state.items() if isinstance(state, dict) else ()
    tensors = {str(k).removeprefix("module."): v for k, v in named if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(f"{path}: holds no named tensors; save the model's state dict")
    return tensors


def build_from_shapes(
    tensors: dict[str, Tensor], num_heads: int | None, where: Path
) -> VisionTransformer:
    """Builds the plain vision transformer that these tensors belong to, and fills it with them.

    Raises ValueError where keys or shapes are not those of a plain timm vision transformer, and
    where the number of heads can't be told from the width.
    """
    missing = _REQUIRED.keys() - tensors.keys()
    if missing:
        raise ValueError(
            f"{where}: not a plain vision transformer with timm's key names: {sorted(missing)} "
            f"missing, first keys are {sorted(tensors)[:4]}; load a timm module instead of a file"
        )
    for key, ndim in (_REQUIRED | _OPTIONAL).items():
        if key in tensors and tensors[key].ndim != ndim:
            raise ValueError(
                f"{where}: {key} has shape {tuple(tensors[key].shape)}, but {ndim} dimensions are "
                "those of a plain vision transformer; load a timm module instead of a file"
            )
    distilled = "dist_token" in tensors
    kind = VisionTransformerDistilled if distilled else VisionTransformer
    net = kind(**_arguments(tensors, num_heads, where), weight_init="skip")
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"{where}: its tensors do not fit a plain vision transformer: {error}"
        ) from error
    return net


def _arguments(tensors: dict[str, Tensor], num_heads: int | None, where: Path) -> dict:
    """Arguments of timm's VisionTransformer, read off the tensors' shapes."""
    width, channels, patch, _ = tensors["patch_embed.proj.weight"].shape
    depth = len({k.split(".")[1] for k in tensors if k.startswith("blocks.")})
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    prefix = ("cls_token" in tensors) + ("dist_token" in tensors) + registers
    grid, embeds_prefix = _grid(tensors["pos_embed"].shape[1], prefix, where)
    fc_norm, head = "fc_norm.weight" in tensors, tensors.get("head.weight")
    return {
        "img_size": grid * patch,
        "patch_size": patch,
        "in_chans": channels,
        "embed_dim": width,
        "depth": depth,
        "num_heads": _heads(tensors, width, num_heads, where),
        "mlp_ratio": tensors["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "qk_norm": "blocks.0.attn.q_norm.weight" in tensors,
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in tensors else None,
        "class_token": "cls_token" in tensors,
        "reg_tokens": registers,
        "no_embed_class": not embeds_prefix,
        "pre_norm": "norm_pre.weight" in tensors,
        "fc_norm": fc_norm,
        "global_pool": "avg" if fc_norm or "cls_token" not in tensors else "token",
        "num_classes": 0 if head is None else head.shape[0],
    }


def _grid(positions: int, prefix: int, where: Path) -> tuple[int, bool]:
    """Side of the square patch grid, and whether prefix tokens have positions of their own."""
    for patches, embeds_prefix in ((positions - prefix, True), (positions, False)):
        side = math.isqrt(max(patches, 0))
        if side > 0 and side * side == patches:
            return side, embeds_prefix
    raise ValueError(
        f"{where}: {positions} positions are no square patch grid, with or without "
        f"{prefix} prefix tokens; build the timm module yourself and pass it"
    )


def _heads(tensors: dict[str, Tensor], width: int, num_heads: int | None, where: Path) -> int:
    """Number of heads: as asked for, else one per 64 units of width."""
    if num_heads is None and width % 64:
        raise ValueError(
            f"{where}: a width of {width} does not tell its number of heads; pass num_heads="
        )
    heads = width // 64 if num_heads is None else num_heads
    if heads < 1 or width % heads:
        raise ValueError(f"{where}: num_heads={heads} does not divide the width {width}")
    return heads

"""What transformers says of a model in the files beside its tensors, in timm's words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch.nn

from qkutils import options

_KINDS = {
    *("vit", "vit_mae", "deit", "ijepa", "clip", "clip_vision_model"),
    *("dinov2", "dinov2_with_registers"),
}
_GELU_TANH = dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), "gelu_tanh")
_ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu"} | _GELU_TANH
_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # by Pillow's numbers


def said_of_model(said: Mapping[str, Any]) -> dict[str, Any]:
    """Heads, patch grid, activation and eps of a transformers `config.json`.

    Raises ValueError for a kind of model that is not read, and for what it does not say.
    """
    config = said.get("vision_config") or said
    kind = config.get("model_type", said.get("model_type"))
    if kind not in _KINDS:
        raise ValueError(f"model_type {kind!r} is none of {', '.join(sorted(_KINDS))}")
    activation = config.get("hidden_act", "quick_gelu" if "clip" in kind else "gelu")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"hidden_act {activation!r} is none of {', '.join(_ACTIVATIONS)}")
    eps = config.get("layer_norm_eps", 1e-5 if "clip" in kind else 1e-12)
    height, width = _both(config["image_size"])
    rows, columns = _both(config["patch_size"])
    return {
        "num_heads": options.count("num_attention_heads", config["num_attention_heads"]),
        "grid": (height // rows, width // columns),
        "arguments": {
            "act_layer": _ACTIVATIONS[activation],
            "norm_layer": partial(
                torch.nn.LayerNorm, eps=options.number("layer_norm_eps", eps, 0.0)
            ),
        },
    }


def _both(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return options.count("size", height), options.count("size", width)


def said_of_pictures(said: Mapping[str, Any]) -> dict[str, Any]:
    """The preprocessing of a `preprocessor_config.json`.

    Raises ValueError for one that timm can't do.
    """
    size, crop = said.get("size", 224), said.get("crop_size", 224)
    kind = said.get("image_processor_type") or said.get("feature_extractor_type") or ""
    sides = ("shortest_edge",) if kind.startswith("CLIP") else ("height", "width")  # of one number
    size = size if isinstance(size, Mapping) else dict.fromkeys(sides, size)
    crop = crop if isinstance(crop, Mapping) else {"height": crop, "width": crop}
    kept = crop if said.get("do_center_crop") else size
    after = {int(kept.get(name, kept.get("shortest_edge", 0))) for name in ("height", "width")}
    before = {int(size.get(name, size.get("shortest_edge", 0))) for name in ("height", "width")}
    if len(after) > 1 or len(before) > 1 or not {0}.isdisjoint(after | before):
        raise ValueError(f"size {dict(size)} and crop_size {dict(crop)} are not square")
    return {
        "mean": tuple(said["image_mean"]),
        "std": tuple(said["image_std"]),
        "interpolation": _INTERPOLATIONS[int(said.get("resample", 2))],
        "crop_pct": after.pop() / before.pop(),
        "crop_mode": "center" if "shortest_edge" in size else "squash",
    }

"""The one architecture that all embedded models share."""

from typing import Any

import timm.models.vision_transformer as vit
import torch
from jaxtyping import Float
from torch import Tensor

from qkutils import scenes

SIZE, PATCH = 64, 8
CLASSES = len(scenes.KINDS) * len(scenes.COLOURS) + 1  # the last: nothing is odd


def build(seed: int = 0, classes: int = CLASSES) -> vit.VisionTransformer:
    """A plain timm vision transformer for 64 × 64 pixels with the random weights of this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = vit.VisionTransformer(
            img_size=SIZE,
            patch_size=PATCH,
            embed_dim=96,
            depth=8,
            num_heads=4,
            num_classes=classes,
        )
    config: Any = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0}
    net.pretrained_cfg = config
    return net


def normalise(image: Float[Tensor, "scene 3 h w"]) -> Float[Tensor, "scene 3 h w"]:
    """Maps pixel values from [0, 1] to [-1, 1], as the embedded models expect them."""
    return (image - 0.5) / 0.5

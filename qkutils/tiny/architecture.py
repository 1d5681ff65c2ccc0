"""The one architecture that all embedded models share."""

import timm.models.vision_transformer as vit
import torch

from qkutils import scenes

SIZE, PATCH = 64, 8
CLASSES = len(scenes.KINDS) * len(scenes.COLOURS)


def build(seed: int = 0) -> vit.VisionTransformer:
    """A plain timm vision transformer for 64 × 64 pixels with the random weights of this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return vit.VisionTransformer(
            img_size=SIZE,
            patch_size=PATCH,
            embed_dim=96,
            depth=8,
            num_heads=4,
            num_classes=CLASSES,
        )

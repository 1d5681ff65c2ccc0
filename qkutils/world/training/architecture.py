"""The one architecture that all embedded models share."""

import qkutils._torchvision

import json
from importlib import resources
from pathlib import Path
from typing import Any

import timm.models.vision_transformer as vit
import torch
from jaxtyping import Float
from torch import Tensor

from qkutils import checkpoints, world

SIZE, PATCH, HEADS = 64, 8, 4
PREPROCESSING = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0}
METADATA = {  # of a published file: what its tensors can't tell
    checkpoints.METADATA: json.dumps({"num_heads": HEADS, "config": PREPROCESSING})
}
FOLDER = Path(str(resources.files("qkutils").joinpath("weights")))
QUESTIONS = {  # what a supervised model is asked of a scene, and how many answers there are
    "kind": len(world.KINDS),
    "colour": len(world.COLOURS),
    "odd factor": len(world.ODD_FACTORS),
}
CLASSES = sum(QUESTIONS.values())


def build(seed: int = 0, classes: int = CLASSES) -> vit.VisionTransformer:
    """A plain timm vision transformer for 64 × 64 pixels with the random weights of this seed.

    All layers but the classifier are the same for any number of classes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = vit.VisionTransformer(
            img_size=SIZE,
            patch_size=PATCH,
            embed_dim=96,
            depth=8,
            num_heads=HEADS,
            num_classes=0,
        )
        net.reset_classifier(classes)
    config: Any = PREPROCESSING
    net.pretrained_cfg = config
    return net


def published_name(objective: str, seed: int) -> str:
    """The name that `qkutils.load` takes: the first seed has none in it."""
    return f"tiny-{objective}" + (f"-s{seed}" if seed else "")


def normalise(image: Float[Tensor, "scene 3 h w"]) -> Float[Tensor, "scene 3 h w"]:
    """Maps pixel values from [0, 1] to [-1, 1], as the embedded models expect them."""
    return (image - 0.5) / 0.5

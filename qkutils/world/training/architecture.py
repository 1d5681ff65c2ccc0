"""The one architecture that all embedded models share."""

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from qkutils import checkpoints
from qkutils.world import COLOURS, KINDS, ODD_FACTORS

Image = Float[Tensor, "scene 3 h w"]

SIZE, PATCH, HEADS = 64, 8, 4
PREPROCESSING: Any = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0}
# What the tensors of a published file can't tell.
METADATA = {checkpoints.METADATA: json.dumps({"num_heads": HEADS, "config": PREPROCESSING})}
FOLDER = Path(__file__).parents[2] / "weights"
# What a supervised model is asked of a scene, and how many answers there are.
QUESTIONS = {"kind": len(KINDS), "colour": len(COLOURS), "odd factor": len(ODD_FACTORS)}
CLASSES = sum(QUESTIONS.values())


def build(seed: int = 0, classes: int = CLASSES, **options: Any) -> VisionTransformer:
    """A plain timm vision transformer for 64 × 64 pixels with the random weights of this seed.

    All layers but the classifier are the same for any number of classes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = VisionTransformer(
            SIZE, PATCH, embed_dim=96, depth=8, num_heads=HEADS, num_classes=0, **options
        )
        net.reset_classifier(classes)
    net.pretrained_cfg = PREPROCESSING
    return net


def published_name(objective: str, seed: int) -> str:
    """The name that `qkutils.load` takes: the first seed has none in it."""
    return f"tiny-{objective}" + (f"-s{seed}" if seed else "")


def normalise(image: Image) -> Image:
    """Maps pixel values from [0, 1] to [-1, 1], as the embedded models expect them."""
    return (image - 0.5) / 0.5


def logits(net: VisionTransformer, image: Image) -> tuple[Float[Tensor, "scene answer"], ...]:
    """What a supervised model says to each of its questions."""
    return net(normalise(image)).split(list(QUESTIONS.values()), 1)

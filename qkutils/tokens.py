"""Tokens: one streaming forward pass that hands on each layer's tokens and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from qkutils.models import Model

Visit = Callable[[int, slice, Tensor], None]


def visit_layers(
    model: Model,
    images: Float[Tensor, "image channel height width"],
    visit: Visit,
    batch_size: int = 32,
) -> None:
    """Runs the model on images and calls `visit(layer, which images, x)` for each layer and batch.

    x is the residual stream at the block's input, [image, token, d_model].  Raises ValueError for
    no images or images of another shape than the model's.  Taught in chapter 1.
    """
    check_images(model, images)
    current = slice(0, 0)
    hooks = [
        block.register_forward_pre_hook(lambda _, args, layer=layer: visit(layer, current, args[0]))
        for layer, block in enumerate(model.net.blocks)
    ]
    try:
        with torch.inference_mode(), full_precision():
            for start in range(0, len(images), batch_size):
                current = slice(start, min(start + batch_size, len(images)))
                model.net(images[current].to(model.device))
    finally:
        for hook in hooks:
            hook.remove()


def check_images(model: Model, images: Tensor) -> None:
    """Raises ValueError where images are missing or are not what the model takes."""
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"images of shape {tuple(images.shape)}: at least one image is needed, as a tensor "
            "[image, channel, height, width]; model.transform makes it from a picture"
        )
    wanted = tuple(getattr(model.net.patch_embed, "img_size", None) or images.shape[-2:])
    if tuple(images.shape[-2:]) != wanted:
        raise ValueError(
            f"images of {images.shape[-2]} × {images.shape[-1]} pixels: {model.name} takes "
            f"{wanted[0]} × {wanted[1]}; model.transform resizes and crops"
        )
    channels = model.net.patch_embed.proj.weight.shape[1]
    if images.shape[1] != channels or not images.is_floating_point():
        raise ValueError(
            f"images with {images.shape[1]} channels of {images.dtype}: {model.name} takes "
            f"{channels} channels of floating-point numbers; model.transform makes them"
        )
    if not images.isfinite().all():
        raise ValueError("images hold NaN or infinity; look at how they were read")


@contextmanager
def full_precision():
    """Turns off TF32, which rounds a GPU's float32 products to ten bits; restores it after."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def normalise(x: Float[Tensor, "*at d_model"], eps: float) -> Float[Tensor, "*at d_model"]:
    """LayerNorm's normalised token z, before its gain and shift."""
    return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=eps)

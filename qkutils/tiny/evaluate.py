"""What an embedded model can do, measured on scenes that no run was trained on."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer

from qkutils import scenes
from qkutils.tiny.architecture import normalise

HELD_OUT_SCENES = 2_000_000  # a world seed that nothing else uses


@torch.inference_mode()
def accuracy(net: VisionTransformer, count: int = 8192, batch: int = 256) -> dict[str, float]:
    """Share of held-out scenes whose odd object gets the right class, kind and colour."""
    right = torch.zeros(3)
    device = next(net.parameters()).device
    colours = len(scenes.COLOURS)
    for start in range(0, count, batch):
        held_out = scenes.make(HELD_OUT_SCENES, start, min(start + batch, count))
        guess = net(normalise(held_out.image).to(device)).argmax(1).cpu()
        label = held_out.factors.label
        hits = [
            guess == label,
            guess // colours == label // colours,
            guess % colours == label % colours,
        ]
        right += torch.stack(hits).sum(1)
    return dict(zip(("class", "kind", "colour"), (right / count).tolist(), strict=True))

"""What a model is trained for: each objective holds the network and gives the loss of a batch.

All randomness comes from a generator that belongs to the step, so that runs resume exactly.
"""

from __future__ import annotations

import qkutils._torchvision

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from qkutils.world import Scenes
from qkutils.world.training import architecture
from qkutils.world.training.architecture import FOLDER, PATCH, QUESTIONS, normalise, published_name

MASKED_SHARE = 0.5


class Objective(nn.Module):
    """A network, and the loss that it is trained with."""

    net: VisionTransformer
    does: str  # what a model's card says of it

    def after_step(self, progress: float) -> None:
        """What an objective does between steps; most do nothing."""


class Supervised(Objective):
    """Say in what the odd object is odd, and name its kind and its colour."""

    does = "say in what an object is odd, if one is, and name its kind and colour"

    def __init__(self, seed: int):
        super().__init__()
        self.net = architecture.build(seed)

    def forward(self, batch: Scenes, _: torch.Generator) -> Float[Tensor, ""]:
        """Sum of the cross-entropies of kind, colour and odd factor."""
        said = self.net(normalise(batch.image)).split(list(QUESTIONS.values()), 1)
        right = batch.factors.label.to(said[0].device).unbind(1)
        asked = [(r >= 0).sum().clamp(min=1) for r in right]
        losses = [
            F.cross_entropy(s, r, ignore_index=-1, reduction="sum") / n
            for s, r, n in zip(said, right, asked, strict=True)
        ]
        return torch.stack(losses).sum()


class FineTuned(Supervised):
    """The same questions, put to the published SimMIM model of the same seed."""

    does = "masked pixels first (the SimMIM model of this seed), then as the supervised model"

    def __init__(self, seed: int):
        super().__init__(seed)
        self.net.load_state_dict(simmim_weights(seed), strict=False)


class Untrained(Objective):
    """Nothing: the network as its seed made it, the null of every comparison."""

    does = "none: the random weights of this seed"

    def __init__(self, seed: int):
        super().__init__()
        self.net = architecture.build(seed, classes=0)


class MaskedPixels(Objective):
    """Predict the raw pixels of masked patches, as SimMIM does, with a linear head."""

    does = "predict the raw pixels of masked patches (SimMIM)"

    def __init__(self, seed: int):
        super().__init__()
        self.net = architecture.build(seed, classes=0)
        width = self.net.embed_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.mask_token = nn.Parameter(0.02 * torch.randn(width))
            self.decoder = nn.Linear(width, PATCH * PATCH * 3)

    def forward(self, batch: Scenes, generator: torch.Generator) -> Float[Tensor, ""]:
        """Mean absolute error over the pixels of masked patches, in normalised units."""
        image = normalise(batch.image)
        mask = draw_mask(len(image), self.net.patch_embed.num_patches, generator).to(image.device)
        return (self.predict(image, mask) - patches_of(image)).abs()[mask].mean()

    def predict(
        self, image: Float[Tensor, "scene 3 h w"], mask: Bool[Tensor, "scene patch"]
    ) -> Float[Tensor, "scene patch value"]:
        """Every patch's pixels, from the patches that are not masked."""
        tokens = self.net.patch_embed(image)
        tokens = torch.where(mask[..., None], self.mask_token, tokens)
        tokens = self.net.norm(self.net.blocks(self.net._pos_embed(tokens)))
        return self.decoder(tokens[:, self.net.num_prefix_tokens :])


class Continued(MaskedPixels):
    """Masked pixels again, on the published SimMIM model: what training on does without labels."""

    does = "masked pixels (the SimMIM model of this seed), then masked pixels at fine-tuning's rate"

    def __init__(self, seed: int):
        super().__init__(seed)
        self.net.load_state_dict(simmim_weights(seed))


def simmim_weights(seed: int) -> dict[str, Tensor]:
    """The published SimMIM network of a seed; its decoder is not part of it."""
    path = FOLDER / f"{published_name('simmim', seed)}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: training on starts from it; train it first with "
            f"`qkutils train simmim --seed {seed} --publish`"
        )
    return load_file(path)


def draw_mask(scenes: int, patches: int, generator: torch.Generator) -> Bool[Tensor, "scene patch"]:
    """Masks the same number of patches in every scene, at random places."""
    order = torch.rand(scenes, patches, generator=generator).argsort(1)
    return order < round(MASKED_SHARE * patches)


def patches_of(image: Float[Tensor, "scene 3 h w"]) -> Float[Tensor, "scene patch value"]:
    """The pixels of every patch, in reading order."""
    return F.unfold(image, PATCH, stride=PATCH).mT


class SelfDistillation(Objective):
    """Agree with a slowly following teacher about crops of the same scene, as DINO does."""

    does = "agree with a slowly following teacher about crops of a scene (DINO)"
    centre: Tensor
    PROTOTYPES = 512
    STUDENT, TEACHER = 0.1, 0.04  # temperatures; the lower one sharpens the teacher

    def __init__(self, seed: int):
        super().__init__()
        self.net = architecture.build(seed, classes=0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.head = _projection(self.net.embed_dim, self.PROTOTYPES)
        self.teacher_net, self.teacher_head = copy.deepcopy(self.net), copy.deepcopy(self.head)
        for module in (self.teacher_net, self.teacher_head):
            module.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(self.PROTOTYPES))

    def forward(self, batch: Scenes, generator: torch.Generator) -> Float[Tensor, ""]:
        """Cross-entropy of the teacher's view of two large crops with the student's of others."""
        image = normalise(batch.image)
        large = [crop(image, (0.4, 1.0), 64, generator) for _ in range(2)]
        small = [crop(image, (0.1, 0.4), 32, generator) for _ in range(2)]
        with torch.no_grad():
            seen = [self.teacher_head(encode(self.teacher_net, x)) for x in large]
            wanted = [((s - self.centre) / self.TEACHER).softmax(-1) for s in seen]
            self.centre.lerp_(torch.cat(seen).mean(0), 0.1)
        said = [self.head(encode(self.net, x)) / self.STUDENT for x in large + small]
        pairs = [(t, s) for t in range(2) for s in range(len(said)) if s != t]
        losses = [-(wanted[t] * said[s].log_softmax(-1)).sum(-1).mean() for t, s in pairs]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Lets the teacher follow: the more slowly, the further training has come."""
        keep = 1 - (1 - 0.99) * (math.cos(math.pi * progress) + 1) / 2
        pairs = ((self.teacher_net, self.net), (self.teacher_head, self.head))
        for teacher, student in pairs:
            for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                old.lerp_(new, 1 - keep)


class _projection(nn.Sequential):
    """DINO's head: two layers, a point on the sphere, and its likeness to prototypes."""

    def __init__(self, width: int, prototypes: int):
        super().__init__(nn.Linear(width, 256), nn.GELU(), nn.Linear(256, 128))
        self.prototypes = nn.Parameter(torch.randn(prototypes, 128))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # temperatures magnify its rounding
            x = x.float()
            for layer in list(self.children()):
                x = layer(x)
            return F.normalize(x, dim=-1) @ F.normalize(self.prototypes, dim=-1).mT


def encode(
    net: VisionTransformer, image: Float[Tensor, "scene 3 h w"]
) -> Float[Tensor, "scene d_model"]:
    """The class token of pictures of any size, with positions interpolated to their patch grid."""
    tokens = net.patch_embed.proj(image)
    grid = list(tokens.shape[-2:])
    position = resample_abs_pos_embed(net.pos_embed, grid, num_prefix_tokens=net.num_prefix_tokens)
    assert net.cls_token is not None, "the embedded architecture has a class token"
    tokens = torch.cat([net.cls_token.expand(len(image), -1, -1), tokens.flatten(2).mT], 1)
    return net.norm(net.blocks(tokens + position))[:, 0]


def crop(
    image: Float[Tensor, "scene 3 h w"],
    area: tuple[float, float],
    size: int,
    generator: torch.Generator,
) -> Float[Tensor, "scene 3 size size"]:
    """A random square of each scene, mirrored in half the cases, its colours a little changed."""
    chance = torch.rand(len(image), 8, generator=generator).to(image.device)
    side = (area[0] + (area[1] - area[0]) * chance[:, 0]).sqrt()
    shift = (1 - side)[:, None] * (2 * chance[:, 1:3] - 1)
    mirror = torch.where(chance[:, 3] < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(side)
    rows = [torch.stack([side * mirror, zero, shift[:, 0]], -1)]
    rows += [torch.stack([zero, side, shift[:, 1]], -1)]
    grid = F.affine_grid(torch.stack(rows, 1), [len(image), 3, size, size], align_corners=False)
    square = F.grid_sample(image, grid, align_corners=False, padding_mode="reflection")
    gain = 0.8 + 0.4 * chance[:, 4:7, None, None]
    return square * gain + 0.2 * (2 * chance[:, 7, None, None, None] - 1)


OBJECTIVES: dict[str, Callable[[int], Objective]] = {
    "supervised": Supervised,
    "simmim": MaskedPixels,
    "dino": SelfDistillation,
    "simmim-finetuned": FineTuned,
    "simmim-continued": Continued,
    "untrained": Untrained,
}

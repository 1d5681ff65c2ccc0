"""What a model is trained for: each objective holds the network and gives the loss of a batch.

All randomness comes from a generator that belongs to the step, so that runs resume exactly.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from qkutils.world import Scenes
from qkutils.world.training import architecture
from qkutils.world.training.architecture import FOLDER, PATCH, Image, normalise, published_name

Mask = Bool[Tensor, "scene patch"]
Patches = Float[Tensor, "scene patch value"]
Square = Float[Tensor, "scene 3 size size"]

MASKED_SHARE = 0.5


class Objective(nn.Module):
    """A network, and the loss that it is trained with."""

    does: str  # what a model's card says of it

    def __init__(self, seed: int, classes: int = 0, **options: Any):
        super().__init__()
        self.net = architecture.build(seed, classes, **options)

    def after_step(self, progress: float) -> None:
        """What an objective does between steps; most do nothing."""


class Untrained(Objective):
    """Nothing: the network as its seed made it, the null of every comparison."""

    does = "none: the random weights of this seed"


class Supervised(Objective):
    """Say in what the odd object is odd, and name its kind and its colour."""

    does = "say in what an object is odd, if one is, and name its kind and colour"

    def __init__(self, seed: int):
        super().__init__(seed, architecture.CLASSES)

    def forward(self, batch: Scenes, _: Generator) -> Float[Tensor, ""]:
        """Sum of the cross-entropies of kind, colour and odd factor."""
        said = architecture.logits(self.net, batch.image)
        right = batch.factors.label.to(batch.image.device).unbind(1)
        losses = [
            F.cross_entropy(s, r, ignore_index=-1, reduction="sum") / (r >= 0).sum().clamp(min=1)
            for s, r in zip(said, right, strict=True)
        ]
        return torch.stack(losses).sum()


class FineTuned(Supervised):
    """The same questions, put to the published SimMIM model of the same seed."""

    does = "masked pixels first (the SimMIM model of this seed), then as the supervised model"

    def __init__(self, seed: int):
        super().__init__(seed)
        self.net.load_state_dict(simmim_weights(seed), strict=False)


class MaskedPixels(Objective):
    """Predict the raw pixels of masked patches, as SimMIM does, with a linear head."""

    does = "predict the raw pixels of masked patches (SimMIM)"

    def __init__(self, seed: int):
        super().__init__(seed)
        width = self.net.embed_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.mask_token = nn.Parameter(0.02 * torch.randn(width))
            self.decoder = nn.Linear(width, PATCH * PATCH * 3)

    def forward(self, batch: Scenes, generator: Generator) -> Float[Tensor, ""]:
        """Mean absolute error over the pixels of masked patches, in normalised units."""
        image = normalise(batch.image)
        mask = draw_mask(len(image), self.net.patch_embed.num_patches, generator).to(image.device)
        return (self.predict(image, mask) - patches_of(image)).abs()[mask].mean()

    def predict(self, image: Image, mask: Mask) -> Patches:
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
        how = f"`qkutils train simmim --seed {seed} --publish`"
        raise FileNotFoundError(f"{path}: training on starts from it; train it first with {how}")
    return load_file(path)


def draw_mask(scenes: int, patches: int, generator: Generator) -> Mask:
    """Masks the same number of patches in every scene, at random places."""
    order = torch.rand(scenes, patches, generator=generator).argsort(1)
    return order < round(MASKED_SHARE * patches)


def patches_of(image: Image) -> Patches:
    """The pixels of every patch, in reading order."""
    return F.unfold(image, PATCH, stride=PATCH).mT


class SelfDistillation(Objective):
    """Agree with a slowly following teacher about crops of the same scene, as DINO does."""

    does = "agree with a slowly following teacher about crops of a scene (DINO)"
    PROTOTYPES = 512
    STUDENT, TEACHER = 0.1, 0.04  # temperatures; the lower one sharpens the teacher

    def __init__(self, seed: int):
        super().__init__(seed, dynamic_img_size=True)  # it sees small crops, too
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.head = Projection(self.net.embed_dim, self.PROTOTYPES)
        self.teacher_net = copy.deepcopy(self.net).requires_grad_(False)
        self.teacher_head = copy.deepcopy(self.head).requires_grad_(False)
        self.centre = nn.Buffer(torch.zeros(self.PROTOTYPES))

    def forward(self, batch: Scenes, generator: Generator) -> Float[Tensor, ""]:
        """Cross-entropy of the teacher's view of two large crops with the student's of others."""
        image = normalise(batch.image)
        large = [crop(image, (0.4, 1.0), 64, generator) for _ in range(2)]
        small = [crop(image, (0.1, 0.4), 32, generator) for _ in range(2)]
        with torch.no_grad():
            seen = [self.teacher_head(self.teacher_net(x)) for x in large]
            wanted = [((s - self.centre) / self.TEACHER).softmax(-1) for s in seen]
            self.centre.lerp_(torch.cat(seen).mean(0), 0.1)
        said = [self.head(self.net(x)) / self.STUDENT for x in large + small]
        pairs = [(t, s) for t in range(2) for s in range(len(said)) if s != t]
        losses = [-(wanted[t] * said[s].log_softmax(-1)).sum(-1).mean() for t, s in pairs]
        return torch.stack(losses).mean()

    def after_step(self, progress: float) -> None:
        """Lets the teacher follow: the more slowly, the further training has come."""
        keep = 1 - (1 - 0.99) * (math.cos(math.pi * progress) + 1) / 2
        follow = get_ema_multi_avg_fn(keep)
        for teacher, of in ((self.teacher_net, self.net), (self.teacher_head, self.head)):
            follow(list(teacher.parameters()), list(of.parameters()), 0)


class Projection(nn.Sequential):
    """DINO's head: two layers, a point on the sphere, and its likeness to prototypes."""

    def __init__(self, width: int, prototypes: int):
        super().__init__(nn.Linear(width, 256), nn.GELU(), nn.Linear(256, 128))
        self.prototypes = nn.Parameter(torch.randn(prototypes, 128))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # temperatures magnify its rounding
            point = F.normalize(super().forward(x.float()), dim=-1)
            return point @ F.normalize(self.prototypes, dim=-1).mT


def crop(image: Image, area: tuple[float, float], size: int, generator: Generator) -> Square:
    """A random square of each scene, mirrored in half the cases, its colours a little changed."""
    chance = torch.rand(len(image), 8, generator=generator).to(image.device)
    side = (area[0] + (area[1] - area[0]) * chance[:, 0]).sqrt()
    shift = (1 - side)[:, None] * (2 * chance[:, 1:3] - 1)
    mirrored = torch.where(chance[:, 3] < 0.5, -side, side)
    scale = torch.diag_embed(torch.stack([mirrored, side], -1))
    where = torch.cat([scale, shift[..., None]], -1)
    grid = F.affine_grid(where, [len(image), 3, size, size], align_corners=False)
    square = F.grid_sample(image, grid, align_corners=False, padding_mode="reflection")
    gain = 0.8 + 0.4 * chance[:, 4:7, None, None]
    return square * gain + 0.2 * (2 * chance[:, 7, None, None, None] - 1)


OBJECTIVES: dict[str, type[Objective]] = {
    "supervised": Supervised,
    "simmim": MaskedPixels,
    "dino": SelfDistillation,
    "simmim-finetuned": FineTuned,
    "simmim-continued": Continued,
    "untrained": Untrained,
}

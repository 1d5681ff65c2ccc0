"""What an embedded model can do, measured on scenes that no run was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Int
from timm.models.vision_transformer import VisionTransformer as ViT
from torch import Tensor
from tqdm import tqdm

from qkutils import world
from qkutils.world import ODD_FACTORS
from qkutils.world.training import objectives
from qkutils.world.training.architecture import PATCH, QUESTIONS, SIZE, Image, logits, normalise
from qkutils.world.training.objectives import Mask, MaskedPixels, Patches, patches_of

HELD_OUT_SCENES = 2_000_000  # a world seed that nothing else uses
BATCH = 256
SORTS = len(world.KINDS) * len(world.COLOURS)


def measure(objective: objectives.Objective, count: int = 8192) -> dict[str, float]:
    """Everything that the card of a model says, as numbers by name."""
    objective.eval()
    measured = probes(objective.net, count)
    if isinstance(objective, objectives.Supervised):
        measured |= accuracy(objective.net, count)
    if isinstance(objective, MaskedPixels):
        measured |= masked_error(objective, count // 4)
    return measured


def _held_out(count: int, odd: Sequence[str] = ODD_FACTORS) -> Iterator[world.Scenes]:
    for start in tqdm(range(0, count, BATCH), desc="held-out scenes", leave=False):
        yield world.make(HELD_OUT_SCENES, start, min(start + BATCH, count), odd=odd)


@torch.inference_mode()
def accuracy(
    net: ViT, count: int = 8192, odd: Sequence[str] = ODD_FACTORS, hidden: bool = False
) -> dict[str, float]:
    """Share of right answers to every question, over held-out scenes that are odd in one of `odd`.

    Kind and colour are asked only where something is odd; without any such scene they are NaN.
    `hidden`: the targets are taken out of the pictures, which shows what the distractors give away.
    """
    right = asked = torch.zeros(len(QUESTIONS))
    for scenes in _held_out(count, odd):
        label, role = scenes.factors.label, scenes.factors.role
        if hidden:
            role = role.where(role != world.TARGET, world.ABSENT)
            scenes = world.render(replace(scenes.factors, role=role))
        said = torch.stack([answer.argmax(1) for answer in logits(net, scenes.image)], 1)
        right = right + (said == label).sum(0)
        asked = asked + (label >= 0).sum(0)
    return dict(zip(QUESTIONS, (right / asked).tolist(), strict=True))


@torch.inference_mode()
def masked_error(objective: MaskedPixels, count: int = 2048) -> dict[str, float]:
    """Mean absolute error over masked pixels, in normalised units: the model's and two baselines'.

    The baselines know the same visible patches: the picture's own median colour, and a weighted
    mean of the visible pixels nearby.
    """
    total = torch.zeros(3)
    generator = torch.Generator().manual_seed(0)
    for scenes in _held_out(count):
        image = normalise(scenes.image)
        mask = objectives.draw_mask(len(image), (SIZE // PATCH) ** 2, generator)
        guesses = (objective.predict(image, mask), *_baselines(image, mask))
        errors = [(guess - patches_of(image)).abs()[mask].mean() for guess in guesses]
        total += len(image) * torch.stack(errors)
    names = ("masked error", "by median colour", "by interpolation")
    return dict(zip(names, (total / count).tolist(), strict=True))


def _baselines(image: Image, mask: Mask) -> tuple[Patches, Patches]:
    """Each scene's median colour, and Gaussian interpolation, both from visible patches alone."""
    rows = SIZE // PATCH
    hidden = mask.view(-1, 1, rows, rows).float()
    visible = 1 - F.interpolate(hidden, scale_factor=PATCH, mode="nearest")
    seen = torch.where(visible > 0, image, torch.nan)
    median = seen.flatten(2).nanmedian(-1).values[..., None, None].expand_as(image)
    bell = torch.exp(-(torch.arange(-20, 21.0) ** 2) / (2 * 5.0**2))
    kernel = (bell[:, None] * bell).expand(4, 1, -1, -1)
    weighted = F.conv2d(torch.cat([image * visible, visible], 1), kernel, padding=20, groups=4)
    nearby = torch.where(weighted[:, 3:] > 1e-6, weighted[:, :3] / weighted[:, 3:], median)
    return patches_of(median.contiguous()), patches_of(nearby)


@torch.inference_mode()
def probes(net: ViT, count: int = 8192) -> dict[str, float]:
    """How well frozen features tell the kind and colour of the many: linear probe and neighbours.

    Scenes with one sort of distractor; features are the class token and the mean patch token of
    the last layer.  Two thirds of the scenes teach, one third asks.
    """
    features, labels = [], []
    for scenes in _held_out(count):
        tokens = net.forward_features(normalise(scenes.image))
        features.append(torch.cat([tokens[:, 0], tokens[:, net.num_prefix_tokens :].mean(1)], -1))
        labels.append(_usual(scenes.factors))
    label = torch.cat(labels)
    feature, label = torch.cat(features)[label >= 0], label[label >= 0]
    cut = 2 * len(label) // 3
    found = {}
    for name, guess in (("linear probe", _linear_probe), ("nearest neighbours", _neighbours)):
        right = guess(feature[:cut], label[:cut], feature[cut:]) == label[cut:]
        found[name] = right.float().mean().item()
    return found


def _usual(factors: world.Factors) -> Int[Tensor, " scene"]:
    """Kind and colour that all distractors share, as one number; -1 where they do not."""
    both = factors.kind * len(world.COLOURS) + factors.colour
    shared = both.masked_fill(factors.role != world.DISTRACTOR, -1).amax(1)
    return shared.masked_fill(factors.mixed == 1, -1)


def _linear_probe(x: Tensor, y: Tensor, asked: Tensor) -> Tensor:
    """Classes by ridge regression on one-hot classes, on standardised features."""
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x, asked = (x - mean) / scale, (asked - mean) / scale
    target = F.one_hot(y, SORTS).float() - 1 / SORTS
    eye = torch.eye(x.shape[1])
    weights = torch.linalg.solve(x.T @ x + 1e-3 * len(x) * eye, x.T @ target)
    return (asked @ weights).argmax(1)


def _neighbours(x: Tensor, y: Tensor, asked: Tensor, k: int = 10) -> Tensor:
    """Classes by a vote among the ten most similar scenes, by cosine of centred features."""
    mean = x.mean(0)
    known, asked = F.normalize(x - mean, dim=-1), F.normalize(asked - mean, dim=-1)
    nearest = y[(asked @ known.T).topk(k, 1).indices]
    return F.one_hot(nearest, SORTS).sum(1).argmax(1)

"""What an embedded model can do, measured on scenes that no run was trained on."""

from __future__ import annotations

import qkutils._torchvision

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy import stats
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from tqdm import tqdm

from qkutils import world
from qkutils.world.training import architecture
from qkutils.world.training.architecture import PATCH, SIZE, normalise
from qkutils.world.training.objectives import (
    MaskedPixels,
    Objective,
    Supervised,
    draw_mask,
    patches_of,
)

HELD_OUT_SCENES = 2_000_000  # a world seed that nothing else uses
BATCH = 256
SORTS = len(world.KINDS) * len(world.COLOURS)


def measure(objective: Objective, count: int = 8192) -> dict[str, float]:
    """Everything that the card of a model says, as numbers by name."""
    objective.eval()
    measured = probes(objective.net, count)
    if isinstance(objective, Supervised):
        measured |= accuracy(objective.net, count)
    if isinstance(objective, MaskedPixels):
        measured |= masked_error(objective, count // 4)
    return measured


@torch.inference_mode()
def accuracy(
    net: VisionTransformer,
    count: int = 8192,
    odd: Sequence[str] = world.ODD_FACTORS,
    hidden: bool = False,
) -> dict[str, float]:
    """Share of right answers to every question, over held-out scenes that are odd in one of `odd`.

    Kind and colour are asked only where something is odd; without any such scene they are NaN.
    `hidden`: the targets are taken out of the pictures, which shows what the distractors give away.

    """
    hits, asked = [], []
    for held_out in _held_out(count, odd):
        label = held_out.factors.label
        shown = world.render(without_target(held_out.factors)) if hidden else held_out
        hits.append(answers(net, shown.image) == label)
        asked.append(label >= 0)
    right, there = torch.cat(hits), torch.cat(asked)
    shares = (right & there).sum(0) / there.sum(0)
    return dict(zip(architecture.QUESTIONS, shares.tolist(), strict=True))


def without_target(factors: world.Factors) -> world.Factors:
    """The same scenes, with an empty cell where the odd object was."""
    role = factors.role.where(factors.role != world.TARGET, world.ABSENT)
    return replace(factors, role=role)


def share_interval(
    shares: Float[np.ndarray, " share"], count: int
) -> tuple[Float[np.ndarray, " share"], Float[np.ndarray, " share"]]:
    """Wilson's 95 % interval of shares of `count` scenes: lower and upper ends."""
    ends = [
        stats.binomtest(round(share * count), count).proportion_ci(method="wilson")
        for share in shares.tolist()
    ]
    return np.array([e.low for e in ends]), np.array([e.high for e in ends])


def answers(
    net: VisionTransformer, image: Float[Tensor, "scene 3 h w"]
) -> Int[Tensor, "scene question"]:
    """What a supervised model answers to its questions: kind, colour, odd factor."""
    said = net(normalise(image)).split(list(architecture.QUESTIONS.values()), 1)
    return torch.stack([logits.argmax(1) for logits in said], 1)


def _held_out(count: int, odd: Sequence[str] = world.ODD_FACTORS) -> Iterator[world.Scenes]:
    starts = range(0, count, BATCH)
    for start in tqdm(starts, desc="held-out scenes", leave=False):
        yield world.make(HELD_OUT_SCENES, start, min(start + BATCH, count), odd=odd)


@torch.inference_mode()
def masked_error(objective: MaskedPixels, count: int = 2048) -> dict[str, float]:
    """Mean absolute error over masked pixels, in normalised units: the model's and two baselines'.

    The baselines know the same visible patches: the picture's own median colour, and a weighted
    mean of the visible pixels nearby.
    """
    total = torch.zeros(3)
    generator = torch.Generator().manual_seed(0)
    for held_out in _held_out(count):
        image = normalise(held_out.image)
        mask = draw_mask(len(image), (SIZE // PATCH) ** 2, generator)
        guesses = (objective.predict(image, mask), *_baselines(image, mask))
        errors = [(guess - patches_of(image)).abs()[mask].mean() for guess in guesses]
        total += len(image) * torch.stack(errors)
    names = ("masked error", "by median colour", "by interpolation")
    return dict(zip(names, (total / count).tolist(), strict=True))


def _baselines(
    image: Float[Tensor, "scene 3 h w"], mask: Bool[Tensor, "scene patch"]
) -> tuple[Float[Tensor, "scene patch value"], Float[Tensor, "scene patch value"]]:
    """Each scene's median colour, and Gaussian interpolation, both from visible patches alone."""
    rows = SIZE // PATCH
    hidden = mask.view(-1, 1, rows, rows).float()
    visible = 1 - F.interpolate(hidden, scale_factor=PATCH, mode="nearest")
    seen = torch.where(visible > 0, image, torch.nan)
    median = seen.flatten(2).nanmedian(-1).values[..., None, None].expand_as(image)
    axis = torch.arange(-20, 21.0)
    bell = torch.exp(-(axis**2) / (2 * 5.0**2))
    kernel = (bell[:, None] * bell).expand(4, 1, -1, -1)
    stacked = torch.cat([image * visible, visible], 1)
    weighted = F.conv2d(stacked, kernel, padding=20, groups=4)
    nearby = torch.where(weighted[:, 3:] > 1e-6, weighted[:, :3] / weighted[:, 3:], median)
    return patches_of(median.contiguous()), patches_of(nearby)


@torch.inference_mode()
def probes(net: VisionTransformer, count: int = 8192) -> dict[str, float]:
    """How well frozen features tell the kind and colour of the many: linear probe and neighbours.

    Scenes with one sort of distractor; features are the class token and the mean patch token of
    the last layer.  Two thirds of the scenes teach, one third asks.
    """
    features, labels = [], []
    for held_out in _held_out(count):
        tokens = net.forward_features(normalise(held_out.image))
        prefix = net.num_prefix_tokens
        features.append(torch.cat([tokens[:, 0], tokens[:, prefix:].mean(1)], -1))
        labels.append(_usual(held_out.factors))
    feature, label = torch.cat(features), torch.cat(labels)
    feature, label = feature[label >= 0], label[label >= 0]
    cut = 2 * len(label) // 3
    known, asked = (feature[:cut], label[:cut]), (feature[cut:], label[cut:])
    return {
        "linear probe": _linear_probe(*known, *asked),
        "nearest neighbours": _neighbours(*known, *asked),
    }


def _usual(factors: world.Factors) -> Int[Tensor, " scene"]:
    """Kind and colour that all distractors share, as one number; -1 where they do not."""
    both = factors.kind * len(world.COLOURS) + factors.colour
    distractor = factors.role == world.DISTRACTOR
    shared = both.masked_fill(~distractor, -1).amax(1)
    return torch.where(factors.mixed == 1, -1, shared)


def _linear_probe(x: Tensor, y: Tensor, asked_x: Tensor, asked_y: Tensor) -> float:
    """Accuracy of ridge regression on one-hot classes, on standardised features."""
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x, asked_x = (x - mean) / scale, (asked_x - mean) / scale
    target = F.one_hot(y, SORTS).float() - 1 / SORTS
    eye = torch.eye(x.shape[1])
    weights = torch.linalg.solve(x.T @ x + 1e-3 * len(x) * eye, x.T @ target)
    return ((asked_x @ weights).argmax(1) == asked_y).float().mean().item()


def _neighbours(x: Tensor, y: Tensor, asked_x: Tensor, asked_y: Tensor, k: int = 10) -> float:
    """Accuracy of a vote among the ten most similar scenes, by cosine of centred features."""
    mean = x.mean(0)
    known, asked = F.normalize(x - mean, dim=-1), F.normalize(asked_x - mean, dim=-1)
    nearest = y[(asked @ known.T).topk(k, 1).indices]
    votes = F.one_hot(nearest, SORTS).sum(1)
    return (votes.argmax(1) == asked_y).float().mean().item()

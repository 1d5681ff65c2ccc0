"""A scan's reading of every mode against a bare forward pass over the same tensors, in one run.

The model has the size of ViT-B with random weights; only ratios within one run mean anything.
Bare and reading passes take turns, batch by batch, so that other work on the machine meets both;
the bare ones go through a copy of the network, which nothing watches.  The first batch, on which a
scan proves that the model attends as its weights say, does not count.
The half-precision pass is held against a bare pass of the same precision and against one in
float32; `bench_candidates.py` counts what it misses.
"""

from __future__ import annotations

import qkutils._torchvision

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch
from timm.models import create_model

from qkutils import models
from qkutils.atlas._reading import reading
from qkutils.atlas._state import Atlas, empty
from qkutils.gauge import prepare
from qkutils.heads import Convention
from qkutils.models import Model
from qkutils.passes import full_precision

FULL, HALF = torch.float32, torch.bfloat16
CASES: dict[str, tuple[Convention, tuple[str, ...], float | None]] = {
    "exact": ("exact", (), 1.10),
    "paper": ("paper", (), 1.30),
    "exact, variance": ("exact", ("variance",), 1.20),
    "exact, anisotropy": ("exact", ("anisotropy",), None),
    "exact, sinks": ("exact", ("sinks",), None),
}
K = 8


def synchronise(model: Model) -> None:
    """Waits for a GPU to have done what it was given."""
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def seconds(model: Model, run: Callable[..., object], *args: object) -> float:
    """How long one call takes."""
    synchronise(model)
    start = time.perf_counter()
    run(*args)
    synchronise(model)
    return time.perf_counter() - start


def ratios(
    model: Model,
    case: tuple[Convention, tuple[str, ...]],
    batches: list[torch.Tensor],
    ours_in: torch.dtype = FULL,
    bare_in: torch.dtype = FULL,
) -> list[float]:
    """Time of reading over that of the bare passes before and after it, without the first batch."""
    projections = replace(prepare(model, case[0]), precision=ours_in)
    net = copy.deepcopy(model.net)
    keys = [f"{n:08d}" for n in range(sum(map(len, batches)))]
    atlas = Atlas(empty(projections, keys, K, case[1]), model.device)
    rounded = torch.autocast(model.device.type, bare_in, enabled=bare_in != FULL)
    found, start = [], 0

    def bare(images: torch.Tensor) -> None:
        with torch.inference_mode(), full_precision(), rounded:
            net(images.to(model.device))

    with reading(projections, atlas) as read:
        for images in batches:
            numbers = list(range(start, start + len(images)))
            start += len(images)
            before = seconds(model, bare, images)
            ours = seconds(model, read, numbers, images)
            found.append(2 * ours / (before + seconds(model, bare, images)))
    return found[1:]


def main() -> None:
    """Prints the ratio of each case and the goal that it has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="", help="default: ViT-B/16 with random weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    chosen = args.model or create_model("vit_base_patch16_224")
    model = models.load(chosen, device=args.device)
    generator = torch.Generator().manual_seed(0)
    shape = (args.batches, args.batch_size, 3, *model.image_size)
    batches = list(torch.randn(shape, generator=generator))
    print(f"{model.name} on {args.device}, {args.batches} batches of {args.batch_size} images")
    for name, (convention, statistics, goal) in CASES.items():
        ratio = median(ratios(model, (convention, statistics), batches))
        wanted = "no goal" if goal is None else f"goal {goal:.2f}"
        print(f"  {name:18} {ratio:5.2f} of a bare forward pass ({wanted})")
    for bare_in in (HALF, FULL):
        ratio = median(ratios(model, ("exact", ()), batches, HALF, bare_in))
        print(f"  exact, bfloat16    {ratio:5.2f} of a bare pass in {str(bare_in)[6:]} (no goal)")


if __name__ == "__main__":
    main()

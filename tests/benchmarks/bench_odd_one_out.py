"""The odd-one-out study against a bare forward pass over the same images, in one run.

Weights are random, of the size of DeiT-tiny; only ratios within one run mean anything.  All that is
compared starts from the same pictures in memory, and bare includes the model's own preprocessing.
"""

from __future__ import annotations

import qkutils._torchvision

import time
from collections.abc import Callable

import timm
import torch

import qkutils as qk
from qkutils import models
from qkutils.models import Model
from qkutils.passes import full_precision
from qkutils.records import Sample
from qkutils.studies import _regions

IMAGES, BATCH, ROUNDS = 128, 32, 3


def bare(model: Model, samples: list[Sample]) -> None:
    """Preprocessing and the forward pass alone."""
    with torch.inference_mode(), full_precision():
        for start in range(0, len(samples), BATCH):
            batch = samples[start : start + BATCH]
            model.net(torch.stack([model.transform(s.image) for s in batch]).to(model.device))


def seconds(function: Callable[[], object]) -> float:
    """How long a function takes, with what it started on a GPU."""
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Prints the best times of some rounds, in each of which everything runs once, and ratios."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = models.load(timm.create_model("deit_tiny_patch16_224"), device=device)
    samples = list(qk.world.samples(seed=0, start=0, stop=IMAGES, size=224))
    samples = [samples[i] for i in _regions.read_layouts(model, samples).place]
    pictures = [sample.image for sample in samples]
    routes: dict[str, Callable[[], object]] = {
        "bare forward pass": lambda: bare(model, samples),
        "masks, read once": lambda: _regions.read_layouts(model, samples),
        "study with its null": lambda: qk.studies.odd_one_out(model, samples, batch_size=BATCH),
        "study with other null images": lambda: qk.studies.odd_one_out(
            model, samples, batch_size=BATCH, null_images=pictures
        ),
        "study, every patch a query": lambda: qk.studies.odd_one_out(
            model, samples, batch_size=BATCH, query="weighted"
        ),
    }
    rounds = [{name: seconds(route) for name, route in routes.items()} for _ in range(ROUNDS)]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {device}")
    print(f"{len(samples)} images, best of {ROUNDS} rounds")
    best, first = {}, next(iter(routes))
    for name in routes:
        best[name] = min(r[name] for r in rounds)  # what other work disturbed least
        print(f"  {name:30s} {best[name]:6.2f} s   {best[name] / best[first]:5.2f} × bare")


if __name__ == "__main__":
    main()

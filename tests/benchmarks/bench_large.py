"""Peak memory and time of what chapters do with a large model: a child process for each step.

The model is timm's ViT-H/14 with random weights, 2.5 GB of them; nothing is fetched.  Each child
makes it anew, so that every peak contains the model and what its step alone needs.
"""

from __future__ import annotations

import qkutils._torchvision

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import timm
import torch

import qkutils as qk
from qkutils import passes, views

COUNT = 4


def decompose(model: qk.Model, _: Any) -> None:
    qk.decompose(model)


def cosines(model: qk.Model, _: Any) -> None:
    qk.trend(model)


def bare(model: qk.Model, images: Any) -> None:
    with torch.inference_mode():
        model.net(images)


def stream(model: qk.Model, images: Any) -> None:
    passes.visit_layers(model, images, lambda *_: None, what="attention")


def scan(model: qk.Model, images: Any) -> None:
    qk.scan(model, images, k=4, statistics=["variance"], progress=False)


def compare(model: qk.Model, images: Any) -> None:
    qk.compare_attention(model, images)


def compare_modes(model: qk.Model, images: Any) -> None:
    """As chapter 1 does, which rebuilds attention from several numbers of modes."""
    modes = qk.decompose(model)
    for count in (0, 8, 80):
        qk.compare_attention(model, images, modes.isel(mode=slice(count)))


def same_object(model: qk.Model, _: Any) -> None:
    """As chapter 6 does."""
    drawn = qk.world.segmentations(0, 0, COUNT, size=model.image_size[0])
    found = qk.studies.same_object(model, drawn, convention="paper")
    qk.studies.optimal_objects(found)
    qk.studies.probability(found, ["head"], 200)


def odd_one_out(model: qk.Model, _: Any) -> None:
    """As chapter 5 does."""
    qk.studies.odd_one_out(model, qk.world.samples(0, 0, COUNT, size=model.image_size[0]))


def grouping(model: qk.Model, _: Any) -> None:
    """As chapter 7 does."""
    drawn = qk.world.segmentations(0, 0, COUNT, background=True, size=model.image_size[0])
    qk.studies.grouping(model, drawn)


def browse(model: qk.Model, images: Any) -> None:
    """As chapter 8 does."""
    pictures = qk.pictures_of(images, model)
    atlas = qk.scan(model, pictures, k=4, statistics=["variance"], progress=False)
    views.mode_browser(model, atlas, pictures)


def one_image(model: qk.Model, images: Any) -> None:
    """As chapter 9 does."""
    views.one_image(model, images[0], qk.pictures_of(images, model), layer=3, head=2)


STEPS: dict[str, Callable[[qk.Model, Any], None]] = {
    each.__name__: each
    for each in (
        *(decompose, cosines, bare, stream, scan, compare, compare_modes),
        *(odd_one_out, same_object, grouping, browse, one_image),
    )
}


def measured(step: str) -> str:
    """What one step takes, in a process that has made the model and a few pictures."""
    model = qk.load(timm.create_model("vit_huge_patch14_224"))
    images = qk.pictures.images(qk.datasets.photographs(), model, COUNT)
    start = time.perf_counter()
    STEPS[step](model, images)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"  {step:14}{peak:6.2f} GB at most, {seconds:6.1f} s"


def main() -> None:
    """Prints a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(measured(args.child))
        return
    print(f"ViT-H/14 with random weights, {COUNT} pictures")
    for step in args.steps:
        command = [sys.executable, __file__, "--child", step]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


if __name__ == "__main__":
    main()

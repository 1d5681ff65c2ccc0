"""What the candidates of a pass in half precision miss of what float32 finds, by overfetch.

By default on an embedded model and drawn scenes; any model and folder of images may be named.
"""

from __future__ import annotations

import qkutils._torchvision

import argparse
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

import qkutils as qk
from qkutils import models
from qkutils.atlas._scan import Asked, one_pass
from qkutils.gauge import prepare
from qkutils.pictures._stream import pictures_of


def recall(found: xr.Dataset, wanted: xr.Dataset) -> float:
    """Share of the places in one atlas whose picture the other holds for the same mode and sign."""
    images = wanted.image.values
    hit = (images[..., None] == found.image.values[..., None, :]).any(-1)
    return float(hit[images >= 0].mean())


def main() -> None:
    """Prints, for each overfetch, the share of places found and of pictures to rank again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-supervised")
    parser.add_argument("--images", help="a folder; default: drawn scenes")
    parser.add_argument("--count", type=int, default=1024, help="of drawn scenes")
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    model = models.load(args.model, device=args.device)
    pictures = pictures_of(args.images or qk.world.samples(0, 0, args.count), model)
    projections = prepare(model, "exact")
    asked = Asked(k=args.k, progress=False)
    wanted = one_pass(projections, pictures, asked)
    print(f"{model.name} on {args.device}, {len(pictures.keys)} images, k = {args.k}")
    for overfetch in (1, 2, 4):
        rough = replace(projections, precision=torch.bfloat16)
        found = one_pass(rough, pictures, replace(asked, k=overfetch * args.k))
        again = len(np.unique(found.image.values[found.image.values >= 0])) / len(pictures.keys)
        share = f"{recall(found, wanted):.3%} of the places are among the candidates"
        print(f"  overfetch {overfetch}: {share}, {again:.0%} of the images ranked again")


if __name__ == "__main__":
    main()

"""`python -m qkutils.gallery scan`: find every mode's optimal images, to be stopped at any time."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import get_args

import xarray as xr

from qkutils import models
from qkutils.gallery import scan
from qkutils.gallery.atlas import STATISTICS
from qkutils.gallery.scanning import Precision
from qkutils.heads import CONVENTIONS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m qkutils.gallery", description=__doc__)
    command = root.add_subparsers(required=True).add_parser("scan", help="scan a folder of images")
    command.add_argument("--model", required=True, help="a name, or a checkpoint file")
    command.add_argument("--images", required=True, type=Path, metavar="DIR", help="a folder")
    command.add_argument("--out", required=True, type=Path, metavar="FILE", help="netCDF file")
    command.add_argument("--k", type=int, default=8, help="images per mode and sign")
    command.add_argument("--convention", choices=CONVENTIONS, default="exact")
    command.add_argument("--statistics", nargs="*", choices=STATISTICS, default=[])
    command.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="float32",
        help="bfloat16: fetch candidates in half precision and rank them again in float32",
    )
    command.add_argument("--overfetch", type=int, default=2, help="candidates for each place")
    command.add_argument("--batch-size", type=int, default=16)
    command.add_argument("--workers", type=int, default=2, help="threads that decode files")
    command.add_argument("--save-every", type=float, default=60.0, metavar="SECONDS")
    command.add_argument("--device", help="cpu, cuda, …; default: cpu")
    return root


def summary(atlas: xr.Dataset) -> str:
    """What a scan found, in a few lines."""
    sizes, faults = atlas.sizes, atlas.fault.values
    modes = sizes["layer"] * sizes["head"] * sizes["mode"]
    lines = [
        f"{int(atlas.done.sum())} images of {sizes['picture']}, {modes} modes of "
        f"{atlas.attrs['model']} in the convention {atlas.attrs['convention']}"
    ]
    broken = [f"  {key}: {why}" for key, why in zip(atlas.key.values, faults, strict=True) if why]
    if broken:
        lines += [f"{len(broken)} files could not be read:", *broken[:10]]
        lines += [f"  and {len(broken) - 10} more"] * (len(broken) > 10)
    short = int(atlas.score.isel(rank=-1).isnull().sum())
    if short:
        lines.append(f"{short} of {2 * modes} galleries have fewer than {sizes['rank']} images")
    if "ranked_again" in atlas:
        lines.append(
            f"{int(atlas.ranked_again)} of {sizes['picture']} images ranked again in float32; "
            f"{float(atlas.from_candidates):.2%} of the places are held by the mode's candidates"
        )
    if "logit_variance" in atlas:
        strongest = atlas.logit_variance.stack(at=("layer", "head", "mode")).astype(float)
        top = strongest.sortby(strongest, ascending=False)[:5]
        names = [
            f"L{at[0]} H{at[1]} M{at[2]} ({value:.2g})"
            for at, value in zip(top.at.values, top.values, strict=True)
        ]
        lines.append(f"largest variance of logits: {', '.join(names)}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Scans a folder from the command line and says what was found."""
    args = parser().parse_args(arguments)
    start = time.perf_counter()
    atlas = scan(
        models.load(args.model, device=args.device),
        args.images,
        args.k,
        args.convention,
        statistics=args.statistics,
        precision=args.precision,
        overfetch=args.overfetch,
        batch_size=args.batch_size,
        workers=args.workers,
        out=args.out,
        save_every=args.save_every,
    )
    print(summary(atlas))
    size = args.out.stat().st_size / 1e6
    print(f"{args.out} ({size:.1f} MB), {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

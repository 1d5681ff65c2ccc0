"""Peak memory and time of whole chapters with a ViT-B at 224 pixels: a child process for each.

Its weights are random, 346 MB of them in a folder that is removed; nothing is fetched.  The goal is
less than 8 GB and five minutes on two cores.  Without names it runs chapter 10 alone, for a few
minutes; `--chapters all` runs every chapter.
"""

from __future__ import annotations

import qkutils._torchvision

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]
CHAPTERS = {each.stem: each for each in sorted(ROOT.glob("notebooks/[0-9]*.py"))}


def prepare(folder: Path) -> None:
    """Writes random weights, and the parameters that name them."""
    torch.manual_seed(0)
    weights = folder / "vit_base_patch16_224.mine.safetensors"
    save_file(timm.create_model("vit_base_patch16_224").state_dict(), weights)
    (folder / "parameters.yaml").write_text(f"MODEL: {weights}\n")


def measured(chapter: str, folder: Path) -> str:
    """What a chapter takes, in a process that has no other child than its run."""
    runner = ROOT / "book" / "_tools" / "run_chapter.py"
    out, given = folder / f"{chapter}.ipynb", folder / "parameters.yaml"
    start = time.perf_counter()
    command = [sys.executable, runner, CHAPTERS[chapter], out, "--parameters", given]
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak, cpu = used.ru_maxrss / 2**20, used.ru_utime + used.ru_stime
    return f"  {chapter:20}{peak:6.2f} GB at most, {cpu:5.0f} s of CPU, {seconds:5.0f} s"


def main() -> None:
    """Prints a line for each chapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--chapters", nargs="+", choices=[*CHAPTERS, "all"], default=["10_one_image"]
    )
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    chapters = list(CHAPTERS) if "all" in args.chapters else args.chapters
    if args.child:
        print(measured(*chapters, args.child))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        print("ViT-B/16 with random weights, 224 pixels", flush=True)
        for chapter in chapters:
            child = [sys.executable, __file__, "--chapters", chapter, "--child", folder]
            subprocess.run(child, check=True)


if __name__ == "__main__":
    main()

"""Peak memory of a scan against the number of images: a child process for each number.

What the scan itself holds more than a scan of one batch is what grows; an ImageNet of pictures that
were kept would take 600 kB each.
"""

from __future__ import annotations

import qkutils._torchvision

import argparse
import resource
import subprocess
import sys

import torch

import qkutils as qk
from qkutils import models


def peak(count: int, batch_size: int) -> float:
    """Most memory, in MB, that this process has had once it has scanned `count` pictures."""
    model = models.load("tiny-untrained")

    def read(number: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(number)
        return torch.randn(3, *model.image_size, generator=generator)

    pictures = qk.pictures.Pictures([f"{n:08d}" for n in range(count)], read)
    qk.scan(model, pictures, batch_size=batch_size, progress=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Prints the peak for growing numbers of images, and what each further image costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[64, 512, 2048])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(peak(args.child, args.batch_size))
        return
    peaks = []
    for count in args.counts:
        command = [sys.executable, __file__, "--child", str(count)]
        command += ["--batch-size", str(args.batch_size)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout))
        print(f"  {count:6d} images: {peaks[-1]:7.1f} MB at most")
    more = (peaks[-1] - peaks[0]) / (args.counts[-1] - args.counts[0])
    print(f"  {1000 * more:.2f} kB for each further image; as a tensor it has 49 kB")


if __name__ == "__main__":
    main()

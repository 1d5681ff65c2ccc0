"""`python -m qkutils fetch NAME`: keep a model's weights in a folder, to work offline."""

import argparse
import os
from pathlib import Path

from qkutils.models import WEIGHTS_VARIABLE, fetch


def main() -> None:
    """Fetches one model from the hub and says where it went and how to use it."""
    parser = argparse.ArgumentParser(prog="python -m qkutils", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("fetch", help="fetch a model's weights from the hub")
    command.add_argument("name", help="a name that qkutils.catalogue() or timm lists")
    default = os.environ.get(WEIGHTS_VARIABLE) or "weights"
    command.add_argument("--folder", type=Path, default=Path(default))
    args = parser.parse_args()
    path = fetch(args.name, args.folder)
    print(f"{path} ({path.stat().st_size / 1e6:.0f} MB)")
    print(f"set {WEIGHTS_VARIABLE}={path.parent.resolve()} to load it by its name")


if __name__ == "__main__":
    main()

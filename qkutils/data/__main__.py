"""`python -m qkutils.data fetch NAME --to FOLDER`: a data set from its authors' host."""

import argparse
import sys

from qkutils.data.fetching import DATASETS, fetch


def main(arguments: list[str] | None = None) -> None:
    """Fetches and unpacks one data set and says how to read it."""
    parser = argparse.ArgumentParser(prog="python -m qkutils.data", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("fetch", help="fetch a data set and unpack it")
    command.add_argument("name", choices=DATASETS)
    command.add_argument("--to", default="datasets", help="the folder to keep it in")
    command.add_argument("--url", default="", help="another address of the archive")
    command.add_argument("--sha256", default="", help="the checksum that the archive must have")
    args = parser.parse_args(arguments)
    try:
        folder = fetch(args.name, args.to, args.url, args.sha256)
    except (ValueError, OSError) as error:
        sys.exit(f"{args.name}: {error}")
    dataset = DATASETS[args.name]
    print(f"its terms of use: {dataset.page}")
    print(f"read it with qkutils.data.{dataset.reader}({str(folder)!r})")


if __name__ == "__main__":
    main()

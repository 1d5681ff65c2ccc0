"""Put a whole new folder in the place of an old one, which is there until then.

usage: swap.py NEW PLACE
"""

import shutil
import sys
from pathlib import Path


def swap(new: Path, place: Path) -> None:
    """Rename twice; where an earlier try was killed between, take up what it had put aside."""
    aside = place.with_name(f"{place.name}.old")
    if not place.exists() and aside.exists():
        aside.rename(place)
    shutil.rmtree(aside, ignore_errors=True)
    if not new.is_dir():
        sys.exit(f"{new}: there is no such folder")
    if place.exists():
        place.rename(aside)
    new.rename(place)
    shutil.rmtree(aside, ignore_errors=True)


if __name__ == "__main__":
    swap(Path(sys.argv[1]), Path(sys.argv[2]))

"""Write the parameters that this build of the book gives to its chapters."""

import os
import sys
from pathlib import Path
from typing import Any

import yaml

NAMES = ("MODEL", "IMAGES")


def absolute(given: dict[str, Any]) -> dict[str, Any]:
    """Make MODEL and IMAGES absolute where they are paths: chapters run in another folder."""
    made = dict(given)
    for name, value in given.items():
        if isinstance(value, dict):
            made[name] = absolute(value)
        elif name in NAMES and value and Path(str(value)).expanduser().exists():
            made[name] = str(Path(str(value)).expanduser().absolute())
    return made


def collect(environment: dict[str, str]) -> dict[str, Any]:
    """Join the parameters file with the names given to make; a chapter's own section wins."""
    file = environment.get("PARAMETERS")
    if file and not Path(file).is_file():
        sys.exit(f"{file}: there is no such parameters file; check PARAMETERS=")
    given = yaml.safe_load(Path(file).read_text()) or {} if file else {}
    if not isinstance(given, dict):
        sys.exit(f"{file}: a parameters file holds `name: value` lines")
    given |= {name: environment[name] for name in NAMES if environment.get(name)}
    return absolute(given)


def main() -> None:
    """Write the file named on the command line, unless it says the same already."""
    path = Path(sys.argv[1])
    text = yaml.safe_dump(collect(dict(os.environ)))
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(text)
        part.replace(path)


if __name__ == "__main__":
    main()

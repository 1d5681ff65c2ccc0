"""Write the parameters that this build of the book gives to its chapters."""

import os
import sys
from pathlib import Path
from typing import Any

import yaml

NAMES = ("MODEL", "IMAGES")


def absolute(value: Any) -> Any:
    """Make paths that exist absolute, because chapters run in another folder."""
    if isinstance(value, dict):
        return {name: absolute(each) for name, each in value.items()}
    if isinstance(value, str) and Path(value).expanduser().exists():
        return str(Path(value).expanduser().absolute())
    return value


def collect(environment: dict[str, str]) -> dict[str, Any]:
    """Join the parameters file with the names given to make, which win."""
    file = environment.get("PARAMETERS")
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
        path.write_text(text)


if __name__ == "__main__":
    main()

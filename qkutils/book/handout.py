"""The student notebooks that a wheel carries, and copies of notebooks in a folder to work in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from qkutils import store

FOLDER = Path(__file__).with_name("student")  # filled where a wheel is built
RECORD = ".written.json"  # name → digest of what was last written under it


def digest(content: bytes) -> str:
    """What tells one content from another."""
    return hashlib.sha256(content).hexdigest()


def copies(notebooks: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write notebooks into a folder; those that somebody changed are kept, and returned."""
    record, kept = folder / RECORD, []
    written = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    for name, content in notebooks.items():
        file, new = folder / name, digest(content)
        own = file.is_file() and digest(file.read_bytes()) not in (written.get(name), new)
        if not own:
            store.write(file, content)
            written[name] = new
            store.write(record, json.dumps(written, indent=1))  # at once: we may be stopped
        elif written.get(name) != new:
            kept.append(file)
    return kept


def student() -> dict[str, bytes]:
    """The student notebooks of this installation: file → content.

    Raises ValueError where it was made from sources, which have none.
    """
    found = {file.name: file.read_bytes() for file in sorted(FOLDER.glob("*.ipynb"))}
    if not found:
        raise ValueError(
            f"{FOLDER}: no notebooks, since qkutils was installed from its sources; there "
            "`make lab` makes them, or install the wheel that `make wheel` builds"
        )
    return found

"""Notebooks handed out: copies in a folder that people work in, or all in one archive."""

import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

RECORD = ".written.json"  # name → digest of what was last written under it
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same source gives the same bytes


def write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_bytes(content)
    part.replace(file)


def digest(content: bytes) -> str:
    """What tells one content from another."""
    return hashlib.sha256(content).hexdigest()


def copies(notebooks: Mapping[str, bytes], folder: Path) -> None:
    """Write notebooks into a folder; one that somebody changed is kept, and named."""
    record = folder / RECORD
    written = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    for name, content in notebooks.items():
        file, new = folder / name, digest(content)
        own = file.is_file() and digest(file.read_bytes()) not in (written.get(name), new)
        if not own:
            write(file, content)
            written[name] = new
        elif written.get(name) != new:
            print(f"{file}: kept, you changed it; rename it to get the new one", file=sys.stderr)
    write(record, json.dumps(written, indent=1).encode())


def packed(files: Mapping[str, bytes]) -> bytes:
    """An archive of files: name → content."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as into:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, LONG_AGO)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            into.writestr(entry, content)
    return made.getvalue()


def archive(notebooks: Mapping[str, bytes], html: Path, to: Path) -> None:
    """Write all notebooks, and the built pages as an archive of their own, into one archive."""
    if not (html / "index.html").is_file():
        sys.exit(f"{html}: the book is not built there; make book")
    pages = [file for file in html.rglob("*") if file.is_file()]
    site = packed({file.relative_to(html).as_posix(): file.read_bytes() for file in pages})
    write(to, packed({**notebooks, "site.zip": site}))

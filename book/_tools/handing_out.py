"""Notebooks and pages handed out in one archive."""

import io
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from qkutils import store

LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same source gives the same bytes


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
    store.write(to, packed({**notebooks, "site.zip": site}))

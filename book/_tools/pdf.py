"""Print the built book as one PDF, with still figures: `make book` first.

usage: pdf.py SITE OUT.pdf
"""

import functools
import http.server
import io
import re
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pypdf
from playwright.sync_api import sync_playwright
from pypdf.generic import ArrayObject, FloatObject, NameObject, NullObject
from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["book/index", *re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text())]
READY = """async () => {
  await document.fonts.ready;
  const images = [...document.images];
  for (const image of images) image.loading = "eager";
  await Promise.all(images.map((image) => image.decode().catch(() => null)));
}"""
FOOTER = """<div style="font-size: 8px; width: 100%; text-align: center">
<span class="title"></span> · <span class="pageNumber"></span></div>"""
PAPER: dict[str, Any] = {
    "format": "A4",
    "margin": dict.fromkeys(("top", "bottom"), "18mm") | dict.fromkeys(("left", "right"), "16mm"),
    "display_header_footer": True,
    "header_template": "<span></span>",
    "footer_template": FOOTER,
    "outline": True,
    "tagged": True,
}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def printed(page: Any, address: str) -> bytes:
    """One page of the book on paper; its views stay still."""
    page.goto(address, wait_until="load")
    page.evaluate(READY)
    return page.pdf(**PAPER)


def settled(content: bytes) -> pypdf.PdfReader:
    """A printed page whose links lead to places, not names, which other pages may have too."""
    read = pypdf.PdfReader(io.BytesIO(content))
    part = pypdf.PdfWriter(clone_from=read)
    for sheet in part.pages:
        for note in (each.get_object() for each in sheet.get("/Annots", [])):
            there = read.named_destinations.get(str(note.get("/Dest", "")))
            if there is not None:
                sheet_there = part.pages[read.get_destination_page_number(there) or 0]
                note[NameObject("/Dest")] = place(sheet_there, there.top)
    made = io.BytesIO()
    part.write(made)
    return pypdf.PdfReader(made)


def place(sheet: pypdf.PageObject, top: Any = None) -> ArrayObject:
    """A height on a sheet, as a link names it."""
    height = FloatObject(sheet.mediabox.top if top is None else top)
    return ArrayObject(
        [sheet.indirect_reference, NameObject("/XYZ"), NullObject(), height, NullObject()]
    )


def join(parts: dict[str, bytes]) -> pypdf.PdfWriter:
    """Join the printed pages, by address; a link from one to another leads there."""
    whole = pypdf.PdfWriter()
    starts = {}
    for address, content in parts.items():
        starts[address] = len(whole.pages)
        whole.append(settled(content))
    for sheet in whole.pages:
        for note in (each.get_object() for each in sheet.get("/Annots", [])):
            target = str(note.get("/A", {}).get("/URI", "")).partition("#")[0]
            if target in starts:
                del note["/A"]
                note[NameObject("/Dest")] = place(whole.pages[starts[target]])
    return whole


def main(site: Path, out: Path) -> None:
    """Print every page of the table of contents, and write the whole or nothing."""
    handler = functools.partial(Quiet, directory=site)
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        sync_playwright() as started,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chrome = shutil.which("chromium") or shutil.which("google-chrome")
        page = started.chromium.launch(executable_path=chrome, args=["--no-sandbox"]).new_page()
        page.route("**/mount.js", lambda route: route.abort())
        base = f"http://127.0.0.1:{server.server_port}/"
        parts = {}
        for name in tqdm(PAGES, unit="page"):
            parts[f"{base}{name}.html"] = printed(page, f"{base}{name}.html")
        server.shutdown()
    part = out.with_suffix(".part")
    join(parts).write(part)
    part.replace(out)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

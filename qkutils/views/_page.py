"""What a browser is given: a script in one piece, colours, a still picture, a page of them all."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

DPI = 110
FRONT = Path(str(resources.files("qkutils.views").joinpath("front")))
_IMPORT = re.compile(r'^import \{\s*\w+(?:,\s*\w+)*,?\s*\} from "(\.[\w./]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|class|const)", re.MULTILINE)


@cache
def front_end(name: str) -> str:
    """The script of a view in one piece: what it imports, each module once, then its own."""
    found: dict[Path, str] = {}
    _gather(FRONT / f"{name}.js", found)
    return "\n".join(found.values())


def _gather(path: Path, found: dict[Path, str]) -> None:
    """Add a module after those it imports; names are shared, so that imports can go."""
    text = path.read_text("utf-8")
    for needed in _IMPORT.findall(text):
        module = (path.parent / needed).resolve()
        if module not in found:
            _gather(module, found)
    plain = _EXPORT.sub("", _IMPORT.sub("", text))
    rest = re.search(r"^(?:import|export)\b(?! default \{ render \};$).*", plain, re.MULTILINE)
    if rest:
        raise ValueError(f"{path.name}: write {rest[0]!r} as a plain named import or export")
    found[path] = plain


@cache
def colour_map(name: str) -> bytes:
    """A matplotlib colour map as 256 × 3 bytes, so that pages and figures share their colours."""
    return (255 * colormaps[name](range(256))[:, :3]).round().astype("uint8").tobytes()


def png(figure: Figure) -> bytes:
    """A figure's pixels."""
    buffer = io.BytesIO()
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches=drawn_part(figure))
    return buffer.getvalue()


def drawn_part(figure: Figure) -> Bbox:
    """The part of a figure that `png` keeps, in inches: all that was drawn, and a margin."""
    return figure.get_tightbbox().padded(0.1)


def still_picture(figure: Figure, alternative: str) -> str:
    """A figure as an image element that carries its own pixels; the figure is cleared."""
    pixels = base64.b64encode(png(figure)).decode()
    figure.clear()
    return (
        f'<img class="qk-still" src="data:image/png;base64,{pixels}" '
        f'alt="{html.escape(alternative)}" style="max-width: 100%; background: white">'
    )


def page(title: str, style: str, still: str, script: str, values: Mapping[str, Any]) -> str:
    """A view as one file: its script, its data and a few lines that stand in for Jupyter."""
    parts = {
        "title": html.escape(title),
        "style": style,
        "still": still,
        "script": script.replace("</script", r"<\/script"),
        "stand_in": front_end("stand_in"),
        # a script element ends at the first `</script`, wherever it stands
        "values": json.dumps(json.dumps(values, default=plain)).replace("<", r"\u003c"),
    }
    text = (FRONT / "page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda marker: parts[marker[1]], text)


def plain(value: Any) -> dict[str, str]:
    """Bytes as JSON carries them."""
    if isinstance(value, bytes | memoryview):
        return {"$bytes": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} can't be part of a view")

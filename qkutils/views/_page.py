"""A view as one file: its script, its data and a few lines that stand in for Jupyter."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qkutils import store

if TYPE_CHECKING:
    from qkutils.views._base import View

KEPT = ("data", "state", "look", "code")
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>:root {{ color-scheme: light dark; }}
{style}</style>
<main class="qk-page">
<h1 style="font: 600 1.2rem system-ui, sans-serif">{title}</h1>
{still}
<div id="view"></div>
</main>
<script type="module">
{script}
const values = JSON.parse({values}, (key, value) => {{
  if (!value || value.$bytes === undefined) return value;
  return new DataView(Uint8Array.from(atob(value.$bytes), (c) => c.charCodeAt(0)).buffer);
}});
const heard = {{}};
const model = {{
  get: (name) => values[name],
  set: (name, value) => {{
    if (JSON.stringify(values[name]) === JSON.stringify(value)) return; // as in Jupyter
    values[name] = value;
    for (const act of heard[`change:${{name}}`] ?? []) act();
  }},
  on: (event, act) => (heard[event] ??= []).push(act),
  save_changes() {{}},
  send() {{}},
}};
render({{ model, el: document.getElementById("view") }});
</script>
</html>
"""


def write(view: View, path: Path) -> Path:
    """Write the page, whole or not at all."""
    values = {name: getattr(view, name) for name in (*KEPT, *view.linked)}
    text = _PAGE.format(
        title=html.escape(view.look["title"]),
        style=view._css,
        still=view.still,
        script=view._esm.replace("</script", r"<\/script"),
        # a script element ends at the first `</script`, wherever it stands
        values=json.dumps(json.dumps(values, default=_bytes)).replace("<", r"\u003c"),
    )
    return store.write(path, text)


def _bytes(value: Any) -> dict[str, str]:
    if isinstance(value, bytes | memoryview):
        return {"$bytes": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} can't be part of a view")

"""Views of an executed chapter as a page needs them: script, style and data in files of their own.

Each file is named by its content, so that views with the same script share it.
"""

import base64
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import PIL.Image
from ipywidgets import Widget

from qkutils.views import View, _engine, _page

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
FOLDER = Path("book") / "assets" / "views"  # of the folder that Jupyter Book renders
OF_JUPYTER = ("layout", "tabbable", "tooltip")
PLAIN = re.compile(r'src="data:image/png;base64,([^"]+)"')
END = "export default { render };"
ADDRESS = "../_static/views/"  # of that folder, from a page
RUNTIME = "../_static/vendor/onnxruntime/"
LOADER = f'<script defer src="{ADDRESS}mount.js"></script>'
FINISHED = ["data", "pictures"]  # where a stepper keeps its figures
HEAVY = 60_000  # bytes


def keep(folder: Path, content: bytes, suffix: str) -> str:
    """Write a file under the name that its content gives it, and return the name."""
    name = hashlib.sha256(content).hexdigest()[:16] + suffix
    (folder / name).write_bytes(content)
    return name


def packed(pixels: bytes) -> tuple[bytes, tuple[int, int]]:
    """A picture as WebP, and its size; one that is heavy, as a photograph is, loses a little."""
    image = PIL.Image.open(io.BytesIO(pixels)).convert("RGB")
    made = io.BytesIO()
    image.save(made, "webp", lossless=True, quality=40)
    if made.tell() > HEAVY:
        made = io.BytesIO()
        image.save(made, "webp", quality=90)
    return made.getvalue(), image.size


def values_of(model: dict[str, Any], folder: Path) -> str:
    """What a view's script asks for, as text, with bytes as the script revives them.

    A finished figure goes to a file, which the view loads when it shows it; so does a model that
    runs in the page, which the view loads when a reader asks for it.
    """
    state = {k: v for k, v in model["state"].items() if k[0] != "_" and k not in OF_JUPYTER}
    for buffer in model.get("buffers", []):
        *path, last = buffer["path"]
        within = state
        for step in path:
            within = within[step]
        within[last] = {"$bytes": buffer["data"].strip()}
        if path == FINISHED:
            pixels, _ = packed(base64.b64decode(buffer["data"]))
            within[last] = ADDRESS + keep(folder, pixels, ".webp")
    if engine := state["data"].get("engine"):
        state["files"] = files_of(engine, folder)
    return json.dumps(state)


def files_of(engine: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Write what a model needs to run in a page, and return where a page finds it."""
    found = {}
    for part, (name, content) in _engine.files(**engine).items():
        if part in _engine.RUNTIME:
            address = RUNTIME + name
        else:
            address = ADDRESS + keep(folder, content, Path(name).suffix)
        found[part] = {"name": name, "size": len(content), "address": address}
    return found


def script_of(kind: str, key: str, value: str) -> bytes:
    """A script that does nothing but keep a value where the pages' own script finds it."""
    there = f"((window.qkViews ??= {{ fronts: {{}}, texts: {{}} }}).{kind})"
    return f"{there}[{key}] = {value};\n".encode()


def place_of(model: dict[str, Any], folder: Path) -> str:
    """Write a view's files, and return the element in which it is set up."""
    esm, css = model["state"]["_esm"], model["state"]["_css"]
    names = {"style": keep(folder, css.encode(), ".css")}
    own = "document.currentScript.src.split('/').pop()"  # the name by which the place calls it
    if END not in esm:
        raise ValueError("a view's script has to end in its render function")
    front = f"(() => {{\n{esm.replace(END, 'return render;')}\n}})()"
    names["front"] = keep(folder, script_of("fronts", own, front), ".js")
    names["values"] = keep(
        folder, script_of("texts", own, json.dumps(values_of(model, folder))), ".js"
    )
    told = "".join(f' data-{key}="{name}"' for key, name in names.items())
    return f'<div class="qk-mount" data-folder="{ADDRESS}"{told}></div>'


def picture(found: re.Match, folder: Path) -> str:
    """A still picture in a file of its own, with its size, loaded when it comes near."""
    pixels, size = packed(base64.b64decode(found[1]))
    shape = 'width="{}" height="{}"'.format(*size)
    return f'src="{ADDRESS}{keep(folder, pixels, ".webp")}" {shape} loading="lazy"'


def shown(model: dict[str, Any], still: str, folder: Path) -> str:
    """A view's still picture, and under it the place where the view is set up."""
    return PLAIN.sub(lambda found: picture(found, folder), still) + place_of(model, folder)


def fill(page: Path, mark: str, content: str) -> None:
    """Put what is made into a page of the book, in place of a mark."""
    text = page.read_text("utf-8")
    if mark not in text:
        raise ValueError(f"{page}: it has no {mark}; write that where the page shows what is made")
    page.write_text(text.replace(mark, content), "utf-8")


def put(view: View, page: Path, mark: str, stage: Path, kind: str = "") -> None:
    """Put a view into a page of the book, in place of a mark."""
    folder = stage / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    model = Widget.get_manager_state()["state"][view.model_id]
    html = f'<div class="cell_output {kind}">{shown(model, view.still, folder)}{LOADER}</div>'
    fill(page, mark, f"```{{raw}} html\n{html}\n```")


def separate(notebook: Any, stage: Path) -> None:
    """Take the views out of a notebook, into files beside the pages; other widgets stay in it."""
    widgets = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    folder = stage / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    loader = LOADER
    outputs = [o["data"] for cell in notebook.cells for o in cell.get("outputs", ()) if "data" in o]
    drawn = [data for data in outputs if VIEW in data]
    views = [data for data in drawn if "text/html" in data]
    for data in views:
        model = widgets.pop(data.pop(VIEW)["model_id"])
        data["text/html"] = shown(model, data["text/html"], folder) + loader
        loader = ""  # once a page
    if len(views) == len(drawn):
        notebook.metadata.pop("widgets", None)


def write_loader(stage: Path) -> None:
    """Write the script with which pages set their views up."""
    folder = stage / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    script = f"(() => {{\n{_page.front_end('mount')}\n}})();\n"
    (folder / "mount.js").write_text(script, "utf-8")

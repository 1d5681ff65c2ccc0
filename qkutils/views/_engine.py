"""What a model needs to run in a browser: runtime, worker, model and renderer, as files."""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path
from threading import Lock
from typing import Any

from qkutils import models
from qkutils.graph import export
from qkutils.models import AnyModel, Model
from qkutils.views import _page
from qkutils.world import export_renderer

VARIABLE = "QKUTILS_RUNTIME"
RUNTIME = {"runtime": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.bin"}
LIMIT = 25_000_000  # bytes of a page that carries a model
_ALONE = Lock()  # torch exports one model at a time; pages are laid out by several threads
VENDORED = Path(__file__).parents[2] / "book" / "assets" / "vendor" / "onnxruntime"
_MADE: dict[tuple[str, str], tuple[bytes, bytes]] = {}  # the last, by name and identity


def facts(model: Model) -> dict[str, Any]:
    """What a view's data say of its model, so that `files` finds the same one again."""
    return {"model": model.name, "image_size": model.image_size[0], "identity": model.identity}


def draws(model: Model) -> bool:
    """Whether a model's pictures are drawn scenes."""
    return model.facts.get("source") == "embedded"


def exported(model: Model) -> tuple[bytes, bytes]:
    """A model with its weights in half precision, and the renderer of scenes, as ONNX."""
    if (key := (model.name, model.identity)) not in _MADE:
        _MADE.clear()
        _MADE[key] = _written(model)
    return _MADE[key]


def _written(model: Model) -> tuple[bytes, bytes]:
    # no scene is painted for a model of photographs, and a large renderer is heavy
    size = model.image_size[0] if draws(model) else 64
    with tempfile.TemporaryDirectory() as folder:
        graph, renderer = Path(folder) / "model.onnx", Path(folder) / "renderer.onnx"
        export(model, graph, weights="half")
        export_renderer(renderer, size)
        return graph.read_bytes(), renderer.read_bytes()


def files(model: AnyModel, image_size: int, identity: str) -> dict[str, tuple[str, bytes]]:
    """Name and content of every file, as `startEngine` in engine.js calls them.

    Raises FileNotFoundError where the runtime is not on this machine, and ValueError where the
    model is not the one that `facts` told of.
    """
    folder = Path(os.environ.get(VARIABLE) or VENDORED)
    if missing := [name for name in RUNTIME.values() if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder} has no {missing[0]}: run book/_tools/vendor_web.py of the repository, and "
            f"name in {VARIABLE} the folder book/assets/vendor/onnxruntime that it fills"
        )
    loaded = models.load(model, image_size=image_size)
    if loaded.identity != identity:
        remedy = "show what its name gives" if isinstance(model, str) else "make the view again"
        raise ValueError(f"{loaded.name}: is not the model that the view shows; {remedy}")
    with _ALONE:
        graph, renderer = exported(loaded)
    return {
        **{part: (name, (folder / name).read_bytes()) for part, name in RUNTIME.items()},
        "worker": ("engine_worker.js", (_page.FRONT / "engine_worker.js").read_bytes()),
        "graph": (f"{loaded.name}.onnx", graph),
        "renderer": ("renderer.onnx", renderer),
    }


def carried(model: AnyModel, image_size: int, identity: str) -> dict[str, dict[str, Any]]:
    """All files as a page carries them that needs nothing else."""
    return {
        part: {"name": name, "size": len(content), "text": base64.b64encode(content).decode()}
        for part, (name, content) in files(model, image_size, identity).items()
    }

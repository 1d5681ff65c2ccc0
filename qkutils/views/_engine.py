"""What a model needs to run in a browser: runtime, worker, model and renderer, as files."""

from __future__ import annotations

import base64
import os
import tempfile
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from qkutils import models
from qkutils.graph import export
from qkutils.views import _page
from qkutils.world import export_renderer

VARIABLE = "QKUTILS_RUNTIME"
RUNTIME = {"runtime": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.bin"}
LIMIT = 25_000_000  # bytes of a page that carries a model
_ALONE = Lock()  # torch exports one model at a time; pages are laid out by several threads
VENDORED = Path(__file__).parents[2] / "book" / "assets" / "vendor" / "onnxruntime"


@cache
def exported(model: str, image_size: int) -> tuple[bytes, bytes]:
    """A model with its weights in half precision, and the renderer of scenes, as ONNX."""
    with tempfile.TemporaryDirectory() as folder:
        graph, renderer = Path(folder) / "model.onnx", Path(folder) / "renderer.onnx"
        export(models.load(model, image_size=image_size), graph, weights="half")
        export_renderer(renderer)
        return graph.read_bytes(), renderer.read_bytes()


def files(model: str, image_size: int) -> dict[str, tuple[str, bytes]]:
    """Name and content of every file, as `startEngine` in engine.js calls them.

    Raises FileNotFoundError where the runtime is not on this machine.
    """
    folder = Path(os.environ.get(VARIABLE) or VENDORED)
    if missing := [name for name in RUNTIME.values() if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder} has no {missing[0]}: run book/_tools/vendor_web.py of the repository, and "
            f"name in {VARIABLE} the folder book/assets/vendor/onnxruntime that it fills"
        )
    with _ALONE:
        graph, renderer = exported(model, image_size)
    return {
        **{part: (name, (folder / name).read_bytes()) for part, name in RUNTIME.items()},
        "worker": ("engine_worker.js", (_page.FRONT / "engine_worker.js").read_bytes()),
        "graph": (f"{model}.onnx", graph),
        "renderer": ("renderer.onnx", renderer),
    }


def carried(model: str, image_size: int) -> dict[str, dict[str, Any]]:
    """All files as a page carries them that needs nothing else."""
    return {
        part: {"name": name, "size": len(content), "text": base64.b64encode(content).decode()}
        for part, (name, content) in files(model, image_size).items()
    }

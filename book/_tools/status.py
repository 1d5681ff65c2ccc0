"""The page that says how the chapters of this build ran: times, models, versions."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mount
import nbformat

import qkutils as qk

MARK = "<!-- the status -->"
PACKAGES = ("qkutils", "torch", "torchvision", "timm", "numpy", "xarray", "jupyter-book")


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    """Rows as a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def code(name: str) -> str:
    """A name as code, so that nothing in it is markup; of a path, its end."""
    shown = re.sub(r"[`|\s]+", " ", Path(name).name)
    return f"`{shown}`"


def fingerprint(model: str) -> str:
    """The fingerprint of a model's weights, if it is still there."""
    try:
        return qk.load(model).fingerprint
    except (OSError, ValueError):
        return "not at hand"


def ran(notebooks: list[Path]) -> list[tuple[str, int, str]]:
    """Chapter, seconds and model of each run, as `run_chapter` wrote them down."""
    found = []
    for file in notebooks:
        run = nbformat.read(file, as_version=4).metadata.run
        found.append((file.stem, run.seconds, run.model))
    return found


def write(page: Path, notebooks: list[Path]) -> None:
    """Put the tables into the page."""
    runs = ran(notebooks)
    chapters = [(f"{{doc}}`/notebooks/{name}`", time, code(model)) for name, time, model in runs]
    models = [(code(model), code(fingerprint(model))) for model in sorted({r[2] for r in runs})]
    versions = [(name, version(name)) for name in PACKAGES]
    versions += [("Python", platform.python_version()), ("processor", platform.machine())]
    lines = table(("chapter", "seconds", "model"), chapters)
    lines += ["", *table(("model", "fingerprint of its weights"), models)]
    lines += ["", *table(("package", "version"), [*versions, ("cores", os.cpu_count())])]
    mount.fill(page, MARK, "\n".join(lines))

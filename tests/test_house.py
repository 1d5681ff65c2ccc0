"""Tests of the house: who imports what, what an import costs, and the examples of the face."""

from __future__ import annotations

import doctest
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qkutils as qk

ROOT = Path(__file__).parents[1]
LINT = [sys.executable, "-c", "import importlinter.cli as c; c.lint_imports_command()"]
# Lines to plant in rooms, and the import that each room must not have.
FORBIDDEN = {
    "heads": ("from qkutils import models", "models"),
    "studies._grouping": ("from qkutils.studies._names import Namer", "studies._names"),
    "atlas._scan": ("from qkutils import world", "world"),
    "book.stored": ("from qkutils.studies._regions import OBJECTS", "studies._regions"),
    "statistics": ("from qkutils import store", "store"),
    "modes": ("def later():\n    from qkutils import attention", "attention"),
    "pictures._stream": ("import matplotlib", "matplotlib"),
}


def lint(folder: Path) -> subprocess.CompletedProcess:
    """What import-linter says of the package in a folder."""
    return subprocess.run(LINT, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with the package's Python files and the contract."""
    ignored = shutil.ignore_patterns("*.safetensors", "*.csv", "*.js", "__pycache__")
    shutil.copytree(ROOT / "qkutils", tmp_path / "qkutils", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_rooms_import_only_what_they_may(copied: Path) -> None:
    found = lint(copied)
    assert found.returncode == 0, found.stdout


def test_every_forbidden_import_is_caught(copied: Path) -> None:
    for room, (line, _) in FORBIDDEN.items():
        path = copied / "qkutils" / f"{room.replace('.', '/')}.py"
        path.write_text(f"{path.read_text('utf-8')}\n\n{line}\n", "utf-8")
    found = lint(copied)
    assert found.returncode == 1
    for room, (_, other) in FORBIDDEN.items():
        imported = other if other == "matplotlib" else f"qkutils.{other}"
        assert f"qkutils.{room} -> {imported} (l." in found.stdout


def test_the_package_alone_loads_no_torch_and_the_face_is_complete() -> None:
    heavy = "({'torch', 'timm', 'xarray', 'matplotlib', 'anywidget'} & set(sys.modules))"
    code = f"import sys, qkutils; assert not {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert not [name for name in qk.__all__ if not hasattr(qk, name)]
    assert dir(qk) == sorted(qk.__all__)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = qk.gallery  # type: ignore[attr-defined]


WITH_EXAMPLES = [
    "alignment",
    "attention",
    "graph",
    "models._catalogue",
    "models._loading",
    "models._predictor",
    "modes",
    "passes",
    "atlas._maps",
    "atlas._scan",
    "atlas._whole",
    "pictures._stream",
    "records",
    "statistics",
    "studies._few_modes",
    "studies._grouping",
    "studies._names",
    "studies._odd_one_out",
    "studies._one_image",
    "studies._regions",
    "studies._relations",
    "studies._removal",
    "studies._same_object",
    "world._sampling",
    "book._choosing",
    "book.checks",
    "book.stored",
    "book.stored_views",
    "datasets._fetching",
    "datasets._odd_one_out",
    "datasets._photographs",
    "datasets._segmentations",
    "views._attention_stepper",
    "views._mode_browser",
    "views._one_image",
    "views._stepper",
    "views._trends",
    "views._two_dimensional",
    "world._drawing",
    "world._rendering",
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_give_what_they_show(name: str, unchecked: None) -> None:
    module = importlib.import_module(f"qkutils.{name}")
    names = {"qk": qk, **vars(module)}
    found = doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0 and found.failed == 0

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
# What a planted line breaks: a room, and what it must not import.
FORBIDDEN = {
    "heads.py": "from qkutils import models",
    "studies/_grouping.py": "from qkutils.studies._names import Namer",
    "atlas/_scan.py": "from qkutils import world",
    "book/stored.py": "from qkutils.studies._regions import OBJECTS",
    "statistics.py": "from qkutils import store",
    "modes.py": "def later():\n    from qkutils import attention",
    "pictures/_stream.py": "import matplotlib",
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


@pytest.mark.parametrize("file", FORBIDDEN)
def test_a_forbidden_import_is_caught(copied: Path, file: str) -> None:
    path = copied / "qkutils" / file
    path.write_text(f"{path.read_text('utf-8')}\n\n{FORBIDDEN[file]}\n", "utf-8")
    assert lint(copied).returncode == 1


def test_the_package_alone_loads_no_torch_and_the_face_is_complete() -> None:
    code = (
        "import sys, qkutils as qk\n"
        "heavy = {'torch', 'timm', 'xarray', 'matplotlib', 'anywidget'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "missing = [name for name in qk.__all__ if not hasattr(qk, name)]\n"
        "assert not missing, missing\n"
        "assert dir(qk) == sorted(qk.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = qk.gallery  # type: ignore[attr-defined]


WITH_EXAMPLES = [
    "alignment",
    "attention",
    "models._catalogue",
    "models._loading",
    "modes",
    "passes",
    "atlas._maps",
    "atlas._scan",
    "atlas._whole",
    "pictures._stream",
    "records",
    "statistics",
    "studies._grouping",
    "studies._names",
    "studies._odd_one_out",
    "studies._one_image",
    "studies._regions",
    "studies._removal",
    "studies._same_object",
    "world._sampling",
    "book.stored",
    "datasets._fetching",
    "datasets._odd_one_out",
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

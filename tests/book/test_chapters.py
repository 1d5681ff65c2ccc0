"""Rules for the scripts of the chapters (CONTRIBUTING says why)."""

import ast
import re
from pathlib import Path
from typing import Any

import jupytext
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))
FORBIDDEN = {
    "an install": r"\bpip install|\bconda install",
    "a path": r"\bsys\.path\b|\bos\.chdir\b",
    "a star import": r"^\s*from .* import \*",
    "a filter for all warnings": r"(filterwarnings|simplefilter)\(\s*['\"]ignore['\"]\s*\)",
    "an except without a name": r"\bexcept\s*:",
    "a styled table, which does not escape names": r"\.style\b",
    "interact, which stalls": r"\binteract\w*\(|\binteractive\w*\(",
}


@pytest.fixture(params=SCRIPTS, ids=lambda script: script.stem)
def chapter(request: pytest.FixtureRequest) -> Any:
    """Each chapter, read as a notebook."""
    return jupytext.read(request.param)


def code_cells(chapter: Any) -> list[str]:
    """The sources of a chapter's code cells."""
    return [cell.source for cell in chapter.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_chapter_has_not(what: str, chapter: Any) -> None:
    found = re.search(FORBIDDEN[what], "\n".join(code_cells(chapter)), re.MULTILINE)
    assert not found, f"{what}: {found.group() if found else ''}"


def test_header(chapter: Any) -> None:
    assert chapter.metadata.kernelspec.language == "python", "papermill needs `language: python`"
    # Without it, jupytext takes a title that ends with a question mark for an IPython command.
    assert chapter.metadata.jupytext.get("comment_magics") is False


def test_one_parameters_cell_of_plain_assignments(chapter: Any) -> None:
    cells = [cell for cell in chapter.cells if "parameters" in cell.metadata.get("tags", ())]
    assert len(cells) == 1
    statements = ast.parse(cells[0].source).body
    assert all(isinstance(each, ast.Assign) for each in statements)
    assert {"MODEL", "MODELS", "IMAGES", "IMAGE_SIZE"} <= {
        each.targets[0].id for each in statements
    }
    sized = "image_size=IMAGE_SIZE or None" in "\n".join(code_cells(chapter))
    assert sized or "IMAGE_SIZE: not needed here" in cells[0].source


def test_what_shows_stored_numbers_says_where_their_tensors_come_from(chapter: Any) -> None:
    prose = "\n".join(cell.source for cell in chapter.cells if cell.cell_type == "markdown")
    for source in code_cells(chapter):
        if re.search(r"stored\.(chosen|read)\((?!.causes)", source):  # causes are of our own models
            assert "{glue:text}`tensors`" in prose


def test_cells_are_short(chapter: Any) -> None:
    code = [cell for cell in chapter.cells if cell.cell_type == "code"]
    most = {True: 45, False: 12}  # lines of a folded cell, and of one that is shown
    long = [
        cell.source.splitlines()[0]
        for cell in code
        if sum(map(bool, cell.source.splitlines()))
        > most[not {"hide-input", "hide-cell"}.isdisjoint(cell.metadata.get("tags", ()))]
    ]
    assert not long, f"cells of too many lines begin with: {long}"


def test_title_is_a_heading(chapter: Any) -> None:
    assert re.search(r"^# \S", chapter.cells[0].source, re.MULTILINE), "the first cell has no title"


def test_contents_name_every_chapter() -> None:
    text = (ROOT / "_toc.yml").read_text()
    named = re.findall(r"notebooks/(\w+)", text)
    assert named == [script.stem for script in SCRIPTS]
    assert yaml.safe_load(text)["root"] == "book/index"


def test_no_notebook_hides_a_script() -> None:
    assert not list((ROOT / "notebooks").glob("*.ipynb")), "it would be built instead of the script"

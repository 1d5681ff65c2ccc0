"""Lay out, in a fresh folder, what Jupyter Book renders: pages, settings and executed chapters.

usage: stage.py FOLDER NOTEBOOK...
"""

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cover
import mount
import nbformat
import playing
import status
import stubs
import yaml

from qkutils.book import ledger

ROOT = Path(__file__).resolve().parents[2]
FOLDED = "hide-input"
HANDED = "application/papermill.record"


def settings(repository: str) -> str:
    """Read _config.yml, with execution off: the book shows exactly what was executed.

    Links to the repository are left out where its address is not known.
    """
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["execute"] = {"execute_notebooks": "off"}
    if repository:
        config["repository"] = {"url": repository, "branch": "main"}
        config["html"] |= {"use_repository_button": True, "use_issues_button": True}
    return yaml.safe_dump(config, sort_keys=False)


def folded(cell: Any) -> bool:
    """Whether a page shows a cell's code behind a click."""
    return cell.cell_type == "code" and FOLDED in cell.metadata.get("tags", ())


def shows(cell: Any) -> bool:
    """Whether a page shows anything of what a cell put out; what was handed to the prose is not."""
    told = [mime for output in cell.outputs for mime in output.get("data", {"": None})]
    return not all(mime.startswith(HANDED) for mime in told)


def join(cells: list[Any]) -> list[Any]:
    """Cells with each folded one that shows nothing put before the folded one that follows it."""
    joined: list[Any] = []
    for cell in cells:
        if joined and folded(cell) and folded(joined[-1]) and not shows(joined[-1]):
            first = joined.pop()
            cell.source = f"{first.source}\n\n{cell.source}"
            cell.outputs = first.outputs + cell.outputs
        joined.append(cell)
    return joined


def parted(cell: Any) -> list[Any]:
    """An exercise as two cells: the stub, and the solution with what it gives, folded."""
    if not any(map(stubs.marked, cell.source.split("\n"))):
        return [cell]
    stub = nbformat.v4.new_code_cell(stubs.stubbed(cell.source), id=f"{cell.id}-stub")
    cell.source = stubs.solved(cell.source)
    cell.metadata["tags"] = ["hide-cell"]
    prompt = {"code_prompt_show": "Show a solution"}
    cell.metadata["mystnb"] = prompt | cell.metadata.get("mystnb", {})
    return [stub, cell]


def quiet(cell: Any) -> Any:
    """A check with what it gives folded, which would answer the exercise's prediction."""
    if stubs.CHECK in cell.metadata.get("tags", ()):
        cell.metadata["tags"] = ["hide-output"]
        prompt = {"code_prompt_show": "Show what a right answer gives"}
        cell.metadata["mystnb"] = prompt | cell.metadata.get("mystnb", {})
    return cell


def copy(notebook: Path, stage: Path) -> None:
    """Copy an executed chapter, with its views in files of their own, and its ledger as a table."""
    content = nbformat.read(notebook, as_version=4)
    cells = [c for c in content.cells if stubs.INSTRUCTOR not in c.metadata.get("tags", ())]
    content.cells = [part for cell in join(cells) for part in parted(quiet(cell))]
    for cell in content.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(ledger.MEDIA_TYPE, None)
    mount.separate(content, stage)
    nbformat.write(content, stage / "notebooks" / notebook.name)


def stage(folder: Path, notebooks: list[Path]) -> None:
    """Fill the folder; a chapter that was not executed is not in it, and Jupyter Book says so."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "notebooks").mkdir()
    with ThreadPoolExecutor() as pool:  # most of it is pictures, which one core packs at a time
        list(pool.map(partial(copy, stage=folder), notebooks))
    mount.write_loader(folder)
    cover.write(folder / "book" / "index.md", folder)
    playing.write(folder / "book" / "playground.md", folder)
    status.write(folder / "book" / "status.md", notebooks)
    shutil.copy(ROOT / "_toc.yml", folder)
    (folder / "_config.yml").write_text(settings(os.environ.get("REPOSITORY", "")))


if __name__ == "__main__":
    stage(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])

"""A chapter as it is written: a percent script, cell by cell."""

import re
from pathlib import Path
from typing import Any

import faults
import jupytext


def read_chapter(script: Path) -> tuple[Any, dict[str, int]]:
    """Read a script as a notebook; also give the line at which each cell starts, by cell id."""
    notebook = jupytext.read(script)
    lines = script.read_text().splitlines()
    starts = [number for number, line in enumerate(lines, 1) if line.startswith("# %%")]
    if len(starts) != len(notebook.cells):
        raise faults.Fault("every cell has to start with a line `# %%` of its own")
    for number, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"cell-{number}"
    return notebook, {f"cell-{number}": line for number, line in enumerate(starts, 1)}


def explain(fault: faults.Fault, script: Path, lines: dict[str, int]) -> str:
    """Say in which chapter, cell and line a fault lies, and what it is."""
    where = str(script)
    if fault.cell in lines:
        number = re.sub(r"\D", "", fault.cell)
        where += f", cell {number}, line {lines[fault.cell] + fault.line}"
    return f"{where}: {fault}"

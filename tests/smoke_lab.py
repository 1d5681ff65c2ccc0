"""What a student's environment has to do outside of the repository, from a wheel alone.

usage: smoke_lab.py notebook FILE.ipynb    its first cell installs the wheel, the others run
       smoke_lab.py command                `qkutils notebooks` writes notebooks, JupyterLab is there
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

ABSENT = ("sphinx", "jupyter_book", "myst_nb", "papermill", "pytest", "mypy", "playwright")


def notebook(file: str) -> None:
    """Runs a notebook where qkutils is not installed; a student's own gaps may stop a cell."""
    import nbformat
    from nbclient import NotebookClient

    assert importlib.util.find_spec("qkutils") is None
    read = nbformat.read(file, as_version=4)
    NotebookClient(read, timeout=600, allow_errors=True).execute()
    outputs = [output for cell in read.cells for output in cell.get("outputs", ())]
    wrong = {output.ename for output in outputs if output.output_type == "error"}
    assert not {"ModuleNotFoundError", "ImportError", "NameError"} & wrong, wrong
    assert any("numbers of this run" in str(output.get("data", "")) for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    print(f"{Path(file).name} runs from its first cell on; {len(outputs)} outputs")


def command() -> None:
    """Writes the notebooks; what builds and tests the book is not needed for it."""
    assert not any(importlib.util.find_spec(name) for name in ABSENT)
    program = Path(sys.executable).with_name("qkutils")
    for _ in range(2):
        subprocess.run([program, "notebooks", "student notebooks"], check=True)
    written = sorted(Path("student notebooks").glob("*.ipynb"))
    assert [file.name[:2] for file in written] == [f"{n:02}" for n in range(1, len(written) + 1)]
    assert len(written) > 10
    subprocess.run([sys.executable, "-m", "jupyterlab", "--version"], check=True)


if __name__ == "__main__":
    {"notebook": notebook, "command": command}[sys.argv[1]](*sys.argv[2:])

"""Student notebooks that run where nothing is installed, and what Binder and codespaces need.

usage: launch.py FOLDER WHEEL
The folder becomes the branch `notebooks` of REPOSITORY.  The first cell of each notebook installs
the wheel from there, or where REPOSITORY is unset, from the file.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import editions
import nbformat
from nbformat import v4
from quotes import CHAPTERS, ROOT

from qkutils import store

BRANCH = "notebooks"
FIRST = """\
# Installs the book's library, {name}, if it is not there yet; that takes some minutes.
# Where it is there, this cell does nothing.  If you are asked to restart, do it, and run it again.
from importlib.util import find_spec

if find_spec("qkutils") is None:
    %pip install --quiet "qkutils[views] @ {address}"
"""
REQUIREMENTS = """\
--extra-index-url https://download.pytorch.org/whl/cpu
-c constraints.txt
./{name}[lab]
"""
README = """\
# Notebooks of a book

Made from {repository}. Do not change them here: each publication writes this branch anew.
"""
DEVCONTAINER = {
    "image": "mcr.microsoft.com/devcontainers/python:3.11",
    "postCreateCommand": "pip install -r requirements.txt",
    "customizations": {"vscode": {"extensions": ["ms-toolsai.jupyter"]}},
}


def wheel_address(repository: str, wheel: Path) -> str:
    """Where a wheel lies once the branch is published, or where it lies here."""
    published = f"{repository}/raw/{BRANCH}/{wheel.name}"
    return published if repository else wheel.resolve().as_uri()


def installing(content: bytes, address: str) -> bytes:
    """A notebook whose first cell installs the wheel at an address."""
    notebook = nbformat.reads(content.decode(), as_version=4)
    source = FIRST.format(name=address.rpartition("/")[2], address=address).rstrip()
    notebook.cells.insert(0, v4.new_code_cell(source, id="install"))
    return nbformat.writes(notebook).encode() + b"\n"


def files(wheel: Path, repository: str) -> dict[str, bytes]:
    """All that the branch has: path → content."""
    scripts = sorted((ROOT / CHAPTERS).glob("[0-9]*.py"))
    chapters = editions.read(scripts, ROOT / "_build" / "executed")
    address = wheel_address(repository, wheel)
    student = editions.editions(chapters, "student")
    made = {name: installing(content, address) for name, content in student.items()}
    texts = {
        "requirements.txt": REQUIREMENTS.format(name=wheel.name),
        "runtime.txt": "python-3.11\n",
        "README.md": README.format(repository=repository),
        ".devcontainer/devcontainer.json": json.dumps(DEVCONTAINER, indent=2) + "\n",
    }
    made |= {name: text.encode() for name, text in texts.items()}
    return made | {file.name: file.read_bytes() for file in (wheel, ROOT / "constraints.txt")}


if __name__ == "__main__":
    to = Path(sys.argv[1])
    shutil.rmtree(to, ignore_errors=True)
    repository = os.environ.get("REPOSITORY", "").rstrip("/")
    for name, content in files(Path(sys.argv[2]), repository).items():
        store.write(to / name, content)

"""Lay out, in a fresh folder, what Jupyter Book renders: pages, settings and executed chapters.

usage: stage.py FOLDER NOTEBOOK...
"""

import shutil
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def settings() -> str:
    """Read _config.yml, with execution off: the book shows exactly what was executed."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["execute"] = {"execute_notebooks": "off"}
    return yaml.safe_dump(config, sort_keys=False)


def stage(folder: Path, notebooks: list[Path]) -> None:
    """Fill the folder; a chapter that was not executed is not in it, and Jupyter Book says so."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "notebooks").mkdir()
    for notebook in notebooks:
        shutil.copy(notebook, folder / "notebooks")
    shutil.copy(ROOT / "_toc.yml", folder)
    (folder / "_config.yml").write_text(settings())


if __name__ == "__main__":
    stage(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])

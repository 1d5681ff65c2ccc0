"""Execute one chapter, once: percent script in, notebook with outputs out.

usage: run_chapter.py SCRIPT OUT.ipynb [--parameters FILE] [--execution-timeout SECONDS]
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import faults
import nbformat
import papermill
import parameters
import uses
from chapter_client import ChapterEngine
from chapters import explain, read_chapter
from papermill.engines import papermill_engines


def set_environment() -> None:
    """Make runs repeatable, and leave cores to the chapter that Make runs at the same time."""
    os.environ["PYTHONHASHSEED"] = "0"
    os.environ["QKUTILS_BUILDING"] = "1"  # numbers go to the text
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    if weights := os.environ.get("QKUTILS_WEIGHTS"):  # chapters run in another folder
        os.environ["QKUTILS_WEIGHTS"] = str(Path(weights).expanduser().absolute())
    os.environ.pop("MPLBACKEND", None)  # else the figures of a user's own back end stay unseen


def tidy(notebook: Any) -> None:
    """Remove papermill's notes, which hold times and paths of this machine, and progress bars."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                output["text"] = faults.without_progress_bars(output["text"])
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell.outputs if output.get("text") != ""]


def execute(notebook: Any, values: dict[str, Any], folder: Path, timeout: int) -> Any:
    """Execute a notebook with papermill in the given folder."""
    papermill_engines.register("chapter", ChapterEngine)
    done = papermill.execute_notebook(
        notebook,
        None,
        parameters=values,
        engine_name="chapter",
        kernel_name="python3",
        language="python",
        progress_bar=False,
        cwd=folder,
        execution_timeout=timeout,
    )
    tidy(done)
    return done


def write(notebook: Any, values: dict[str, Any], out: Path, begun: float) -> None:
    """Write what the chapter used, for Make, and then the notebook, whole or not at all.

    It is as old as the begin of its run, so that Make runs it again if anything was edited since.
    """
    modules = [Path(file) for file in notebook.metadata.pop("modules")]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".d").write_text(uses.rule(out, modules, values.values()))
    part = out.with_suffix(".part")
    nbformat.write(notebook, part)
    os.utime(part, (begun, begun))
    part.replace(out)


def main() -> None:
    """Run the chapter named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parameters", type=Path)
    parser.add_argument("--execution-timeout", type=int, default=600, help="seconds for each cell")
    given = parser.parse_args()
    set_environment()
    lines: dict[str, int] = {}
    start, begun = time.monotonic(), time.time()
    try:
        notebook, lines = read_chapter(given.script)
        known = parameters.defaults(notebook)
        values = {}
        if given.parameters:
            values = parameters.chosen(given.parameters, given.script, known)
        done = execute(notebook, values, given.script.parent, given.execution_timeout)
        model = (known | values).get("MODEL", "")
        done.metadata["run"] = {"seconds": round(time.monotonic() - start), "model": model}
        write(done, values, given.out, begun)
    except parameters.Wrong as wrong:
        sys.exit(str(wrong))
    except faults.Fault as fault:
        sys.exit(explain(fault, given.script, lines))
    print(f"{given.script}: executed in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()

"""What makes a chapter unfit to publish: errors and warnings in what its cells and widgets show."""

import builtins
import contextlib
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ipykernel.compiler import get_file_name

ANSI = re.compile(r"\x1b\[[0-9;]*m")
PROGRESS = re.compile(r"\d+%\|.*\||[\d?](it/s|s/it)|\dit \[")
WARNING = re.compile(r"^.*\b\w*Warning:.*$", re.MULTILINE)
CELL_LINE = re.compile(r"Cell In\[\d+\], line (\d+)|ipykernel_\d+/\d+\.py:(\d+)")
FRAME = re.compile(r"^(?:File (.+):\d+, in |Cell In\[)", re.MULTILINE)
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
KERNEL_FILE = re.compile(r"ipykernel_\d+/(\d+)\.py\", line (\d+)")


class Fault(Exception):
    """One fault of a chapter, with the id of its cell and the line in that cell where known."""

    def __init__(self, text: str, cell: str = "", line: int = 1):
        super().__init__(text)
        self.cell, self.line = cell, line


def death(status: int) -> str:
    """Say why a kernel died, by its exit status: what the system kills, it kills for memory."""
    if status != -signal.SIGKILL:
        return f"the kernel died, with exit status {status}"
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    held = f"it held {peak / 1e9:.1f} GB of {memory() / 1e9:.1f} GB"
    return (
        f"the kernel was killed, probably by the system for want of memory: {held}; take fewer "
        "pictures (COUNT, where the chapter has it), smaller ones (IMAGE_SIZE) or a smaller MODEL"
    )


def memory() -> int:
    """The bytes of memory that this machine has, or the container in which we are."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # there is none, or it is `max`
            limits.append(int(Path(file).read_text()))
    return min(limits)


def without_progress_bars(text: str) -> str:
    """Drop the lines of stderr that are the states of a progress bar."""
    parts = re.split(r"(?<=[\r\n])", text)
    kept = "".join(part for part in parts if not PROGRESS.search(part))
    return kept if kept.strip() else ""


def cell_line(text: str) -> int:
    """Find the line, in its cell, that a traceback or a warning speaks of; else take the first."""
    found = CELL_LINE.search(text)
    return int(found[1] or found[2]) if found else 1


def cell_of(text: str, cells: list[Any]) -> tuple[str, int]:
    """Find the cell, by id, and its line that the innermost frame of a traceback lies in."""
    named = {Path(get_file_name(cell.source)).stem: cell.id for cell in cells}
    for file, line in reversed(KERNEL_FILE.findall(text)):
        if file in named:
            return named[file], int(line)
    return "", 1


def foreseen(kind: str, traceback: str) -> bool:
    """Whether qkutils itself raised this, in words that say what to do."""
    frames = FRAME.findall(traceback)
    _, ours, place = (frames or [""])[-1].rpartition("/qkutils/")
    known = getattr(builtins, kind, Exception)
    told = issubclass(known, OSError | ValueError | RuntimeError)
    return bool(ours) and "site-packages" not in place and told


def check_output(output: Any, cell: str, where: str = "") -> None:
    """Raise a Fault if this output is an error or holds a Python warning."""
    if output["output_type"] == "error":
        traceback = ANSI.sub("", "\n".join(output["traceback"]))
        text = f"{where}{output['ename']}: {output['evalue']}"
        if not foreseen(output["ename"], traceback):
            text += f"\n{traceback}"
        raise Fault(text, cell, cell_line(traceback))
    if output.get("name") == "stderr" and (found := WARNING.search(output["text"])):
        raise Fault(f"{where}a warning: {found.group()}", cell, cell_line(found.group()))


def outputs_of_widgets(state: dict[str, Any]) -> Iterator[Any]:
    """Yield the outputs that Output widgets hold."""
    for model in state.values():
        yield from model.get("outputs") or ()


def check(cells: list[Any], widget_state: dict[str, Any]) -> None:
    """Raise the first Fault that the cells or the Output widgets show."""
    for cell in cells:
        for output in cell.get("outputs", ()):
            check_output(output, cell.id)
    for output in outputs_of_widgets(widget_state):
        check_output(output, "", "inside an Output widget: ")

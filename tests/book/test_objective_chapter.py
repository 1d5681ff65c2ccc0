"""The verdicts of the chapter on objectives come from its numbers: random weights leave none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from qkutils.book.ledger import MEDIA_TYPE

ROOT = Path(__file__).parents[2]
NOT_DECIDED = ("cannot be told", "none larger than")


def judged(path: Path) -> dict[str, dict]:
    """The rows of the ledger that a run wrote, by their claims."""
    cells = nbformat.read(path, 4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    rows = [row for output in outputs for row in output.get("data", {}).get(MEDIA_TYPE, ())]
    return {row["claim"]: row for row in rows}


def run(folder: Path, untrained: bool) -> dict[str, dict]:
    parameters, out = folder / f"{untrained}.yaml", folder / f"{untrained}.ipynb"
    parameters.write_text(yaml.safe_dump({"UNTRAINED": untrained}))
    chapter = ROOT / "notebooks" / "04_training_objective.py"
    tool = ROOT / "book" / "_tools" / "run_chapter.py"
    command = [sys.executable, tool, chapter, out, "--parameters", parameters]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return judged(out)


@pytest.mark.chapter
@pytest.mark.slow
def test_untrained_weights_change_a_verdict_and_leave_no_claim_that_holds(tmp_path):
    trained, untrained = run(tmp_path, False), run(tmp_path, True)
    assert untrained.keys() <= trained.keys()
    assert [row["seen"] for row in untrained.values()].count(False) == 5
    for claim, row in untrained.items():
        assert row["estimate"] != trained[claim]["estimate"]
        assert row["verdict"].startswith(NOT_DECIDED)
    # Training decides what random weights leave open.
    asked = [row["verdict"] for row in trained.values() if not row["seen"]]
    assert not all(verdict.startswith(NOT_DECIDED) for verdict in asked)

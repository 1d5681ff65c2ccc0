"""Chapter 4's verdicts come from its numbers: with untrained weights they are others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[2]
NOT_DECIDED = ("cannot be told", "none larger than")


def told(path: Path) -> dict[str, str]:
    """What a run handed to the prose of its chapter, by name."""
    cells = nbformat.read(path, 4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    named = [
        (o["metadata"]["scrapbook"]["name"], next(iter(o["data"].values())))
        for o in outputs
        if "scrapbook" in o.get("metadata", {})
    ]
    return {name: text.strip("'") for name, text in named}


def run(folder: Path, untrained: bool) -> dict[str, str]:
    parameters, out = folder / f"{untrained}.yaml", folder / f"{untrained}.ipynb"
    parameters.write_text(yaml.safe_dump({"UNTRAINED": untrained}))
    chapter = ROOT / "notebooks" / "04_training_objective.py"
    tool = ROOT / "book" / "_tools" / "run_chapter.py"
    command = [sys.executable, tool, chapter, out, "--parameters", parameters]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return told(out)


@pytest.mark.chapter
@pytest.mark.slow
def test_untrained_weights_change_a_verdict_and_leave_no_claim_that_holds(tmp_path):
    trained, untrained = run(tmp_path, False), run(tmp_path, True)
    for name in ("primary", "supervised_turn", "simmim_late", "dino_late", "tuned"):
        assert trained[name] != untrained[name]
    verdicts = {name for name in trained if name.startswith("verdict_")}
    assert len(verdicts) == 5
    assert all(untrained[name].startswith(NOT_DECIDED) for name in verdicts)
    # Three runs decide what random weights leave open.
    assert not trained["verdict_simmim"].startswith(NOT_DECIDED)

"""Chapters on a model that nobody but its owner knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import yaml
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]


@pytest.mark.chapter
@pytest.mark.slow
@pytest.mark.parametrize("chapter", ["03_cosine_trends", "04_training_objective", "10_one_image"])
def test_a_file_with_a_name_of_its_own(chapter: str, tmp_path: Path) -> None:
    own = tmp_path / "test_vit.mine.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), own)
    given = tmp_path / "parameters.yaml"
    given.write_text(yaml.safe_dump({"MODEL": str(own)}))
    tool, out = ROOT / "book" / "_tools" / "run_chapter.py", tmp_path / "out.ipynb"
    command = [sys.executable, tool, ROOT / "notebooks" / f"{chapter}.py", out]
    done = subprocess.run([*command, "--parameters", given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

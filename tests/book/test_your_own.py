"""The page for a reader's own model runs, line by line."""

import re
import shutil
from pathlib import Path

import pytest

import qkutils as qk
from qkutils.statistics import CANNOT_BE_TOLD, CONTRADICTED, HOLDS, NONE_LARGER
from qkutils.world.training import architecture

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "book" / "your_own.md"
PHOTOGRAPHS = ROOT / "qkutils" / "datasets" / "photographs"


@pytest.mark.slow
def test_every_line_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part, pictures in {"first": ("cat", "coffee"), "second": ("dogs", "fig")}.items():
        (tmp_path / part).mkdir()
        for name in pictures:
            shutil.copy(PHOTOGRAPHS / f"{name}.jpg", tmp_path / part)
    instead = {
        '"vit_base_patch16_224.dino"': '"tiny-dino"',
        "path/to/checkpoint.safetensors": str(architecture.FOLDER / "tiny-simmim.safetensors"),
        "path/to/pictures/one.jpg": str(PHOTOGRAPHS / "cat.jpg"),
        "path/to/pictures": str(PHOTOGRAPHS),
        "path/to/{part}": "{part}",
        'qk.datasets.odd_one_out("path/to/O3")': "qk.world.samples(0, 0, 24)",
    }
    names = {"my_network": architecture.build(), "qk": qk}
    last = None
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S):
        for written, put in instead.items():
            block = block.replace(written, put)
        *lines, end = block.strip().splitlines()
        exec("\n".join(lines), names)
        try:
            last = eval(end, names)
        except SyntaxError:
            exec(end, names)
        if "compare_attention" in block:
            assert last <= 2e-5
    assert last.split(" (")[0].rstrip(" .0123456789") in (
        *(HOLDS, CONTRADICTED, CANNOT_BE_TOLD),
        NONE_LARGER,
    )
    assert (tmp_path / "atlas.nc").is_file()
    assert len(qk.merge(*(qk.open_atlas(f"{part}.nc") for part in ("first", "second"))).key) == 4

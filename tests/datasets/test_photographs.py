"""Photographs: each has its author and a free licence, and what they are said to be they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

import qkutils as qk
from qkutils.datasets import _photographs
from qkutils.datasets._photographs import FOLDER

ROOT = Path(__file__).parents[2]
FREE = re.compile(r"public domain|CC0 1\.0|CC BY (2\.0|4\.0)|CC BY-SA (3|4)\.0")


def undescribed(folder: Path) -> set[str]:
    """Pictures without an entry, and entries without a picture."""
    return {path.stem for path in folder.glob("*.jpg")} ^ {*qk.datasets.photograph_credits().index}


def test_every_photograph_has_its_author_and_a_free_licence():
    table = qk.datasets.photograph_credits()
    assert not undescribed(FOLDER) and len(table) == 20
    assert not table.isnull().any(axis=None) and (table.map(len) > 2).all(axis=None)
    assert table.licence.map(FREE.fullmatch).notnull().all()
    assert table.page.str.startswith("https://").all()


def test_a_photograph_without_an_entry_is_seen(tmp_path, monkeypatch):
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "holiday.jpg").write_bytes((FOLDER / "cat.jpg").read_bytes())
    monkeypatch.setattr(_photographs, "FOLDER", tmp_path)
    assert undescribed(tmp_path) == {"holiday"}


def test_they_are_small_and_upright():
    paths = list(FOLDER.glob("*.jpg"))
    assert sum(path.stat().st_size for path in paths) < 2e6
    for path in paths:
        with Image.open(path) as picture:
            assert min(picture.size) == 256 and picture.mode == "RGB"
            assert not picture.getexif()


def test_they_are_a_source_of_pictures():
    photographs = qk.datasets.photographs()
    model = qk.load("tiny-supervised")
    pictures = qk.pictures_of(photographs, model)
    assert pictures.keys == photographs.keys == sorted(photographs.keys)
    assert pictures.read(3).shape == (3, 64, 64)
    cat = photographs[photographs.keys.index("cat")]
    assert cat.key == "cat" and "Stéfan van der Walt" in cat.credit and "CC0" in cat.credit
    assert len(photographs[2:5]) == 3


@pytest.mark.parametrize("name", ["book/photographs.md", "LICENSE-text"])
def test_pages_say_what_the_table_says(name):
    text = (ROOT / name).read_text("utf-8")
    table = qk.datasets.photograph_credits()
    if name == "LICENSE-text":  # what is excepted from the licence of the figures
        table = table[table.licence.str.contains("BY-SA")]
    for _, row in table.iterrows():
        line = next(line for line in text.splitlines() if row.title in line)
        assert row.author in line and row.licence in line
    assert text.count("BY-SA") >= table.licence.str.contains("BY-SA").sum()

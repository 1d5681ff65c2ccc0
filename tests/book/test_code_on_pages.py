"""Code on plain pages gives what it shows."""

from __future__ import annotations

import qkutils._torchvision

import doctest
import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "book"


@pytest.mark.parametrize("name", ["beyond.md"])
def test_code_on_a_page_gives_what_it_shows(name):
    text = re.sub(r"^```.*$", "", (PAGES / name).read_text("utf-8"), flags=re.MULTILINE)
    examples = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    assert len(examples.examples) > 20
    assert doctest.DocTestRunner().run(examples).failed == 0

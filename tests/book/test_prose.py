"""The prose of the book: short sentences, one term for one thing, no phrase that stops a reader."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = tomllib.loads((ROOT / "tests" / "book" / "prose.toml").read_text("utf-8"))
PLACES = ["notebooks/[0-9]*.py", "book/*.md", "book/teach/*.md"]
PAGES = sorted(path for place in PLACES for path in ROOT.glob(place))
NOT_PROSE = (
    r"(?s)```.*?```",  # code
    r"(?s)\$\$.*?\$\$",  # formulas
    r"(?m)^(?::{3,}|\||\(.*\)=|#|---|- name:).*$",  # directives, tables, labels, headings
    r"\{cite\}`[^`]*`",
)
SHORT = {  # what stands for what a reader sees as one word
    r"\{glue:text\}`[^`]*`|\{ledger\}`[^`]*`": "N",
    r"\{\w+\}`([^`<]*)(?:<[^`]*>)?`": r"\1",
    r"\$[^$]*\$": "X",
    r"`[^`]*`": "C",
    r"\[([^\]]*)\]\([^)]*\)": r"\1",
}


def prose_of(path: Path) -> str:
    """A page's text, or that of a chapter's markdown cells."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        return text
    cells = re.split(r"^# %%", text, flags=re.MULTILINE)
    told = [cell.partition("\n")[2] for cell in cells if cell.startswith(" [markdown]")]
    return "\n\n".join(re.sub(r"^# ?", "", cell, flags=re.MULTILINE) for cell in told)


def sentences(text: str) -> list[str]:
    """The sentences of some Markdown, without what is no prose."""
    for pattern in NOT_PROSE:
        text = re.sub(pattern, "\n", text)
    for pattern, word in SHORT.items():
        text = re.sub(pattern, word, text)
    blocks = re.split(r"\n\s*\n|(?m:^)\s*(?:[-*:]|\d+\.)\s", text)
    ends = r"(?<=[.!?:;])[\"”)*]*\s+"
    return [s for block in blocks for s in re.split(ends, " ".join(block.split())) if s]


def words_of(sentence: str) -> int:
    return len(re.findall(r"[\w'’−-]+", sentence))


def test_a_sentence_is_counted_as_a_reader_counts() -> None:
    text = "One $x + y$ of {glue:text}`a:.2f`.\nTwo, `code a b`, three.\n\n| a | b |\n\n- Four five"
    assert sentences(text) == ["One X of N.", "Two, C, three.", "Four five"]
    assert [words_of(each) for each in sentences(text)] == [4, 3, 2]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_sentences_are_short(path: Path) -> None:
    found = [each for each in sentences(prose_of(path)) if words_of(each) > RULES["longest"]]
    assert not found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_phrase_stops_a_reader(path: Path) -> None:
    text = " ".join(sentences(prose_of(path))).lower()
    second = [name for names in RULES["terms"].values() for name in names]
    pattern = r"\b{}\b".format
    assert not [each for each in [*RULES["forbidden"], *second] if re.search(pattern(each), text)]

"""The slide that answers a prediction has its answer, and no other."""

import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_tools"))
import slides  # noqa: E402

ASKED = f'<div class="admonition"><p>{slides.PREDICTION}</p><p>How many?</p></div>'
CAPTION = '<figcaption><p><span class="caption-text">{} falls.</span></p></figcaption>'
FIGURE = f'<figure><img src="{{}}.png"/>{CAPTION}</figure>'
SHOWN, SECOND = FIGURE.format("a", "A"), FIGURE.format("b", "B")
HIDDEN = f"<details>{SHOWN}</details>"
LIST = "<ul><li>Two.</li></ul>"


def box(content: str) -> str:
    """A dropdown of a page."""
    return f'<details class="sd-dropdown"><div class="sd-card-body">{content}</div></details>'


# What follows the prediction in its section and in the next, and what the answer's slide shows
PAGES = {
    "its words": (box("<p>Two.</p>"), "", "First Two."),
    "its list": (box(LIST), "", "First Two."),
    "its first words": (box(f"<p>So:</p>{LIST}<p>Why.</p>"), "", "First So:Two."),
    "with its figure": (box(f"{SHOWN}<p>Two.</p>"), "", "First A falls.Two."),
    "a figure before it": (HIDDEN + box("<p>Two.</p>"), "", "First A falls.Two."),
    "a conclusion": (box("<p>Two.</p>") + "<p>In short: few.</p>", "", "First In short: few."),
    "what goes on": (box("<p>Two.</p>") + "<p>Somewhere.</p>", "", "First Two."),
    "open figures": (SHOWN + box("<p>Two.</p>") + SECOND, "", "First Two."),
    "later figures": (box("<p>Two.</p>") + HIDDEN, HIDDEN, "First Two."),
    "in the next section": ("", box("<p>Two.</p>"), "Next Two."),
}


def answered(own: str, following: str) -> str:
    """The text of the slide for a page of three sections, of which the first asks."""
    last = f"<section><h2>Last</h2>{box('<p>Other.</p>')}</section>"
    page = (
        f"<section><h2>First</h2>{ASKED}{own}</section><section><h2>Next</h2>{following}</section>"
    )
    soup = BeautifulSoup(page + last, "html.parser")
    made = slides.answered(soup.select_one(".admonition"), soup.section)
    shown = BeautifulSoup(made.replace("</h2>", " </h2>"), "html.parser")
    assert len(shown.find_all("img")) == made.count("falls")
    return shown.get_text()


@pytest.mark.parametrize("name", PAGES)
def test_an_answer_is_that_of_its_prediction(name: str) -> None:
    own, following, shown = PAGES[name]
    assert answered(own, following) == shown


def test_without_an_answer_there_is_no_slide() -> None:
    assert not answered(SHOWN + "<p>Go on.</p>", SECOND)

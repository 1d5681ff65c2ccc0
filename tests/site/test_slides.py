"""Slides of the chapters, in a browser: nothing is cut off, keys move them, they need no server."""

import json
import re
from typing import Any

import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

from tests.site.conftest import ROOT, SITE

pytestmark = pytest.mark.site
CHAPTERS = sorted(path.stem for path in ROOT.glob("notebooks/[0-9]*.py"))
# Every slide in turn: how high and wide its content is, its letters' size, its missing pictures.
MEASURED = """async () => {
  const found = [];
  for (let n = 0; n < Reveal.getTotalSlides(); n++) {
    Reveal.slide(n);
    const slide = Reveal.getCurrentSlide();
    const pictures = [...slide.querySelectorAll("img")];
    await Promise.all(pictures.map((picture) => picture.decode()));
    const alive = () => !slide.querySelector(".qk-mount:not(:has(.qk-view)), [aria-busy=true]");
    while (!alive()) await new Promise((go) => setTimeout(go, 50));
    for (const _ of Array(3)) await new Promise(requestAnimationFrame);
    found.push({
      slide: n, high: slide.scrollHeight, wide: slide.scrollWidth,
      letters: parseFloat(slide.style.fontSize), words: slide.innerText.trim().length,
      small: pictures.filter((picture) => !picture.closest(".cell_output"))
        .filter((picture) => picture.clientHeight < 120).length,
      views: [...slide.querySelectorAll(".cell_output")].map(({ style, clientHeight }) => [
        parseFloat(style.zoom), clientHeight * style.zoom, parseFloat(style.maxHeight),
      ]),
      still: [...slide.querySelectorAll(".qk-still")].filter((p) => !p.hidden).length,
    });
  }
  return found;
}"""


def headings(chapter: str) -> list[str]:
    """The headings of a chapter as its script has them, without what is set as mathematics."""
    text = (ROOT / "notebooks" / f"{chapter}.py").read_text("utf-8")
    found = re.findall(r"(?m)^# #{1,3} (.+)$", text)
    shown = [MarkdownIt().renderInline(each) for each in found]
    return [BeautifulSoup(each, "html.parser").get_text() for each in shown if "$" not in each]


def plain(text: str) -> str:
    """Words alone, with straight quotes."""
    return " ".join(text.translate(str.maketrans("“”‘’", "\"\"''")).split())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_slides_have_every_heading(chapter: str) -> None:
    soup = BeautifulSoup((SITE / "slides" / f"{chapter}.html").read_text("utf-8"), "html.parser")
    shown = [plain(each.get_text()) for each in soup.select("section h1, section h2")]
    missing = [h for h in headings(chapter) if not any(s.endswith(plain(h)) for s in shown)]
    assert not missing
    assert shown[-1].endswith(plain(headings(chapter)[-1]))
    for picture in soup.select("section img"):
        assert (SITE / "slides" / str(picture["src"])).is_file()


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_an_answer_is_words_and_a_figure_of_its_own(chapter: str) -> None:
    soup = BeautifulSoup((SITE / "slides" / f"{chapter}.html").read_text("utf-8"), "html.parser")
    asked = soup.select(".asks")
    assert bool(asked) == (chapter != "11_what_survives")
    for question in asked:
        answer = question.find_parent("section").find_next_sibling("section")
        assert answer.select(":scope > p:not(.page), :scope > ul")
        assert not answer.select(".asks")
    captions = [caption.get_text() for caption in soup.find_all("figcaption")]
    assert len(captions) == len(set(captions))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_slide_is_cut_off(browser: Any, chapter: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    heard: list[str] = []
    page.on("request", lambda request: heard.append(request.url))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.goto((SITE / "slides" / f"{chapter}.html").as_uri())
    page.wait_for_function("Reveal.isReady()")
    slides = page.evaluate(MEASURED)
    assert len(slides) > 10
    wrong = [s for s in slides if s["high"] > 720 or s["wide"] > 1280 or s["letters"] < 17]
    assert not wrong, json.dumps(wrong)
    assert all(s["words"] for s in slides) and not sum(s["small"] for s in slides)
    views = [view for slide in slides for view in slide["views"]]
    assert all(0.79 < zoom <= 1.5 and high > 380 and most > 0 for zoom, high, most in views), views
    assert not sum(s["still"] for s in slides)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("Reveal.getState().indexh") == 1
    assert all(url.startswith(("file:", "data:", "blob:")) for url in heard), heard
    page.close()


def test_a_view_lives_on_its_slide_and_its_keys_move_no_slide(browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.goto((SITE / "slides" / "01_svd_derivation.html").as_uri())
    page.wait_for_function("Reveal.isReady()")
    at = page.evaluate("Reveal.getSlides().findIndex((slide) => slide.querySelector('.qk-mount'))")
    page.evaluate("(at) => Reveal.slide(at)", at)
    slider = page.locator("section.present .qk-view input[type=range]").first
    before = slider.input_value()
    slider.press("ArrowRight")
    assert slider.input_value() != before
    assert page.evaluate("Reveal.getState().indexh") == at
    slider.press("Escape")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("Reveal.getState().indexh") == at + 1
    page.close()

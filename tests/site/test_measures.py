"""What of a page's looks is a number: open code, text of figures, heights of views, tables."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHAPTERS = re.findall(r"file: (notebooks/\S+)", (ROOT / "_toc.yml").read_text())
LAPTOP, PHONE = {"width": 1280, "height": 720}, {"width": 390, "height": 844}
MOST_OPEN, MOST_LINES = 0.12, 12
LEAST_TEXT = 9.0  # pixels
DOTS = 100  # of an inch of a figure, in the sizes that pages give
SIZE = re.compile(r"\b(?:fontsize|labelsize|size)=(\d+(?:\.\d+)?)\b")
DRAWING = [*ROOT.glob("notebooks/[0-9]*.py"), *ROOT.glob("qkutils/views/*.py")]
CODE = """all => all
  .filter((it) => it.offsetHeight && !it.closest("details:not([open])"))
  .map((it) => [it.offsetHeight, it.innerText.trim().split("\\n").length])"""
# What moves and what answers; below stand words that say how to read it.
TALL = """all => all.map((it) => {
  const parts = ":scope > :is(.qk-controls, .qk-stage, .qk-parts)";
  // of a playground: the picture, the answer, attention and one mode
  const ends = [...it.querySelectorAll(`${parts}, .qk-play .qk-part:nth-child(-n + 4)`)]
    .map((part) => part.getBoundingClientRect().bottom);
  return [it.getAttribute("aria-label"), Math.max(...ends) - it.getBoundingClientRect().top];
})"""
HEADER = 48  # pixels of the theme's bar
HEADER_OF_PHONE = 56
# Answers that are not seen together with what moves first: each is brought to the screen's end.
APART = """(all, header) => all.map((it) => {
  const moves = it.querySelector(".qk-scene") ?? it.querySelector(".qk-controls:not(:empty)");
  const answers = [...it.querySelectorAll(".qk-panel, .qk-stage > *")]
    .filter((answer) => answer.offsetHeight);
  return [it.getAttribute("aria-label"), answers.length, answers.filter((answer) => {
    const below = answer.getBoundingClientRect().bottom - innerHeight;
    scrollBy({ top: below, behavior: "instant" });
    const { top, left, bottom } = moves.getBoundingClientRect();
    const seen = document.elementFromPoint(left + 1, (top + bottom) / 2);
    return top < header || bottom > innerHeight || !it.contains(seen);
  }).map((answer) => answer.textContent.slice(0, 60))];
})"""
# Controls that a finger misses or an eye cannot read, as [name, height, size of text].
SMALL = """all => all.map((it) => [
  it.innerText || it.getAttribute("aria-label"),
  (it.closest("label") ?? it).offsetHeight,
  parseFloat(getComputedStyle(it).fontSize),
]).filter(([, height, text]) => height < 24 || text < 12)"""
SCALE = """all => all
  .filter((it) => it.offsetWidth && it.hasAttribute("width"))
  .map((it) => [it.alt, it.offsetWidth / it.getAttribute("width")])"""
LOADED = """async (all) => {
  for (const it of all) it.loading = "eager";
  await Promise.all(all.map((it) => it.decode().catch(() => null)));
}"""
SHAPE = """all => all
  .filter((it) => it.offsetWidth)
  .map((it) => [it.offsetWidth / it.offsetHeight, it.naturalWidth / it.naturalHeight])"""
MOVED = """() => new Promise((tell) => {
  let moved = 0; // how far what was seen has moved by itself, in shares of the screen
  const watch = new PerformanceObserver((list) => {
    for (const { value } of list.getEntries()) moved += value;
  });
  watch.observe({ type: "layout-shift", buffered: true });
  setTimeout(() => tell(moved), 500);
})"""
MOST_MOVED = 0.1  # what Lighthouse calls good
WIDE = """all => all
  .filter((it) => it.offsetWidth)
  .map((it) => [it.innerText.slice(0, 60), it.offsetWidth, it.closest("article").clientWidth])
  .filter(([, own, room]) => own > room)"""

pytestmark = pytest.mark.site


@pytest.fixture(scope="module", params=CHAPTERS)
def chapter(request: pytest.FixtureRequest, visit_page: Any) -> Any:
    """Each chapter, on a laptop's screen."""
    with visit_page(request.param, viewport=LAPTOP) as visit:
        yield visit.page


def test_open_code_is_short_and_little(chapter: Any) -> None:
    cells = chapter.eval_on_selector_all("article .cell_input", CODE)
    height = chapter.locator("article").bounding_box()["height"]
    assert cells and sum(tall for tall, _ in cells) < MOST_OPEN * height
    assert max(lines for _, lines in cells) <= MOST_LINES


def test_the_smallest_text_of_figures_can_be_read(chapter: Any) -> None:
    smallest = min(float(n) for path in DRAWING for n in SIZE.findall(path.read_text()))
    figures = chapter.eval_on_selector_all("article .cell_output > * img[src*='_images']", SCALE)
    figures += chapter.eval_on_selector_all("article .cell_output > img[src*='_images']", SCALE)
    assert figures
    small = [(alt, scale) for alt, scale in figures if smallest * DOTS / 72 * scale < LEAST_TEXT]
    assert not small


def test_figures_keep_their_shape_on_a_phone(phone: Any) -> None:
    phone.page.eval_on_selector_all("article img", LOADED)
    shapes = phone.page.eval_on_selector_all("article img[src*='_images']", SHAPE)
    assert all(abs(shown / own - 1) < 0.02 for shown, own in shapes)
    assert shapes or phone.name not in CHAPTERS


def test_views_fit_the_screen(chapter: Any) -> None:
    tall = chapter.eval_on_selector_all("article .qk-view", TALL)
    assert not [each for each in tall if not 0 < each[1] <= LAPTOP["height"] - HEADER]


def test_on_a_phone_what_moves_and_what_answers_are_seen_together(phone: Any) -> None:
    views = phone.page.eval_on_selector_all("article .qk-view", APART, HEADER_OF_PHONE)
    controls = "article .qk-view :is(select, button, input, summary)"
    small = phone.page.eval_on_selector_all(controls, SMALL)
    wide = phone.page.evaluate("document.documentElement.scrollWidth")
    assert not [(view, apart) for view, answers, apart in views if apart or not answers]
    assert not small and wide == PHONE["width"]


def test_folded_code_is_measured_when_it_is_opened(open_page: Any) -> None:
    page = open_page(CHAPTERS[0], viewport=PHONE).page
    page.wait_for_function("document.querySelector('article pre[tabindex]')")  # the theme was here
    folded = page.locator("article details:not([open])").filter(has=page.locator("pre")).first
    code = folded.locator("pre").first.element_handle()
    assert code.get_attribute("tabindex") is None
    folded.locator("summary").first.click()
    page.wait_for_function("(code) => code.hasAttribute('tabindex')", arg=code)


def test_tables_fit_the_column(visit: Any) -> None:
    assert visit.page.eval_on_selector_all("article table", WIDE) == []


def test_tables_fit_the_column_of_a_phone(phone: Any) -> None:
    assert phone.page.eval_on_selector_all("article table", WIDE) == []


def test_the_first_screen_of_the_book_has_sentence_figure_and_finding(open_page: Any) -> None:
    for screen, wanted in ((LAPTOP, ["p", ".qk-cover", "ol > li"]), (PHONE, ["p", ".qk-cover"])):
        page = open_page("book/index", viewport=screen).page
        page.evaluate("scrollTo(0, 0)")
        for selector in wanted:
            box = page.locator(f"article {selector}").first.bounding_box()
            assert box["y"] + box["height"] <= screen["height"], (selector, screen)


@pytest.mark.parametrize("name", ["book/index", "book/playground"])
def test_text_stays_where_it_is_when_a_view_comes(browser: Any, site: str, name: str) -> None:
    page = browser.new_context(viewport=PHONE, is_mobile=True).new_page()
    page.goto(f"{site}{name}.html", wait_until="networkidle")
    page.wait_for_selector(".qk-view")
    assert page.evaluate(MOVED) < MOST_MOVED
    page.context.close()

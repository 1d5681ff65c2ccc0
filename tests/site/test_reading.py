"""What a page does for its reader: definitions where one points, figures enlarged, paper."""

import io
import sys
from pathlib import Path
from typing import Any

import pypdf
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_tools"))
import pdf  # noqa: E402

PAGE = "notebooks/01_svd_derivation"
LAPTOP, PHONE = {"width": 1280, "height": 720}, {"width": 390, "height": 844}
# Opened and closed by a reader, at the time of printing
OPEN = "() => document.querySelectorAll('article details[open]').length"
ALL = "() => document.querySelectorAll('article details').length"

pytestmark = pytest.mark.site


@pytest.fixture
def page(open_page: Any) -> Any:
    visit = open_page(PAGE, viewport=LAPTOP)
    yield visit.page


def test_a_term_says_what_it_means_by_mouse_and_by_keyboard(page: Any) -> None:
    term = page.locator("article a[href*='#term-']").first
    tip = page.locator(".tippy-box[data-state='visible']")
    for come, leave in ((term.focus, term.blur), (term.hover, lambda: page.mouse.move(0, 0))):
        come()
        tip.wait_for()
        assert tip.locator("dt").inner_text() == term.inner_text()
        assert len(tip.locator("dd").inner_text()) > 20
        leave()
        tip.wait_for(state="detached")


def test_a_work_is_named_where_it_is_cited(open_page: Any) -> None:
    page = open_page("book/index", viewport=LAPTOP).page
    page.locator("article a[href*='references.html#']").first.hover()
    tip = page.locator(".tippy-box[data-state='visible']")
    assert "Schwartz" in tip.inner_text()


@pytest.mark.parametrize("screen", [LAPTOP, PHONE])
def test_a_figure_is_enlarged_and_put_back_by_keyboard(open_page: Any, screen: Any) -> None:
    visit = open_page(PAGE, viewport=screen)
    page = visit.page
    figure = page.locator("article img.qk-can-enlarge:visible").first
    before = figure.bounding_box()["width"]
    button = figure.locator("+ button")
    button.focus()
    page.keyboard.press("Enter")
    large = page.locator("dialog.qk-enlarged img")
    assert large.get_attribute("alt") == figure.get_attribute("alt")
    assert large.bounding_box()["width"] > 1.3 * before
    assert not visit.violations()
    page.keyboard.press("Escape")
    large.wait_for(state="detached")


def test_a_quiz_is_answered_by_keyboard(page: Any) -> None:
    for option in page.locator("details.option").all():
        option.locator("summary").focus()
        page.keyboard.press("Enter")
        assert option.evaluate("option => option.open")
        right = "right" in option.get_attribute("class").split()
        told = option.locator("p").first
        assert told.inner_text().startswith("Right." if right else "No.")
        page.keyboard.press("Enter")
        assert not told.is_visible()
    assert page.locator("details.option.right").count() == 3


def test_printing_opens_what_is_folded_and_closes_it_again(page: Any) -> None:
    before = page.evaluate(OPEN)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(OPEN) == page.evaluate(ALL) > before
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(OPEN) == before


def test_pages_are_printed_as_one_book(site: str, browser: Any) -> None:
    addresses = [f"{site}book/notation.html", f"{site}book/index.html"]
    page = browser.new_page()
    parts = {address: pdf.printed(page, address) for address in addresses}
    page.close()
    made = io.BytesIO()
    pdf.join(parts).write(made)
    book = pypdf.PdfReader(made)
    first = len(pypdf.PdfReader(io.BytesIO(parts[addresses[0]])).pages)
    assert len(book.pages) > first
    titles = [entry for entry in book.outline if not isinstance(entry, list)]
    assert [book.get_destination_page_number(each) for each in titles] == [0, first]
    notes = [note.get_object() for sheet in book.pages for note in sheet.get("/Annots", [])]
    addressed = [str(note.get("/A", {}).get("/URI", "")).partition("#")[0] for note in notes]
    assert not set(addressed) & set(addresses)
    targets = [note["/Dest"][0] for note in notes if "/Dest" in note]
    numbers = {book.get_page_number(target.get_object()) for target in targets}
    assert 0 in numbers and max(numbers) > first  # from page to page, and within a page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_gallery_is_seen_once_by_day_and_by_night(open_page: Any, scheme: str) -> None:
    page = open_page("notebooks/02_embedded_world", color_scheme=scheme).page
    seen = "all => all.filter((it) => getComputedStyle(it).display !== 'none').length"
    pairs = page.locator("article img.qk-day").count()
    for kind, there in (("qk-day", scheme == "light"), ("qk-night", scheme == "dark")):
        assert page.locator(f"article img.{kind}").count() == pairs > 0
        for part in (f"img.{kind}", f"img.{kind} + button"):
            assert page.eval_on_selector_all(f"article {part}", seen) == pairs * there

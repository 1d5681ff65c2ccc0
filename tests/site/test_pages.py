"""Every page of the built book, as a reader's browser shows it: `make book` first."""

import gzip
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
PAGES = ["book/index", *re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text())]
# Contrast takes axe longest.  Widths and colours each change a part of what it looks at.
CONTRAST = "runOnly: {type: 'rule', values: ['color-contrast']}"
NO_CONTRAST = "rules: {'color-contrast': {enabled: false}}"
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

pytestmark = pytest.mark.site


def test_page_loads_alone_and_without_errors(visit: Any) -> None:
    assert not visit.faults


def test_without_an_address_a_page_has_no_button_for_the_repository() -> None:
    if (ROOT / "_build" / "repository.txt").read_text().split(" ")[0]:
        pytest.skip("this book was built with REPOSITORY")
    pages = {name: (SITE / f"{name}.html").read_text("utf-8") for name in PAGES}
    assert not [name for name, page in pages.items() if "btn-source-" in page]


def test_nothing_serious_keeps_anyone_out(visit: Any) -> None:
    assert not visit.violations()


def test_page_is_light(visit: Any, site: str) -> None:
    """What a page loads before a view is near, packed as a server sends it.

    Scripts that all pages share are loaded once.
    """
    own = {unquote(u.removeprefix(site)) for u in visit.urls if u.startswith(site)}
    own = {u for u in own if u.startswith(("notebooks/", "book/", "_images/"))}
    own = {u for u in own if (SITE / u).is_file()}  # the checker asks for styles that are not there
    assert own
    assert sum(len(gzip.compress((SITE / name).read_bytes())) for name in own) <= 1.5e6


def test_mathematics_is_set(visit: Any) -> None:
    page = visit.page
    bare = "all => all.filter(it => !it.querySelector('.katex')).map(it => it.textContent)"
    assert page.eval_on_selector_all("article .math", bare) == []
    assert page.locator(".katex-error").count() == 0
    # For a screen reader: what has two parts, or three, has them.
    wrong = "all => all.filter(it => it.childElementCount !== PARTS).map(it => it.outerHTML)"
    for names, parts in (("mfrac,mover,mroot,msub,msup,munder", 2), ("msubsup,munderover", 3)):
        assert page.eval_on_selector_all(names, wrong.replace("PARTS", str(parts))) == []


def test_pictures_have_a_description(visit: Any) -> None:
    """A map, or a figure, describes what lies under it or over it."""
    bare = "all => all.filter(image => !image.alt.trim()).map(image => image.src)"
    assert visit.page.eval_on_selector_all("article img:not(.qk-grid img, .qk-kept)", bare) == []


def test_links_lead_somewhere(visit: Any, site: str) -> None:
    links = visit.page.eval_on_selector_all("a[href]", "all => all.map(link => link.href)")
    broken = []
    for link in links:
        url, anchor = urldefrag(link)
        file = SITE / unquote(url.removeprefix(site).partition("?")[0])
        file = file / "index.html" if file.is_dir() else file
        if not url.startswith(site):
            continue
        if not file.exists() or (anchor and f'id="{unquote(anchor)}"' not in file.read_text()):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("kind", "screen"), [("dark", DESK), ("phone-dark", PHONE)])
def test_page_in_the_dark(name: str, kind: str, screen: Any, open_page: Any) -> None:
    visit = open_page(name, viewport=screen, color_scheme="dark")
    visit.shoot(kind)
    assert visit.page.locator("html").get_attribute("data-theme") == "dark"
    looks = """all => all.map(getComputedStyle).map((look) => look.padding + look.filter)"""
    pictures = ":is(.qk-grid > img, article img.qk-can-enlarge):not(.qk-chart)"
    assert set(visit.page.eval_on_selector_all(pictures, looks)) <= {"0pxnone"}
    charts = visit.page.eval_on_selector_all("article img.qk-chart", looks)
    assert all(look.startswith("0pxinvert") for look in charts)
    assert not visit.faults
    if screen is DESK:
        assert not visit.violations(CONTRAST)


def test_phone_needs_no_sideways_scrolling_and_keeps_nobody_out(phone: Any) -> None:
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert not phone.violations(NO_CONTRAST)


def test_steppers_react_to_the_keyboard(visit: Any) -> None:
    """One press of an arrow key shows the next finished figure, with no kernel behind it."""
    for view in visit.page.locator(".qk-view:has(.qk-finished)").all():
        before = view.locator(".qk-finished").get_attribute("alt")
        slider = view.get_by_role("slider")
        at_end = slider.evaluate("it => it.value === it.max")
        slider.focus()
        visit.page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
        assert view.locator(".qk-finished").get_attribute("alt") != before

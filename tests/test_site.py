"""Every page of the built book, as a reader's browser shows it: `make book` first."""

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html"
SHOTS = ROOT / "_build" / "screenshots"
PAGES = ["book/index", *re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text())]
PHONE, DESK = {"width": 400, "height": 800}, {"width": 1300, "height": 900}

pytestmark = pytest.mark.site


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(skip_or_fail: Any) -> Iterator[str]:
    """Serve the built book on this machine and give its address."""
    if not (SITE / "index.html").exists():
        skip_or_fail("it is not built (make book)")
    handler = functools.partial(Quiet, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Visit:
    """A page that was opened, with all that went wrong on the way."""

    def __init__(self, browser: Any, site: str, name: str, **context: Any):
        self.page = browser.new_context(**context).new_page()
        self.faults: list[str] = []
        self.page.on("request", lambda request: self.see(request.url, site))
        self.page.on("response", lambda answer: self.answered(answer.status, answer.url))
        self.page.on("requestfailed", lambda request: self.faults.append(f"failed: {request.url}"))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("console", lambda message: self.heard(message.type, message.text))
        self.page.goto(f"{site}{name}.html", wait_until="networkidle")
        self.page.evaluate("window.MathJax && MathJax.startup.promise")

    def see(self, url: str, site: str) -> None:
        """Note a request that leaves this machine."""
        if not url.startswith((site, "data:", "blob:")):
            self.faults.append(f"asks another host: {url}")

    def answered(self, status: int, url: str) -> None:
        """Note an answer that says no."""
        if status >= 400:
            self.faults.append(f"HTTP {status}: {url}")

    def heard(self, kind: str, text: str) -> None:
        """Note an error in the console."""
        if kind == "error":
            self.faults.append(f"console: {text}")


def shoot(visit: Visit, name: str, kind: str) -> None:
    """Keep a picture of the whole page, for people to look at."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    path = SHOTS / f"{name.replace('/', '-')}-{kind}.png"
    visit.page.screenshot(path=path, full_page=True)


@pytest.fixture(scope="module", params=PAGES)
def visit(request: pytest.FixtureRequest, browser: Any, site: str) -> Iterator[Visit]:
    """Open each page of the book once, on a desk's screen."""
    opened = Visit(browser, site, request.param, viewport=DESK, color_scheme="light")
    shoot(opened, request.param, "light")
    yield opened
    opened.page.context.close()


def test_page_loads_alone_and_without_errors(visit: Visit) -> None:
    assert not visit.faults


def test_mathematics_is_set(visit: Visit) -> None:
    page = visit.page
    assert page.locator("article .math").count() <= page.locator("article mjx-container").count()
    assert page.locator("mjx-merror").count() == 0


def test_pictures_have_a_description(visit: Visit) -> None:
    bare = "all => all.filter(image => !image.alt.trim()).map(image => image.src)"
    assert visit.page.eval_on_selector_all("article img", bare) == []


def test_links_lead_somewhere(visit: Visit, site: str) -> None:
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


def test_views_are_drawn(visit: Visit) -> None:
    wanted = visit.page.locator('script[type="application/vnd.jupyter.widget-view+json"]').count()
    tall = "all => all.filter(view => view.firstElementChild?.offsetHeight).length"
    assert visit.page.eval_on_selector_all(".widget-subarea", tall) == wanted


@pytest.mark.parametrize("name", PAGES)
def test_page_in_the_dark(name: str, browser: Any, site: str) -> None:
    visit = Visit(browser, site, name, viewport=DESK, color_scheme="dark")
    shoot(visit, name, "dark")
    assert visit.page.locator("html").get_attribute("data-theme") == "dark"
    assert not visit.faults


@pytest.mark.parametrize("name", PAGES)
def test_phone_needs_no_sideways_scrolling(name: str, browser: Any, site: str) -> None:
    visit = Visit(browser, site, name, viewport=PHONE)
    shoot(visit, name, "phone")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_steppers_react_to_the_keyboard(visit: Visit) -> None:
    """One press of an arrow key shows the next finished figure, with no kernel behind it."""
    shown = "all => all.filter(image => image.offsetParent).map(image => image.alt)"
    for handle in visit.page.locator(".widget-hslider .noUi-handle").all():
        view = handle.locator("xpath=ancestor::div[contains(@class, 'widget-vbox')][1]")
        before = view.locator("img").evaluate_all(shown)
        handle.focus()
        visit.page.keyboard.press("ArrowRight")
        visit.page.wait_for_timeout(200)
        after = view.locator("img").evaluate_all(shown)
        assert len(before) == len(after) == 1 and before != after

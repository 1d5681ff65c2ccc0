"""The built book, served on this machine and opened in a browser: `make book` first."""

from __future__ import annotations

import contextlib
import functools
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
SHOTS = ROOT / "_build" / "screenshots"
PAGES = ["book/index", *re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text())]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
# Every view is drawn; one that is not yet is brought to the screen.
DRAWN = """() => {
  const places = [...document.querySelectorAll(".qk-mount")];
  const waiting = places.find((place) => !place.firstElementChild?.offsetHeight);
  (waiting ?? document.body).scrollIntoView();
  return !waiting;
}"""
AXE = ROOT / "_build" / "axe" / "axe.min.js"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
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
        self.name = name
        self.page = browser.new_context(**context).new_page()
        self.faults: list[str] = []
        self.page.on("request", lambda request: self.see(request.url, site))
        self.page.on("response", lambda answer: self.answered(answer.status, answer.url))
        self.urls: list[str] = []
        self.page.on("requestfailed", lambda request: self.faults.append(f"failed: {request.url}"))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("console", lambda message: self.heard(message.type, message.text))
        self.page.goto(f"{site}{name}.html", wait_until="networkidle")
        if context.get("java_script_enabled", True):
            self.page.wait_for_function(DRAWN)

    def see(self, url: str, site: str) -> None:
        """Note what is asked for, and a request that leaves this machine."""
        self.urls.append(url)
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

    def shoot(self, kind: str) -> None:
        """Keep a picture of the whole page, for people to look at."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{self.name.replace('/', '-')}-{kind}.png"
        self.page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")  # headers stand at the top
        self.page.screenshot(path=path, full_page=True)

    def violations(self, options: str = "") -> list[str]:
        """What axe calls serious or critical on the page as it stands."""
        self.page.evaluate(AXE.read_text())
        run = f"axe.run(document, {{resultTypes: ['violations'], {options}}})"
        found = self.page.evaluate(run)["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        nodes = [(each["id"], node) for each in serious for node in each["nodes"]]
        return [f"{what}: {node['target']}: {node['failureSummary']}" for what, node in nodes]


@pytest.fixture(scope="session")
def visit_page(browser: Any, site: str) -> Callable[..., Any]:
    """A context in which a page of the book is open; a browser can't keep them all."""

    @contextlib.contextmanager
    def visiting(name: str, **context: Any) -> Iterator[Visit]:
        visit = Visit(browser, site, name, **context)
        yield visit
        visit.page.context.close()

    return visiting


@pytest.fixture
def open_page(visit_page: Any) -> Iterator[Callable[..., Visit]]:
    """A function that opens a page of the book by name, until the test ends."""
    with contextlib.ExitStack() as opened:
        yield lambda name, **context: opened.enter_context(visit_page(name, **context))


@pytest.fixture(scope="session", params=PAGES)
def visit(request: pytest.FixtureRequest, visit_page: Any) -> Iterator[Visit]:
    """Each page of the book, opened once on a desk's screen."""
    with visit_page(request.param, viewport=DESK, color_scheme="light") as opened:
        opened.shoot("light")
        yield opened


@pytest.fixture(scope="session", params=PAGES)
def phone(request: pytest.FixtureRequest, visit_page: Any) -> Iterator[Visit]:
    """Each page of the book, opened once on a phone."""
    with visit_page(request.param, viewport=PHONE) as opened:
        opened.shoot("phone")
        yield opened

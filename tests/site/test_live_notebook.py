"""A view in JupyterLab: the same object, and Python behind it.  `make live` runs it."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import nbformat
import pytest

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.live

CELLS = (
    "import qkutils as qk\n"
    "from qkutils import trends, views\n"
    "view = views.trends([trends.curves(n) for n in ('tiny-supervised', 'tiny-simmim')])\n"
    "view",
    "view.respond = lambda request: 1 / 0",
    "view.state = view.state | {'layer': 5}",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab that holds a notebook with a view."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "live.ipynb")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = [f"--port={port}", "--no-browser", "--allow-root", "--IdentityProvider.token="]
    options += [f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None"]
    command = [sys.executable, "-m", "jupyterlab", *options]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        wait_for(address, folder / "log")
        yield f"{address}/lab/tree/live.ipynb?reset"
    finally:
        server.terminate()
        server.wait(30)


def wait_for(address: str, log: Path) -> None:
    """Wait until the server answers; raises TimeoutError with what it said."""
    end = monotonic() + 120
    while monotonic() < end:
        try:
            urllib.request.urlopen(f"{address}/api/status", timeout=5)
            return
        except OSError:
            sleep(0.5)
    raise TimeoutError(log.read_text())


@pytest.fixture
def page(lab: str, browser: Any) -> Iterator[Any]:
    """The notebook, with its first cell run."""
    opened = browser.new_page(viewport={"width": 1400, "height": 1200})
    opened.set_default_timeout(60_000)
    opened.goto(lab, timeout=120_000)
    soon(opened.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]"), "start a kernel")
    run(opened, 0)
    soon(opened.locator(".jp-InputPrompt", has_text="[1]:"), "run a cell")
    opened.get_by_label("add a model").wait_for()
    yield opened
    opened.close()


def soon(sign: Any, what: str) -> None:
    """Wait for a sign of Jupyter's own; where it does not come, this machine is too slow."""
    try:
        sign.first.wait_for(timeout=120_000)
    except playwright.TimeoutError:
        pytest.skip(f"THE LIVE NOTEBOOK WAS NOT LOOKED AT: Jupyter did not {what} in two minutes")


def run(page: Any, number: int) -> None:
    """Run one cell, once JupyterLab hears the keys."""
    cell = page.locator(".jp-CodeCell").nth(number)
    before = cell.locator(".jp-InputPrompt").inner_text()
    for _ in range(20):
        cell.locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(1500)
        if cell.locator(".jp-InputPrompt").inner_text() != before:
            return


def test_python_answers_an_error_is_shown_and_python_moves_the_view(page: Any) -> None:
    curves = page.locator(".qk-axes .qk-curve")
    assert curves.count() == 2
    assert not page.get_by_text("This chapter's notebook").count()
    page.get_by_label("add a model").select_option("tiny-dino")
    page.wait_for_function("document.querySelectorAll('.qk-axes .qk-curve').length === 3")
    assert page.locator(".qk-facts dt").first.inner_text() == "tiny-dino"
    run(page, 2)
    page.locator(".qk-facts dd", has_text="layer 5").wait_for()
    run(page, 1)
    page.get_by_label("add a model").select_option("tiny-untrained")
    page.locator(".qk-error[role=alert]", has_text="ZeroDivisionError: division by zero").wait_for()

"""What this book asks of Sphinx beyond its settings."""

import gc
import os
import shutil
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import page_links
import quick
import sphinx_thebe
from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.errors import ExtensionError
from sphinxcontrib import katex

from qkutils.book import ledger


def drop_thebe(app: Any, config: Any) -> None:
    """Leave out sphinx-thebe's script, which asks another host on every page."""
    for name, listeners in app.events.listeners.items():
        kept = [each for each in listeners if each.handler is not sphinx_thebe.init_thebe_core]
        app.events.listeners[name] = kept


def require_vendor(app: Any) -> None:
    """Stop if the scripts are not there that mathematics and views need."""
    if not (Path(app.srcdir) / "book" / "assets" / "vendor" / ".stamp").exists():
        raise ExtensionError("book/assets/vendor is empty: run book/_tools/vendor_web.py first")


def start_node(cls: Any, rundir: Path, timeout: float) -> tuple[Popen, socket.socket]:
    """Start node, and wait until it listens.

    As KaTeXServer does, which stops where node has made its socket and does not listen yet, and
    leaves node running: who waits for the end of all that a build started would wait for ever.
    """
    path, end = rundir / "katex.sock", time.monotonic() + timeout
    process = Popen(cls.build_command(socket=path), stdin=PIPE, stdout=PIPE, cwd=rundir)
    connection = socket.socket(socket.AF_UNIX)
    while time.monotonic() < end and process.poll() is None:
        with suppress(FileNotFoundError, ConnectionRefusedError):
            connection.connect(str(path))
            return process, connection
        time.sleep(0.01)
    process.kill()
    raise ExtensionError("node does not answer, which sets the mathematics")


def start_katex(app: Any) -> None:
    """Start what sets mathematics, node."""
    katex.NODEJS_BINARY = shutil.which("node") or str(Path(sys.executable).with_name("node"))
    katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = 60  # seconds
    katex.KaTeXServer.start_server_process = classmethod(start_node)
    katex.KaTeXServer.get()


def plain_citations(
    app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Take back roles that docutils gives to a list of references, but whose rules it breaks."""
    body = context.get("body", "")
    body = body.replace(' role="list" class="citation-list"', ' class="citation-list"')
    context["body"] = body.replace(' role="doc-biblioentry"', "")


def escape_widget_state(app: Any, doctree: Any) -> None:
    """Keep names in the state of views from ending its script element, which any `</SCRIPT >` does.

    myst-nb escapes `</script>` alone.  In JSON, `<` stands in strings only.
    """
    for _, script in NbMetadataCollector.get_js_files(app.env, app.env.docname).values():
        if script.get("type") == "application/vnd.jupyter.widget-state+json":
            script["body"] = script["body"].replace("<", r"\u003c")


def from_ledger(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, *_: Any
) -> tuple[list[Any], list[Any]]:
    """{ledger}`claim` is a claim's number with its interval, {ledger}`claim | field` another field.

    `ledger.quote` says more.
    """
    try:
        return [nodes.Text(ledger.quote(text))], []
    except ValueError as error:
        return [], [inliner.reporter.error(str(error), line=lineno)]


def setup(app: Any) -> dict[str, bool]:
    """Connect the functions of this file."""
    os.environ["QKUTILS_BUILDING"] = "1"  # of chapters that Jupyter Book itself runs
    gc.disable()  # a build keeps what it reads; looking for garbage takes a quarter of its time
    app.connect("config-inited", drop_thebe, priority=900)
    app.connect("builder-inited", require_vendor)
    app.connect("builder-inited", start_katex, priority=900)
    app.connect("doctree-read", escape_widget_state)
    app.connect("html-page-context", plain_citations)
    app.connect("html-page-context", page_links.offer, priority=900)
    app.connect("build-finished", quick.settle)
    app.add_role("ledger", from_ledger)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

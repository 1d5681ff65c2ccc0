"""What this book asks of Sphinx beyond its settings."""

import gc
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
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


def start_katex(app: Any) -> None:
    """Start what sets mathematics, node; on a busy machine it can be found before it listens."""
    katex.NODEJS_BINARY = shutil.which("node") or str(Path(sys.executable).with_name("node"))
    katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = 60  # seconds
    for _ in range(100):
        with suppress(ConnectionRefusedError):
            katex.KaTeXServer.get()
            return
    raise ExtensionError("node does not answer, which sets the mathematics")


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

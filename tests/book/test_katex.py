"""What sets mathematics is one process, started once and ended with the build."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sphinx.errors import ExtensionError
from sphinxcontrib import katex

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))
import qk_sphinx  # noqa: E402

# A node that takes its time between making its socket and listening, or that ends at once
SLOW = """#!{python}
import socket, sys, time
with open({started!r}, "a") as file:
    file.write("x")
if {ends}:
    sys.exit(1)
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[sys.argv.index("--socket") + 1])
time.sleep(1)
server.listen()
server.accept()[0].recv(1)
"""


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A function that puts a stand-in in node's place; it counts how often it was started."""
    started = tmp_path / "started"

    def put(ends: bool) -> Path:
        script = tmp_path / "node"
        script.write_text(SLOW.format(python=sys.executable, started=str(started), ends=ends))
        script.chmod(0o755)
        monkeypatch.setattr(katex, "NODEJS_BINARY", str(script))
        return started

    return put


def test_node_is_waited_for_and_started_once(node, tmp_path):
    started = node(ends=False)
    process, connection = qk_sphinx.start_node(katex.KaTeXServer, tmp_path, 60)
    try:
        assert process.poll() is None and started.read_text() == "x"
    finally:
        connection.close()
    assert process.wait(timeout=60) == 0


def test_a_node_that_ends_is_an_error_at_once(node, tmp_path):
    started = node(ends=True)
    with pytest.raises(ExtensionError):
        qk_sphinx.start_node(katex.KaTeXServer, tmp_path, 600)
    assert started.read_text() == "x"

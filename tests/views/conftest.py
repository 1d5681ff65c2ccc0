"""What tests of views share."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; worker-src 'self' blob:"
)


@pytest.fixture(scope="session")
def node(skip_or_fail):
    """The path of node, which runs the views' scripts without a browser."""
    return shutil.which("node") or skip_or_fail("there is no node to run the views' scripts")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with the policy, and keeps what was asked for and how much was sent."""

    server: Any

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with a file, compressed where the test says so."""
        path = Path(self.translate_path(self.path.partition("?")[0]))
        if not path.is_file():
            self.server.sent.append((path.name, 0))
            self.send_error(404)
            return
        packed = self.server.compresses
        content = gzip.compress(path.read_bytes()) if packed else path.read_bytes()
        self.server.sent.append((path.name, len(content)))
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", self.server.policy)
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def _serving(folder: Path) -> Iterator[Any]:
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        shared: Any = server
        shared.sent, shared.policy, shared.compresses = [], POLICY, False
        shared.address = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield shared
        server.shutdown()


@pytest.fixture(scope="session")
def serve() -> Callable[[Path], Any]:
    """A function that serves a folder with the policy: `address`, and what was `sent`."""
    return _serving


# What a worker does first: it keeps the memories of its WebAssembly where a test can ask them.
KEEP_MEMORIES = b"""self.memories = [];
WebAssembly.Memory = class extends WebAssembly.Memory {
  constructor(...given) {
    super(...given);
    self.memories.push(this);
  }
};
"""


class Memory:
    """What a page holds, with its worker and WebAssembly, as V8 counts it.

    Made before the worker is. A process's size would tell other things on other machines.
    """

    def __init__(self, page: Any) -> None:
        self.page, self.session = page, page.context.new_cdp_session(page)
        self.workers: list[str] = []
        self.answers: list[dict[str, Any]] = []
        page.context.route("**/engine_worker*", self._watched)
        self.session.on("Target.attachedToTarget", self._attached)
        self.session.on("Target.receivedMessageFromTarget", self._answered)
        follow = {"autoAttach": True, "waitForDebuggerOnStart": False, "flatten": False}
        self.session.send("Target.setAutoAttach", follow)

    def _watched(self, route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=KEEP_MEMORIES + answer.body())

    def _attached(self, told: dict[str, Any]) -> None:
        self.workers.append(told["sessionId"])

    def _answered(self, told: dict[str, Any]) -> None:
        message = json.loads(told["message"])
        if "id" in message:  # others tell what happens in the worker
            self.answers.append(message["result"])

    def _asked(self, method: str) -> Any:
        (worker,) = self.workers
        message = json.dumps({"id": 1, "method": method})
        told = {"sessionId": worker, "message": message}
        count = len(self.answers)
        self.session.send("Target.sendMessageToTarget", told)
        while len(self.answers) == count:
            self.page.wait_for_timeout(10)
        return self.answers[-1]

    def held(self) -> int:
        """Bytes in use."""
        (worker,) = self.page.workers
        lengths = worker.evaluate("memories.map((memory) => memory.buffer.byteLength)")
        size = sum(lengths)
        assert size > 0  # the runtime's is among them
        for ask in (self.session.send, self._asked):
            ask("HeapProfiler.collectGarbage")
            usage = ask("Runtime.getHeapUsage")
            size += sum(usage[part] for part in ("usedSize", "embedderHeapUsedSize"))
            size += usage["backingStorageSize"]
        return int(size)


@pytest.fixture(scope="session")
def memory() -> type[Memory]:
    """What tells how much memory a page holds."""
    return Memory

"""How soon a reader sees a page: first and largest paint on a slow phone, of every page.

usage: bench_pages.py [--paint] [PAGE ...]

The phone has 1.6 Mbit/s, 150 ms and a processor four times slower; files come gzipped. npx fetches
Lighthouse, which scores each page for mobile; `--paint` leaves that out. `make book` first, and
have nothing else running: both measure time.
"""

import functools
import gzip
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
PAGES = ["book/index", *re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text())]
LIGHTHOUSE = "lighthouse@12.8.2"
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True}
NETWORK = {
    "offline": False,
    "latency": 150,
    "downloadThroughput": 1.6e6 / 8,
    "uploadThroughput": 7.5e5 / 8,
}
PAINTS = """() => new Promise((tell) => {
  let largest = 0;
  const watch = new PerformanceObserver((list) => {
    for (const { startTime } of list.getEntries()) largest = startTime;
  });
  watch.observe({ type: "largest-contentful-paint", buffered: true });
  setTimeout(() => {
    const [first] = performance.getEntriesByName("first-contentful-paint");
    tell([first.startTime, largest]);
  }, 500);
})"""


class Packed(http.server.SimpleHTTPRequestHandler):
    """Serves files gzipped, as a server of pages does, and writes no log."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with the packed file, or that there is none."""
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            self.send_error(404)
            return
        content = gzip.compress(path.read_bytes())
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "max-age=3600")
        self.end_headers()
        self.wfile.write(content)


def paints(browser: Any, address: str) -> tuple[float, float]:
    """Seconds to the first and to the largest paint of a page that was never opened before."""
    page = browser.new_context(**PHONE).new_page()
    slow = page.context.new_cdp_session(page)
    slow.send("Network.emulateNetworkConditions", NETWORK)
    slow.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    page.goto(address, wait_until="load", timeout=120_000)
    first, largest = page.evaluate(PAINTS)
    page.context.close()
    return first / 1000, largest / 1000


def scores(address: str) -> dict[str, int]:
    """What Lighthouse gives a page on a phone."""
    chrome = shutil.which("chromium") or shutil.which("google-chrome") or ""
    command = ["npx", "--yes", LIGHTHOUSE, address, "--quiet", "--output=json"]
    command += ["--only-categories=performance,accessibility"]
    command += ["--chrome-flags=--headless=new --no-sandbox --disable-gpu"]
    environment = os.environ | {"CHROME_PATH": chrome}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)["categories"]
    return {name: round(100 * each["score"]) for name, each in found.items()}


def main() -> None:
    """Print a line for every page."""
    handler = functools.partial(Packed, directory=SITE)
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        sync_playwright() as started,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chromium = shutil.which("chromium")
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in [page for page in sys.argv[1:] if page != "--paint"] or PAGES:
            address = f"http://127.0.0.1:{server.server_port}/{name}.html"
            first, largest = paints(browser, address)
            told = "" if "--paint" in sys.argv else scores(address)
            print(
                f"{name:36} first paint {first:.1f} s, largest {largest:.1f} s {told}", flush=True
            )
        server.shutdown()


if __name__ == "__main__":
    main()

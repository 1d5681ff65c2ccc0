"""How long a view takes to react: script and layout of single moves, in a browser."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

import qkutils as qk
from qkutils import models, modes, views

MOVES = """() => {
  const spans = [];
  const timed = (act) => {
    const start = performance.now();
    act();
    document.body.offsetHeight; // lays the page out
    spans.push(performance.now() - start);
  };
  const event = (control, name) => control.dispatchEvent(new Event(name, { bubbles: true }));
  const key = (name) => new KeyboardEvent("keydown", { key: name, bubbles: true });
  const all = (what) =>
    [...document.querySelectorAll(`.qk-view ${what}`)].filter((e) => e.offsetParent);
  for (let round = 0; round < 5; round++) {
    for (const control of all("input[type=range]")) {
      for (let n = 0; n < 8; n++) timed(() => {
        control.value = Number(control.min) + Math.random() * (control.max - control.min);
        event(control, "input");
      });
    }
    for (const control of all("select")) timed(() => {
      control.selectedIndex = Math.floor(Math.random() * control.options.length);
      event(control, "change");
    });
    for (const control of all("input[type=checkbox], input[type=radio]")) {
      timed(() => control.click());
    }
    for (const box of all("[role=application]")) {
      for (const name of ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"]) {
        timed(() => box.dispatchEvent(key(name)));
      }
    }
  }
  return spans;
}"""


def made() -> Iterator[views.View]:
    """Each view, on embedded models."""
    model = models.load("tiny-supervised")
    yield views.two_dimensional()
    yield views.trends([modes.trend(name) for name in models.family()[0].dropna()])
    yield views.attention_stepper(model, qk.world.samples(5_000_000, 0, 4))
    pictures = qk.pictures_of(qk.pictures.images(qk.world.pictures(0, 0, 64), model, 64), model)
    atlas = qk.scan(model, pictures, k=4)
    yield views.mode_browser(model, atlas, pictures)
    yield views.one_image(model, pictures.read(0))


def main() -> None:
    """Print the times of every view."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser: Any = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for view in made():
            page = browser.new_page()
            page.goto(view.to_html(Path(folder) / "view.html").as_uri())
            page.wait_for_selector(".qk-view")
            spans = np.array(page.evaluate(MOVES))
            half, most = np.quantile(spans, [0.5, 0.95])
            name = type(view).__name__
            print(
                f"{name}: {len(spans)} moves, median {half:.1f} ms, 95th percentile {most:.1f} ms"
            )
            page.close()
        browser.close()


if __name__ == "__main__":
    main()

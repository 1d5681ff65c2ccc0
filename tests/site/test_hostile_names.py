"""A page built as the book is, from a chapter in which every name tries to run script."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure

from qkutils import views

pytestmark = [pytest.mark.chapter, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "book" / "_tools"
sys.path.insert(0, str(TOOLS))
import stage as staging  # noqa: E402

TRIES = (
    "<img src=x onerror=hit()>",
    "</script><img src=x onerror=hit()>",
    "</SCRIPT ><img src=x onerror=hit()>",
    "</script\n/><script>hit()</script>",
    "<!--<script>",
    "&lt;/script&gt;{{ 1 + 1 }}`x` $y$ \\u003c/script> \N{LINE SEPARATOR} 'a' \"b\"",
)
CHAPTER = """\
# ---
# jupyter:
#   jupytext:
#     comment_magics: false
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Who goes there?
#
# It is {glue:text}`model`, and {glue:}`model`.

# %% tags=["parameters"]
MODEL = ""

# %%
import json
import pandas as pd
from matplotlib.figure import Figure
from qkutils import views
from qkutils.book import tell
names = json.loads(MODEL)
tell(model=names[2])

# %%
pd.DataFrame({name: {other: name for other in names} for name in names}).rename_axis(names[2])

# %%
print(names)
names

# %%
views.stepper([Figure() for name in names], names, names, names[2])
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: Any, browser: Any) -> Any:
    """The page, opened where every call of `hit` is counted."""
    folder = tmp_path_factory.mktemp("hostile")
    built = build(folder)
    opened = browser.new_page()
    opened.add_init_script("window.hits = 0; window.hit = () => { window.hits += 1; }")
    opened.goto(built.as_uri(), wait_until="load")
    yield opened
    opened.close()


def build(folder: Path) -> Path:
    """Execute the chapter and build it with the settings and extensions of the book."""
    script, stage = folder / "chapter.py", folder / "stage"
    script.write_text(CHAPTER)
    parameters = folder / "parameters.yaml"
    parameters.write_text(yaml.safe_dump({"MODEL": json.dumps(TRIES)}))
    executed = folder / "executed" / "chapter.ipynb"
    run(TOOLS / "run_chapter.py", script, executed, "--parameters", parameters)
    with pytest.MonkeyPatch.context() as patch:
        for part in (staging.cover, staging.playing, staging.status):
            patch.setattr(part, "write", lambda *_: None)  # other pages, which take long
        staging.stage(stage, [executed])
    vendor = stage / "book" / "assets" / "vendor"
    vendor.mkdir(exist_ok=True)
    (vendor / ".stamp").touch()  # the page's own scripts play no part here
    (stage / "_toc.yml").write_text("format: jb-book\nroot: notebooks/chapter\n")
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    run(jupyter_book, "build", stage, "--path-output", folder / "site", "-q")
    return folder / "site" / "_build" / "html" / "notebooks" / "chapter.html"


def run(*command: str | Path) -> None:
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_name_runs_script_in_a_single_file(open_view: Any) -> None:
    view = views.stepper([Figure() for _ in TRIES], TRIES, TRIES, TRIES[2])
    opened = open_view(view)
    assert not opened.faults and opened.locator("img[src=x]").count() == 0
    assert opened.get_by_role("heading").inner_text() == f"Step through: {TRIES[2]}"


def test_no_name_runs_script(page: Any) -> None:
    assert page.evaluate("window.hits") == 0
    assert page.locator("article img[src=x]").count() == 0


def test_names_are_shown_as_they_are(page: Any) -> None:
    """The data of the view read as they were written, and the table names all."""
    page.locator(".qk-mount").scroll_into_view_if_needed()
    page.wait_for_selector(".qk-mount .qk-view")
    (text,) = page.evaluate("Object.values(window.qkViews.texts)")
    assert json.loads(text)["data"]["names"] == list(TRIES)
    for name in TRIES:
        assert page.locator("article table th", has_text=name.split("\n")[0]).count() >= 2

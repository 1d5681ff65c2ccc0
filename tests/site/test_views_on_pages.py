"""The views as readers of the built book meet them: no kernel, no network, real input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import qkutils as qk

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
STATE = r'<script type="application/vnd.jupyter.widget-state\+json">(.*?)</script>'
CONTROLS = ".qk-view:not(:has(.qk-finished)) :is(select, input, button, a, [tabindex='0'])"
VIEWS = {
    "notebooks/01_svd_derivation": "A head with two dimensions",
    "notebooks/02_cosine_trends": "Trends over depth",
    "notebooks/05_odd_one_out": "Attention stepper",
    "notebooks/08_mode_gallery": "Mode browser",
    "notebooks/09_one_image": "One image, many modes",
}

pytestmark = pytest.mark.site


@pytest.fixture(scope="module", params=VIEWS)
def name(request: pytest.FixtureRequest) -> str:
    """Each page with a view."""
    return request.param


@pytest.fixture
def page(name: str, open_page: Any) -> Any:
    """A page with a view, opened anew, since tests move what is on it."""
    visit = open_page(name, viewport={"width": 1300, "height": 900})
    yield visit.page
    assert not visit.faults
    visit.page.context.close()


def test_view_is_there_and_its_still_picture_has_gone(name: str, page: Any) -> None:
    assert page.locator(f"section.qk-view[aria-label='{VIEWS[name]}']").is_visible()
    stills = page.locator(".qk-still")
    assert stills.count() == page.locator(".qk-view").count()
    assert not any(still.is_visible() for still in stills.all())


def test_without_scripts_the_still_picture_stays(name: str, open_page: Any) -> None:
    visit = open_page(name, java_script_enabled=False)
    stills = visit.page.locator(".qk-still").all()
    assert stills
    for still in stills:
        assert still.is_visible() and len(still.get_attribute("alt")) > 20
    visit.page.context.close()


def test_data_are_few(name: str) -> None:
    state = json.loads(re.search(STATE, (SITE / f"{name}.html").read_text(), re.S).group(1))
    views = [m for m in state["state"].values() if m["model_name"] == "AnyModel"]
    assert views and max(len(json.dumps(view)) for view in views) <= 1.5e6


def test_every_control_is_reached_by_the_tab_key_and_shows_it(page: Any) -> None:
    wanted = page.locator(CONTROLS)
    wanted.first.focus()
    outlined = "e => getComputedStyle(e).outlineStyle !== 'none'"
    reached = set()
    for _ in range(wanted.count() + 1):
        at = page.evaluate(
            f"[...document.querySelectorAll(`{CONTROLS}`)].indexOf(document.activeElement)"
        )
        if at < 0:
            break
        reached.add(at)
        page.keyboard.press("Tab")
        focused = page.evaluate_handle("document.activeElement")
        assert page.evaluate(outlined, focused)
    radios = page.locator(".qk-view input[type=radio]:not(:checked)").count()  # arrow keys' work
    hidden = wanted.evaluate_all("all => all.filter((e) => !e.offsetParent).length")
    assert len(reached) == wanted.count() - radios - hidden


def test_code_and_notebook_are_offered(name: str, page: Any) -> None:
    view = page.locator(f"section.qk-view[aria-label='{VIEWS[name]}']")
    link = view.get_by_role("link", name="This chapter's notebook")
    assert link.get_attribute("href").endswith(f"{name.partition('/')[2]}.ipynb")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    view.get_by_role("button", name="Copy the code that makes this").press("Enter")
    view.get_by_text("copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "views." in copied and "import qkutils as qk" in copied


def numbers(page: Any) -> list[str]:
    return page.locator(".qk-facts dd").all_inner_texts()


def test_trends_follow_the_keyboard(open_page: Any) -> None:
    visit = open_page("notebooks/02_cosine_trends")
    expected = qk.weighted_cosine("tiny-supervised").mean("head").values
    visit.page.locator("[aria-label='Trends over depth'] input[type=range]").focus()
    for layer, mean in enumerate(expected):
        assert numbers(visit.page)[0] == f"layer {layer}, convention paper"
        shown = float(numbers(visit.page)[1].replace("−", "-"))
        assert shown == pytest.approx(mean, abs=0.0051)
        visit.page.keyboard.press("ArrowRight")
    visit.page.context.close()

"""The views as readers of the built book meet them: no kernel, no network, real input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qkutils as qk
from qkutils.book import stored, stored_views

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
CONTROLS = ":is(select, input, button, a, [tabindex='0']):not(:disabled)"
VIEWS = {
    "notebooks/01_svd_derivation": "A head with two dimensions",
    "notebooks/03_cosine_trends": "Trends over depth",
    "notebooks/05_odd_one_out": "Attention stepper",
    "notebooks/08_mode_gallery": "Mode browser",
    "notebooks/10_one_image": "One image, many modes",
}

PICTURE, COUNT = 3, 192  # the parameters of chapter 10

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


def test_view_is_there_and_its_still_picture_has_gone(name: str, page: Any) -> None:
    assert page.locator(f".qk-view[aria-label='{VIEWS[name]}']").is_visible()
    stills = page.locator(".qk-still")
    assert stills.count() == page.locator(".qk-view").count()
    assert not any(still.is_visible() for still in stills.all())


def test_without_scripts_the_still_picture_stays(name: str, open_page: Any) -> None:
    visit = open_page(name, java_script_enabled=False)
    stills = visit.page.locator(".qk-still").all()
    assert stills
    for still in stills:
        assert still.is_visible() and len(still.get_attribute("alt")) > 20


def test_data_are_few(name: str) -> None:
    files = re.findall(r'data-values="(\w+\.js)"', (SITE / f"{name}.html").read_text())
    assert files and max((SITE / "_static/views" / file).stat().st_size for file in files) <= 1.5e6


def test_every_control_is_reached_by_the_tab_key_and_shows_it(page: Any) -> None:
    for view in page.locator(".qk-view:not(:has(.qk-finished))").all():
        wanted = view.locator(CONTROLS)
        wanted.first.focus()
        ring = "getComputedStyle(e.firstElementChild).strokeWidth === '3px'"
        outlined = f"e => getComputedStyle(e).outlineStyle !== 'none' || {ring}"
        order = f"v => [...v.querySelectorAll(`{CONTROLS}`)].indexOf(document.activeElement)"
        reached = set()
        while (at := view.evaluate(order)) >= 0 and at not in reached:
            reached.add(at)
            assert page.evaluate(outlined, page.evaluate_handle("document.activeElement"))
            page.keyboard.press("Tab")
        radios = view.locator("input[type=radio]:not(:checked)").count()  # arrow keys' work
        hidden = wanted.evaluate_all("all => all.filter((e) => !e.getClientRects().length).length")
        assert len(reached) == wanted.count() - radios - hidden


def test_code_and_notebook_are_offered(name: str, page: Any) -> None:
    view = page.locator(f".qk-view[aria-label='{VIEWS[name]}']")
    link = view.get_by_role("link", name="This chapter's notebook")
    assert link.get_attribute("href").endswith(f"{name.partition('/')[2]}.ipynb")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    view.get_by_role("button", name="Copy the code that makes this").press("Enter")
    view.get_by_text("copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "views." in copied and "import" in copied


def numbers(page: Any) -> list[str]:
    return page.locator(".qk-facts dd").all_inner_texts()


def test_trends_follow_the_keyboard(open_page: Any) -> None:
    visit = open_page("notebooks/03_cosine_trends")
    found = qk.weighted_cosine("tiny-supervised", convention="paper")
    expected = found.mean("head").values
    visit.page.locator("[aria-label='Trends over depth'] input[type=range]").focus()
    for layer, mean in enumerate(expected):
        assert numbers(visit.page)[0] == f"layer {layer}, convention paper"
        shown = float(numbers(visit.page)[1].replace("−", "-"))
        assert shown == pytest.approx(mean, abs=0.0051)
        visit.page.keyboard.press("ArrowRight")


def first_state(page: Any, title: str) -> dict[str, Any]:
    """What a page's view begins with, as Python left it."""
    texts = page.evaluate("Object.values(window.qkViews.texts)")
    views = [json.loads(text) for text in texts]
    return next(view["state"] for view in views if view["look"]["title"] == title)


def fact(page: Any, title: str, name: str) -> str:
    """One of the facts that a view tells in words."""
    facts = page.locator(f"[role=region][aria-label='{title}'] .qk-facts")
    return facts.locator(f"dt:text-is('{name}') + dd").inner_text()


def number(text: str) -> float:
    """The first number in a text."""
    return float(re.search(r"[+−-]?\d+(\.\d+)?", text).group().replace("−", "-"))


def test_two_dimensional_head_follows_mouse_and_keyboard(open_page: Any) -> None:
    page = open_page("notebooks/01_svd_derivation").page
    title = VIEWS["notebooks/01_svd_derivation"]
    tip = page.get_by_role("slider", name="key direction v₀")
    state = first_state(page, title)
    tip.focus()
    page.keyboard.press("ArrowRight")
    turned = np.deg2rad(state["v0"] + 5 - state["u0"])
    assert number(fact(page, title, "cosine u₀ · v₀")) == pytest.approx(np.cos(turned), abs=0.006)
    tip.scroll_into_view_if_needed()
    box, plane = tip.bounding_box(), page.locator(".qk-plane .qk-grid").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(plane["x"] + plane["width"] / 2, plane["y"] + 5, steps=5)
    page.mouse.up()
    upright = np.deg2rad(90 - state["u0"])
    assert number(fact(page, title, "cosine u₀ · v₀")) == pytest.approx(np.cos(upright), abs=0.03)


def test_attention_follows_mouse_and_keyboard(open_page: Any) -> None:
    name, model = "notebooks/05_odd_one_out", qk.load("tiny-supervised")
    page, title = open_page(name).page, VIEWS[name]
    state = first_state(page, title)
    sample = qk.world.samples(5_000_000, 0, 96)[state["image"]]
    attention = qk.observed_attention(model, model.transform(sample.image)[None])
    rows = attention.isel(image=0, layer=state["layer"]).mean("head").values
    grid = page.locator("[aria-label='Attention stepper'] .qk-grid").first
    box = grid.bounding_box()
    grid.click(position={"x": 0.3 * box["width"], "y": 0.55 * box["height"]})
    for patch, press in ((8 * 4 + 2, "ArrowRight"), (8 * 4 + 3, "ArrowDown"), (8 * 5 + 3, "Tab")):
        row = rows[model.prefix_tokens + patch][model.prefix_tokens :]
        best = int(row.argmax())
        told = fact(page, title, "looks most at")
        assert told.startswith(f"row {best // 8}, column {best % 8} (")
        assert number(told.partition("(")[2]) == pytest.approx(100 * row[best], abs=0.2)
        page.keyboard.press(press)


def test_mode_browser_follows_mouse_and_keyboard(open_page: Any) -> None:
    name = "notebooks/08_mode_gallery"
    page, title = open_page(name).page, VIEWS[name]
    parts = qk.decompose("tiny-supervised", convention="exact")
    state = first_state(page, title)
    grid = page.locator(f"[role=region][aria-label='{title}'] [role=application]").first
    grid.focus()
    for press in ("ArrowLeft", "ArrowUp", "ArrowRight"):
        page.keyboard.press(press)
    layers, heads = parts.sizes["layer"], parts.sizes["head"]
    box = grid.bounding_box()
    grid.click(position={"x": box["width"] * 2.5 / layers, "y": box["height"] * 1.5 / heads})
    one = parts.sel(layer=2, head=1, mode=state["mode"])
    assert number(fact(page, title, "cosine")) == pytest.approx(float(one.cosine), abs=0.006)
    assert number(fact(page, title, "σ")) == pytest.approx(float(one.sigma), rel=0.01)


@pytest.mark.parametrize("model", stored.names("mode_browser"))
def test_stored_modes_follow_mouse_and_keyboard(model: str, open_page: Any) -> None:
    page, title = open_page("notebooks/08_mode_gallery").page, f"Mode browser: {model}"
    found = stored_views.mode_browser(model).found
    view = page.locator(f"[role=region][aria-label='{title}']")
    grid = view.get_by_role("application")
    box, depth, width = grid.bounding_box(), found.sizes["layer"], found.sizes["head"]
    grid.click(position={"x": box["width"] * 2.5 / depth, "y": box["height"] * 1.5 / width})
    grid.press("ArrowRight")
    view.get_by_role("slider", name="mode").fill("1")
    at = {"layer": 3, "head": 1, "mode": 1}
    assert number(fact(page, title, "cosine")) == pytest.approx(
        float(found.cosine.sel(at)), abs=0.006
    )
    assert number(fact(page, title, "σ")) == pytest.approx(float(found.sigma.sel(at)), rel=0.01)
    best = found.image.sel({f"shown_{name}": n for name, n in at.items()}).values[0, 0]
    key = found.picture.values[best] if best >= 0 else "no further picture"
    view.locator(".qk-picture figcaption").first.get_by_text(key).wait_for()


def test_one_image_follows_mouse_and_keyboard(open_page: Any) -> None:
    name, model = "notebooks/10_one_image", qk.load("tiny-supervised")
    page, title = open_page(name).page, VIEWS[name]
    state = first_state(page, title)
    image = qk.pictures.images(qk.world.pictures(0, 0, COUNT), model, COUNT)[PICTURE]
    parts, own = qk.decompose(model, convention="exact"), qk.observed_attention(model, image[None])
    view = page.locator(f"[role=region][aria-label='{title}']")
    grid = view.get_by_role("application")
    box = grid.bounding_box()
    grid.click(position={"x": 0.3 * box["width"], "y": 0.55 * box["height"]})
    names = ("layer", "head", "look at mode", "add up the first")
    slider = {each: view.get_by_label(each, exact=True) for each in names}
    layer, head, patch = state["layer"], state["head"], 8 * 4 + 2

    def agrees(order: str, step: int, kept: int, salience: bool = True) -> None:
        """What the view tells is what the library finds, for what is chosen now."""
        found = qk.studies.one_image(
            model, image, layer=layer, head=head, query_patch=patch, order=order
        )
        at = f"layer {layer}, head {head}; the patch in row {patch // 8}, column {patch % 8} asks"
        assert fact(page, title, "head") == at
        mode = int(re.match(r"M(\d+)", fact(page, title, "mode")).group(1))
        one = found.isel(mode=step)
        assert mode == int(one.mode)
        assert number(fact(page, title, "σ")) == pytest.approx(float(one.sigma), rel=0.006)
        cosine = float(parts.cosine.sel(layer=layer, head=head, mode=mode))
        assert number(fact(page, title, "cosine")) == pytest.approx(cosine, abs=0.006)
        told = number(fact(page, title, "contribution"))
        assert told == pytest.approx(float(one.contribution), rel=0.01)
        row = qk.studies.build_up(found, salience).sel(count=kept).values
        true = own.sel(layer=layer, head=head).isel(image=0, query=1 + patch).values
        told = fact(page, title, "attention elsewhere").partition(": ")[2]
        assert number(told) == pytest.approx(abs(row - true).sum() / 2, abs=0.004)
        for drawn, values in (("rebuilt", row[1:]), ("the model's own", true[1:])):
            label = view.get_by_role("img", name=f"attention, {drawn}").get_attribute("aria-label")
            assert number(label.partition("most, ")[2]) == pytest.approx(
                100 * values.max(), abs=0.35
            )

    kept = state["kept"]
    agrees("contribution", 0, kept)
    grid.press("ArrowDown")
    grid.press("ArrowRight")
    patch += 9
    agrees("contribution", 0, kept)
    slider["look at mode"].press("ArrowRight")
    agrees("contribution", 1, kept)
    orders = [
        qk.studies.one_image(
            model, image, layer=layer, head=head, query_patch=patch, order=order
        ).mode.values
        for order in ("contribution", "sigma")
    ]
    view.get_by_label("σ", exact=True).check()
    agrees("sigma", list(orders[1]).index(orders[0][1]), kept)
    for each, now in (("layer", layer), ("head", head)):
        slider[each].press("Home" if now else "ArrowRight")
    layer, head = (0 if now else 1 for now in (layer, head))
    agrees("sigma", 0, kept)
    slider["add up the first"].press("ArrowRight")
    agrees("sigma", 0, kept + 1)
    view.get_by_role("checkbox", name="key salience").uncheck()
    agrees("sigma", 0, kept + 1, salience=False)

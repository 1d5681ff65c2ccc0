"""The view of one image's modes, driven in a browser and compared with the library."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import qkutils as qk
from qkutils import models, views
from qkutils.attention import total_variation
from qkutils.views import _room
from qkutils.views._arrays import seen
from qkutils.views._one_image import Taken
from qkutils.views._page import colour_map, plain

NAME = "tiny-supervised"
COMPUTE = Path(__file__).parents[1] / "front" / "compute.mjs"
ROUNDED = 3e-3  # what half precision may cost in attention and in shares


@pytest.fixture(scope="module")
def model():
    return qk.load(NAME)


@pytest.fixture(scope="module")
def images(model):
    return qk.pictures.images(qk.world.pictures(0, 0, 4), model, 4)


@pytest.fixture(scope="module")
def shown(model, images):
    return views.one_image(model, images[1], pictures=images)


@pytest.fixture(scope="module")
def own(model, images):
    return qk.observed_attention(model, images[1][None]).isel(image=0)


class Small:
    """A small random model, and the view of a scene: for what needs no browser."""

    def __init__(self, vit):
        self.model = replace(models.load(vit), name="small")
        self.images = qk.pictures.images(qk.world.pictures(0, 0, 4), self.model, 4)
        self.own = qk.observed_attention(self.model, self.images[1][None]).isel(image=0)
        self.shown = self.view(pictures=self.images)

    def view(self, **options):
        return views.one_image(self.model, self.images[1], **options)


@pytest.fixture(scope="module")
def small(make_vit):
    return Small(make_vit(embed_dim=16, num_heads=2))  # three layers, eight modes, 4 × 4 patches


@pytest.fixture
def other(make_vit, monkeypatch):
    """A second small model, which is at hand by its name."""
    made = replace(models.load(make_vit(3, embed_dim=16, num_heads=2)), name="other")
    load = models.load
    monkeypatch.setattr(models, "load", lambda given: made if given == "other" else load(given))
    monkeypatch.setattr(models, "at_hand", lambda: ["other"])
    return made


def rebuilt(model, image, ranks, salience=("bias", "shift")):
    """Attention from some modes of each head, by their numbers."""
    modes = qk.decompose(model, convention="exact").isel(mode=list(ranks))
    return qk.rebuild_attention(model, image[None], modes, salience=salience).isel(image=0)


@pytest.fixture
def page(shown, open_view):
    return open_view(shown, viewport={"width": 900, "height": 900})


def fact(page, name):
    found = page.locator(f".qk-facts dt:text-is('{name}') + dd").inner_text()
    return found.replace("−", "-").replace("\u00a0", " ")


def elsewhere(page):
    """Attention elsewhere: of the asker, where one asks, and the mean, once it is there."""
    page.wait_for_function("!document.querySelector('.qk-facts').textContent.includes('…')")
    return [float(n) for n in re.findall(r"0\.\d{3}", fact(page, "attention elsewhere"))]


def slide(page, label, value):
    slider = page.get_by_label(label, exact=True)
    slider.evaluate("(c, v) => { c.value = v; c.dispatchEvent(new Event('input')); }", value)


# ---- the numbers that the browser makes, against the library ---------------------------------


@pytest.fixture(scope="module")
def computed(node, tmp_path_factory):
    """A function that has the view's own script compute, from the data of a view."""
    path = tmp_path_factory.mktemp("computed") / "cases.json"

    def compute(view, *asked):
        usual = {"asks": "patch", "patch": 0, "order": "contribution", "salience": True, "kept": 0}
        cases = {"data": view.data, "asked": [usual | one for one in asked]}
        path.write_text(json.dumps(cases, default=plain))
        given = {"env": {"QKUTILS_CASES": str(path)}, "stdout": subprocess.PIPE}
        made = subprocess.run([node, COMPUTE], check=True, **given).stdout
        return [{name: np.array(each) for name, each in one.items()} for one in json.loads(made)]

    return compute


CASES = [
    {"layer": 0, "head": 0, "patch": 0, "kept": 0},
    {"layer": 1, "head": 1, "patch": 6, "kept": 3},
    {"layer": 1, "head": 1, "patch": 6, "kept": 3, "salience": False},
    {"layer": 2, "head": 1, "patch": 15, "kept": 8, "order": "sigma"},
    {"layer": 0, "head": 1, "patch": 7, "kept": 5, "order": "sigma"},
    {"layer": 2, "head": 0, "asks": "class token", "kept": 5},
    {"layer": 1, "head": 0, "asks": "all", "kept": 4},
]


def test_rows_and_distances_are_those_of_the_library(computed, small):
    for case, found in zip(CASES, computed(small.shown, *CASES), strict=True):
        ranks = [int(mode) for mode in found["order"][: case["kept"]]]
        salience = ("bias", "shift") if case.get("salience", True) else ()
        built = rebuilt(small.model, small.images[1], ranks, salience)
        at = {"layer": case["layer"], "head": case["head"]}
        asking = {"all": slice(1, None), "class token": [0]}.get(
            case.get("asks"), [1 + case.get("patch", 0)]
        )
        rows, true = (each.sel(at).isel(query=asking) for each in (built, small.own))
        assert np.abs(found["row"] - rows.mean("query").values).max() < ROUNDED
        assert np.abs(found["own"] - true.mean("query").values).max() < ROUNDED
        far = total_variation(built.sel(at), small.own.sel(at))
        mean = float(far[1:].mean())
        assert found["mean"][case["kept"]] == pytest.approx(mean, abs=ROUNDED / 5)
        if case.get("asks") != "all":
            one = float(far.isel(query=asking[0]))
            assert found["one"][case["kept"]] == pytest.approx(one, abs=ROUNDED)


def test_orders_and_shares_are_those_of_explain(computed, small):
    places = [(0, 1, 5), (1, 0, 9), (2, 1, None)]
    asked = [
        {"layer": layer, "head": head, "order": order}
        | ({"asks": "all"} if patch is None else {"patch": patch})
        for layer, head, patch in places
        for order in ("contribution", "sigma")
    ]
    for case, found in zip(asked, computed(small.shown, *asked), strict=True):
        order = case["order"]
        at = {name: case[name] for name in ("layer", "head", "order")}
        expected = qk.studies.one_image(
            small.model, small.images[1], query_patch=case.get("patch"), **at
        )
        values = expected.sortby("mode")
        assert np.allclose(found["contribution"], values.contribution, rtol=2e-3, atol=1e-3)
        assert np.allclose(found["share"], values.share, atol=ROUNDED)
        assert found["kappa"] == pytest.approx(float(values.salience_share), abs=ROUNDED)
        ranked = values[order].sel(mode=found["order"]).values  # the same, but for ties of rounding
        assert (np.diff(ranked) <= 2e-3 * ranked[0]).all()
        assert (found["order"] == expected.mode.values).mean() > 0.9


def test_the_class_token_has_contributions_too(computed, small):
    at = {"layer": 2, "head": 1}
    [found] = computed(small.shown, at | {"asks": "class token"})
    modes = qk.decompose(small.model, convention="exact")
    parts = qk.attention.token_factors(small.model, small.images[1][None], modes)
    of_head = parts.isel(image=0, **at)
    asked, keys = of_head["query"].values[0], of_head["key"].values[1:]
    both = [np.maximum(s * asked, 0) * np.maximum((s * keys).max(0), 0) for s in (1, -1)]
    assert np.allclose(found["contribution"], np.maximum(*both) * 8**0.5, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ({"class_token": False, "global_pool": "avg"}, []),
        ({"reg_tokens": 2, "no_embed_class": True}, ["class token", "register 0", "register 1"]),
        ({"num_heads": 1, "embed_dim": 24}, ["class token"]),
    ],
)
def test_models_with_other_tokens(shape, names, make_vit, computed, open_view):
    vit = make_vit(3, **shape)
    image = np.random.default_rng(0).random((3, 32, 32), np.float32)
    image = PIL.Image.fromarray((255 * image).astype(np.uint8).transpose(1, 2, 0))
    view = views.one_image(vit, image)
    assert view.data["prefix"] == names
    [found] = computed(view, {"layer": 2, "head": 0, "patch": 9})
    tensor = models.load(vit).transform(image)[None]
    own = qk.observed_attention(vit, tensor).isel(layer=2, head=0, image=0)
    assert np.abs(found["own"] - own.isel(query=len(names) + 9).values).max() < ROUNDED
    page = open_view(view)
    choices = page.get_by_label("asks", exact=True).locator("option").all_inner_texts()
    assert choices == ["the framed patch", "all patches", *(f"the {name}" for name in names)]
    assert not page.faults


def test_the_view_says_how_far_rounding_goes(small, computed):
    some = [(sent, patch) for sent in small.shown.data["heads"][::2] for patch in (0, 5, 15)]
    places = [{name: sent[name] for name in ("layer", "head")} for sent, _ in some]
    asked = [at | {"patch": patch} for at, (_, patch) in zip(places, some, strict=True)]
    found_all = computed(small.shown, *asked)
    for found, at, (sent, patch) in zip(found_all, places, some, strict=True):
        far = np.abs(found["own"] - small.own.sel(at).values[1 + patch]).sum() / 2
        assert far <= sent["astray"] + 1e-5 < ROUNDED


# ---- what a reader does ----------------------------------------------------------------------


def peak(page, name):
    """Where a map says that most attention is: how much, in which row and column."""
    label = page.get_by_role("img", name=f"attention, {name}").get_attribute("aria-label")
    return [float(n) for n in re.findall(r"most, ([\d.]+).*row (\d+), column (\d+)", label)[0]]


def peak_of(rows, state):
    """The same of attention [layer, head, query, key] of the library."""
    row = rows.sel(layer=state["layer"], head=state["head"]).values[1 + state["patch"], 1:]
    return [100 * row.max(), *divmod(int(row.argmax()), 8)]


def distance(model, image, own, state, ranks, salience=("bias", "shift")):
    """Attention elsewhere of the patch that asks, and the mean over all patches."""
    built = rebuilt(model, image, ranks, salience)
    far = total_variation(built, own).sel(layer=state["layer"], head=state["head"])
    return [float(far[1 + state["patch"]]), float(far[1:].mean())]


def test_arrow_keys_and_clicks_choose_who_asks(page, shown, model, images):
    box = page.get_by_role("application")
    box.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert "row 3, column 5 asks" in fact(page, "head")
    assert "row 3, column 5" in box.get_attribute("aria-label")
    size = box.bounding_box()
    box.click(position={"x": size["width"] * 0.5 / 8, "y": size["height"] * 7.5 / 8})
    assert "row 7, column 0 asks" in fact(page, "head")
    state = shown.state
    found = qk.studies.one_image(
        model, images[1], layer=state["layer"], head=state["head"], query_patch=56
    ).isel(mode=0)
    assert fact(page, "mode").startswith(f"M{int(found.mode)} (1st by contribution)")
    assert float(fact(page, "contribution")) == pytest.approx(float(found.contribution), rel=6e-3)
    assert page.locator(".qk-grid rect").count() == 10  # each of five maps has its frame
    assert not page.faults


def test_modes_are_stepped_through_by_keyboard(page, shown, model, images):
    state = shown.state
    expected = qk.studies.one_image(
        model,
        images[1],
        layer=state["layer"],
        head=state["head"],
        query_patch=state["patch"],
        order="sigma",
    )
    page.get_by_role("radio", name="σ").check()
    slider = page.get_by_label("look at mode", exact=True)
    slider.press("Home")
    for number, place in enumerate(("1st", "2nd", "3rd", "4th")):
        one = expected.isel(mode=number)
        named = f"M{int(one.mode)} ({place} by σ)"
        assert fact(page, "mode").startswith(named)
        assert slider.get_attribute("aria-valuetext") == named
        told = page.locator("label:has-text('look at mode') output").inner_text()
        assert told == f"M{int(one.mode)} ({place})"
        assert float(fact(page, "σ")) == pytest.approx(float(one.sigma), rel=6e-3)
        assert float(fact(page, "cosine")) == pytest.approx(float(one.cosine), abs=0.0051)
        told = re.findall(r"[+-]\d+\.\d", fact(page, "share of the logit"))
        assert float(told[0]) == pytest.approx(100 * float(one.share), abs=0.4)
        assert float(told[1]) == pytest.approx(100 * float(expected.salience_share), abs=0.4)
        page.keyboard.press("ArrowRight")


def test_maps_are_painted_on_one_scale(page, shown, model, images):
    state = shown.state
    one = qk.studies.one_image(
        model, images[1], state["layer"], state["head"], query_patch=state["patch"]
    )
    one = one.isel(mode=0)
    sides = np.stack([one.query_map.values, one.key_map.values])
    limit = abs(sides).max()
    bar = page.locator(".qk-bar").first.inner_text().replace("−", "-").split()
    assert [float(bar[-2]), float(bar[-1])] == pytest.approx([-limit, limit], abs=0.0051)
    table = np.frombuffer(colour_map("PuOr"), np.uint8).reshape(-1, 3).astype(int)
    colours = table[np.round((sides + limit) / (2 * limit) * 255).astype(int)]
    read = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    for n in (0, 1):
        pixels = page.locator(".qk-grid canvas").nth(1 + n).evaluate(read)
        painted = np.array(pixels).reshape(8, 8, 4)[..., :3]
        assert np.abs(painted - colours[n]).max() <= 6  # one step of the colour map
    label = page.get_by_role("img", name="query map").get_attribute("aria-label").replace("−", "-")
    told = [float(n) for n in re.findall(r"[+-]\d+\.\d+", label)]
    assert told == pytest.approx([sides[0].min(), sides[0].max()], abs=0.0051)


def test_modes_are_added_up(page, shown, own, model, images):
    state = shown.state
    place = [state[k] for k in ("layer", "head", "patch")]
    order = [
        int(m)
        for m in qk.studies.one_image(model, images[1], *place[:2], query_patch=place[2]).mode
    ]
    slide(page, "add up the first", 24)
    assert elsewhere(page) == [0, 0]
    slide(page, "add up the first", 6)
    expected = distance(model, images[1], own, state, order[:6])
    assert elsewhere(page) == pytest.approx(expected, abs=ROUNDED)
    page.get_by_label("key salience κ · z").press("Space")
    expected = distance(model, images[1], own, state, order[:6], ())
    assert elsewhere(page) == pytest.approx(expected, abs=ROUNDED)
    assert "with 6 modes, no key salience:" in fact(page, "attention elsewhere")


def test_maps_of_attention_are_rebuilt_and_the_model_s(page, shown, own, model, images):
    state = shown.state
    place = [state[k] for k in ("layer", "head", "patch")]
    order = [
        int(m)
        for m in qk.studies.one_image(model, images[1], *place[:2], query_patch=place[2]).mode
    ]
    for kept, salience in ((1, ("bias", "shift")), (2, ())):
        slide(page, "add up the first", kept)
        page.get_by_label("key salience κ · z").set_checked(bool(salience))
        rows = rebuilt(model, images[1], order[:kept], salience)
        expected = peak_of(rows, state)
        assert peak(page, "rebuilt") == pytest.approx(expected, abs=0.35)
        row = rows.sel(layer=state["layer"], head=state["head"]).values
        assert cell(page, 0) == pytest.approx(100 * row[1 + state["patch"], 0], abs=0.35)
        assert peak(page, "the model's own") == pytest.approx(peak_of(own, state), abs=0.35)


def test_both_maps_of_attention_have_one_scale(page):
    painted = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    brightest, larger = colour_map("cividis")[-3:], set()
    page.get_by_label("key salience κ · z").uncheck()
    slide(page, "layer", 4)
    slide(page, "head", 3)
    for kept in (1, 3, 5):
        slide(page, "add up the first", kept)
        most = [peak(page, name)[0] for name in ("rebuilt", "the model's own")]
        bar = page.locator(".qk-bar").last.inner_text().replace("\u00a0", " ")
        assert float(bar.split()[-2]) == pytest.approx(max(most), abs=0.051)
        for n, value in enumerate(most):
            flat = page.locator(".qk-grid canvas").nth(3 + n).evaluate(painted)
            full = bytes(brightest) in {bytes(flat[at : at + 3]) for at in range(0, len(flat), 4)}
            assert full == (value == max(most))
        larger.add(most[0] > most[1])
    assert len(larger) == 2


def test_the_patch_that_asks_is_framed_and_its_sign_is_told(page, shown, model, images):
    layer, head = (shown.state[k] for k in ("layer", "head"))
    grid, signs = page.get_by_role("application"), set()
    for press in ("ArrowLeft", "ArrowUp", "ArrowUp", "ArrowLeft", "ArrowUp"):
        grid.press(press)
        row, column = map(int, re.findall(r"row (\d), column (\d)", fact(page, "head"))[0])
        frames = page.locator(".qk-grid rect").evaluate_all(
            "all => all.map((r) => [r.y.baseVal.value, r.x.baseVal.value])"
        )
        assert len(frames) == 10 and all(frame == [row, column] for frame in frames)
        found = qk.studies.one_image(
            model, images[1], layer=layer, head=head, query_patch=8 * row + column
        ).isel(mode=0)
        asked = float(found.query_map[row, column])
        which = "positive (purple)" if asked > 0 else "negative (orange)"
        told = fact(page, "mode").partition("the asker has ")[2]
        assert told.endswith(f"so {which} keys gain")
        assert float(told.partition(",")[0]) == pytest.approx(asked, abs=0.0051)
        signs.add(which)
    assert len(signs) == 2


def test_points_and_bars_lie_where_the_numbers_are(page, shown):
    slide(page, "add up the first", 8)
    one, mean = elsewhere(page)
    chart = page.locator(".qk-axes").last
    circle, square = chart.locator("circle"), chart.locator("rect")
    top, bottom = 10, 190 - 42
    assert float(circle.get_attribute("cy")) == pytest.approx(
        bottom - one * (bottom - top), abs=0.2
    )
    middle = float(square.get_attribute("y")) + 4.5
    assert middle == pytest.approx(bottom - mean * (bottom - top), abs=0.2)
    assert float(circle.get_attribute("cx")) == pytest.approx(52 + 8 / 24 * (370 - 52))
    bars = page.locator(".qk-axes rect.qk-curve")
    assert bars.count() == 25
    assert [bars.nth(n).get_attribute("opacity") for n in (0, 8, 9)] == ["1", "1", "0.35"]
    page.get_by_label("key salience κ · z").uncheck()
    assert [bars.nth(n).get_attribute("opacity") for n in (0, 8)] == ["0.35", "1"]


@pytest.fixture
def at_place(shown, open_view):
    """A function that opens the view in another state, and gives the page."""
    before = shown.state

    def show(**change):
        shown.state = before | change
        return open_view(shown, viewport={"width": 676, "height": 900})

    yield show
    shown.state = before


def test_key_salience_has_a_bar_among_the_shares(at_place, model, images):
    layer, head, patch = 4, 2, 36
    page = at_place(layer=layer, head=head, patch=patch)
    expected = qk.studies.one_image(model, images[1], layer=layer, head=head, query_patch=patch)
    values = np.array([float(expected.salience_share), *expected.share.values])
    bars = page.locator(".qk-axes rect.qk-curve").all()
    heights = np.array([float(bar.get_attribute("height")) for bar in bars])
    tops = np.array([float(bar.get_attribute("y")) for bar in bars])
    unit = (92 - 12) / (max(values.max(), 0) - min(values.min(), 0))
    zero = 12 + max(values.max(), 0) * unit
    assert heights == pytest.approx(abs(values) * unit, abs=0.5)
    assert tops == pytest.approx(zero - np.maximum(values, 0) * unit, abs=0.5)
    strip = page.get_by_role("img", name="share of the logit: key salience")
    told = strip.get_attribute("aria-label").replace("−", "-")
    first = float(re.search(r"salience ([+-][\d.]+)", told)[1])
    assert first == pytest.approx(100 * values[0], abs=0.4)
    mark = strip.locator("text:text-is('κ')")
    bar, below = bars[0].bounding_box(), mark.bounding_box()
    assert below["x"] < bar["x"] + bar["width"] / 2 < below["x"] + below["width"]
    caption = page.locator("figcaption", has_text="below zero").inner_text()
    assert "works against the others" in caption
    ends = [n for n in strip.locator("text").all_text_contents() if "%" in n]
    assert float(ends[0].replace("\u00a0", "").rstrip("%")) == round(100 * values.max())


def test_another_order_keeps_the_shown_mode(page, shown, model, images):
    place = [shown.state[k] for k in ("layer", "head", "patch")]
    orders = {
        name: list(
            qk.studies.one_image(
                model, images[1], *place[:2], query_patch=place[2], order=name
            ).mode.values
        )
        for name in ("contribution", "sigma")
    }
    moved = [n for n, m in enumerate(orders["contribution"]) if orders["sigma"].index(m) != n]
    slide(page, "look at mode", moved[0])
    mode = orders["contribution"][moved[0]]
    for label, name in (("σ", "sigma"), ("contribution", "contribution")):
        page.get_by_role("radio", name=label, exact=True).check()
        at = orders[name].index(mode)
        assert fact(page, "mode").startswith(f"M{mode} ({at + 1}")
        assert page.get_by_label("look at mode", exact=True).input_value() == str(at)
        assert f"M{mode}, query map" in page.locator("figcaption", has_text="query").inner_text()
    page.get_by_label("head", exact=True).press("ArrowRight")
    first = qk.studies.one_image(
        model, images[1], layer=place[0], head=place[1] + 1, query_patch=place[2]
    ).mode.values[0]
    assert fact(page, "mode").startswith(f"M{first} (1st by contribution)")


def test_another_order_keeps_the_mode_that_nobody_chose(at_place, model, images):
    page = at_place(layer=6, head=1, patch=20)
    first = int(qk.studies.one_image(model, images[1], layer=6, head=1, query_patch=20).mode[0])
    by_sigma = list(
        qk.studies.one_image(
            model, images[1], layer=6, head=1, query_patch=20, order="sigma"
        ).mode.values
    )
    assert by_sigma[0] != first
    page.get_by_role("radio", name="σ", exact=True).check()
    assert fact(page, "mode").startswith(f"M{first} ({by_sigma.index(first) + 1}")


def test_a_mode_that_is_not_there_is_said(at_place, shown, monkeypatch):
    monkeypatch.setattr(type(shown), "checked", lambda _, state: state)  # as without a kernel
    assert "mode 24: there are 0 to 23" in at_place(mode=24).get_by_role("alert").inner_text()


def test_labels_say_what_each_slider_moves(page):
    parts = {"One mode alone": "look at mode", "The first modes": "add up the first"}
    for part, label in parts.items():
        group = page.get_by_role("group", name=part)
        assert group.get_by_label(label, exact=True).count() == 1
    slide(page, "add up the first", 1)
    said = page.locator("label:has-text('add up the first') output")
    assert said.inner_text() == "1 mode by contribution"
    page.get_by_role("radio", name="σ", exact=True).check()
    assert said.inner_text() == "1 mode by σ"


@pytest.mark.parametrize("width", [400, 660])
def test_long_labels_fit_on_narrow_pages(shown, open_view, width):
    page = open_view(shown, viewport={"width": width, "height": 900})
    slide(page, "look at mode", 22)
    slide(page, "add up the first", 24)
    page.get_by_label("asks", exact=True).select_option("all patches")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    right = page.locator(".qk-view").bounding_box()
    for said in page.locator("output, .qk-bar span, .qk-cells").all():
        box = said.bounding_box()
        assert box["x"] + box["width"] <= right["x"] + right["width"]
    pairs = page.locator(".qk-pair").all()
    for grids in (pair.locator(".qk-grid").all() for pair in pairs):
        assert grids[0].bounding_box()["y"] == pytest.approx(grids[1].bounding_box()["y"], abs=0.5)


def test_maps_of_all_askers_are_called_means(page, shown, own):
    captions = page.get_by_role("group", name="The first modes").locator("figcaption")
    assert not any("mean over all patches:" in text for text in captions.all_inner_texts()[:2])
    page.get_by_label("asks", exact=True).select_option("all patches")
    built, model_s = captions.all_inner_texts()[:2]
    assert built == "rebuilt, mean over all patches: 3 modes and key salience"
    assert model_s == "the model's own, mean over all patches"
    rows = own.sel(layer=shown.state["layer"], head=shown.state["head"]).values[1:].mean(0)
    most = rows[1:].argmax()
    told = peak(page, "the model's own, mean")
    assert told == pytest.approx([100 * rows[1:].max(), *divmod(int(most), 8)], abs=0.35)
    assert cell(page, 1) == pytest.approx(100 * rows[0], abs=0.35)


def cell(page, which):
    """The percentage beside the class token's cell: of the rebuilt row, or of the model's own."""
    said = page.locator(".qk-cells").nth(which).inner_text().replace("\u00a0", " ")
    return float(re.fullmatch(r"class token ([\d.]+) %", said.strip())[1])


def test_the_class_token_has_a_cell_on_the_scale_of_the_maps(at_place, own):
    rows = own.transpose("layer", "head", "query", "key").values[:, :, 1:]
    most = (rows[..., 0] / rows[..., 1:].max(-1)).argmax()
    layer, head, patch = np.unravel_index(most, rows.shape[:3])
    page = at_place(layer=int(layer), head=int(head), patch=int(patch), kept=24)
    row = rows[layer, head, patch]
    table = np.frombuffer(colour_map("cividis"), np.uint8).reshape(-1, 3).astype(int)
    read = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    for which in (0, 1):
        assert cell(page, which) == pytest.approx(100 * row[0], abs=0.35)
        found = page.locator(".qk-cell").nth(which)
        colour = found.evaluate("c => getComputedStyle(c).backgroundColor")
        painted = np.array([int(n) for n in re.findall(r"\d+", colour)])
        wanted = table[np.round(255 * row / row.max()).astype(int)]
        assert np.abs(painted - wanted[0]).max() <= 6
        pixels = page.locator(".qk-grid canvas").nth(3 + which).evaluate(read)
        assert np.abs(np.array(pixels).reshape(64, 4)[:, :3] - wanted[1:]).max() <= 6
    bar = page.locator(".qk-bar").last.inner_text().replace("\u00a0", " ")
    assert float(bar.split()[-2]) == pytest.approx(100 * row.max(), abs=0.35)
    assert row[0] > 1.2 * row[1:].max()  # else the scale might be the patches' own


def test_the_asking_patch_has_a_light_and_a_dark_line(page):
    for box in page.locator(".qk-grid svg").all():
        outer, inner = box.locator("rect").all()
        assert [outer.get_attribute("stroke"), inner.get_attribute("stroke")] == ["#000", "#fff"]
        widths = [float(rect.get_attribute("stroke-width")) for rect in (outer, inner)]
        assert widths[0] >= 1.5 * widths[1] > 0.1


def test_all_patches_or_the_class_token_ask(page, shown, own):
    page.get_by_label("asks", exact=True).select_option("all patches")
    assert "all patches ask" in fact(page, "head") and len(elsewhere(page)) == 1
    assert page.locator(".qk-grid rect").count() == 0
    assert page.locator(".qk-axes").last.locator("circle").count() == 0
    page.get_by_label("asks", exact=True).select_option("the class token")
    state = shown.state
    rows = own.sel(layer=state["layer"], head=state["head"])
    assert cell(page, 1) == pytest.approx(100 * float(rows[0, 0]), abs=0.35)
    assert page.locator(".qk-cell.qk-asks").count() == 2
    page.get_by_role("application").press("ArrowLeft")
    assert "row 4, column 3 asks" in fact(page, "head")


def test_layer_and_head_are_chosen_and_state_is_python_s_too(shown, model, images, open_view):
    view = views.one_image(model, images[1])
    view.state = view.state | {"layer": 1, "head": 0, "kept": 24, "patch": 3}
    page = open_view(view)
    assert fact(page, "head") == "layer 1, head 0; the patch in row 0, column 3 asks"
    page.get_by_label("layer", exact=True).press("ArrowRight")
    page.get_by_label("head", exact=True).press("End")
    assert fact(page, "head").startswith("layer 2, head 3")
    found = qk.studies.one_image(model, images[1], layer=2, head=3, query_patch=3).isel(mode=0)
    assert float(fact(page, "σ")) == pytest.approx(float(found.sigma), rel=6e-3)


def test_what_is_not_there_is_said(model, images, open_view):
    view = views.one_image(model, images[1], layers=[1, 5], heads=[0, 2])
    assert [(h["layer"], h["head"]) for h in view.data["heads"]] == [(1, 0), (1, 2), (5, 0), (5, 2)]
    page = open_view(view)
    note = page.locator(".qk-note").inner_text()
    assert "layers 1, 5, heads 0, 2 of 8 layers × 4; a notebook with the model has them all" in note
    view.state = view.state | {"layer": 2}
    assert (
        "layer 2, head 2 is not on this page" in open_view(view).get_by_role("alert").inner_text()
    )


def test_names_that_are_markup_stay_text(model, images, open_view):
    view = views.one_image(model, images[1], layers=[0])
    bad = "<img src=x onerror=alert(1)>"
    view.data = view.data | {"name": bad, "model": bad, "prefix": [bad]}
    page = open_view(view)
    assert bad in page.locator(".qk-panel").first.inner_text()
    assert page.locator("img[src=x]").count() == 0 and not page.faults


# ---- where Python answers --------------------------------------------------------------------


def same(a, b):
    return json.dumps(a, default=plain) == json.dumps(b, default=plain)


def file_of(picture, form="png"):
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def direct(model, image):
    """One head of an image, as a view made for that image alone would carry it."""
    tensor = image if isinstance(image, torch.Tensor) else model.transform(image)
    return Taken(model, "", tensor).head(1, 1)


def test_another_picture_model_and_head(small, other):
    shown, images = small.shown, small.images
    found = shown.respond({"model": "small", "image": 3})  # 0 is the given one, then the others
    assert found["image"] == 3 and len(found["data"]["heads"]) == 6
    assert same(found["data"]["heads"][3], direct(small.model, images[2]))
    head = shown.respond({"model": "small", "image": 0, "layer": 2, "head": 1})["head"]
    assert same(head, shown.data["heads"][5])
    answer = shown.respond({"model": "other", "image": 0})["data"]
    assert answer["model"] == "other"
    seen_by_it = seen(small.model, images[1])
    assert same(answer["heads"][3], direct(other, seen_by_it))


def test_an_upload_goes_through_the_model_s_own_transform(small, other):
    view = small.view(layers=[0])
    pixels = np.random.default_rng(0).integers(0, 255, (50, 90, 3), np.uint8)
    picture = PIL.Image.fromarray(pixels)
    content = base64.b64encode(file_of(picture)).decode()
    found = view.respond({"model": "small", "upload": content, "name": "mine.png"})
    assert found["image"] == 1 and found["data"]["name"] == "mine.png"
    assert same(found["data"]["heads"][3], direct(small.model, picture))
    again = view.respond({"model": "other", "image": 1})["data"]
    assert same(again["heads"][3], direct(other, picture))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "mine.png: can't be read as a picture"),
        (b"no picture", "mine.png: can't be read .* no kind of picture"),
        (None, "mine.png: can't be read as a picture"),
        ("not base64!", "mine.png: arrived broken"),
    ],
)
def test_broken_uploads_are_refused_and_not_kept(content, message, small):
    if content is None:  # a file that breaks off
        content = file_of(PIL.Image.effect_noise((200, 200), 60))[:4000]
    text = content if isinstance(content, str) else base64.b64encode(content).decode()
    with pytest.raises(ValueError, match=message):
        small.shown.respond({"model": "small", "upload": text, "name": "mine.png"})
    assert small.shown.uploads == []


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"model": "small", "image": 5}, "image=5"),
        ({"model": "small", "image": -1}, "image=-1"),
        ({"model": "small", "image": 0, "layer": 3, "head": 0}, "layer=3"),
        ({"model": "small", "image": 0, "layer": 0, "head": -1}, "head=-1"),
        ({"model": "tiny-nothing", "image": 0}, "tiny-nothing"),
        ({"modes": 3}, "does not compute"),
    ],
)
def test_requests_that_make_no_sense(request_, message, small):
    with pytest.raises(ValueError, match=message):
        small.shown.respond(request_)


def test_every_trial_is_answered(small, other):
    view = small.view(layers=[0])
    for trial in view.trials():
        assert view.respond(trial)


@pytest.fixture
def open_live(browser, tmp_path):
    """A function that shows a view as a notebook does, with Python behind it."""
    pages = []

    def show(view):
        answers = []
        view.observe(lambda change: answers.append(change["new"]), "answer")

        def sent(content):
            try:
                view._asked(view, json.loads(content), [])
            except Exception:
                pass  # the view is to show it
            return json.dumps(answers[-2], default=plain)

        path = view.to_html(tmp_path / "live.html")
        text = path.read_text()
        assert "send() {}" in text
        path.write_text(
            text.replace(
                "send() {}",
                """send(content) { sent(JSON.stringify(content)).then((answer) => {
                const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
                values.answer = JSON.parse(answer, (key, value) =>
                  value?.$bytes === undefined ? value : new DataView(bytes(value.$bytes).buffer));
                for (const act of heard["change:answer"] ?? []) act(); }); }""",
            )
        )
        page = browser.new_page(viewport={"width": 900, "height": 1000})
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.expose_function("sent", sent)
        page.goto(path.as_uri())
        page.wait_for_selector("input[type=file]")
        pages.append(page)
        return page

    yield show
    for page in pages:
        page.close()


def test_a_notebook_offers_more(model, images, open_live):
    view = views.one_image(model, images[1], images, layers=[1], heads=[0])
    page = open_live(view)
    page.get_by_label("layer", exact=True).press("End")
    page.wait_for_selector("dd:has-text('layer 7, head 0')")
    found = qk.studies.one_image(
        model, images[1], layer=7, head=0, query_patch=view.state["patch"]
    ).isel(mode=0)
    assert float(fact(page, "σ")) == pytest.approx(float(found.sigma), rel=6e-3)
    page.get_by_label("picture (0 to 4)").fill("4")
    page.get_by_label("picture (0 to 4)").press("Enter")
    page.wait_for_selector("figcaption:has-text('00000003')")
    found = qk.studies.one_image(
        model, images[3], layer=7, head=0, query_patch=view.state["patch"]
    ).isel(mode=0)
    assert float(fact(page, "contribution")) == pytest.approx(float(found.contribution), rel=6e-3)
    page.get_by_label("model", exact=True).select_option("tiny-dino")
    page.wait_for_selector(".qk-note:has-text('tiny-dino')")
    found = qk.studies.one_image(
        "tiny-dino", images[3], layer=7, head=0, query_patch=view.state["patch"]
    ).isel(mode=0)
    assert float(fact(page, "σ")) == pytest.approx(float(found.sigma), rel=6e-3)
    assert not page.faults


def test_uploads_in_the_browser(model, images, open_live, tmp_path):
    page = open_live(views.one_image(model, images[1], layers=[3]))
    good, bad = tmp_path / "good.png", tmp_path / "<b>bad.png"
    PIL.Image.effect_noise((70, 60), 50).save(good)
    bad.write_bytes(b"\x89PNG and no more")
    page.get_by_label("a picture of your own").set_input_files(bad)
    page.wait_for_selector(".qk-error:not([hidden])")
    assert "<b>bad.png: can't be read as a picture" in page.get_by_role("alert").inner_text()
    page.get_by_label("a picture of your own").set_input_files(good)
    page.wait_for_selector("figcaption:has-text('good.png')")
    assert page.locator(".qk-error").is_hidden() and not page.faults


# ---- what a page carries ---------------------------------------------------------------------


def weight(data):
    return len(json.dumps(data, default=plain))


def test_a_small_model_is_carried_whole(model):
    layers, heads = _room.carried(model, None, None, 6)
    assert (layers, heads) == (list(range(8)), list(range(4)))


def test_what_is_carried_fits_the_budget(small, monkeypatch):
    room(monkeypatch, small.model, 3)
    view = small.view()
    assert len(view.data["heads"]) == 3
    per_head = [weight({"heads": [one]}) for one in view.data["heads"]]
    assert sum(per_head) < 4 / 3 * _room.BUDGET + 3 * 900  # names and shapes beside the numbers


def test_a_real_model_is_carried_as_far_as_it_fits(real_model, real_images, open_view):
    if real_model.heads.w_q.shape[1] != 3:
        pytest.skip("what fits is written out for models of three heads")
    view = views.one_image(real_model, real_images[0])
    assert 1e6 < weight(view.data) < 1.5e6
    assert {h["layer"] for h in view.data["heads"]} == {0, 2, 4, 7, 9, 11}
    page = open_view(view)
    assert (
        "layers 0, 2, 4, 7, 9, 11, heads 0–2 of 12 layers × 3"
        in page.locator(".qk-note").inner_text()
    )
    assert len(elsewhere(page)) == 2 and not page.faults
    with pytest.raises(ValueError, match="12 layers × 3 heads: a page carries at most 19 heads"):
        views.one_image(real_model, real_images[0], layers=range(12), heads=range(3))


def test_a_reader_may_begin_at_any_head(model, images, open_view):
    view = views.one_image(model, images[1], layers=[2, 5], layer=2, head=0)
    assert (view.state["layer"], view.state["head"]) == (2, 0)
    assert 'alt="Layer 2, head 0 of tiny-supervised' in view.still
    assert fact(open_view(view), "head").startswith("layer 2, head 0;")
    only = views.one_image(model, images[1], layers=[1, 5], heads=[3, 2], head=3)
    assert (only.state["layer"], only.state["head"]) == (5, 3)


def room(monkeypatch, model, heads):
    """Let a page have room for so many heads of a model."""
    tokens, modes = 1 + model.grid[0] * model.grid[1], model.heads.w_q.shape[2]
    monkeypatch.setattr(_room, "BUDGET", heads * 4 * (modes + 1) * tokens)


def test_the_head_to_begin_at_is_carried_where_room_is_short(model, monkeypatch):
    room(monkeypatch, model, 12)
    for layer, head in [(3, 1), (7, 3), (0, 0), (5, 2)]:
        layers, heads = _room.carried(model, None, None, 6, (layer, head))
        assert layer in layers and head in heads and len(layers) * len(heads) == 12


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"layer": 3}, r"layer=3: the page carries \[0, .*add it to layers="),
        ({"head": -1}, "head=-1"),
        ({"layers": [1, 2], "layer": 0}, r"layer=0: the page carries \[1, 2\]"),
    ],
)
def test_a_beginning_that_is_not_carried_is_refused(bad, said, small):
    with pytest.raises(ValueError, match=said):
        small.view(**bad)


def test_room_is_shared_between_layers_and_heads(model, small, monkeypatch):
    for heads_that_fit in (12, 7, 2, 1, 0):
        room(monkeypatch, model, heads_that_fit)
        layers, heads = _room.carried(model, None, None, 6)
        assert 1 <= len(layers) * len(heads) <= max(heads_that_fit, 1)
    assert _room.carried(model, [5], None, 6) == ([5], [0])
    room(monkeypatch, small.model, 3)
    with pytest.raises(ValueError, match="2 layers × 2 heads"):
        small.view(layers=[0, 1], heads=[0, 1])


def test_a_picture_or_a_patch_that_is_none_is_refused(small):
    with pytest.raises(ValueError, match="query_patch=16"):
        small.view(query_patch=16)
    with pytest.raises(ValueError, match="is not a picture"):
        views.one_image(small.model, "a path")

"""The mode browser, driven in a browser and compared with the atlas, the modes and the figures."""

from __future__ import annotations

import base64
import contextlib
import io
import json

import numpy as np
import PIL.Image
import pytest
import torch
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure

import qkutils as qk
from qkutils import views
from qkutils.atlas import galleries
from qkutils.views import _mode_browser, _shelf
from qkutils.views import gallery_figures as figures

MODEL = "tiny-supervised"
LAYERS, HEADS, MODES = 8, 4, 24


@pytest.fixture(scope="module")
def model():
    return qk.load(MODEL)


@pytest.fixture(scope="module")
def pictures(model):
    keys = [f"<b>{n:02}</b>.png" for n in range(24)]
    return qk.pictures_of(qk.pictures.images(qk.world.pictures(0, 0, 24), model, 24), model, keys)


@pytest.fixture(scope="module")
def atlas(model, pictures):
    return qk.scan(model, pictures, k=5, statistics=["variance"], progress=False)


@pytest.fixture(scope="module")
def parts(model):
    return qk.decompose(model, convention="exact")


@pytest.fixture(scope="module")
def view(model, atlas, pictures):
    return views.mode_browser(model, atlas, pictures, modes=[0, 1, 3])


class Small:
    """A small random model, eight pictures, their atlas, and a view of them: no browser needed."""

    def __init__(self, vit):
        self.model = qk.load(vit)
        images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.pictures = qk.pictures_of(images, self.model)
        kind = {"statistics": ["variance"], "progress": False}
        self.atlas = qk.scan(self.model, self.pictures, k=3, **kind)
        self.parts = qk.decompose(self.model, convention="exact")
        self.view = self.make(modes=[0, 1, 3], top=2)

    def make(self, **options):
        return views.mode_browser(self.model, self.atlas, self.pictures, **options)


@pytest.fixture(scope="module")
def small(make_vit):
    return Small(make_vit(embed_dim=16, num_heads=2))  # three layers, eight modes


START = {"layer": 2, "head": 1, "mode": 1, "sign": 1}


@pytest.fixture
def page(view, atlas, open_view):
    view.state = view.state | START | {"show": "both", "colour": "weighted_cosine"}
    page = open_view(view, viewport={"width": 900, "height": 900})
    settle(page, atlas, START)
    return page


@pytest.fixture(scope="module")
def names(model):
    labelled = qk.world.labelled(model, 16)
    return qk.studies.names(model, *labelled, permutations=9, directions=10)


@pytest.fixture(scope="module")
def named_view(model, atlas, pictures, names):
    return views.mode_browser(model, atlas, pictures, modes=[0, 1], names=names)


def settle(page, atlas, at):
    """Wait until a mode's pictures have been decoded and painted."""
    for rank, number in enumerate(atlas.sel(at)["image"].values[:4]):
        said = "no further" if number < 0 else f"{rank + 1}. {atlas.key[number].item()};"
        page.wait_for_function(
            "([n, said]) => document.querySelectorAll('.qk-overlay')[n]"
            ".ariaLabel?.startsWith(said)",
            arg=[rank, said],
        )


def facts(page):
    names = page.locator(".qk-facts dt").all_inner_texts()
    return dict(zip(names, page.locator(".qk-facts dd").all_inner_texts(), strict=True))


def first_number(text):
    words = text.replace("−", "-").replace("(", " ").replace(",", " ").split()
    return next(float(word) for word in words if word.lstrip("+-")[:1].isdigit())


def pixels(page, number, where=".qk-overlay canvas"):
    """What a canvas shows, as [height, width, 3]."""
    flat, shape = (
        page.locator(where)
        .nth(number)
        .evaluate(
            "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
            " return [[...d.data], [c.height, c.width, 4]]; }"
        )
    )
    return np.array(flat).reshape(shape)[..., :3]


def sent_picture(view, number):
    """A picture as the page has it, in values from 0 to 1."""
    sent = view.data["pictures"][str(number)]
    return np.asarray(PIL.Image.open(io.BytesIO(sent["bytes"])).convert("RGB")) / 255


def expected(view, atlas, model, pictures, at, rank, which="both"):
    """The overlay that Python draws of one optimal picture, from 0 to 255."""
    place = [at[name] for name in ("layer", "head", "mode")]
    found = qk.optimal_pictures(model, pictures, atlas.isel(rank=slice(4)), *place)
    limits = float(found["query"].max()), float(found["key"].max())
    one = found.sel(sign=at["sign"]).isel(rank=rank)
    number = int(atlas.sel(at)["image"][rank])
    maps = [one[side].values * (which in (side, "both")) for side in ("query", "key")]
    return 255 * figures.overlay(sent_picture(view, number), *maps, limits)


def focus_map(page):
    page.get_by_role("application").focus()


# ---- maps in one pass ----------------------------------------------------------------------------


NOWHERE = {"image": -1, "score": np.nan, "query_patch": -1, "key_patch": -1}


@pytest.mark.parametrize("convention", ["exact", "paper"])
def test_galleries_are_the_maps_of_optimal_pictures(plain_vit, convention):
    images = torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    source = qk.pictures_of(images, qk.load(plain_vit))
    atlas = qk.scan(plain_vit, source, k=3, convention=convention, progress=False)
    emptied = atlas.copy(deep=True)
    for name, value in NOWHERE.items():
        emptied[name][1, 2, 4, 1, 1:] = value
    part = emptied.isel(layer=[1, 2], head=[2], mode=[0, 4])
    found = galleries(plain_vit, source, part, qk.decompose(plain_vit, convention=convention))
    for layer, mode in [(1, 0), (1, 4), (2, 4)]:
        one = qk.optimal_pictures(plain_vit, source, emptied, layer=layer, head=2, mode=mode)
        for side in ("query", "key"):
            got = found[side].sel(layer=layer, head=2, mode=mode).values
            np.testing.assert_allclose(got, one[side].values, atol=2e-5)


def test_a_mode_with_no_picture_has_empty_maps(plain_vit):
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    source = qk.pictures_of(images, qk.load(plain_vit))
    atlas = qk.scan(plain_vit, source, k=2, progress=False)
    for name, value in NOWHERE.items():
        atlas[name][1, 1, 1] = value
    part = atlas.isel(layer=[1], head=[1], mode=[1])
    found = galleries(plain_vit, source, part, qk.decompose(plain_vit, convention="exact"))
    assert found["query"].shape == (1, 1, 1, 2, 2, 4, 4) and not found["query"].any()


# ---- the map of heads and the facts --------------------------------------------------------------


def test_arrow_keys_choose_a_head_and_its_facts_are_the_librarys(page, atlas, parts):
    focus_map(page)
    weighted = qk.weighted_cosine(MODEL, convention="exact")
    total = atlas.logit_variance.sum("mode") + atlas.salience_variance
    moves = [("ArrowRight", 3, 1), ("ArrowDown", 3, 2), ("ArrowLeft", 2, 2), ("ArrowUp", 2, 1)]
    for key, layer, head in moves:
        page.keyboard.press(key)
        at, told = {"layer": layer, "head": head, "mode": 1}, facts(page)
        assert told["mode 1"] == f"layer {layer}, head {head}, sign +"
        assert first_number(told["cosine"]) == pytest.approx(float(parts.cosine.sel(at)), abs=0.006)
        assert first_number(told["σ"]) == pytest.approx(float(parts.sigma.sel(at)), rel=0.006)
        assert float(atlas.sigma.sel(at)) == pytest.approx(float(parts.sigma.sel(at)))
        share = float(parts.sigma.sel(at) / parts.sigma.sel(layer=layer, head=head).sum())
        assert first_number(told["σ"].split(", ")[1]) == pytest.approx(100 * share, rel=0.06)
        carried = float(atlas.logit_variance.sel(at) / total.sel(layer=layer, head=head))
        assert first_number(told["carried share"]) == pytest.approx(100 * carried, rel=0.06)
        of_head = float(weighted.sel(layer=layer, head=head))
        said = page.get_by_role("application").get_attribute("aria-label")
        assert f"layer {layer}, head {head}: " in said
        assert first_number(said.split(": ")[1]) == pytest.approx(of_head, abs=0.006)
    assert not page.faults


def test_a_click_chooses_the_head_below_it(page):
    box = page.get_by_role("application").bounding_box()
    x, y = (5 + 0.5) / LAYERS * box["width"], (3 + 0.5) / HEADS * box["height"]
    page.get_by_role("application").click(position={"x": x, "y": y})
    assert facts(page)["mode 1"] == "layer 5, head 3, sign +"
    frame = "r => [r.x.baseVal.value, r.y.baseVal.value]"
    assert page.locator(".qk-heads rect").first.evaluate(frame) == [5, 3]


@pytest.mark.parametrize(
    "colour",
    ["weighted cosine", "cosine", "σ", "carried share"],
)
def test_heads_have_the_colours_of_their_values(page, parts, atlas, colour):
    page.get_by_label("colour heads by").select_option(colour)
    values = {
        "weighted cosine": qk.weighted_cosine(MODEL, convention="exact"),
        "cosine": parts.cosine.sel(mode=1),
        "σ": parts.sigma.sel(mode=1),
        "carried share": carried_shares(atlas).sel(mode=1),
    }[colour].transpose("head", "layer")
    even = "cosine" not in colour
    share = values / values.max() if even else (values + 1) / 2
    shown = pixels(page, 0, ".qk-heads canvas")
    wanted = colormaps["cividis" if even else "PuOr"](share.values)[..., :3]
    assert np.abs(shown - 255 * wanted).max() < 5  # a colour map has 256 steps
    said = page.locator(".qk-heads .qk-bar:visible").inner_text().replace("−", "-")
    percent = "%" in said
    bars = [float(word) for word in said.replace("%", "").split() if word[-1].isdigit()]
    ends = [0, float(values.max()) * (100 if percent else 1)] if even else [-1, 1]
    assert percent == ("share" in colour) and bars == pytest.approx(ends, rel=0.06)
    at = page.get_by_role("application").get_attribute("aria-label").split(": ")[1]
    here = float(values.sel(layer=2, head=1)) * (100 if percent else 1)
    assert first_number(at) == pytest.approx(here, rel=0.06, abs=0.006)


def carried_shares(atlas):
    """Each mode's part of the logit variance of its head's modes and key salience."""
    return atlas.logit_variance / (atlas.logit_variance.sum("mode") + atlas.salience_variance)


def test_axes_of_the_head_map_have_titles(page):
    box = page.get_by_role("application").bounding_box()
    layer, head = (page.locator(f".qk-ticks text:text-is('{n}')") for n in ("layer", "head"))
    at, beside = layer.bounding_box(), head.bounding_box()
    assert at["y"] >= box["y"] + box["height"]
    assert abs(at["x"] + at["width"] / 2 - box["x"] - box["width"] / 2) < 2
    assert beside["x"] + beside["width"] <= box["x"] and beside["height"] > beside["width"]
    for other in page.locator(".qk-heads figcaption, .qk-heads .qk-bar:visible").all():
        assert other.bounding_box()["y"] >= at["y"] + at["height"] - 2


# ---- the modes of one head -----------------------------------------------------------------------


def test_bars_are_what_modes_carry_and_lines_their_share_of_sigma(page, atlas, parts):
    carried = carried_shares(atlas).sel(layer=2, head=1).transpose("mode").values
    sigma = parts.sigma.sel(layer=2, head=1)
    svg = page.locator("svg.qk-axes")
    heights = [float(bar.get_attribute("height")) for bar in svg.locator("rect.qk-curve").all()]
    full = 170 - 42 - 10
    assert np.array(heights) / full == pytest.approx(carried, abs=1e-3)
    path = svg.locator("path.qk-strength").get_attribute("d")
    levels = np.array([float(step.split("H")[0].split()[1]) for step in path.split("M")[1:]])
    shares = (sigma / sigma.sum()).values
    assert (170 - 42 - levels) / full == pytest.approx(shares, abs=1e-3)
    label = svg.get_attribute("aria-label")
    most = np.argsort(-carried)[:3]
    assert "layer 2, head 1" in label
    for mode, text in zip(most, label.split("most: ")[1].split(", "), strict=True):
        assert text.startswith(f"M{mode} ")
        assert first_number(text.split(" ", 1)[1]) == pytest.approx(100 * carried[mode], rel=0.06)
        assert first_number(text.split("σ ")[1]) == pytest.approx(100 * shares[mode], rel=0.06)


def test_a_click_on_a_bar_chooses_its_mode(page):
    svg = page.locator("svg.qk-axes")
    for mode in (17, 3, 0):
        bar = svg.locator("rect.qk-curve").nth(mode)
        x = float(bar.get_attribute("x")) + float(bar.get_attribute("width")) / 2
        box = svg.bounding_box()
        svg.click(position={"x": x / 300 * box["width"], "y": box["height"] / 2})
        assert f"mode {mode}" in facts(page)
        frame = svg.locator("rect.qk-chosen")
        left = float(frame.get_attribute("x"))
        assert left < x < left + float(frame.get_attribute("width"))
    assert not page.faults


# ---- pictures ------------------------------------------------------------------------------------


def test_overlays_are_those_of_the_figures(page, view, atlas, model, pictures):
    for rank in range(4):
        wanted = expected(view, atlas, model, pictures, START, rank)
        assert np.abs(pixels(page, rank) - wanted).max() <= 2
    page.get_by_role("radio", name="−").check()
    at = START | {"sign": -1}
    settle(page, atlas, at)
    for rank in range(4):
        assert (
            np.abs(pixels(page, rank) - expected(view, atlas, model, pictures, at, rank)).max() <= 2
        )
    assert not page.faults


def test_each_overlay_has_its_plain_picture_above(page, view, atlas):
    best = atlas.sel(START)["image"].values
    for rank in range(4):
        wanted = 255 * sent_picture(view, int(best[rank]))
        assert np.abs(pixels(page, rank, ".qk-plain canvas") - wanted).max() <= 1
        plain, overlay = (page.locator(f".qk-{n}").nth(rank) for n in ("plain", "overlay"))
        key = atlas.key[best[rank]].item()
        assert plain.get_attribute("aria-label").startswith(f"{rank + 1}. {key}, the picture")
        above, below = plain.bounding_box(), overlay.bounding_box()
        assert above["x"] == below["x"] and above["width"] == below["width"]
        assert 0 <= below["y"] - above["y"] - above["height"] < 8


@pytest.mark.parametrize(("width", "height"), [(1200, 720), (704, 680), (390, 844)])
def test_controls_and_pictures_are_seen_together(view, atlas, open_view, width, height):
    view.state = view.state | START
    page = open_view(view, viewport={"width": width, "height": height})
    settle(page, atlas, START)
    boxes = [box.bounding_box() for box in page.locator(".qk-picture:visible").all()]
    assert len({box["y"] for box in boxes}) == 1 and len(boxes) == 4
    assert min(box["width"] for box in boxes) > min(width, 500) / 6
    top = page.locator(".qk-controls").bounding_box()["y"]
    assert max(box["y"] + box["height"] for box in boxes) - top <= height
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_show_switches_between_query_key_and_both(page, view, atlas, model, pictures):
    for which in ("query", "key", "both"):
        page.get_by_role("radio", name=which).check()
        wanted = expected(view, atlas, model, pictures, START, 0, which)
        assert np.abs(pixels(page, 0) - wanted).max() <= 2
        said = page.locator(".qk-overlay").first.get_attribute("aria-label")
        assert f"shown: {which};" in said


def test_show_is_chosen_by_keyboard(page):
    page.get_by_role("radio", name="both").focus()
    page.keyboard.press("ArrowRight")
    said = page.locator(".qk-overlay").first.get_attribute("aria-label")
    assert "shown: query;" in said


def test_a_picture_is_told_with_its_name_score_and_places(page, atlas):
    best = atlas.sel(START)
    for rank in range(4):
        said = page.locator(".qk-overlay").nth(rank).get_attribute("aria-label")
        caption = page.locator(".qk-picture figcaption").nth(rank).inner_text()
        key = str(atlas.key[int(best["image"][rank])].values)
        assert key in caption and key in said and key.startswith("<b>")
        assert first_number(caption.split("score")[1]) == pytest.approx(
            float(best.score[rank]), rel=0.006
        )
        for patch, verb in ((best.query_patch, "asks"), (best.key_patch, "answers")):
            row, column = divmod(int(patch[rank]), 8)
            assert f"{verb} most at row {row}, column {column}" in said
    assert page.locator(".qk-view b").count() == 0


def test_full_colour_is_the_largest_projection_of_the_shown_pictures(page, atlas, model, pictures):
    found = qk.optimal_pictures(model, pictures, atlas.isel(rank=slice(4)), layer=2, head=1, mode=1)
    legend = page.locator(".qk-bar", has_text="red asks").locator(".qk-item").all_inner_texts()
    for text, side in zip(legend[:2], ("query", "key"), strict=True):
        assert float(text.split()[-1]) == pytest.approx(float(found[side].max()), rel=0.006)


def test_the_mode_slider_shows_facts_of_all_modes_and_says_what_is_not_here(page, parts, atlas):
    slider = page.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert facts(page)["mode 2"] == "layer 2, head 1, sign +"
    at = {"layer": 2, "head": 1, "mode": 2}
    assert first_number(facts(page)["cosine"]) == pytest.approx(
        float(parts.cosine.sel(at)), abs=0.006
    )
    note = page.get_by_role("status").filter(has_text="This page has no pictures")
    assert "layer 2, head 1, mode 2" in note.inner_text()
    assert page.locator(".qk-picture:visible").count() == 0
    page.keyboard.press("ArrowRight")
    settle(page, atlas, START | {"mode": 3})
    assert page.locator(".qk-picture:visible").count() == 4


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"modes": range(5)}, "M1 of 24 (pictures to M4)"),
        ({"modes": [1, 3]}, "M1 of 24 (pictures of M1, M3)"),
        ({"modes": [1], "heads": [0]}, "M1 of 24 (no pictures of this head)"),
        ({"modes": range(24), "layers": [2], "heads": [1], "top": 1}, "M1 of 24"),
    ],
    ids=str,
)
def test_the_mode_slider_says_where_pictures_stop(model, atlas, pictures, open_view, chosen, said):
    made = views.mode_browser(model, atlas, pictures, **chosen)
    made.state = made.state | START
    page = open_view(made)
    assert page.locator("output").inner_text() == said
    assert page.locator("input[type=range]").get_attribute("aria-valuetext") == said


def test_gaps_in_an_atlas_are_shown_as_gaps(model, atlas, pictures, open_view):
    emptied = atlas.copy(deep=True)
    for name in ("image", "query_patch", "key_patch"):
        emptied[name][2, 1, 1, 0, 2:] = -1
    emptied.score[2, 1, 1, 0, 2:] = np.nan
    emptied.score[2, 1, 1, 0, 2:] = np.nan
    made = views.mode_browser(model, emptied, pictures, modes=[1])
    made.state = made.state | START
    page = open_view(made)
    settle(page, emptied, START)
    assert page.locator("figcaption", has_text="no further picture").count() == 2
    assert (pixels(page, 3) == 0).all() and not page.faults
    assert (pixels(page, 3, ".qk-plain canvas") == 0).all()


def test_marks_are_those_of_the_modes(small):
    parts, sent = small.parts, small.view.data["facts"]["mark"]
    marks = np.frombuffer(sent["bytes"], np.float32).reshape(sent["shape"])
    np.testing.assert_array_equal(marks % 2, parts.null_mode)
    np.testing.assert_array_equal(marks // 2, parts.degenerate)


def test_a_null_and_a_degenerate_mode_are_marked(view, open_view):
    marks = np.zeros((LAYERS, HEADS, MODES), np.float32)
    marks[2, 1, :4] = np.arange(4)
    facts_sent = view.data["facts"]
    changed = facts_sent | {"mark": facts_sent["mark"] | {"bytes": marks.tobytes()}}
    before = view.data
    view.data, view.state = before | {"facts": changed}, view.state | START | {"mode": 0}
    page = open_view(view)
    view.data = before
    page.locator("input[type=range]").focus()
    told = []
    for _ in range(4):
        told.append(facts(page).get("mark", ""))
        page.keyboard.press("ArrowRight")
    starts = ["", "null mode", "degenerate", "null and degenerate"]
    assert all(text.startswith(start) for text, start in zip(told, starts, strict=True))
    assert told[0] == ""


def test_a_state_that_is_nowhere_is_said_so(view, open_view, monkeypatch):
    monkeypatch.setattr(type(view), "checked", lambda _, state: state)  # as without a kernel
    for change, said in (({"layer": 99}, "layer 99: there are 0 to 7"), ({"sign": 2}, "sign 2")):
        view.state = view.state | START | change
        page = open_view(view)
        assert said in page.get_by_role("alert").inner_text()
    view.state = view.state | START


def test_measured_names_are_told_on_demand(named_view, names, open_view):
    named_view.state = named_view.state | START | {"named": False}
    page = open_view(named_view)
    button = page.get_by_role("button", name="show the measured name")
    for sign, end in (("+", "high"), ("−", "low")):
        page.get_by_role("radio", name=sign, exact=True).check()
        if sign == "+":
            text = page.locator(".qk-view").inner_text()
            assert "family" not in text and not {"query name", "key name"} & set(facts(page))
            assert button.get_attribute("aria-expanded") == "false"
            button.press("Enter")
        assert button.get_attribute("aria-expanded") == "true"  # also of the next mode or sign
        for side in ("query", "key"):
            one = names.sel(layer=2, head=1, mode=1, side=side)
            told = facts(page)[f"{side} name"]
            assert told.startswith(f"{one[end].item()} (family {one.family.item()})")
            share = f"{100 * float(one.share):.0f}".replace("-", "−")
            assert f"explained share {share} % on other scenes" in told
    focus_map(page)
    page.keyboard.press("ArrowRight")
    one = names.sel(layer=3, head=1, mode=1, side="query")
    assert facts(page)["query name"].startswith(one.low.item())
    button.press("Space")
    assert "query name" not in facts(page) and not page.faults


def test_what_is_measured_of_a_name_goes_to_the_page(small):
    at = {"layer": 2, "head": 1, "mode": 1, "side": "key"}
    sides = {**{d: range(small.parts.sizes[d]) for d in _shelf.PLACE}, "side": ["query", "key"]}
    shape = [len(labels) for labels in sides.values()]
    of_sides = {name: (list(sides), np.full(shape, 0.5)) for name in ("share", "p", "q")}
    of_sides |= {n: (list(sides), np.full(shape, f"a-{n}")) for n in ("family", "high", "low")}
    by_chance = {n: (["null", *sides], np.full([2, *shape], 0.5)) for n in ("p_random", "q_random")}
    names = xr.Dataset(of_sides | by_chance, {**sides, "null": ["any", "leaning"]})
    names = names.assign_coords(fingerprint=small.model.fingerprint, model="x")
    names.p.loc[at], names.q.loc[at], names.share.loc[at] = 0.0123, 0.2, -0.25
    names.q_random.loc[at | {"null": "leaning"}] = 0.03
    kind, known = _mode_browser._naming(names, small.atlas)
    texts = {name: f"a-{name}" for name in ("family", "high", "low")}
    numbers = {"share": 0.5, "p": 0.5, "q": 0.5, "p_random": 0.5, "q_random": 0.5}
    changed = numbers | {"share": -0.25, "p": 0.0123, "q": 0.2, "q_random": 0.03}
    assert kind == "measured name" and len(known) == 3 * 2 * 8
    assert known[2, 1, 1] == [
        {"side": "query"} | texts | numbers,
        {"side": "key"} | texts | changed,
    ]


def test_a_failed_test_of_a_name_is_not_called_equality(view, open_view):
    texts = {"side": "key", "family": "a-family", "high": "a-high", "low": "a-low", "share": -0.25}
    passed = {"passes": 0.04, "does not pass": 0.2}
    before = view.data
    for known, q in passed.items():
        for told, q_random in passed.items():
            name = texts | {"p": 0.0123, "q": q, "p_random": 0.031, "q_random": q_random}
            gallery = before["gallery"] | {"names": {"2 1 1": [name]}}
            view.data = before | {"gallery": gallery, "naming": "measured name"}
            view.state = view.state | START | {"named": True}
            page = open_view(view)
            assert facts(page)["key name"].split("; ") == [
                "a-high (family a-family)",
                "explained share −25 % on other scenes",
                f"{known} the test against labels of other scenes (p = 0.012, corrected {q})",
                f"{told} the test against leaning random directions"
                f" (p = 0.031, corrected {q_random})",
            ]
    view.data, view.state = before, view.state | {"named": False}


def test_given_names_stay_text(model, atlas, pictures, open_view):
    given = {(2, 1, 1): "<i>stripes</i>"}
    made = views.mode_browser(model, atlas, pictures, modes=[1], names=given)
    made.state = made.state | START
    page = open_view(made)
    page.get_by_role("button", name="show the name").click()
    assert facts(page)["name"] == "<i>stripes</i>" and page.locator(".qk-view i").count() == 0
    focus_map(page)
    page.keyboard.press("ArrowRight")
    assert facts(page)["name"] == "none here for this mode"


def test_with_no_names_there_is_nothing_to_open(page):
    assert page.get_by_role("button", name="show the").count() == 0


def test_the_still_map_has_layers_on_its_horizontal_axis(parts):
    for label, limits in (("cosine", (-1, 1)), ("σ", (0, float(parts.sigma.sel(mode=0).max())))):
        figure = Figure()
        values = parts["cosine" if label == "cosine" else "sigma"].sel(mode=0)
        drawn = figures.head_map(figure.subplots(), values, label).images[0]
        np.testing.assert_array_equal(drawn.get_array(), values.transpose("head", "layer"))
        assert drawn.get_clim() == pytest.approx(limits)


def test_the_still_map_stands_in_the_middle(parts):
    figure = Figure(figsize=(9, 3), layout="constrained")
    ax = figures.head_map(figure.subplots(), parts.cosine.sel(mode=0), "cosine")
    figure.draw_without_rendering()
    place = ax.get_position()
    assert (place.x0 + place.x1) / 2 == pytest.approx(0.5, abs=0.03)
    bar = ax.child_axes[0].get_position()
    assert place.x1 < bar.x0 < bar.x1 < 1 and bar.height == pytest.approx(place.height, abs=0.02)


# ---- what a page carries -------------------------------------------------------------------------


def size_of(view):
    """Characters that a view's data need."""
    return len(json.dumps(view.data, default=lambda b: base64.b64encode(b).decode()))


def test_each_picture_is_sent_once_and_the_subset_is_named(page, view, atlas):
    part = atlas.isel(mode=[0, 1, 3], rank=slice(4))["image"].values
    numbers = [n for n in np.unique(part) if n >= 0]
    assert set(view.data["pictures"]) == {str(n) for n in numbers}
    said = page.locator(".qk-note", has_text="Carried here").inner_text()
    assert said == (
        "Carried here: facts of all modes; pictures of modes 0, 1 and 3 of all heads of all "
        f"layers, 4 for each sign ({len(numbers)} different ones)."
    )


def test_layers_heads_and_top_choose_what_is_carried(model, atlas, pictures, open_view):
    made = views.mode_browser(model, atlas, pictures, layers=[1, 2, 3], heads=[0], top=2)
    said = open_view(made).locator(".qk-note", has_text="Carried here").inner_text()
    assert "modes 0 to 5 of head 0 of layers 1 to 3, 2 for each sign" in said
    gallery = made.data["gallery"]
    assert (gallery["layers"], gallery["heads"]) == ([1, 2, 3], [0])
    assert gallery["image"]["shape"] == [3, 1, 6, 2, 2]
    assert made.state["layer"] in (1, 2, 3) and made.state["head"] == 0


def test_fewer_modes_pictures_and_layers_where_bytes_are_short(small, monkeypatch):
    shelf, kept = _shelf.Shelf(small.model, small.pictures, small.atlas, {}), []
    for budget in (30_000, 20_000, 17_000, 13_000):
        monkeypatch.setattr(_shelf, "BUDGET", budget)
        sizes = shelf.fitting(small.atlas).sizes
        kept.append(tuple(sizes[name] for name in ("mode", "rank", "layer")))
    assert kept == [(6, 3, 3), (2, 3, 3), (1, 2, 3), (1, 1, 2)]
    assert size_of(small.make()) <= 13_000
    monkeypatch.setattr(_shelf, "BUDGET", 1000)
    with pytest.raises(ValueError, match=r"modes=, heads=, layers="):
        shelf.fitting(small.atlas)


def test_facts_of_layers_that_are_not_carried_count_too(small, monkeypatch):
    for budget in (16_000, 13_500):
        monkeypatch.setattr(_shelf, "BUDGET", budget)
        assert size_of(small.make(layers=[2], heads=[1])) <= budget


def test_modes_that_are_named_have_to_fit(small, monkeypatch):
    monkeypatch.setattr(_shelf, "BUDGET", 25_000)
    with pytest.raises(ValueError, match=r"modes=\[0, 1.* 0.03 MB "):
        small.make(modes=range(8))
    made = small.make(modes=range(8), heads=[0])
    assert made.data["gallery"]["modes"] == list(range(8)) and size_of(made) <= 25_000


@pytest.mark.slow
def test_an_embedded_model_with_256_scenes_is_light(model):
    source = qk.pictures.images(qk.world.pictures(0, 0, 256), model, 256)
    atlas = qk.scan(model, source, k=4, progress=False)
    made = views.mode_browser(model, atlas, source)
    assert made.data["gallery"]["modes"] == list(range(6))
    assert size_of(made) <= 1.5e6


def test_a_real_model_is_light(real_model, image_folder):
    if "deit" not in real_model.name:
        pytest.skip("one real model is enough")
    folder = image_folder / "imagenet-sample"
    reading = qk.pictures_of(folder, real_model)
    few = reading.some(reading.keys[:24])
    atlas = qk.scan(real_model, few, k=4, progress=False)
    made = views.mode_browser(real_model, atlas, few)
    assert size_of(made) <= 1.5e6 and made.data["shape"] == [84, 84]
    assert made.data["pictures"].values().__iter__().__next__()["type"] == "image/jpeg"


# ---- with a kernel -------------------------------------------------------------------------------


def unpacked(sent):
    values = np.frombuffer(sent["bytes"], sent["form"]).reshape(sent["shape"]).astype(float)
    if sent["form"] == "uint8":
        values = sent["low"] + (sent["high"] - sent["low"]) / 255 * values
    return values


def test_a_mode_that_is_not_carried_is_computed(small):
    at = {"layer": 2, "head": 1, "mode": 6}
    found = small.view.respond(at)
    shown = small.atlas.isel(rank=slice(2))
    sent, best = found["gallery"], shown.sel(at)
    one = qk.optimal_pictures(small.model, small.pictures, shown, **at)
    np.testing.assert_array_equal(unpacked(sent["image"])[0, 0, 0], best["image"].values)
    np.testing.assert_allclose(unpacked(sent["score"])[0, 0, 0], best.score.values)
    for side in ("query", "key"):
        limit = unpacked(sent[f"{side}_limit"]).item()
        assert limit == pytest.approx(float(one[side].max()), rel=1e-5)
        share = (one[side] / one[side].max()).clip(0, 1).values
        assert np.abs(unpacked(sent[side])[0, 0, 0] - share).max() < 0.003
    assert set(found["pictures"]).isdisjoint(small.view.data["pictures"])
    missing = set(map(str, np.unique(best["image"]))) - {"-1"}
    assert missing <= set(found["pictures"]) | set(small.view.data["pictures"])


def test_a_mode_is_looked_at_on_any_picture(small):
    found = small.view.respond({"layer": 2, "head": 1, "mode": 6, "picture": 7})
    image = small.pictures.read(7)[None]
    wanted = qk.mode_maps(small.model, image, layer=2, head=1).isel(image=0, mode=6)
    got = unpacked(found["maps"])
    for side, values in zip(("query", "key"), got, strict=True):
        np.testing.assert_allclose(values, wanted[side].values.ravel(), atol=1e-5)
    assert found["pictures"]["7"]["key"] == small.pictures.keys[7]


def test_hello_and_trials(small):
    assert small.view.hello() == {"pictures": 8}
    assert all(small.view.respond(request) for request in small.view.trials())


@pytest.mark.parametrize(
    ("change", "said"),
    [({"layer": 3}, "layer=3"), ({"mode": -1}, "mode=-1"), ({"picture": 8}, "picture=8")],
)
def test_requests_for_what_is_not_there_are_refused(small, change, said):
    with pytest.raises(ValueError, match=said):
        small.view.respond({"layer": 0, "head": 0, "mode": 0} | change)
    with pytest.raises(ValueError, match="does not compute"):
        small.view.respond({"layer": 0})


DAY = 86_400.0  # seconds
ANSWERING = """
  async send({ id, request }) {
    const found = JSON.parse(await askPython(JSON.stringify({ id, request })), (_, value) =>
      value?.$bytes === undefined ? value
        : new DataView(Uint8Array.from(atob(value.$bytes), (c) => c.charCodeAt(0)).buffer));
    model.set("answer", found);
  },
"""


@pytest.fixture
def live(view, browser, tmp_path):
    """A page whose questions Python answers, as a kernel does; `asked` lists them."""
    view.state = view.state | START | {"show": "both", "picture": None}
    path = view.to_html(tmp_path / "live.html")
    text = path.read_text().replace("send() {},", ANSWERING)
    path.write_text(text)
    page = browser.new_page()
    page.asked = []

    def answer(question):
        asked = json.loads(question)
        page.asked.append(asked["request"])
        view.observe(lambda change: answers.append(change["new"]), "answer")
        answers: list[dict] = []
        with contextlib.suppress(ValueError):
            view._asked(view, asked, [])
        view.unobserve_all("answer")
        return json.dumps(answers[0], default=lambda b: {"$bytes": base64.b64encode(b).decode()})

    page.expose_function("askPython", answer)
    page.clock.install(time=0)
    page.goto(path.as_uri())
    page.get_by_label("one more picture").wait_for()
    yield page
    page.close()


def test_a_kernel_computes_a_mode_when_the_slider_rests_on_it(live, atlas, model, pictures):
    live.locator("input[type=range]").focus()
    live.clock.pause_at(DAY)  # however slow the machine: no rest between two presses
    for _ in range(4):
        live.keyboard.press("ArrowRight")
    live.clock.resume()
    settle(live, atlas, START | {"mode": 5})
    assert live.asked[1:] == [{"layer": 2, "head": 1, "mode": 5}]
    found = qk.optimal_pictures(model, pictures, atlas.isel(rank=slice(4)), layer=2, head=1, mode=5)
    limits = float(found["query"].max()), float(found["key"].max())
    red = found["query"].sel(sign=1).isel(rank=0).values / limits[0]
    cyan = found["key"].sel(sign=1).isel(rank=0).values / limits[1]
    sure = np.argwhere((red > 0.02) & (cyan < red))  # what is brighter in red is a red patch
    shown = pixels(live, 0)
    for row, column in sure:
        colour = shown[8 * row + 4, 8 * column + 4]
        assert colour[0] - colour[1] == pytest.approx(
            255 * (red[row, column] - max(cyan[row, column], 0)), abs=2
        )


@pytest.mark.parametrize("number", [7, 14])  # 14: more than full colour, below zero
def test_a_kernel_shows_a_mode_on_another_picture_in_both_signs(
    live, number, atlas, model, pictures
):
    live.get_by_label("one more picture").fill(str(number))
    live.get_by_label("one more picture").press("Tab")
    live.locator("figcaption", has_text=f"picture {number}:").wait_for()
    assert live.asked[1:] == [{"layer": 2, "head": 1, "mode": 1, "picture": number}]
    both = qk.mode_maps(model, pictures.read(number)[None], layer=2, head=1).isel(image=0, mode=1)
    found = qk.optimal_pictures(model, pictures, atlas.isel(rank=slice(4)), layer=2, head=1, mode=1)
    for name, sign in (("+", 1), ("−", -1)):
        live.get_by_role("radio", name=name, exact=True).check()
        settle(live, atlas, START | {"sign": sign})
        red, cyan = (
            np.clip(sign * both[s].values / float(found[s].max()), 0, 1) for s in ("query", "key")
        )
        assert (red > 0.1).any()
        shown = pixels(live, 4)[4::8, 4::8]
        assert np.abs(shown[..., 0] - shown[..., 1] - 255 * (red - cyan)).max() <= 2
        ends = [(sign * both[side].values).max() for side in ("query", "key")]
        caption = live.locator("figcaption", has_text=f"picture {number}:").inner_text()
        if min(ends) > 0:
            told = first_number(caption.split("score")[1])
            assert told == pytest.approx(ends[0] * ends[1], rel=0.006)
        else:
            assert caption.endswith("no score: nothing at one end")


def test_the_other_picture_follows_the_mode(live, model, pictures):
    live.get_by_label("one more picture").fill("7")
    live.get_by_label("one more picture").press("Enter")
    live.locator("figcaption", has_text="picture 7").wait_for()
    live.get_by_role("slider", name="mode").fill("3")
    live.locator("figcaption", has_text="picture 7").wait_for()
    live.wait_for_function("!document.querySelector('.qk-note').textContent")
    assert live.asked[-1] == {"layer": 2, "head": 1, "mode": 3, "picture": 7}
    both = qk.mode_maps(model, pictures.read(7)[None], layer=2, head=1).isel(image=0, mode=3)
    caption = live.locator("figcaption", has_text="picture 7").inner_text()
    score = float(both["query"].max() * both["key"].max())
    assert first_number(caption.split("score")[1]) == pytest.approx(score, rel=0.006)


def test_an_error_of_the_kernel_is_shown(live):
    live.get_by_label("one more picture").fill("99")
    live.get_by_label("one more picture").press("Tab")
    alert = live.get_by_role("alert")
    alert.wait_for()
    assert "picture=99" in alert.inner_text()


# ---- bad input -----------------------------------------------------------------------------------


def test_what_does_not_belong_together_is_refused(small, make_vit):
    model, atlas, pictures = small.model, small.atlas, small.pictures
    with pytest.raises(ValueError, match="fingerprint|weights"):
        views.mode_browser(make_vit(3, embed_dim=16, num_heads=2), atlas, pictures)
    with pytest.raises(ValueError, match="mode"):
        views.mode_browser(model, atlas.isel(mode=slice(3)), pictures)
    with pytest.raises(ValueError, match="give what was scanned"):
        views.mode_browser(model, atlas, pictures.some(pictures.keys[:5]))
    others = xr.Dataset(attrs={"fingerprint": "0", "model": "x"})
    with pytest.raises(ValueError, match="names"):
        small.make(modes=[0], names=others)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top": 0}, "top=0"),
        ({"modes": [8]}, "modes=8"),
        ({"modes": []}, r"modes=\[\]"),
        ({"layers": [3]}, "layers=3"),
        ({"heads": [-1]}, "heads=-1"),
    ],
)
def test_a_subset_that_is_not_there_is_refused(small, options, said):
    with pytest.raises(ValueError, match=said):
        small.make(**options)


def test_an_atlas_without_statistics_or_pictures(model, atlas, pictures, open_view):
    plain = atlas.drop_vars(["logit_variance", "salience_variance"])
    made = views.mode_browser(model, plain, pictures, modes=[0])
    assert "carried" not in made.data["facts"]
    page = open_view(made)
    assert facts(page)["carried share"].startswith("not measured")
    assert page.get_by_label("colour heads by").locator("option").count() == 3
    assert page.locator("svg.qk-axes rect.qk-curve").count() == 0
    assert page.locator("figcaption", has_text="carried share").count() == 0
    with pytest.raises(ValueError, match="colour='carried'"):
        made.state = made.state | {"colour": "carried"}
    empty = atlas.copy(deep=True)
    for name in ("image", "query_patch", "key_patch"):
        empty[name][:] = -1
    empty.score[:] = np.nan
    with pytest.raises(ValueError, match="no picture of these modes"):
        views.mode_browser(model, empty, pictures, modes=[0])

"""The attention stepper, driven in a browser; its shares beside the model's own attention."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import qkutils as qk
from qkutils import views
from qkutils.records import Sample
from qkutils.views import _room
from qkutils.views._attention_stepper import outline
from qkutils.views._page import colour_map

NAME, SEED, SIDE, PATCH = "tiny-supervised", 5_000_000, 8, 8
NAMES = ["target", "distractors", "background", "class token"]


@pytest.fixture(scope="module")
def samples():
    return qk.world.samples(SEED, 0, 6)


@pytest.fixture(scope="module")
def view(samples):
    return views.attention_stepper(NAME, samples)


@pytest.fixture(scope="module")
def observed(samples):
    """Attention [layer, image, head, query, key] as the model itself computes it."""
    model = qk.load(NAME)
    images = torch.stack([model.transform(sample.image) for sample in samples])
    return qk.observed_attention(model, images).values


@pytest.fixture(scope="module")
def one(samples):
    """The view of one picture, which a browser opens faster."""
    return views.attention_stepper(NAME, samples, images=[0])


@pytest.fixture
def page(one, open_view):
    return open_view(one, viewport={"width": 800, "height": 1000})


@pytest.fixture(scope="module")
def small(make_vit):
    """Two layers with two heads, for as many patches as the tiny models have: no browser needed."""
    vit = make_vit(img_size=64, depth=2, embed_dim=16, num_heads=2)
    return replace(qk.load(vit), name="small")


@pytest.fixture(scope="module")
def shown(small, samples):
    return views.attention_stepper(small, samples, images=[0])


def regions_of(sample):
    """Key × region, from the masks pixel by pixel; the class token is a region of its own."""
    target, distractor = sample.masks["target"], sample.masks["distractor"]
    keys = np.zeros((1 + SIDE * SIDE, 4))
    keys[0, 3] = 1
    for y in range(target.shape[0]):
        for x in range(target.shape[1]):
            region = 0 if target[y, x] else 1 if distractor[y, x] else 2
            keys[1 + y // PATCH * SIDE + x // PATCH, region] += 1 / PATCH**2
    return keys


def percents(page, column):
    """The numbers of a column of the table of shares: of the regions, then their sum."""
    cells = page.locator(f"table.qk-shares tbody td:nth-child({column})").all_inner_texts()
    return np.array([float(text.removesuffix(" %")) for text in cells])


def click(page, patch, grid=0):
    box = page.locator(".qk-grid").nth(grid)
    size = box.bounding_box()
    at = {
        "x": (patch % SIDE + 0.4) / SIDE * size["width"],
        "y": (patch // SIDE + 0.6) / SIDE * size["height"],
    }
    box.click(position=at)


def slide(page, label, to):
    """Move a slider from its start with the keyboard."""
    page.get_by_role("slider", name=label).press("Home")
    for _ in range(to):
        page.get_by_role("slider", name=label).press("ArrowRight")


CHOICES = [(0, 7, 3, 0), (1, 3, None, 63), (3, 4, 2, 20)]


def test_shares_are_the_models_own(view, open_view, samples, observed):
    assert [scene["place"] for scene in view.data["scenes"]] == [0, 1, 2, 3]
    assert bytes_of(view) <= 1.5e6
    page = open_view(view, viewport={"width": 800, "height": 1000})
    for image, layer, head, patch in CHOICES:
        page.get_by_role("combobox", name="picture").select_option(f"scene-{SEED}-{image}")
        slide(page, "layer", layer)
        slide(page, "head", 0 if head is None else 1 + head)
        click(page, patch)
        heads = observed[layer, image, :, 1 + patch]
        row = heads.mean(0) if head is None else heads[head]
        assert_shows(page, row, regions_of(samples[image]))
        asks = f"the patch in row {patch // SIDE}, column {patch % SIDE}"
        which = "mean over heads" if head is None else f"head {head}"
        facts = page.locator(".qk-facts dd").all_inner_texts()
        assert facts[0] == f"{asks}; layer {layer}, {which}"
        lies = np.array([float(part.split()[-2]) for part in facts[1].split(" · ")])
        assert np.abs(lies - 100 * regions_of(samples[image])[1 + patch, :3]).max() < 0.0501
        best = int(row[1:].argmax())
        assert facts[2].startswith(f"row {best // SIDE}, column {best % SIDE} (")
        label = page.locator(".qk-grid").nth(1).get_attribute("aria-label")
        assert f"attention of {asks}" in label
    assert not page.faults


def assert_shows(page, row, regions):
    """The table says these shares of attention, and beside them the shares of area."""
    assert np.abs(percents(page, 3) - [*(100 * row @ regions), 100]).max() < 0.2
    assert np.abs(percents(page, 4) - [*(100 * regions.mean(0)), 100]).max() < 0.0501
    assert page.locator("table.qk-shares tbody th").all_inner_texts() == [*NAMES, "all keys"]


def test_bars_are_as_long_as_the_shares_say(page):
    tracks = page.locator(".qk-track")
    for number, (share, even) in enumerate(zip(percents(page, 3), percents(page, 4), strict=True)):
        if number == len(NAMES):
            break
        track = tracks.nth(number).bounding_box()
        bar = tracks.nth(number).locator("div").bounding_box()
        mark = tracks.nth(number).locator("i").bounding_box()
        assert bar["width"] / (track["width"] - 2) == pytest.approx(share / 100, abs=0.01)
        middle = mark["x"] + mark["width"] / 2 - track["x"] - 1
        assert middle / (track["width"] - 2) == pytest.approx(even / 100, abs=0.01)


def test_shares_are_those_of_chapter_5(page, samples):
    study = qk.studies.odd_one_out(NAME, samples, prefix="counted")
    alone = qk.studies.odd_one_out(NAME, samples)
    for number, query in enumerate(("target’s patch", "distractors’ patch")):
        page.get_by_role("button", name=query).click()
        slide(page, "layer", 2)
        slide(page, "head", 3)
        at = {"image": 0, "layer": 2, "head": 2, "query": number}
        expected = 100 * study.share.isel(at).values
        assert np.abs(percents(page, 3)[:4] - expected).max() < 0.2
        words = page.locator(".qk-facts dd").last.inner_text().replace(" %", "").split(" · ")
        told = [float(word.split()[-1]) for word in words]
        assert np.abs(np.array(told) - 100 * alone.share.isel(at).values).max() < 0.2


def test_arrow_keys_move_the_asking_patch(page, one, observed, samples):
    start = one.state["patch"]
    page.locator(".qk-grid").first.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    row = observed[0, 0, :, 1 + start - SIDE - 1].mean(0)
    assert np.abs(percents(page, 3)[:4] - 100 * row @ regions_of(samples[0])).max() < 0.2
    for _ in range(SIDE + 1):
        page.keyboard.press("ArrowUp")
    label = page.locator(".qk-grid").first.get_attribute("aria-label")
    assert f"row 0, column {(start - 1) % SIDE} asks" in label


def test_the_class_token_asks_and_a_click_takes_over(page, observed, samples):
    page.get_by_role("combobox", name="asking").select_option("class token")
    slide(page, "layer", 6)
    row = observed[6, 0, :, 0].mean(0)
    assert np.abs(percents(page, 3)[:4] - 100 * row @ regions_of(samples[0])).max() < 0.2
    frames = page.locator(".qk-grid svg:not(.qk-edges) rect")
    assert frames.count() == 0
    assert "it lies on" not in page.locator(".qk-facts dt").all_inner_texts()
    click(page, 9, grid=1)
    assert page.get_by_role("combobox", name="asking").evaluate(
        "s => s.selectedOptions[0].text"
    ) == ("the framed patch")
    frame = frames.first.evaluate("r => [r.x.baseVal.value, r.y.baseVal.value]")
    assert frame == [1, 1] and frames.count() == 4


def pixels(page):
    """Colours of the attention map, [patch, 3]."""
    flat = (
        page.locator(".qk-grid canvas")
        .nth(1)
        .evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    )
    return np.array(flat).reshape(-1, 4)[:, :3]


@pytest.mark.parametrize(("own", "head"), [(False, None), (False, 2), (True, 2)])
def test_colours_are_on_the_scale_that_the_bar_names(page, one, observed, own, head):
    patch = one.state["patch"]
    rows = observed[:, 0, :, 1 + patch, 1:]
    slide(page, "layer", 3)
    slide(page, "head", 0 if head is None else 1 + head)
    page.get_by_label("own scale").set_checked(own)
    row = rows[3].mean(0) if head is None else rows[3, head]
    shared = rows.mean(1).max() if head is None else rows.max()
    high = row.max() if own else shared
    said = page.locator(".qk-bar span").last.inner_text()
    assert float(said.removesuffix(" %")) == pytest.approx(100 * high, abs=0.2)
    table = np.frombuffer(colour_map("cividis"), np.uint8).reshape(256, 3).astype(int)
    expected = table[np.round(255 * row / high).astype(int)]
    assert np.abs(pixels(page) - expected).max() <= 4  # neighbours in the table


def test_outlines_hold_the_masks_and_can_be_hidden(page, samples):
    inside = """(p) => { const svg = p.ownerSVGElement, found = [];
        const fill = new Path2D(p.getAttribute("d"));
        const ink = document.createElement("canvas").getContext("2d");
        for (let y = 0; y < 64; y++) for (let x = 0; x < 64; x++)
          found.push(ink.isPointInPath(fill, x + 0.5, y + 0.5, "evenodd"));
        return found; }"""
    for grid in (0, 1):
        paths = page.locator(".qk-edges").nth(grid).locator("path")
        assert paths.count() == 4
        for number, mask in enumerate(("target", "distractor")):
            found = np.array(paths.nth(2 + number).evaluate(inside)).reshape(64, 64)
            assert (found == samples[0].masks[mask]).all()
    box, edges = (page.locator(s).first.bounding_box() for s in (".qk-grid", ".qk-edges"))
    assert box == edges
    page.get_by_role("checkbox", name="outlines").press("Space")
    assert not page.locator(".qk-edges").first.is_visible()
    assert "no outlines" in page.locator(".qk-grid").first.get_attribute("aria-label")


def test_an_outline_has_holes_and_an_empty_mask_none():
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    assert outline(ring).count("Z") == 2 and outline(np.zeros((3, 3), bool)) == ""


def test_the_still_picture_says_the_first_shares(small, shown, samples):
    named = samples[0].masks
    pixels, masks = qk.alignment.align(small, samples[0].image, np.stack(list(named.values())))
    cropped = Sample("", samples[0].image, dict(zip(named, masks.numpy(), strict=True)))
    own = qk.observed_attention(small, pixels[None]).values[0, 0]
    row = own[:, 1 + shown.state["patch"]].mean(0) @ regions_of(cropped)
    listed = ", ".join(f"{share:.0%} on {name}" for share, name in zip(row, NAMES, strict=True))
    assert f"of the framed patch: {listed}." in shown.still


# ---- with a kernel --------------------------------------------------------------------------


@pytest.fixture
def open_live(one, browser, tmp_path):
    """A page whose view asks this Python process, as it would ask a kernel."""
    text = one.to_html(tmp_path / "live.html").read_text()
    bridge = """send({ id, request }) {
        const whole = (key, value) => value?.$bytes === undefined ? value
          : new DataView(Uint8Array.from(atob(value.$bytes), (c) => c.charCodeAt(0)).buffer);
        askPython(JSON.stringify(request)).then((said) => {
          values.answer = { id, ...JSON.parse(said, whole) };
          for (const act of heard["change:answer"]) act();
        });
      },"""
    assert text.count("send() {},") == 1
    text = text.replace("send() {},", bridge)
    text = text.replace("render({ model,", "window.model = model;\nrender({ model,")
    (tmp_path / "live.html").write_text(text)

    def answer(request):
        asked = json.loads(request)
        try:
            found = {"found": one.hello() if asked.get("hello") else one.respond(asked)}
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        return json.dumps(found, default=lambda b: {"$bytes": base64.b64encode(b).decode()})

    page = browser.new_page()
    page.expose_function("askPython", answer)
    page.goto((tmp_path / "live.html").as_uri())
    page.wait_for_selector("input[type=number]")
    yield page
    page.close()


def test_another_picture_by_number(open_live, observed, samples):
    page = open_live
    page.get_by_label("picture by number").fill("5")
    page.keyboard.press("Tab")
    page.wait_for_selector(".qk-view[aria-busy=false]")
    page.wait_for_function(
        "document.querySelector('select').selectedOptions[0].text.endsWith('-5')"
    )
    click(page, 17)
    row = observed[0, 5, :, 18].mean(0)
    assert np.abs(percents(page, 3)[:4] - 100 * row @ regions_of(samples[5])).max() < 0.2
    page.get_by_label("picture by number").fill("77")
    page.keyboard.press("Tab")
    page.wait_for_selector(".qk-error:not([hidden])")
    assert "image=77" in page.locator(".qk-error").inner_text()


def test_another_model_by_name_and_a_state_from_python(open_live, samples):
    page = open_live
    page.get_by_role("combobox", name="model").select_option("tiny-simmim")
    page.wait_for_function("document.querySelector('dt').textContent === 'tiny-simmim'")
    click(page, 30)
    other = qk.load("tiny-simmim")
    own = qk.observed_attention(other, other.transform(samples[0].image)[None]).values[:, 0]
    row = own[0, :, 31].mean(0)
    assert np.abs(percents(page, 3)[:4] - 100 * row @ regions_of(samples[0])).max() < 0.4
    page.evaluate("model.set('state', {...model.get('state'), layer: 6, head: 1, patch: 2})")
    row = own[6, 1, 3]
    assert np.abs(percents(page, 3)[:4] - 100 * row @ regions_of(samples[0])).max() < 0.4
    assert (
        page.get_by_role("slider", name="layer").evaluate("r => r.nextSibling.textContent") == "6"
    )


def test_entries_that_are_linked_and_the_view_follow_each_other(open_live):
    page = open_live
    page.evaluate("model.set('layer', 6)")
    page.evaluate("model.set('head', 2)")
    assert page.locator(".qk-facts dd").first.inner_text().endswith("layer 6, head 2")
    assert page.evaluate("model.get('state').layer") == 6
    page.get_by_role("slider", name="layer").press("ArrowRight")
    click(page, 9)
    assert page.evaluate("['layer', 'head', 'patch'].map(model.get)") == [7, 2, 9]
    page.evaluate("model.set('layer', 99)")  # mended, for the linked control too
    assert page.evaluate("model.get('layer')") == 7


def test_requests_are_computed_or_refused(small, shown, samples, make_vit, monkeypatch):
    other, load = qk.load(make_vit(img_size=64, embed_dim=24, num_heads=3)), qk.models.load
    monkeypatch.setattr(qk.models, "load", lambda m: other if m == "tiny-dino" else load(m))
    monkeypatch.setattr(qk.models, "at_hand", lambda: ["tiny-dino"])
    found = shown.respond({"model": "tiny-dino", "image": 5})["scene"]
    assert found["model"] == other.name and found["name"] == samples[5].key
    assert found["layers"] == list(range(3)) and found["heads"] == list(range(3))
    assert found["query"]["shape"] == [3, 3, 65, 8]
    assert all(shown.respond(trial)["scene"] for trial in shown.trials())
    assert shown.hello() == {"images": 6, "models": ["small", "tiny-dino"]}
    with pytest.raises(ValueError, match="does not compute"):
        shown.respond({"image": 1})
    for bad in (6, -1, 1.5, True, "0", None):
        with pytest.raises(ValueError, match="image"):
            shown.respond({"model": "small", "image": bad})
    with pytest.raises(ValueError, match="no-such-model"):
        shown.respond({"model": "no-such-model", "image": 0})


def test_without_a_kernel_a_missing_picture_is_explained(open_view, samples):
    view = views.attention_stepper(NAME, samples, images=[1], layers=[0], heads=[0])
    view.state = view.state | {"image": 4}
    page = open_view(view)
    said = page.locator(".qk-error").inner_text()
    assert "picture 4 of tiny-supervised is not carried here" in said


# ---- what a page carries --------------------------------------------------------------------


def test_a_subset_is_carried_and_named(open_view, samples, observed):
    view = views.attention_stepper(NAME, samples, images=[2], layers=[1, 6], heads=[3, 0])
    page = open_view(view)
    assert "1 picture; layers 1, 6 of 8; heads 3, 0 of 4" in page.locator(".qk-tools").inner_text()
    click(page, 11)
    row = observed[1, 2][[3, 0], 12].mean(0)
    assert np.abs(percents(page, 3)[:4] - 100 * row @ regions_of(samples[2])).max() < 0.2
    assert "mean over heads 3, 0" in page.locator(".qk-facts dd").first.inner_text()
    slide(page, "layer", 5)
    slide(page, "head", 1)
    row = observed[6, 2, 3, 12]
    assert np.abs(percents(page, 3)[:4] - 100 * row @ regions_of(samples[2])).max() < 0.2


def test_a_state_that_does_not_fit_is_mended(samples, open_view):
    view = views.attention_stepper(NAME, samples, images=[0], layers=[1, 6])
    changed = view.state | {"layer": 5, "head": 17, "patch": 900, "query": "register 0"}
    view._trait_values["state"] = changed  # as after another model; Python itself refuses it
    page = open_view(view)
    asked = view.data["scenes"][0]["asked"][0]
    said = f"row {asked // SIDE}, column {asked % SIDE}; layer 6, mean over heads"
    assert page.locator(".qk-facts dd").first.inner_text() == f"the patch in {said}"
    assert not page.faults


def bytes_of(view):
    return len(json.dumps(view.data, default=lambda b: base64.b64encode(b).decode()))


@pytest.mark.parametrize(("room", "scenes"), [(16, 4), (8, 2), (3, 1)])
def test_as_many_pictures_as_fit_are_carried(small, samples, monkeypatch, room, scenes):
    monkeypatch.setattr(_room, "BUDGET", room * 4 * (8 + 1) * 65)
    view = views.attention_stepper(small, samples)
    assert [scene["place"] for scene in view.data["scenes"]] == list(range(scenes))
    carried = sum(len(scene["layers"]) * len(scene["heads"]) for scene in view.data["scenes"])
    assert carried <= room


def test_shares_count_the_position_bias(make_beit, open_view, samples):
    net = make_beit(img_size=64)
    net.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0}
    model = qk.load(net)
    view = views.attention_stepper(model, samples, images=[0])
    scene = view.data["scenes"][0]
    assert scene["position_bias"]["shape"] == [3, 4, 65, 65]
    page = open_view(view)
    own = qk.observed_attention(model, model.transform(samples[0].image)[None]).values[:, 0]
    for layer, head, patch in [(0, 0, 9), (2, 3, 40)]:
        slide(page, "layer", layer)
        slide(page, "head", 1 + head)
        click(page, patch)
        row = own[layer, head, 1 + patch]
        assert np.abs(percents(page, 3)[:4] - 100 * row @ regions_of(samples[0])).max() < 0.4
    assert not page.faults


def test_a_real_model(real_model, image_folder, open_view):
    photographs = qk.datasets.odd_one_out(image_folder / "o3-sample")
    view = views.attention_stepper(real_model, photographs)
    assert bytes_of(view) <= 1.5e6 and len(view.data["scenes"][0]["layers"]) >= 3
    page = open_view(view)
    page.get_by_role("slider", name="layer").press("End")
    study = qk.studies.odd_one_out(
        real_model, photographs, prefix="counted", null_images=[photographs[0].image]
    )
    carried = view.data["scenes"][0]["heads"]
    of_query = study.share.isel(image=0, layer=-1, query=0, head=carried)
    expected = of_query.mean("head").values
    assert np.abs(percents(page, 3)[:4] - 100 * expected).max() < 0.2
    assert "layer 11" in page.locator(".qk-facts dd").first.inner_text()


def tiny_sample(key="one"):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    target, distractor = np.zeros((2, 40, 40), bool)
    target[4:20, 4:20] = True
    distractor[10:36, 22:30] = True
    masks = {"target": target, "distractor": distractor}
    return Sample(key, Image.fromarray(pixels), masks)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"class_token": False, "global_pool": "avg"}, []),
        ({"reg_tokens": 2}, ["class token", "register 0", "register 1"]),
    ],
)
def test_other_prefix_tokens_are_named(make_vit, open_view, changes, names):
    view = views.attention_stepper(make_vit(**changes), [tiny_sample()])
    page = open_view(view, viewport={"width": 400, "height": 900})
    assert page.locator("tbody th").all_inner_texts() == [*NAMES[:3], *names, "all keys"]
    options = page.get_by_role("combobox", name="asking").locator("option").all_inner_texts()
    assert options == ["the framed patch", *names]
    model = qk.load(make_vit(**changes))
    own = qk.observed_attention(model, model.transform(tiny_sample().image)[None]).values[0, 0]
    patch = view.state["patch"]
    row = own[:, len(names) + patch].mean(0)
    shares = percents(page, 3)
    assert np.abs(shares[3:-1] - 100 * row[: len(names)]).max(initial=0) < 0.2
    assert shares[-1] == 100 and shares[:-1].sum() == pytest.approx(100, abs=0.3)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 400 and not page.faults


def test_an_object_that_is_not_there_can_not_be_asked(make_vit, open_view):
    sample = tiny_sample()
    sample.masks["distractor"][:] = False
    page = open_view(views.attention_stepper(make_vit(), [sample]))
    assert page.get_by_role("button", name="distractors’ patch").is_disabled()
    assert page.get_by_role("button", name="target’s patch").is_enabled()


def test_what_both_masks_hold_is_the_targets(make_vit):
    sample = tiny_sample()
    sample.masks["distractor"][:] = sample.masks["target"]
    target, distractor = views.attention_stepper(make_vit(), [sample]).data["scenes"][0]["outlines"]
    assert target and distractor == ""


def test_names_that_are_markup_stay_text(make_vit, open_view):
    key = "</script><img src=x onerror=alert(1)>"
    page = open_view(views.attention_stepper(make_vit(), [tiny_sample(key)]))
    assert page.get_by_role("combobox", name="picture").locator("option").all_inner_texts() == [key]
    assert page.locator(".qk-controls img").count() == 0 and not page.faults


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"layers": [8]}, "layers=8"),
        ({"heads": [0, 0]}, "heads="),
        ({"heads": []}, "heads="),
        ({"images": [-1]}, "images=-1"),
        ({"images": [6]}, "images=6"),
    ],
)
def test_numbers_that_do_not_exist_are_refused(small, samples, choice, message):
    with pytest.raises(ValueError, match=message):
        views.attention_stepper(small, samples, **choice)


def test_samples_without_masks_are_refused(make_vit):
    with pytest.raises(ValueError, match="it needs target, distractor"):
        views.attention_stepper(make_vit(), [Sample("bare", tiny_sample().image, {})])
    with pytest.raises(ValueError, match="images="):
        views.attention_stepper(make_vit(), [])

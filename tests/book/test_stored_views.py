"""Stored views against the live views of the same model, and files that are not as written."""

from __future__ import annotations

import os

import numpy as np
import pytest

import qkutils as qk
from qkutils.book import stored, stored_views

MODEL = "tiny-supervised"
KINDS = ("mode_browser", "one_image")
MAKERS = {kind: getattr(stored_views, f"store_{kind}") for kind in KINDS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What is stored of an embedded model."""
    out = tmp_path_factory.mktemp("results")
    for store in MAKERS.values():
        store(qk.load(MODEL), out)
    return out


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.setattr(stored, "FOLDER", folder)


def live_browser(model):
    photographs = qk.pictures_of(qk.datasets.photographs(), model)
    atlas = qk.scan(model, photographs, k=4, statistics=["variance"], progress=False)
    return qk.views.mode_browser(model, atlas, photographs)


def live_image(model, found):
    """The live view of the photograph and the heads of a stored one."""
    photographs = qk.datasets.photographs()
    picture = photographs[photographs.keys.index(found.attrs["name"])].image
    places = {name: found[name].values.tolist() for name in ("layer", "head")}
    start = {name: int(found.attrs[name]) for name in ("layer", "head")}
    chosen = {f"{name}s": of for name, of in places.items()} | start
    return qk.views.one_image(model, picture, **chosen, query_patch=int(found.attrs["patch"]))


def same(found, wanted, tolerance):
    """Whether what two views sent to the page is the same, packed numbers to a tolerance."""
    if isinstance(wanted, dict) and "form" in wanted:
        numbers = [
            np.frombuffer(each["bytes"], each["form"]).astype(float) for each in (found, wanted)
        ]
        spread = max(abs(numbers[1]).max(), 1e-9)
        return found["shape"] == wanted["shape"] and abs(numbers[0] - numbers[1]).max() <= (
            tolerance * spread
        )
    if isinstance(wanted, dict):
        return set(found) == set(wanted) and all(
            same(found[k], wanted[k], tolerance) for k in wanted
        )
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted, [tolerance] * len(found)))
    if isinstance(wanted, float):
        return found == pytest.approx(wanted, rel=1e-3, abs=1e-6)
    return found == wanted


def check_browser(view, model, tolerance):
    live = live_browser(model)
    assert view.state == live.state and isinstance(live, qk.views.ModeBrowser)
    assert same(view.data, live.data, tolerance)


def check_image(view, model, tolerance):
    live = live_image(model, view.found)
    assert view.state == live.state and isinstance(live, qk.views.OneImage)
    named = live.data | {"name": view.found.attrs["name"]}
    assert same(view.data, named, tolerance)


def test_a_stored_mode_browser_is_the_live_one(here):
    check_browser(stored_views.mode_browser(MODEL), qk.load(MODEL), 0)


def test_a_stored_view_of_one_image_is_the_live_one(here):
    check_image(stored_views.one_image(MODEL), qk.load(MODEL), 0)


def test_what_is_stored_of_a_real_model_is_its_live_view(real_model):
    """Numbers of another machine differ in their last digits, and halves in one step."""
    if real_model.name in stored.names("mode_browser"):
        check_browser(stored_views.mode_browser(real_model.name), real_model, 1 / 255)
    if real_model.name in stored.names("one_image"):
        check_image(stored_views.one_image(real_model.name), real_model, 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_the_package_is_whole_and_says_where_it_comes_from(kind):
    for name in stored.names(kind):
        found = getattr(stored_views, kind)(name).found
        modes = stored.read("modes", name)
        assert found.fingerprint.item() == modes.attrs["fingerprint"]
        assert {"computed", "code_version", "dtype", "crop_pct"} <= set(found.attrs)
        assert (stored.FOLDER / f"{name}.{kind}.nc").stat().st_size < 1e6


def test_pictures_are_not_stored_again(here):
    found = stored_views.mode_browser(MODEL).found
    assert set(found.picture.values) == set(qk.datasets.photographs().keys)
    assert not {"height", "width", "channel"} & set(found.sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_gets_no_answer_but_what_is_held(here, kind):
    view, answers = getattr(stored_views, kind)(MODEL), []
    view.observe(lambda change: answers.append(change["new"]), "answer")
    view._asked(view, {"id": 1, "request": {"hello": True}}, [])
    assert answers == [] and view.trials() == []
    with pytest.raises(ValueError, match="does not compute"):
        view.respond({"layer": 0, "head": 0, "mode": 23})
    before = view.state
    for change in ({"layer": 99}, {"head": -1}, {"mode": 24}, {"picture": 0}, {"kept": 99}):
        known = {name: value for name, value in change.items() if name in before}
        for name in known:
            with pytest.raises(ValueError, match=name):
                view.state = before | known
    assert view.state == before


def other_number(found, kind):
    found["cosine"][0, 0, 0] += 0.01
    return found


def other_map(found, kind):
    values = found["query"].values
    values.flat[values.argmax()] = 0
    return found


def other_place(found, kind):
    name = "shown_mode" if kind == "mode_browser" else "layer"
    return found.assign_coords({name: found[name] + 100})


def without(found, kind):
    return found.drop_vars("sigma")


def other_words(found, kind):
    return found.assign_attrs(crop_mode="<script>alert(1)</script>")


def other_model(found, kind):
    return found.assign_coords(model="</script><script>alert(1)</script>")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change", [other_number, other_map, other_place, without, other_words, other_model]
)
def test_a_file_that_was_changed_is_refused(folder, tmp_path, monkeypatch, kind, change):
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    path = tmp_path / f"{MODEL}.{kind}.nc"
    found = qk.store.load(folder / path.name)
    qk.store.save(path, found.copy(deep=True))
    getattr(stored_views, kind)(MODEL)  # as it was, it is shown
    qk.store.save(path, change(found.copy(deep=True), kind))
    with pytest.raises(ValueError, match=f"qkutils store {MODEL}"):
        getattr(stored_views, kind)(MODEL)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_damaged_or_of_another_model_is_refused(folder, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    whole = (folder / f"{MODEL}.{kind}.nc").read_bytes()
    for content in (whole[: len(whole) // 2], b"", os.urandom(4000)):
        (tmp_path / f"{MODEL}.{kind}.nc").write_bytes(content)
        with pytest.raises(ValueError, match=kind):
            getattr(stored_views, kind)(MODEL)
    (tmp_path / f"other.{kind}.nc").write_bytes(whole)
    with pytest.raises(ValueError, match="qkutils store other"):
        getattr(stored_views, kind)("other")
    with pytest.raises(FileNotFoundError, match="'nobody'"):
        getattr(stored_views, kind)("nobody")


# ---- in the browser ------------------------------------------------------------------------------


def facts(page):
    names = page.locator(".qk-facts dt").all_inner_texts()
    return dict(zip(names, page.locator(".qk-facts dd").all_inner_texts(), strict=True))


def test_a_stored_mode_browser_is_alive(here, open_view):
    view = stored_views.mode_browser(MODEL)
    page = open_view(view)
    state, found = view.state, view.found
    page.get_by_role("application").focus()
    press, step = ("ArrowLeft", -1) if state["layer"] else ("ArrowRight", 1)
    page.keyboard.press(press)
    at = {"layer": state["layer"] + step, "head": state["head"], "mode": state["mode"]}
    told = facts(page)
    assert told[f"mode {at['mode']}"].startswith(f"layer {at['layer']}, head {at['head']},")
    sigma = float(told["σ"].split(",")[0])
    assert sigma == pytest.approx(float(found.sigma.sel(at)), rel=0.006)
    best = found.image.sel({f"shown_{name}": n for name, n in at.items()}).values[0, 0]
    first = page.locator(".qk-picture figcaption").first
    page.wait_for_function(
        "name => document.querySelector('.qk-picture figcaption').textContent.includes(name)",
        arg=str(found.picture.values[best]),
    )
    assert first.is_visible() and page.get_by_label("one more picture").count() == 0
    page.get_by_role("slider", name="mode").press("End")
    assert page.locator(".qk-picture:visible").count() == 0
    assert page.get_by_role("status").filter(has_text="no pictures").count() == 1
    assert not page.faults


def test_a_stored_view_of_one_image_is_alive(here, open_view):
    view = stored_views.one_image(MODEL)
    page = open_view(view)
    page.get_by_label("layer", exact=True).press("Home")
    layer = int(view.found.layer.values[0])
    assert facts(page)["head"].startswith(f"layer {layer}, ")
    page.get_by_label("add up the first", exact=True).press("End")
    assert "0.000" in facts(page)["attention elsewhere"]
    assert page.get_by_label("a picture of your own").count() == 0
    assert not page.faults

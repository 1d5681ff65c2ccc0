"""The view of trends, driven in a browser and compared with the curves it was given."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

import qkutils as qk
from qkutils import modes, views
from qkutils.book import stored

NAMES = ("tiny-supervised", "tiny-simmim")


@pytest.fixture(scope="module")
def curves():
    return [modes.trend(name) for name in NAMES]


@pytest.fixture
def page(curves, open_view):
    return open_view(views.trends(curves), viewport={"width": 900, "height": 700})


def facts(page):
    return page.locator(".qk-facts dd").all_inner_texts()


def means(curve, convention):
    return curve.weighted_cosine.sel(convention=convention).mean("head").values


def as_number(text):
    return float(text.replace("−", "-"))


@pytest.fixture(scope="module")
def vit(make_vit):
    """A small random model, for what needs no browser."""
    return make_vit(embed_dim=16, num_heads=2)


def test_curves_are_those_of_the_library(vit):
    curve = modes.trend(vit)
    for convention in ("paper", "exact"):
        expected = qk.weighted_cosine(vit, convention=convention)
        found = curve.weighted_cosine.sel(convention=convention)
        np.testing.assert_allclose(found.values, expected.values, atol=1e-9)
        parts = qk.decompose(vit, convention=convention)
        one = modes.null_from_strengths(parts.sigma, qk.null_band(vit, convention=convention))
        layer = NormalDist().inv_cdf(0.975) * np.sqrt((one**2).mean("head") / one.sizes["head"])
        assert np.allclose(curve.null.sel(convention=convention), layer)


def test_slider_by_keyboard_reads_each_layer(page, curves):
    page.locator("input[type=range]").focus()
    for layer, mean in enumerate(means(curves[0], "paper")):
        assert facts(page)[0] == f"layer {layer}, convention paper"
        assert as_number(facts(page)[1]) == pytest.approx(mean, abs=0.0051)
        page.keyboard.press("ArrowRight")
    assert not page.faults


def test_convention_and_model_change_the_values(page, curves):
    page.get_by_label("exact").check()
    assert as_number(facts(page)[1]) == pytest.approx(means(curves[0], "exact")[0], abs=0.0051)
    page.get_by_label("model").select_option("tiny-simmim")
    assert as_number(facts(page)[1]) == pytest.approx(means(curves[1], "exact")[0], abs=0.0051)


def test_hiding_a_model_takes_its_curve_away(page):
    assert page.locator(".qk-axes .qk-curve").count() == 2
    page.get_by_role("checkbox", name="tiny-simmim").press("Space")
    assert page.locator(".qk-axes .qk-curve").count() == 1


def test_pointer_near_a_curve_chooses_it(page, curves):
    curve = page.locator(".qk-axes .qk-curve").nth(1)
    at = curve.evaluate(
        "c => { const p = c.getPointAtLength(0), m = c.getScreenCTM();"
        " return [p.x * m.a + m.e, p.y * m.d + m.f]; }"
    )
    page.mouse.move(at[0] + 2, at[1])
    assert page.locator(".qk-facts dt").first.inner_text() == "tiny-simmim"


def test_a_model_is_added_on_demand(vit, make_vit, monkeypatch):
    curve, other = modes.trend(vit), qk.load(make_vit(3, embed_dim=16, num_heads=2))
    view, load = views.trends([curve.assign_coords(model="tiny-supervised")]), qk.models.network
    assert "tiny-dino" in view.hello()["at_hand"] and NAMES[0] not in view.hello()["at_hand"]
    monkeypatch.setattr(qk.models, "network", lambda m: other if m == "tiny-dino" else load(m))
    found = view.respond({"model": "tiny-dino"})["curve"]
    values = np.frombuffer(found["heads"]["bytes"], np.float32).reshape(found["heads"]["shape"])
    assert np.allclose(values[0], qk.weighted_cosine(other, convention="paper"), atol=1e-6)
    with pytest.raises(ValueError, match="does not compute"):
        view.respond({"models": 3})


def test_curves_without_a_null_and_names_that_are_markup(curves, open_view):
    other = curves[1].drop_vars("null").assign_attrs(model="<img src=x onerror=alert(1)>")
    page = open_view(views.trends([other, curves[0]]))
    assert facts(page)[-1] == "not known for this model"
    assert page.locator(".qk-controls img").count() == 0 and not page.faults


def test_two_curves_of_one_model_are_refused(vit):
    curve = modes.trend(vit)
    with pytest.raises(ValueError, match="each of another model"):
        views.trends([curve, curve])
    with pytest.raises(ValueError, match="one or more"):
        views.trends([])


def test_the_whole_view_is_seen_on_one_screen(open_view):
    names = qk.models.family()[0]
    view = views.trends([*map(modes.trend, names), *map(stored.trend, stored.names("null_band"))])
    page = open_view(view, viewport={"width": 704, "height": 720})
    assert page.locator(".qk-view").bounding_box()["height"] <= 640


def test_long_names_stay_within_a_phone(open_view):
    view = views.trends([stored.trend(name) for name in stored.names("null_band")])
    page = open_view(view, viewport={"width": 390, "height": 844})
    edge = page.locator(".qk-view").evaluate("v => v.getBoundingClientRect().right")
    controls = page.locator(".qk-controls select, .qk-controls label")
    rights = controls.evaluate_all("all => all.map(e => e.getBoundingClientRect().right)")
    assert len(rights) > 5 and max(rights) <= edge

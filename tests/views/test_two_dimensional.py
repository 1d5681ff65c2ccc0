"""The view of a head with two dimensions, driven in a browser and compared with numpy."""

from __future__ import annotations

import re

import numpy as np
import pytest
import traitlets
from matplotlib import colormaps

from qkutils import views
from qkutils.views import figures as plots

DESK = {"width": 900, "height": 1000}
POINTS = np.array([[1.2, 0.1], [-0.4, 0.9], [0.3, -1.1], [0.2, 0.2], [-1.4, -0.3]])


def expected(u0, v0, sigma=(1.5, 0.4), mirrored=False):
    """M by its definition, from rotations that numpy multiplies."""

    def turn(degrees):
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        return np.array([[c, -s], [s, c]])

    return turn(u0) @ np.diag(sigma) @ np.diag([1, -1 if mirrored else 1]) @ turn(v0).T


def made(u0=20.0, v0=60.0, sigma=(1.5, 0.4), *rest, **more):
    """The view, from whole numbers too, as readers give them."""
    return views.two_dimensional(float(u0), float(v0), tuple(map(float, sigma)), *rest, **more)


def circle():
    angle = np.arange(16) * np.pi / 8
    return np.sqrt(2) * np.column_stack([np.cos(angle), np.sin(angle)])


def softmax(scores):
    return np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)


def facts(page):
    names = page.locator(".qk-facts dt").all_inner_texts()
    return dict(zip(names, page.locator(".qk-facts dd").all_inner_texts(), strict=True))


def numbers(text):
    return [float(n) for n in re.findall(r"[+-]?\d+\.\d+", text.replace("−", "-"))]


def matrix(page):
    return np.reshape(numbers(page.locator(".qk-matrix").get_attribute("aria-label")), (2, 2))


def pixels(page, which):
    """Colours of a map's canvas, [row, column, 3]."""
    read = (
        "c => [c.height, c.width, [...c.getContext('2d').getImageData(0,0,c.width,c.height).data]]"
    )
    high, wide, flat = page.locator(".qk-grid canvas").nth(which).evaluate(read)
    return np.reshape(flat, (high, wide, 4))[..., :3]


def same_colours(found, values, low, high, name):
    """Whether colours are those of values, but for the rounding to one of 256."""
    table = (255 * colormaps[name](range(256))[:, :3]).round()
    at = 255 * np.clip((values - low) / (high - low), 0, 1)
    near = [table[np.floor(at).astype(int)], table[np.ceil(at).astype(int)]]
    return np.logical_or(*[(found == colours).all(-1) for colours in near]).all()


def middle(page, selector):
    box = page.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def tip(page, degrees):
    """Where on the page the tip of a direction at an angle lies, for tokens on the circle."""
    box = page.locator(".qk-plane .qk-grid").bounding_box()
    far = box["width"] / 2 / (1.3 * np.sqrt(2))
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    turn = np.deg2rad(degrees)
    return x + far * np.cos(turn), y - far * np.sin(turn)


def slide(page, name, value):
    """Set a slider as its user would see it set."""
    page.locator("label", has_text=name).locator("input").fill(str(value))


@pytest.fixture
def page(open_view):
    return open_view(made(), viewport=DESK)


def test_facts_are_those_of_numpys_decomposition(open_view):
    page = open_view(made(-150, 75, (2.0, 1.0), True), viewport=DESK)
    M = expected(-150, 75, (2.0, 1.0), True)
    assert np.abs(matrix(page) - M).max() < 0.0051
    u, strengths, vh = np.linalg.svd(M)
    found, cosines = facts(page), (u * vh.T).sum(0)
    for mode, name in enumerate(("cosine u₀ · v₀", "cosine u₁ · v₁")):
        assert numbers(found[name])[0] == pytest.approx(cosines[mode], abs=0.0051)
    weighted = (strengths @ cosines) / strengths.sum()
    assert numbers(found["weighted cosine"])[0] == pytest.approx(weighted, abs=0.0051)
    ratio = [np.trace(M) / np.linalg.norm(M, "nuc"), np.trace(M), np.linalg.norm(M, "nuc")]
    assert numbers(found["tr M ÷ ‖M‖∗"]) == pytest.approx(ratio, abs=0.0051)
    assert numbers(found["determinant"])[0] == pytest.approx(np.linalg.det(M), abs=0.0051)
    assert not page.faults


def test_both_maps_are_painted_from_scores_and_softmax(open_view):
    asking, tokens = 2, POINTS
    view = made(-150, 75, (2.0, 1.0), True, tokens)
    view.state = view.state | {"token": asking}
    page = open_view(view, viewport=DESK)
    tokens, M = tokens.astype(np.float32).astype(float), expected(-150, 75, (2.0, 1.0), True)
    extent, limit, top = (view.data[name] for name in ("extent", "limit", "top"))
    across = (np.arange(64) - 31.5) / 32 * extent
    place = np.stack(np.broadcast_arrays(across[None, :], -across[:, None]), -1)
    scores = place @ (M.T @ tokens[asking])
    assert same_colours(pixels(page, 0), scores, -limit, limit, plots.DIVERGING)
    attention = softmax(tokens @ M @ tokens.T / np.sqrt(2))
    assert same_colours(pixels(page, 1), attention, 0, top, plots.SEQUENTIAL)
    assert attention.max() <= top  # the scale has room for it


def drawn_points(page, selector, path):
    """The points of one path of each drawn thing, in the plane's coordinates, [thing, point, 2]."""
    one = "(g.children.length ? g.children[n] : g)"
    read = f"(all, n) => all.map((g) => {one}.getAttribute('d'))"
    found = page.locator(selector).evaluate_all(read, path)
    points = [np.array(re.findall(r"-?[\d.]+(?:e-?\d+)?", d), float).reshape(-1, 2) for d in found]
    return np.array(points) * (1, -1) * 1.3 * np.sqrt(2) / 184


def test_arrows_and_lines_lie_where_the_numbers_are(open_view):
    page = open_view(made(-150, 75, (2.0, 1.0), True), viewport=DESK)
    M, z = expected(-150, 75, (2.0, 1.0), True), circle()
    starts, ends = drawn_points(page, ".qk-wish", 1)[:, :2].transpose(1, 0, 2)
    assert np.allclose(starts, z, atol=1e-4)
    along, wanted = ends - starts, z @ M  # each row is Mᵀz
    assert np.allclose(
        (along * wanted).sum(-1), np.linalg.norm(along, axis=1) * np.linalg.norm(wanted, axis=1)
    )
    lines = drawn_points(page, ".qk-level", 0)
    labels = page.locator(".qk-level + text").all_text_contents()
    scores = lines @ wanted[0]
    assert np.allclose(
        scores, np.array([float(t.replace("−", "-")) for t in labels])[:, None], atol=1e-3
    )
    tips = drawn_points(page, ".qk-mode", 2)[:, 0]
    angles = np.deg2rad([-60, -15, -150, 75])  # u₁, v₁ (mirrored), u₀, v₀
    assert np.allclose(tips, np.column_stack([np.cos(angles), np.sin(angles)]), atol=1e-4)
    fills = page.locator(".qk-mode path:last-child").evaluate_all(
        "a => a.map((p) => p.getAttribute('fill'))"
    )
    assert fills[0] == fills[2] != fills[1] == fills[3]


def test_colour_bars_state_their_scales_and_keep_them(page):
    before = page.locator(".qk-bar").all_inner_texts()
    assert "−4 or less" in before[0] and "+4 or more" in before[0] and "0.25" in before[1]
    slide(page, "strength σ₀", 2)
    assert page.locator(".qk-bar").all_inner_texts() == before


@pytest.mark.parametrize(("handle", "start", "key"), [(0, 20, "u0"), (1, 60, "v0")])
def test_a_tip_is_dragged_by_mouse(page, handle, start, key):
    page.mouse.move(*tip(page, start))
    page.mouse.down()
    for angle in range(start, 136, 5):
        page.mouse.move(*tip(page, angle))
    page.mouse.move(*tip(page, 135))
    page.mouse.up()
    page.mouse.move(*tip(page, -30))  # the tip was let go
    angles = {"u0": 20, "v0": 60} | {key: 135}
    assert np.abs(matrix(page) - expected(**angles)).max() < 0.0051
    slider = page.locator(".qk-handle").nth(handle)
    assert slider.get_attribute("aria-valuenow") == "135"
    cosine = np.cos(np.deg2rad(angles["u0"] - angles["v0"]))
    assert numbers(slider.get_attribute("aria-valuetext"))[0] == pytest.approx(cosine, abs=0.0051)
    assert not page.faults


def test_a_tip_is_dragged_by_touch(open_view):
    page = open_view(made(), viewport={"width": 400, "height": 900}, has_touch=True)
    touch = page.context.new_cdp_session(page)

    def send(kind, degrees=None):
        points = [] if degrees is None else [dict(zip("xy", tip(page, degrees), strict=True))]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", 60)
    for angle in range(60, -46, -15):
        send("touchMove", angle)
    send("touchEnd")
    assert np.abs(matrix(page) - expected(20, -45)).max() < 0.0051
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]


def test_both_tips_can_be_told_apart_where_they_coincide(page):
    slide(page, "angle of v₀", 20)
    x, y = tip(page, 20)
    page.mouse.move(x + 15, y)
    page.mouse.down()
    page.mouse.move(*tip(page, 70))
    page.mouse.up()
    now = [page.locator(".qk-handle").nth(n).get_attribute("aria-valuenow") for n in (0, 1)]
    assert abs(float(now[0]) - 70) <= 1 and now[1] == "20"


def test_handles_by_keyboard(page):
    page.get_by_role("slider", name="query direction u₀").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    assert np.abs(matrix(page) - expected(16, 65)).max() < 0.0051
    for _ in range(24):
        page.keyboard.press("ArrowRight")
    now = page.get_by_role("slider", name="key direction v₀").get_attribute("aria-valuenow")
    assert now == "-175"  # on, past 180
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "key direction v₀"


def test_sliders_by_keyboard_and_the_order_of_strengths(page):
    page.locator("label", has_text="angle of u₀").locator("input").press("ArrowRight")
    assert np.abs(matrix(page) - expected(21, 60)).max() < 0.0051
    page.locator("label", has_text="strength σ₁").locator("input").press("End")
    assert np.abs(matrix(page) - expected(21, 60, (2, 2))).max() < 0.0051
    slide(page, "strength σ₀", 0.5)
    assert np.abs(matrix(page) - expected(21, 60, (0.5, 0.5))).max() < 0.0051
    outputs = page.locator(".qk-controls output").all_inner_texts()
    assert outputs == ["21°", "60°", "0.50", "0.50"]


def test_mirroring_turns_the_second_pair_and_the_determinant(page):
    assert numbers(facts(page)["determinant"]) == [0.6]
    page.get_by_label("second pair mirrored").press("Space")
    assert np.abs(matrix(page) - expected(20, 60, mirrored=True)).max() < 0.0051
    assert numbers(facts(page)["determinant"]) == [-0.6]
    assert numbers(facts(page)["cosine u₁ · v₁"]) == [-0.77]


def test_equal_strengths_leave_the_directions_free(page):
    assert "degenerate" not in facts(page)
    slide(page, "strength σ₁", 1.5)
    before = matrix(page)
    assert "the same one" in facts(page)["degenerate"]
    slide(page, "angle of u₀", 50)
    slide(page, "angle of v₀", 90)
    assert (matrix(page) == before).all()


def test_the_favourite_is_where_the_score_is_largest(open_view):
    view = made(-40, 75, (1.9, 0.7), True, POINTS, names=[f"p{n}" for n in range(5)])
    page = open_view(view, viewport=DESK)
    scores = POINTS @ expected(-40, 75, (1.9, 0.7), True) @ POINTS.T
    attention = softmax(scores / np.sqrt(2))
    choose = page.get_by_label("token that asks")
    choose.focus()
    for asking, row in enumerate(scores):
        best = row.argmax()
        other = "itself" if best == asking else f"token p{best}"
        said = facts(page)["favourite"]
        assert said.startswith(f"token p{asking} likes {other} best:")
        found = numbers(said)
        assert found == pytest.approx([row[best], attention[asking, best]], abs=0.0051)
        plane = page.locator(".qk-plane .qk-grid").get_attribute("aria-label")
        assert f"likes {other} best" in plane and f"token p{asking}" in plane
        ends = page.locator(".qk-choice").bounding_box()
        box = page.locator(".qk-plane .qk-grid").bounding_box()
        for n in {asking, int(best)}:
            at = POINTS[n] * (1, -1) * box["width"] / 2 / view.data["extent"]
            x, y = at + [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
            assert ends["x"] - 14 < x < ends["x"] + ends["width"] + 14
            assert ends["y"] - 14 < y < ends["y"] + ends["height"] + 14
        page.keyboard.press("ArrowDown")


def test_tokens_that_are_liked_alike_are_all_named(page):
    slide(page, "angle of u₀", 0)
    slide(page, "angle of v₀", 0)
    slide(page, "strength σ₁", 0)
    page.get_by_label("token that asks").select_option("z₃")
    assert facts(page)["favourite"].startswith("token z₃ likes token z₀ best")
    slide(page, "angle of v₀", 11)
    assert facts(page)["favourite"].startswith("token z₃ likes token z₀ best")
    slide(page, "angle of v₀", 12)
    assert facts(page)["favourite"].startswith("token z₃ likes token z₁ best")


def test_two_favourites(open_view):
    view = made(0, 0, (1, 0), tokens=[[1, 0], [0.7, 0.7], [0.7, -0.7], [1, 0.3]])
    page = open_view(view, viewport=DESK)
    assert "likes itself and token z₃ best" in facts(page)["favourite"]
    assert page.locator(".qk-choice").count() == 2


def test_a_head_without_strength_has_no_cosine(page):
    slide(page, "strength σ₀", 0)
    found = facts(page)
    assert found["weighted cosine"] == found["tr M ÷ ‖M‖∗"] == "not defined: M is zero"
    assert found["favourite"].startswith("token z₀ likes all tokens alike: score +0.00")
    assert (pixels(page, 1) == pixels(page, 1)[0, 0]).all()
    assert page.locator(".qk-choice, .qk-level").count() == 0 and not page.faults


def test_the_sentence_says_what_tokens_attend_to(page):
    z = circle()
    for v0, kind in [(20, "to similar"), (110, "to neither"), (-160, "to dissimilar")]:
        slide(page, "angle of v₀", v0)
        attention = softmax(z @ expected(20, v0) @ z.T / np.sqrt(2))
        mean = (attention * (z @ z.T) / 2).sum(-1).mean()
        said = facts(page)["in short"]
        assert kind in said
        assert numbers(said) == pytest.approx([mean, 0], abs=0.0051)


def test_a_click_on_a_token_or_a_row_lets_it_ask(page):
    page.locator(".qk-token").nth(9).locator("circle").last.click()
    assert facts(page)["favourite"].startswith("token z₉ ")
    x, y, high = (
        page.locator(".qk-square .qk-grid").bounding_box()[k] for k in ("x", "y", "height")
    )
    page.mouse.click(x + 30, y + 5.5 / 16 * high)
    assert facts(page)["favourite"].startswith("token z₅ ")
    assert page.get_by_label("token that asks").evaluate("s => s.selectedIndex") == 5
    page.mouse.click(*middle(page, ".qk-plane .qk-grid"))  # no token is near
    assert facts(page)["favourite"].startswith("token z₅ ")


def test_names_that_are_markup_stay_text(open_view):
    bad = "<img src=x onerror=alert(1)>"
    view = made(tokens=POINTS, names=[bad, "b", "<b>c</b>", "d", "e"])
    page = open_view(view, viewport=DESK)
    assert page.locator(".qk-view img, .qk-view b").count() == 0
    assert bad in facts(page)["favourite"] and not page.faults


def test_data_are_light(open_view, tmp_path):
    tokens = np.random.default_rng(0).normal(size=(40, 2))
    view = made(tokens=tokens)
    assert view.to_html(tmp_path / "v.html").stat().st_size < 400_000
    assert len(view.data["tokens"]["bytes"]) == 320
    page = open_view(view, viewport=DESK)
    assert pixels(page, 1).shape == (40, 40, 3) and not page.faults


def test_state_is_read_and_set_and_nonsense_is_refused():
    view = made(-30, 45)
    assert view.state["u0"] == -30 and view.state["sigma1"] == 0.4
    view.state = view.state | {"u0": 70, "token": 3}
    assert (view.state["u0"], view.state["token"]) == (70, 3)
    for change, message in [
        ({"sigma1": 1.6}, "σ₀ ≥ σ₁"),
        ({"sigma0": 3}, "sigma0=3"),
        ({"token": 16}, "token=16"),
        ({"v0": float("nan")}, "v0="),
        ({"u0": 200}, "u0=200"),
        ({"other": 1}, "other"),
    ]:
        with pytest.raises(traitlets.TraitError, match=message):
            view.state = view.state | change
    assert view.trials() == [] and view.state["u0"] == 70


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sigma": (0.3, 0.4)}, "σ₀ ≥ σ₁"),
        ({"sigma": (1, -0.1)}, "sigma1=-0.1"),
        ({"u0": np.inf}, "u0=inf"),
        ({"tokens": [[1, 2]]}, "from 2 to 40 rows"),
        ({"tokens": np.ones((41, 2))}, "from 2 to 40 rows"),
        ({"tokens": np.ones((4, 3))}, "rows of two"),
        ({"tokens": [[1, 2], [np.nan, 0]]}, "finite"),
        ({"tokens": [[100, 0], [0, 1]]}, "from 0.5 to 4"),
        ({"tokens": POINTS, "names": ["a"]}, "1 names for 5 tokens"),
    ],
)
def test_bad_input_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        made(**given)


def test_a_stronger_head_has_longer_sliders(open_view):
    page = open_view(made(0, 90, (5, 1)), viewport=DESK)
    assert (
        page.locator("label", has_text="strength σ₀").locator("input").get_attribute("max") == "5"
    )
    assert np.abs(matrix(page) - expected(0, 90, (5, 1))).max() < 0.0051


def test_the_still_figure_shows_the_same_head():
    u, v = np.eye(2), np.array([[0.0, -1.0], [1.0, 0.0]])
    limits = (2.0, 4.0, 0.5)
    figure = plots.plane_and_attention(u, np.array([1.5, 0.5]), v, POINTS, 1, limits)
    M = expected(0, 90, (1.5, 0.5))
    left, right = figure.axes[:2]
    np.testing.assert_allclose(
        right.images[0].get_array(), softmax(POINTS @ M @ POINTS.T / np.sqrt(2))
    )
    field = left.images[0].get_array()
    assert field[0, -1] == pytest.approx(POINTS[1] @ M @ [2, 2])  # the top right corner
    assert field[-1, -1] == pytest.approx(POINTS[1] @ M @ [2, -2])
    assert left.images[0].get_clim() == (-4, 4) and right.images[0].get_clim() == (0, 0.5)


def test_the_whole_view_is_seen_on_one_screen(open_view):
    page = open_view(made(), viewport={"width": 704, "height": 720})
    assert page.locator(".qk-view").bounding_box()["height"] <= 640
    assert page.get_by_text("How to read this").is_visible()

"""The stepper: finished figures, one slider, and a browser that needs nothing else."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import PIL.Image
import pytest
from matplotlib import rc_context
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from qkutils import views
from qkutils.views import _page


def figures(count):
    """Figures that differ, each in a grey of its own."""
    return [Figure(figsize=(1, 1), facecolor=str(n / 8)) for n in range(count)]


def test_the_slider_shows_each_figure_with_its_name_and_text(open_view):
    view = views.stepper(figures(3), [0, 5, "last"], ["a", "b", "<i>c</i>"], "layer")
    page = open_view(view)
    image, slider = page.locator(".qk-finished"), page.get_by_role("slider")
    slider.focus()
    seen = []
    for name, text in (("0", "a"), ("5", "b"), ("last", "<i>c</i>")):
        assert page.locator("output").inner_text() == name
        assert slider.get_attribute("aria-valuetext") == name
        assert image.get_attribute("alt") == text
        seen.append(image.evaluate(GREY))
        page.keyboard.press("ArrowRight")
    assert np.allclose(seen, [0, 32, 64], atol=2) and not page.faults
    assert page.locator("i").count() == 0


GREY = """async (image) => {
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const drawing = canvas.getContext("2d");
  drawing.drawImage(image, 0, 0, 1, 1);
  return drawing.getImageData(0, 0, 1, 1).data[0];
}"""


def test_every_figure_is_carried_once_and_cleared():
    some = figures(3)
    for figure in some:
        figure.subplots()
    view = views.stepper(some, [0, 1, 2], ["a", "b", "c"], "layer")
    assert len({hashlib.sha256(p).digest() for p in view.data["pictures"]}) == 3
    assert not any(figure.axes for figure in some)


def test_the_dark_turns_a_figure_but_no_map_in_it(browser, tmp_path):
    figure = Figure(figsize=(4, 2))
    left, middle, right = figure.subplots(1, 3)
    left.imshow(np.full((2, 2, 3), MAP, np.uint8))
    middle.pcolormesh([[0.0]], cmap=ListedColormap([np.divide(MAP, 255)]))
    right.set(title="a curve")
    path = views.stepper([figure], ["a"], ["text"], "step").to_html(tmp_path / "view.html")
    places = {"left": (0.2, 0.5), "middle": (0.5, 0.5), "right": (0.85, 0.5), "gap": (0.01, 0.01)}
    for scheme, ground in (("light", 255), ("dark", 18)):
        page = browser.new_page(color_scheme=scheme)
        page.goto(path.as_uri())
        seen = PIL.Image.open(io.BytesIO(page.locator(".qk-frames").screenshot())).convert("RGB")
        found = {
            n: seen.getpixel((int(x * seen.width), int(y * seen.height)))
            for n, (x, y) in places.items()
        }
        assert found == {"left": MAP, "middle": MAP, "right": 3 * (ground,), "gap": 3 * (ground,)}
        page.close()


MAP = (10, 200, 90)


@pytest.mark.parametrize("own", [{"dpi": 200}, {}])
def test_a_figure_has_110_pixels_to_an_inch(own):
    figure = Figure(figsize=(3, 2), **own)
    figure.subplots()
    with rc_context({"savefig.dpi": 300}):
        picture = PIL.Image.open(io.BytesIO(_page.png(figure)))
    inches = _page.drawn_part(figure)
    assert np.allclose(picture.size, [110 * inches.width, 110 * inches.height], atol=1)


def test_whatever_has_colours_for_values_keeps_them():
    figure = Figure(figsize=(4, 2))
    plain, dots, whole = figure.subplots(1, 3)
    plain.plot([0, 1], color="red")
    dots.scatter([0, 1], [0, 1], c=[0, 1])
    whole.inset_axes([0.2, 0.2, 0.5, 0.5]).imshow(np.eye(2))
    view = views.stepper([figure], ["a"], ["text"], "step")
    (left, _, right, _), (inset, *_) = view.data["kept"][0]
    assert 0.3 < left < right < 0.7 < inset


@pytest.mark.parametrize("counts", [(0, 0, 0), (2, 1, 2), (2, 2, 1)])
def test_figures_names_and_texts_have_to_match(counts):
    shown, names, texts = counts
    with pytest.raises(ValueError, match="one name and one text for each figure"):
        views.stepper(figures(shown), ["n"] * names, ["t"] * texts, "step")


def test_a_removed_view_gives_back_its_pictures_and_draws_no_more(browser, tmp_path):
    path = views.stepper(figures(2), [0, 1], ["a", "b"], "layer").to_html(tmp_path / "view.html")
    script = path.read_text()
    assert script.count("render({ model,") == 1
    path.write_text(
        script.replace("render({ model,", "window.model = model; window.end = render({ model,")
    )
    page = browser.new_page()
    page.goto(path.as_uri())
    there = "fetch(document.querySelector('.qk-finished').src).then(() => true, () => false)"
    assert page.evaluate(there)
    page.evaluate("end()")
    assert not page.evaluate(there)
    page.evaluate("model.set('state', { step: 1 })")
    assert page.locator(".qk-finished").get_attribute("alt") == "a"
    page.close()

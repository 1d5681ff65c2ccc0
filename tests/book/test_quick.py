"""Figures in the dark: charts are turned, maps and photographs keep their colours."""

import io
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure

from qkutils.views import figures as plots

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))
import quick  # noqa: E402

MAP = np.linspace(-1, 1, 64).reshape(8, 8)  # with white cells in its middle


def drawn(figure: Figure) -> PIL.Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return PIL.Image.open(buffer).convert("RGB")


def with_a_map(framed: bool, values: np.ndarray = MAP) -> tuple[Figure, PIL.Image.Image]:
    figure = Figure(figsize=(5, 3))
    ax = figure.add_axes((0.1, 0.1, 0.5, 0.8))
    shown = ax.imshow(values, cmap=plots.DIVERGING, vmin=-1, vmax=1)
    ax.set(xticks=[], yticks=[], title="a map")
    figure.colorbar(shown, cax=figure.add_axes((0.75, 0.1, 0.04, 0.8)))
    if not framed:
        ax.set_axis_off()
    return figure, drawn(figure)


def test_a_map_keeps_its_colours_and_its_ground_is_turned() -> None:
    figure, picture = with_a_map(framed=True)
    assert not quick.is_chart(picture)
    night = np.asarray(quick.for_the_dark(picture))
    day = np.asarray(picture)
    for ax in figure.axes:
        box = ax.get_window_extent().get_points() * 150 / figure.dpi
        (left, low), (right, high) = box.round().astype(int)
        inside = slice(len(day) - high + 3, len(day) - low - 3), slice(left + 3, right - 3)
        assert np.array_equal(night[inside], day[inside])
    assert (night[:5].max(), night[-5:].max()) < (40, 40)
    assert night[:40].max() > 200  # the title is light


def tile(picture: np.ndarray, rows: slice, columns: slice) -> None:
    """A white map in a thin dark frame, which is grey at its outer edge."""
    picture[rows, columns] = 215
    picture[rows.start + 1 : rows.stop - 1, columns.start + 1 : columns.stop - 1] = 90
    picture[rows.start + 2 : rows.stop - 2, columns.start + 2 : columns.stop - 2] = 255


def test_a_thin_line_is_a_frame_and_a_gap_between_two_is_ground() -> None:
    day = np.full((300, 400, 3), 255, np.uint8)
    bar, left, right = slice(20, 40), slice(60, 170), slice(174, 300)
    for columns in (bar, left, right):
        tile(day, slice(40, 240), columns)
    day[60, 170:174] = 200  # a stray trace of compression joins the two
    day[41:239, 170] = np.where(np.arange(198) % 2, 255, 235)[:, None]  # and one lies beside
    night = np.asarray(quick.for_the_dark(PIL.Image.fromarray(day)))
    for columns in (bar, left, right):
        inside = slice(41, 239), slice(columns.start + 1, columns.stop - 1)
        assert np.array_equal(night[inside], day[inside])
    assert night[41:59, 170:174].max() < 60


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_has_no_colour_keeps_its_greys(mode: str) -> None:
    figure, _ = with_a_map(framed=True)
    for ax in figure.axes:
        for shown in [*ax.images, *ax.collections]:
            shown.set_cmap("gray")
    assert not quick.is_chart(drawn(figure).convert(mode))
    assert not quick.is_chart(PIL.Image.new(mode, (40, 30), 90 if mode == "L" else (90,) * 3))


def test_a_side_that_fades_is_no_frame() -> None:
    day = np.full((300, 400, 3), 255, np.uint8)
    tile(day, slice(40, 240), slice(60, 170))
    day[40:240, 52:61] = np.linspace(236, 205, 9).astype(np.uint8)[None, :, None]
    assert quick.for_the_dark(PIL.Image.fromarray(day)) is None


def test_what_is_half_white_is_kept_in_a_frame() -> None:
    day = np.full((300, 400, 3), 255, np.uint8)
    day[40:240, 60:300] = 90
    day[40:150, 100:104] = 255  # not dark at its upper end; a frame may lack a tenth
    day[239, 100:104] = 255
    night = np.asarray(quick.for_the_dark(PIL.Image.fromarray(day)))
    assert np.array_equal(night[40:240, 60:300], day[40:240, 60:300])


def test_a_pale_line_is_no_frame() -> None:
    pale = np.full((300, 400, 3), 255, np.uint8)
    pale[40:240, 60:300] = 230
    pale[41:239, 61:299] = 255
    assert quick.for_the_dark(PIL.Image.fromarray(pale)) is None


def test_a_map_that_fades_into_the_ground_is_left_alone() -> None:
    fading = np.where(abs(np.arange(8) - 3.5) < 3, MAP, 0)
    assert quick.for_the_dark(with_a_map(framed=False, values=fading)[1]) is None


@pytest.mark.parametrize("colours", [plots.PALETTE[:3], ["#7b3294", "#e66101", "#2c7bb6"]])
def test_bars_in_the_book_s_colours_are_a_chart(colours: list[str]) -> None:
    figure = Figure(figsize=(5, 3))
    figure.subplots().bar(range(3), [1, 2, 1.5], 0.5, color=colours)
    assert quick.is_chart(drawn(figure)) == (colours[0] in plots.PALETTE)

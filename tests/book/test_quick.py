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


def test_a_map_that_fades_into_the_ground_is_left_alone() -> None:
    fading = np.where(abs(np.arange(8) - 3.5) < 3, MAP, 0)
    assert quick.for_the_dark(with_a_map(framed=False, values=fading)[1]) is None


@pytest.mark.parametrize("colours", [plots.PALETTE[:3], ["#7b3294", "#e66101", "#2c7bb6"]])
def test_bars_in_the_book_s_colours_are_a_chart(colours: list[str]) -> None:
    figure = Figure(figsize=(5, 3))
    figure.subplots().bar(range(3), [1, 2, 1.5], 0.5, color=colours)
    assert quick.is_chart(drawn(figure)) == (colours[0] in plots.PALETTE)

"""Finished figures, one at a time: a slider that steps through them on any page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import PIL.Image
from matplotlib.figure import Figure

from qkutils import options
from qkutils.views._base import View
from qkutils.views._page import drawn_part, png


class Stepper(View):
    """The view that `stepper` makes."""

    front = "stepper"

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """One of the figures."""
        return {"step": options.index("step", state["step"], len(self.data["names"]))}


def stepper(
    figures: Sequence[Figure], names: Sequence[object], alt_texts: Sequence[str], description: str
) -> Stepper:
    """Show finished figures one at a time, with a slider that steps through them.

    Figures are cleared when they have been drawn.

    Parameters
    ----------
    figures
        Figures of matplotlib, at least one.
    names
        A name for each figure.
    alt_texts
        A text for each figure, which says what it shows to those who can't see it.
    description
        What the slider steps through.

    Returns
    -------
    Stepper
        A widget; its `state` holds `step`, the number of the figure.

    Raises
    ------
    ValueError
        Where figures, names and texts are not as many.

    Examples
    --------
    >>> import qkutils as qk
    >>> from matplotlib.figure import Figure
    >>> figures = [Figure(figsize=(2, 1)) for _ in range(2)]
    >>> view = qk.views.stepper(figures, ["a", "b"], ["first", "second"], "letters")
    >>> view.state
    {'step': 0}
    """
    given = {"figures": figures, "names": names, "alt_texts": alt_texts}
    counts = {name: len(options.sequence(name, each)) for name, each in given.items()}
    if not 0 < len(figures) == len(names) == len(alt_texts):
        raise ValueError(f"{counts}: give one name and one text for each figure, one or more")
    pictures = [png(figure) for figure in figures]
    kept = [maps_in(figure) for figure in figures]
    data = {
        "label": description,
        "names": [str(name) for name in names],
        "texts": list(alt_texts),
        "pictures": pictures,
        "kept": kept,
        "sizes": [PIL.Image.open(io.BytesIO(picture)).size for picture in pictures],
    }
    for figure in figures[1:]:
        figure.clear()
    return Stepper(f"Step through: {description}", data, {"step": 0}, figures[0], alt_texts[0])


def maps_in(figure: Figure) -> list[list[float]]:
    """Where a figure that `png` drew holds maps and photographs, whose colours no look may change.

    Left, top, right and bottom, as shares of the picture's sides from its upper left corner.
    """
    picture = drawn_part(figure)
    found = []
    insets = [inset for ax in figure.axes for inset in ax.child_axes]
    for ax in [*figure.axes, *insets]:
        drawn = [*ax.images, *ax.collections]
        if any(part.get_array() is not None for part in drawn):  # its colours stand for values
            box = ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
            box = box.padded(-0.7 / 72)  # without its frame, which is turned
            across = [(x - picture.x0) / picture.width for x in (box.x0, box.x1)]
            down = [(picture.y1 - y) / picture.height for y in (box.y1, box.y0)]
            found.append([across[0], down[0], across[1], down[1]])
    return found

"""Interactive views that react on a static page, with no kernel behind them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import ipywidgets as widgets
from matplotlib.figure import Figure


def stepper(
    figures: Sequence[Figure], names: Sequence[object], alt_texts: Sequence[str], description: str
) -> widgets.VBox:
    """A slider that steps through finished figures; the browser does it, so it works on any page.

    Raises ValueError where figures, names and alternative texts are not as many.  Figures are
    cleared when they have been drawn.
    """
    if not 0 < len(figures) == len(names) == len(alt_texts):
        raise ValueError(
            f"{len(figures)} figures, {len(names)} names and {len(alt_texts)} alternative texts: "
            "give one name and one text for each figure, and at least one figure"
        )
    frames = [widgets.HTML(_picture(f, text)) for f, text in zip(figures, alt_texts, strict=True)]
    layout = widgets.Layout(width="min(100%, 30rem)")
    style = {"description_width": "initial"}
    slider = widgets.SelectionSlider(
        options=[str(name) for name in names], description=description, layout=layout, style=style
    )
    stack = widgets.Stack(frames, selected_index=0)
    widgets.jslink((slider, "index"), (stack, "selected_index"))
    return widgets.VBox([slider, stack])


def _picture(figure: Figure, alt_text: str) -> str:
    """A figure as an image element that carries its own pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    figure.clear()
    pixels = base64.b64encode(buffer.getvalue()).decode()
    style = "max-width: 100%; height: auto; background: white"
    return (
        f'<img src="data:image/png;base64,{pixels}" alt="{html.escape(alt_text)}" style="{style}">'
    )

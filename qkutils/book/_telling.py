"""From a run to its page: numbers and verdicts that the prose of a chapter quotes."""

from __future__ import annotations

import html
import os
import re
from typing import Any

import pandas as pd
from IPython.core.formatters import format_display_data
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import HTML, display
from matplotlib.figure import Figure

_told: dict[int, list[str]] = {}  # number of the cell that runs → its rows
BUILDING = "QKUTILS_BUILDING"  # set where a run is for the pages of the book


def tell(**values: float | int | str | Figure | pd.DataFrame) -> None:
    """Hand values of this run to the chapter's prose, which quotes them by name.

    In the prose, {glue:text}`name:.2f` stands for the number, so that nothing is typed in.
    In a notebook the text can't change: there, the values of the run are shown below the cell.

    Parameters
    ----------
    values
        Numbers, texts, figures and tables, each by its name.
    """
    if BUILDING not in os.environ:
        _show([f"<div>{name} = {_shown(value)}</div>" for name, value in values.items()])
        return
    from myst_nb import glue  # the builder's, which students don't install

    for name, value in values.items():
        glue(name, value, display=False)


def _show(rows: list[str]) -> None:
    """Show rows folded below the cell, in one place with those that it told before."""
    cell = InteractiveShell.instance().execution_count
    again = cell in _told
    if not again:
        _told.clear()
    _told[cell] = _told.get(cell, []) + rows
    folded = f"<details><summary>numbers of this run</summary>{''.join(_told[cell])}</details>"
    display(HTML(folded), display_id=f"told-{cell}", update=again)


def _shown(value: Any) -> str:
    """A value as a notebook shows it."""
    forms, _ = format_display_data(value)
    if picture := forms.get("image/png"):
        return f'<img style="max-width: 100%" src="data:image/png;base64,{picture.strip()}">'
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return forms.get("text/html") or html.escape(text)


def stacked(frame: pd.DataFrame) -> HTML:
    """Show a table whose intervals stand small below their numbers, so that it fits a phone.

    Parameters
    ----------
    frame
        Its cells are numbers and texts; of texts, those of `statistics.text`.  Where it has no
        index but numbers of rows, none is shown.

    Returns
    -------
    HTML
        The table; long names break after an underscore.

    Examples
    --------
    >>> import pandas as pd
    >>> import qkutils as qk
    >>> shown = qk.book.stacked(pd.DataFrame({"excess": ["+0.3 [+0.2, +0.4]"]}, ["a_b"]))
    >>> "<th>a_<wbr>b</th>" in shown.data, "[+0.2, +0.4]</small>" in shown.data
    (True, True)
    """
    named = not isinstance(frame.index, pd.RangeIndex)
    text = frame.to_html(border=0, index=named).replace("_", "_<wbr>")
    small = r"<br><small>\1</small>"
    return HTML(re.sub(r" (\[[^\]]*\])", small, text))

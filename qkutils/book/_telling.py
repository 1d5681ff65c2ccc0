"""From a run to its page: numbers and verdicts that the prose of a chapter quotes."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from myst_nb import glue


def tell(**values: float | int | str | Figure | pd.DataFrame) -> None:
    """Hand values of this run to the chapter's prose, which quotes them by name.

    In the prose, {glue:text}`name:.2f` stands for the number, so that nothing is typed in.

    Parameters
    ----------
    values
        Numbers, texts, figures and tables, each by its name.
    """
    for name, value in values.items():
        glue(name, value, display=False)

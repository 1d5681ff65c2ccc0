"""Which pictures a chapter shows a model where its reader names none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qkutils as qk


def is_embedded(model: qk.Model) -> bool:
    """Whether it is one of the small models of this package, which saw drawn scenes alone."""
    return model.facts.get("source") == "embedded"


def pictures_for(model: qk.Model, count: int) -> Sequence[Any]:
    """Give pictures of the kind that a model was trained on.

    Parameters
    ----------
    model
        What `load` gave.
    count
        How many at most.

    Returns
    -------
    Sequence
        Drawn scenes for an embedded model.  For any other one the photographs of this package, of
        which there are twenty.

    Examples
    --------
    >>> import qkutils as qk
    >>> len(qk.book.pictures_for(qk.load("tiny-supervised"), 64))
    64
    """
    if is_embedded(model):
        return qk.world.pictures(0, 0, count, size=model.image_size[0])
    return qk.datasets.photographs()[:count]

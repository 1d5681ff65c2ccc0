"""Which layers and heads a page carries: those asked for, or as many as it has room for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qkutils import options
from qkutils.models import Model

BUDGET = 1_000_000  # bytes of numbers on a page; as text they grow by a third


def counts(model: Model) -> dict[str, int]:
    """How many layers, heads and patches a model has."""
    layers, heads = model.heads.w_q.shape[:2]
    return {"layer": layers, "head": heads, "patch": model.grid[0] * model.grid[1]}


def middle(model: Model) -> int:
    """The patch in the middle, or next to it, as a number in reading order."""
    rows, columns = model.grid
    return rows // 2 * columns + columns // 2


def most_heads(model: Model) -> int:
    """How many heads of one image a page has room for.

    Every token has z·u, z·v and κ·z, and its position bias on every other where there is one.
    """
    heads, tokens = model.heads, model.prefix_tokens + counts(model)["patch"]
    biases = 0 if heads.position_bias is None else tokens
    return max(1, BUDGET // ((4 * (heads.w_q.shape[2] + 1) + 2 * biases) * tokens))


def carried(
    model: Model,
    layers: Sequence[int] | None,
    heads: Sequence[int] | None,
    few: int,
    start: tuple[int | None, int | None] = (None, None),
) -> tuple[list[int], list[int]]:
    """Layers and heads on a page: those asked for, else as many as it holds, evenly spread.

    Heads are thinned first, so that `few` layers fit.  The spread includes the layer and the head
    to `start` with.
    """
    depth, width, _ = counts(model).values()
    room = most_heads(model)
    if layers is not None:
        layers = options.indices("layers", layers, depth)
    wanted = min(depth, few) if layers is None else len(layers)
    heads = _spread(width, room // wanted, start[1]) if heads is None else heads
    heads = options.indices("heads", heads, width)
    return _spread(depth, room // len(heads), start[0]) if layers is None else layers, heads


def _spread(count: int, room: int, start: int | None) -> list[int]:
    """As many of `count` numbers as there is room for: at even steps, and `start`."""
    found = np.linspace(0, count - 1, min(count, max(room, 1))).round().astype(int).tolist()
    if start is None or start in found or not 0 <= start < count:
        return found
    nearest = min(found, key=lambda n: abs(n - start))
    return sorted({start, *found} - {nearest})

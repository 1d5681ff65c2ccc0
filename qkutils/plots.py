"""Still figures: every function draws on the axes it is given and returns them."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

# Okabe and Ito's palette: told apart with any kind of colour vision, and in print.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SEQUENTIAL, DIVERGING = "cividis", "PuOr"


def trend(
    ax: Axes, values: xr.DataArray, label: str, colour: str, marker: str = "o", dots: bool = True
) -> Axes:
    """A value per (layer, head) over relative depth: heads as dots, their mean as a line."""
    depth = values.layer / max(int(values.layer[-1]), 1)
    if dots:
        for head in values.coords["head"]:
            ax.plot(depth, values.sel(head=head), ".", color=colour, alpha=0.35, ms=4)
    ax.plot(depth, values.mean("head"), marker=marker, color=colour, label=label, ms=4.5, lw=1.6)
    ax.set_xlabel("depth (layer ÷ last layer)")
    return ax


def band(ax: Axes, half_width: xr.DataArray, label: str, colour: str = "0.6") -> Axes:
    """A band around zero over relative depth, where chance alone would fall."""
    depth = half_width.layer / max(int(half_width.layer[-1]), 1)
    ax.fill_between(
        depth, -half_width, half_width, color=colour, alpha=0.3, lw=0, label=label, zorder=0
    )
    ax.axhline(0, color="0.4", lw=0.8, zorder=0)
    return ax


def cosine_histogram(ax: Axes, cosines: xr.DataArray, half_width: float, colour: str) -> Axes:
    """How the cosines of modes spread, over the 95 % band of random directions (figure S1)."""
    ax.axvspan(-half_width, half_width, color="0.6", alpha=0.3, lw=0, label="95 % of random pairs")
    ax.hist(cosines.values.ravel(), bins=np.linspace(-1, 1, 41).tolist(), color=colour)
    ax.set(xlim=(-1, 1), xlabel="cosine of query and key direction", ylabel="number of modes")
    return ax


def spectrum(ax: Axes, sigma: xr.DataArray, cosine: xr.DataArray, colour: str) -> Axes:
    """Singular value and cosine of one head's modes, strongest first (figure S2)."""
    ax.bar(sigma.mode, sigma / sigma.max(), color="0.8", label="σ ÷ largest σ", width=0.8)
    ax.plot(cosine.mode, cosine, "o", color=colour, ms=3.5, label="cosine")
    ax.axhline(0, color="0.4", lw=0.8)
    ax.set(xlabel="mode", ylim=(-1.05, 1.05))
    return ax


def token_map(
    ax: Axes,
    values: np.ndarray,
    picture: np.ndarray | None = None,
    limit: float | None = None,
    title: str = "",
    cmap: str = DIVERGING,
) -> AxesImage:
    """A value per patch of the grid, laid over its picture; ±limit is the colour scale."""
    rows, columns = values.shape
    extent = (0, columns, rows, 0)
    if picture is not None:
        ax.imshow(picture, extent=extent)
    low = 0 if cmap == SEQUENTIAL else -(limit or abs(values).max())
    alpha = None if picture is None else 0.7
    drawn = ax.imshow(
        values, cmap=cmap, vmin=low, vmax=limit or abs(values).max(), alpha=alpha, extent=extent
    )
    ax.set(xticks=[], yticks=[], title=title)
    return drawn


def mark_patch(ax: Axes, patch: int, columns: int, colour: str = "#D55E00") -> Axes:
    """Draws a frame around one patch, counted in reading order."""
    x, y = patch % columns, patch // columns
    ax.add_patch(Rectangle((x, y), 1, 1, fill=False, ec=colour, lw=2))
    return ax

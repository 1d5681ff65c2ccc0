"""Figures of galleries: what asks and what answers drawn over pictures, and modes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes

from qkutils.views.figures import DIVERGING, SEQUENTIAL, Map, mark_patch

Picture = Float[np.ndarray, "height width 3"]


def overlay(picture: Picture, query: Map, key: Map, limits: tuple[float, float]) -> Picture:
    """A dim picture under what asks in red, what answers in cyan, and both in white.

    Values from zero to the limit make full colour; what is below zero is left dark.
    """
    red, cyan = (
        _enlarged(np.clip(values / limit, 0, 1), picture.shape[:2])
        for values, limit in zip((query, key), limits, strict=True)
    )
    dim = 0.5 * picture.mean(-1) * (1 - np.maximum(red, cyan))
    return np.stack([dim + red, dim + cyan, dim + cyan], -1)


def _enlarged(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Each patch's value at all of its pixels."""
    row, column = (np.arange(n) * g // n for n, g in zip(shape, values.shape, strict=True))
    return values[row[:, None], column]


def _show(ax: Axes, pixels: np.ndarray, **where: Any) -> None:
    """Show a picture in a thin frame, which tells a light picture from the ground of the figure."""
    ax.imshow(pixels, **where)
    ax.axis("on")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(linewidth=0.8, color="0.4")


def gallery_rows(axes: np.ndarray, found: xr.Dataset, label: str) -> np.ndarray:
    """A mode's optimal pictures on two rows of axes, overlays below; its two signs side by side.

    All pictures of a sign share one scale: that of the largest projections on them.
    """
    half = axes.shape[1] // 2
    for ax in axes.ravel():
        ax.axis("off")
    for sign, columns in zip(found.sign.values, (axes[:, :half], axes[:, half:]), strict=True):
        of_sign = found.sel(sign=sign)
        query, key = (max(float(of_sign[side].max()), 1e-12) for side in ("query", "key"))
        for rank in range(min(half, found.sizes["rank"])):
            one = of_sign.isel(rank=rank)
            if not one.there:
                continue
            _show(columns[0, rank], one.picture.values)
            maps = (one["query"].values, one["key"].values)
            _show(columns[1, rank], overlay(one.picture.values, *maps, (query, key)))
        columns[0, 0].set_title(f"sign {'+' if sign > 0 else '−'}", fontsize=9, loc="left")
    axes[0, 0].text(
        -0.12, 0, label, ha="right", va="center", fontsize=9, transform=axes[0, 0].transAxes
    )
    return axes


def mode_at_work(
    axes: dict[str, Axes], picture: np.ndarray, found: xr.Dataset, best: xr.Dataset, name: str
) -> dict[str, Axes]:
    """A mode on one picture, in its own scale, on axes "a", and its optimal pictures on the others.

    `found` is one mode of `studies.one_image`, `best` one sign of `optimal_pictures`; the maps are
    turned to that sign.
    """
    sign = int(best.sign)
    query, key = sign * found.query_map.values, sign * found.key_map.values
    limits = max(float(query.max()), 1e-12), max(float(key.max()), 1e-12)
    rows, columns = query.shape
    others = [ax for place, ax in axes.items() if place != "a"]
    for ax in others:
        ax.axis("off")
    _show(axes["a"], overlay(picture, query, key, limits), extent=(0, columns, rows, 0))
    share = round(float(found.share), 2) + 0.0  # no minus before a zero
    title = f"{name}\ncos {float(found.cosine):+.2f}, {share:+.0%}"
    axes["a"].set_title(title, fontsize=8)
    for ax, shown in zip(others, best["picture"].values[best.there.values], strict=False):
        _show(ax, shown)
    return axes


def modes_in_a_row(axes: Sequence[Axes], picture: Picture, found: xr.Dataset, asked: int) -> None:
    """The modes of one head on one picture, side by side, each in its own scale.

    `found` is one head of `book.stored_maps.taken_apart`; maps are turned to the sign at work.
    """
    for ax, rank in zip(axes, range(found.sizes["rank"]), strict=True):
        mode = found.isel(rank=rank)
        sign = 1 if mode["query"].values.ravel()[asked] > 0 else -1
        query, key = (sign * mode[side].values for side in ("query", "key"))
        limits = max(float(query.max()), 1e-12), max(float(key.max()), 1e-12)
        rows, columns = query.shape
        shown = overlay(picture, query, key, limits)
        _show(ax, shown, extent=(0, columns, rows, 0))
        mark_patch(ax, asked, columns)
        share = round(float(mode.share), 2) + 0.0  # no minus before a zero
        ax.set_title(f"M{int(mode['mode'])}  {share:+.0%}", fontsize=9)


def head_map(ax: Axes, values: xr.DataArray, label: str) -> Axes:
    """A value per (layer, head) as coloured cells, layers from left to right; cosines diverge."""
    table = values.transpose("head", "layer")
    signed = "cosine" in label
    low, high = (-1.0, 1.0) if signed else (0.0, float(table.max()))
    drawn = ax.imshow(table, cmap=DIVERGING if signed else SEQUENTIAL, vmin=low, vmax=high)
    ax.set(xlabel="layer", ylabel="head")
    ax.set_xticks(range(len(table.layer)), [str(n) for n in table.layer.values])
    ax.set_yticks(range(len(table["head"])), [str(n) for n in table["head"].values])
    beside = ax.inset_axes((1.02, 0, 0.025, 1))  # with `ax=` the map would leave the middle
    ax.figure.colorbar(drawn, cax=beside, label=label)
    return ax

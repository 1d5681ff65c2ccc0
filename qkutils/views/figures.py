"""Still figures: every function draws on the axes it is given and returns them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Num
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import MaxNLocator
from PIL.Image import Image

from qkutils.models import Model
from qkutils.world import DISTRACTOR, PARTS, TARGET, Scenes

# Okabe and Ito's palette: told apart with any kind of colour vision, and in print.
PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"),
    "#7F7F7F",  # in place of their yellow, which is too faint on white
)
MARKERS = ("o", "s", "^", "D", "v", "P")
# A model and a training objective look the same in the whole book.
OWN = {
    **{"supervised": ("#0072B2", "o"), "simmim": ("#D55E00", "s"), "dino": ("#009E73", "^")},
    **{"simmim-finetuned": ("#CC79A7", "D"), "simmim-continued": ("#E69F00", "v")},
    **{"untrained": ("#7F7F7F", "P"), "deit_tiny_patch16_224": ("#56B4E9", "X")},
    "vit_tiny_patch16_224": ("#882255", "p"),
    "vit_small_patch14_dinov2": ("#999933", "*"),
}
SEQUENTIAL, DIVERGING = "cividis", "PuOr"
CHANCE: dict[str, Any] = {"color": "0.6", "alpha": 0.3, "lw": 0}
ZERO: dict[str, Any] = {"color": "0.4", "lw": 0.8}
RELATIONS = {"same": PALETTE[1], "different": PALETTE[0], "background": PALETTE[6]}
BINS = np.linspace(-1, 1, 41).tolist()  # of cosines
Look = dict[str, str]  # a colour and a marker
Map = Num[np.ndarray, "row column"]
Directions = Float[np.ndarray, "2 mode"]
Sigma = Float[np.ndarray, " mode"]
Points = Float[np.ndarray, "token 2"]
Limits = tuple[float, float, float]


# ---- over depth ----------------------------------------------------------------------------------


def _depth(values: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """From 0, the first layer, to 1, the last."""
    return values.layer / max(int(values.layer[-1]), 1)


def panels(count: int, across: int = 4) -> tuple[Figure, list[Axes]]:
    """Panels for a figure that compares: one for each model, so many in a row."""
    rows = -(-count // across)
    figure = Figure(figsize=(7.5, 0.6 + 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, min(count, across), sharey=True, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, list(axes[:count])


def over_depth(ax: Axes, values: xr.DataArray, label: str, look: Look, style: str = "-") -> Axes:
    """One value per layer as a line over relative depth."""
    ax.plot(_depth(values), values, style, ms=4.5, lw=1.6, label=label or None, **look)  # type: ignore[arg-type]
    ax.set_xlabel("depth (layer ÷ last layer)")
    return ax


def trend(ax: Axes, values: xr.DataArray, label: str, look: Look, dots: bool = True) -> Axes:
    """A value per (layer, head) over relative depth: heads as dots, their mean as a line."""
    if dots:
        heads = values.transpose("layer", "head")
        ax.plot(_depth(values), heads, ".", color=look["color"], alpha=0.35, ms=4)
    return over_depth(ax, values.mean("head"), label, look)


def runs(ax: Axes, curves: Sequence[xr.DataArray], look: Look, label: str = "") -> Axes:
    """Values per layer, or (layer, head), of training runs: a thin line each, their mean thick."""
    means = [curve.mean([dim for dim in curve.dims if dim != "layer"]) for curve in curves]
    for mean in means:
        ax.plot(_depth(mean), mean, color=look["color"], lw=0.8, alpha=0.6)
    return over_depth(ax, xr.concat(means, "run").mean("run"), label, look)


def relations(ax: Axes, values: Sequence[xr.DataArray], area: xr.DataArray | None) -> Axes:
    """Values per (relation, layer) of several runs; dotted, what an even spread would give."""
    for (relation, colour), marker in zip(RELATIONS.items(), MARKERS, strict=False):
        of_relation = [run.sel(relation=relation) for run in values]
        runs(ax, of_relation, {"color": colour, "marker": marker}, relation)
        if area is not None:
            ax.axhline(float(area.sel(relation=relation)), color="0.4", lw=1, ls=":")
    if area is None:
        ax.axhline(0, **ZERO)
    ax.set_xlabel("relative depth")
    return ax


def band(ax: Axes, half_width: xr.DataArray, label: str) -> Axes:
    """A band around zero over relative depth, where chance alone would fall."""
    ax.fill_between(_depth(half_width), -half_width, half_width, label=label, zorder=0, **CHANCE)
    ax.axhline(0, zorder=0, **ZERO)
    return ax


def with_interval(ax: Axes, values: xr.Dataset, label: str, look: Look) -> Axes:
    """`estimate` per layer as a line over relative depth, from `low` to `high` as a band."""
    ends = values.low, values.high
    ax.fill_between(_depth(values), *ends, color=look["color"], alpha=0.2, lw=0)
    return over_depth(ax, values.estimate, label, look)


def before_and_after(ax: Axes, before: xr.DataArray, after: xr.DataArray, look: Look) -> Axes:
    """Layer means of a network before (open) and after (filled) training on, joined by a line."""
    first, second, colour = before.mean("head"), after.mean("head"), look["color"]
    ax.vlines(_depth(before), first, second, color=colour, lw=1.2)
    for mean, fill, label in ((first, "white", "before"), (second, colour, "after")):
        ax.plot(_depth(before), mean, "o", mfc=fill, color=colour, label=label, ms=6)
    return ax


def heads_of_runs(
    ax: Axes, curves: Sequence[xr.DataArray], half_width: xr.DataArray, look: Look
) -> Axes:
    """Every head of several training runs over relative depth, a run's dots beside another's."""
    band(ax, half_width, "")
    for number, (curve, marker) in enumerate(zip(curves, cycle(MARKERS), strict=False)):
        aside = 0.014 * (number - (len(curves) - 1) / 2)
        depth, values = xr.broadcast(_depth(curve) + aside, curve.transpose("layer", "head"))
        shown = depth.values.ravel(), values.values.ravel()
        ax.plot(*shown, marker, color=look["color"], ms=3, alpha=0.7, label=f"seed {number}")
    return ax


def trends_apart(curves: Sequence[xr.Dataset]) -> Figure:
    """What `trend` gives in one convention for networks of different widths (figure S3).

    Each has a panel, with its own null band.
    """
    figure = Figure(figsize=(4.5 * len(curves), 3.3), layout="constrained")
    axes = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    styles = looks(str(curve.model.values) for curve in curves)
    for ax, curve, (name, look) in zip(axes, curves, styles.items(), strict=True):
        band(ax, curve.null, "random directions (95 %)")
        trend(ax, curve.weighted_cosine, "mean over heads", look)
        ax.set_title(name, fontsize=9)
        ax.legend(fontsize=8)
    axes[0].set_ylabel(f"weighted cosine, convention {curves[0].convention.values}")
    return figure


# ---- of modes and heads --------------------------------------------------------------------------


def layer_histogram(cosines: xr.DataArray, half_width: float, title: str, most: int) -> Figure:
    """The cosines of one layer's modes over the 95 % band of random directions (figure S1).

    The axis of counts ends at `most`, the same for every layer.
    """
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    ax = figure.subplots()
    ax.axvspan(-half_width, half_width, label="95 % of random pairs", **CHANCE)
    ax.hist(cosines.values.ravel(), bins=BINS, color=PALETTE[0])
    ax.set(xlim=(-1, 1), xlabel="cosine of query and key direction", ylabel="number of modes")
    ax.set(title=title, ylim=(0, most))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(fontsize=9, loc="outside lower center")
    return figure


def spectrum(ax: Axes, sigma: xr.DataArray, cosine: xr.DataArray, colour: str) -> Axes:
    """Singular value and cosine of one head's modes, strongest first (figure S2)."""
    ax.bar(sigma.mode, sigma / sigma.max(), color=PALETTE[4], label="σ ÷ largest σ", width=0.8)
    ax.plot(cosine.mode, cosine, "o", color=colour, ms=3.5, label="cosine")
    ax.axhline(0, **ZERO)
    ax.set(xlabel="mode", ylim=(-1.05, 1.05))
    return ax


def token_map(
    ax: Axes, values: Map, limit: float = 0.0, title: str = "", cmap: str = DIVERGING, bar: str = ""
) -> AxesImage:
    """A value per patch of the grid on a scale of ±limit, or from 0 where sequential.

    Without a limit, the scale is that of the values.  `bar` names a colour bar.
    """
    rows, columns = values.shape
    high = limit or float(abs(values).max())
    low = 0 if cmap == SEQUENTIAL else -high
    extent = (0, columns, rows, 0)
    drawn = ax.imshow(values, cmap=cmap, vmin=low, vmax=high, extent=extent)
    ax.set(xticks=[], yticks=[], title=title)
    if bar:
        ax.figure.colorbar(drawn, ax=ax, label=bar)
    return drawn


def mark_patch(ax: Axes, patch: int, columns: int) -> Axes:
    """Draws a frame around one patch, counted in reading order."""
    corner = (patch % columns, patch // columns)
    ax.add_patch(Rectangle(corner, 1, 1, fill=False, ec=PALETTE[1], lw=2))
    return ax


def shades(count: int) -> list[tuple[float, ...]]:
    """Colours from dark to light for things that have an order, such as layers."""
    return [tuple(colour) for colour in colormaps[SEQUENTIAL](np.linspace(0, 0.9, count))]


def _directions(ax: Axes, u: np.ndarray, v: np.ndarray) -> None:
    """Columns of u and v as arrows, all but the first pair dashed."""
    for vectors, colour, letter, aside in ((u, PALETTE[1], "u", 0.08), (v, PALETTE[0], "v", -0.16)):
        for mode, (x, y) in enumerate(vectors.T.tolist()):
            arrow = FancyArrowPatch((0, 0), (x, y), mutation_scale=14, arrowstyle="-|>")
            arrow.set(color=colour, linestyle="--" if mode else "-")
            ax.add_patch(arrow)
            at = (0.72 * x + 0.04, 0.72 * y + aside)
            ax.annotate(f"${letter}_{mode}$", at, color=colour, fontsize=13)


def plane_and_attention(
    u: Directions, sigma: Sigma, v: Directions, token: Points, asking: int, limits: Limits
) -> Figure:
    """A 2-D head: tokens on the score field of the asking one, and all attention.

    An arrow goes from each token towards the key that it likes best.  `limits` of the axes, the
    scores and the attention.
    """
    head = (u * sigma) @ v.T
    extent, most, top = limits
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    line = np.linspace(-extent, extent, 101)
    place = np.stack(np.meshgrid(line, line[::-1]), -1)
    field = token_map(left, place @ (token[asking] @ head), most, bar="score")
    field.set_extent((-extent, extent, -extent, extent))
    left.set(xlim=(-extent, extent), ylim=(-extent, extent), xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    left.set(title="score of the ringed token with each place")
    wanted = token @ head  # row i is Mᵀ z_i
    left.quiver(*token.T, *wanted.T, color="0.45", angles="xy", scale_units="xy", scale=3)
    left.plot(*token.T, ".", color="0.3")
    _directions(left, u, v)
    left.plot(*token[asking], "o", mfc="none", mec="black", ms=11, mew=2)
    scores = token @ head @ token.T / np.sqrt(2)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    rows = weights / weights.sum(1, keepdims=True)
    token_map(right, rows, top, "attention", SEQUENTIAL, "attention")
    right.set(xlabel="token that answers", ylabel="token that asks")
    return figure


def patch_attention(attention: xr.DataArray, patch: int, model: Model) -> np.ndarray:
    """One patch's attention [query, key] over the patch grid, of the share that patches get."""
    row = attention.isel(query=model.prefix_tokens + patch).values
    patches = row[model.prefix_tokens :]
    return (patches / patches.sum()).reshape(model.grid)


def attention_frame(
    values: np.ndarray, picture: np.ndarray, patch: int, limit: float, title: str
) -> Figure:
    """A picture, and beside it the attention of one framed patch over the patch grid."""
    figure = Figure(figsize=(7, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows, columns = values.shape
    left.imshow(picture, extent=(0, columns, rows, 0))
    left.set(xticks=[], yticks=[], title="the framed patch asks")
    token_map(right, values, limit, title, SEQUENTIAL, "share of the attention on patches")
    for ax in (left, right):
        mark_patch(ax, patch, columns)
    return figure


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A colour and a marker for each name, so that curves differ by more than their colour.

    A model has its own, wherever it is drawn; names that are not in `OWN` get what is left.
    """
    own: dict[str, tuple[str, str]] = {}
    for name in names:
        look = OWN.get(re.sub(r"^tiny-|-s\d+$|\..*$| \(.*$", "", name), ("", ""))
        own[name] = ("", "") if look in own.values() else look
    left = [colour for colour in PALETTE if colour not in {colour for colour, _ in own.values()}]
    styles = zip(cycle(left or PALETTE), cycle(MARKERS), strict=False)
    chosen = {name: look if look[0] else next(styles) for name, look in own.items()}
    return {name: {"color": colour, "marker": marker} for name, (colour, marker) in chosen.items()}


def scenes_and_masks(world: Scenes) -> list[np.ndarray]:
    """Pictures and masks in turn: target orange, distractors blue, parts but bodies darker."""
    pictures = []
    part = (world.part > PARTS.index("body")).numpy()
    for n, image in enumerate(world.image.movedim(1, -1).numpy()):
        mask = np.ones_like(image)
        for role, colour in ((TARGET, PALETTE[1]), (DISTRACTOR, PALETTE[0])):
            mask[world.mask(role)[n].numpy()] = to_rgb(colour)
        mask[part[n]] *= 0.5
        pictures += [image, mask]
    return pictures


def scene_frame(pictures: Sequence[np.ndarray], title: str) -> Figure:
    """Scenes, or masks of scenes, side by side in a figure of their own."""
    figure = Figure(figsize=(7, 7 / len(pictures) + 0.3), layout="constrained")
    for ax, picture in zip(figure.subplots(1, len(pictures)), pictures, strict=True):
        ax.imshow(picture)
        ax.set(xticks=[], yticks=[])
    figure.suptitle(title)
    return figure


def replicates(
    ax: Axes, row: int, values: Sequence[float], interval: xr.Dataset, look: Look
) -> Axes:
    """One number per training run as dots in a row, and the interval of their mean as a bar."""
    ax.plot(values, [row] * len(values), "o", color=look["color"], alpha=0.6, ms=5)
    ends = [float(interval.low), float(interval.high)]
    if np.isfinite(ends).all():
        ax.plot(ends, [row + 0.2] * 2, color=look["color"], lw=2)
    ax.plot(float(interval.estimate), row + 0.2, look["marker"], color=look["color"], ms=6)
    return ax


def shares_and_even(ax: Axes, names: Sequence[str], shares: np.ndarray, even: np.ndarray) -> Axes:
    """A share of attention for each region as a bar, with a mark at what an even spread gives."""
    around = (PALETTE[1], PALETTE[0], "0.6", *([PALETTE[2]] * (len(names) - 3)))
    rows = np.arange(len(names))
    ax.barh(rows, shares, color=around, height=0.6)
    ax.plot(even, rows, "|", color="black", ms=18, mew=2.5, label="even spread")
    ax.set_yticks(rows, list(names))
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="share of attention")
    ax.legend(fontsize=8, markerscale=0.5, loc="lower right")
    return ax


def outlined(ax: Axes, picture: Image, masks: Sequence[Bool[np.ndarray, "height width"]]) -> Axes:
    """A picture with two outlined objects: the first solid orange, the second dashed blue."""
    height, width = masks[0].shape
    ax.imshow(picture.resize((width, height)))
    for mask in masks:
        ax.contour(mask, levels=[0.5], colors=["white"], linewidths=3.2)
    for mask, colour, style in zip(masks, (PALETTE[1], PALETTE[0]), ("-", "--"), strict=True):
        ax.contour(mask, levels=[0.5], colors=[colour], linewidths=1.8, linestyles=style)
    ax.set(xticks=[], yticks=[])
    return ax


def heads_by_case(
    values: Sequence[xr.DataArray],
    cases: Sequence[str],
    title: str,
    limits: tuple[float, float],
    label: str = "",
) -> Figure:
    """A value per head in several cases, each head a line, in a figure of its own."""
    figure = Figure(figsize=(6.5, 3.4), layout="constrained")
    ax = figure.subplots()
    table = np.stack([each.values for each in values], 1)
    styles = looks(f"head {n}" for n in range(len(table)))
    for of_cases, (head, look) in zip(table, styles.items(), strict=True):
        ax.plot(of_cases, lw=0.8, label=head, **look)  # type: ignore[arg-type]
    ax.axhline(0, **ZERO)
    ax.set_xticks(range(len(cases)), list(cases))
    room = 0.05 * (limits[1] - limits[0])  # for markers at the limits
    ax.set(
        title=title,
        ylabel=label,
        ylim=(limits[0] - room, limits[1] + room),
        xlim=(-0.2, len(cases) - 0.8),
    )
    figure.legend(fontsize=8, loc="outside lower center", ncols=6)
    return figure

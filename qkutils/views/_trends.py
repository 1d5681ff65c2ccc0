"""Trends over depth of many models: curves to switch on and off, and to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from qkutils import models, options
from qkutils.heads import CONVENTIONS
from qkutils.modes import trend
from qkutils.views import figures as plots
from qkutils.views._arrays import packed
from qkutils.views._base import View


class Trends(View):
    """The view that `trends` makes."""

    front = "trends"

    def __init__(self, layers: dict[str, int], *shown: Any) -> None:
        """`layers`: how many each curve has."""
        self.layers = layers
        super().__init__("Trends over depth", *shown)

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Curves that there are, and a layer of them."""
        return {
            "model": options.choice("model", state["model"], self.layers),
            "convention": options.choice("convention", state["convention"], CONVENTIONS),
            "layer": options.index("layer", state["layer"], max(self.layers.values())),
            "hidden": list(options.choices("hidden", state["hidden"], self.layers)),
        }

    def hello(self) -> dict[str, Any]:
        """Models that could be added here."""
        shown = {curve["name"] for curve in self.data["curves"]}
        return {"at_hand": [name for name in models.at_hand() if name not in shown]}

    def respond(self, request: dict[str, Any]) -> dict[str, Any]:
        """The curve of one more model."""
        if set(request) != {"model"}:
            return super().respond(request)
        curve = trend(request["model"])
        name = _name(curve)
        self.layers[name] = curve.sizes["layer"]
        return {"curve": _front(curve, plots.looks(self.layers)[name])}

    def trials(self) -> list[dict[str, Any]]:
        """One more model, where there is one."""
        return [{"model": name} for name in self.hello()["at_hand"][:1]]


def trends(curves: Sequence[xr.Dataset]) -> Trends:
    """Show weighted cosines over depth: models, conventions, heads and the null band.

    In a notebook further models can be added by name.  Paper figure 3.

    Parameters
    ----------
    curves
        What `trend` gives, of each model once; `null` may be missing.

    Returns
    -------
    Trends
        A widget; its `state` says what is chosen.

    Raises
    ------
    ValueError
        Where a curve is missing, or where two have one name.

    Examples
    --------
    >>> import qkutils as qk
    >>> view = qk.views.trends([qk.trend("tiny-supervised")])
    >>> view.state["model"]
    'tiny-supervised'
    """
    names = [_name(each) for each in options.sequence("curves", curves)]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"curves of {names}: give one or more, each of another model")
    first = curves[0]
    convention = str(first.convention.values[0])
    state = {"model": names[0], "convention": convention, "layer": 0, "hidden": []}
    alternative = (
        f"Weighted cosine over depth of {', '.join(names)}, convention {convention}; heads of "
        f"{names[0]} as dots."
    )
    looks = plots.looks(names)
    data = {"curves": [_front(each, looks[_name(each)]) for each in curves]}
    layers = {name: each.sizes["layer"] for name, each in zip(names, curves, strict=True)}
    return Trends(layers, data, state, _still(curves, convention), alternative)


def _name(curve: xr.Dataset) -> str:
    """How a curve is called; numbers from a table say so; ValueError for what is no curve."""
    values = options.with_fields("curves", curve, "weighted_cosine").weighted_cosine
    options.with_dims("curves", values, "convention", "layer", "head")
    options.finite("curves", values)
    options.choices("convention", curve.convention.values.tolist(), CONVENTIONS, least=1)
    name = curve.attrs.get("model") or str(curve.coords.get("model", xr.DataArray("")).values)
    if not name:
        raise ValueError("curves: one does not say its `model`; give what modes.trend returns")
    return name + (" (computed elsewhere)" if "computed" in curve.attrs else "")


def _front(curve: xr.Dataset, look: plots.Look) -> dict[str, Any]:
    """A curve as the browser takes it, in the colour of the figures."""
    dims = ("convention", "layer", "head")
    null = packed(curve.null.transpose(*dims[:2]).values, "float32") if "null" in curve else None
    return {
        "name": _name(curve),
        "colour": look["color"],
        "conventions": [str(c) for c in curve.convention.values],
        "heads": packed(curve.weighted_cosine.transpose(*dims).values, "float32"),
        "null": null,
    }


def _still(curves: Sequence[xr.Dataset], convention: str) -> Figure:
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    ax = figure.subplots()
    looks = plots.looks([_name(each) for each in curves])
    for curve, (name, look) in zip(curves, looks.items(), strict=True):
        values = curve.weighted_cosine.sel(convention=convention)
        plots.trend(ax, values, name, look, dots=curve is curves[0])
    if "null" in curves[0]:
        plots.band(ax, curves[0].null.sel(convention=convention), "random directions (95 %)")
    ax.set_ylabel("weighted cosine")
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    return figure

"""Provenance: what every result says about the weights that it comes from."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, TypeVar

import xarray as xr

from qkutils.models import Model, Network

ORIGIN = ("model", "fingerprint", "convention")

Result = TypeVar("Result", xr.Dataset, xr.DataArray)


def with_origin(
    result: Result, model: Network, convention: str, dtype: str = "float64", **attributes: Any
) -> Result:
    """The result with the model's name, its fingerprint and the convention as scalar coordinates.

    Selection and arithmetic keep them, and drop them where two models meet.  What the file could
    not tell and `load` assumed stands in the attribute `assumed`, its height and width in pixels in
    `pixels`.
    """
    named = dict(zip(ORIGIN, (model.name, model.fingerprint, convention), strict=True))
    said = {"dtype": dtype, "code_version": version("qkutils"), "assumed": model.assumed}
    sized = {"pixels": " × ".join(map(str, model.image_size))} if isinstance(model, Model) else {}
    return result.assign_coords(named).assign_attrs(said | sized | attributes)


def convention_of(result: xr.Dataset | xr.DataArray) -> Any:  # one of Convention
    """The convention that a result was computed in."""
    return str(result.coords["convention"].values)


def refuse_foreign(name: str, result: xr.Dataset, model: Network, convention: str = "") -> None:
    """Raise ValueError where a result is of other weights, or of another convention."""
    found = {key: str(result[key].values) if key in result.coords else "unknown" for key in ORIGIN}
    needed = {"fingerprint": model.fingerprint, "convention": convention or found["convention"]}
    for key, wanted in needed.items():
        if found[key] != wanted:
            raise ValueError(
                f"{name}: they come from {found['model']} with {key} {found[key]}; for "
                f"{model.name} {key} {wanted} is needed: compute them again"
            )

"""Modes: strengths, directions and cosines of all heads of a model, and their null bands."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import torch
import xarray as xr

from qkutils import models, options
from qkutils.heads import CONVENTIONS, Convention, centre, fold
from qkutils.models import AnyModel, Network
from qkutils.provenance import ORIGIN, with_origin
from qkutils.svd import closed_form, decompose_layer


def decompose(model: AnyModel, *, convention: Convention = "exact") -> xr.Dataset:
    """Decompose every head into its modes.

    Each mode has a strength σ, a query direction u and a key direction v.  σ and the cosine of u
    and v are computed in float64.  u and v are handed out in float32.  The largest component of
    each u is positive.  A position bias is no part of any mode.  Paper section 3.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    convention
        `exact`: the modes act on LayerNorm's normalised token, as the model computes.  `paper`:
        they act on the raw residual stream, as in the paper.

    Returns
    -------
    xr.Dataset
        `sigma` and `cosine` over (layer, head, mode), `u` and `v` over (layer, head, mode,
        d_model).  `null_mode` marks modes whose σ the float32 weights can't tell from zero.
        `degenerate` marks modes whose σ lies very close to that of a neighbour: rounding of the
        weights alone would turn their vectors by more than one per cent.

    Raises
    ------
    ValueError
        For an unknown convention, or a model that `load` refuses.
    ArithmeticError
        Where no decomposition reproduces a head.

    Examples
    --------
    >>> import qkutils as qk
    >>> modes = qk.decompose("tiny-supervised")
    >>> dict(modes.sizes)
    {'layer': 8, 'head': 4, 'mode': 24, 'd_model': 96}
    >>> modes.sigma.sel(layer=0, head=0, mode=slice(0, 2)).values.round(2).tolist()
    [1.89, 1.05, 0.43]
    """
    loaded = _loaded(model, convention)
    heads = loaded.heads
    layers = [decompose_layer(heads, layer, convention) for layer in range(len(heads.w_q))]
    dims = ("layer", "head", "mode", "d_model")
    fields: dict = {}
    for name in ("sigma", "cosine", "null_mode", "degenerate", "u", "v"):
        parts = [layer[name].float() if name in "uv" else layer[name] for layer in layers]
        values = torch.stack(parts).cpu().numpy()
        fields[name] = (dims[: values.ndim], values)
    coords = {dim: np.arange(n) for dim, n in zip(dims, heads.w_q.shape[:3], strict=False)}
    residual = max(float(layer["residual"].max()) for layer in layers)
    return with_origin(xr.Dataset(fields, coords), loaded, convention, residual=residual)


def _loaded(model: AnyModel, convention: Convention) -> Network:
    """The model; ValueError for a convention that there is not, before anything is read."""
    options.choice("convention", convention, CONVENTIONS)
    return models.network(model)


def weighted_cosine(model: AnyModel, *, convention: Convention = "exact") -> xr.DataArray:
    """Compute the weighted cosine of every head, Σ σ cos / Σ σ.

    The closed form ⟨W_q, W_k⟩ / nuclear norm gives it without singular vectors.  So neither signs
    nor degenerate modes matter.  Paper figure 3.

    Parameters
    ----------
    model, convention
        As `decompose` takes them.

    Returns
    -------
    xr.DataArray
        Over (layer, head), from -1 to 1; 0 for a head that is zero.

    Raises
    ------
    ValueError
        For an unknown convention, or a model that `load` refuses.

    Examples
    --------
    >>> import qkutils as qk
    >>> cosine = qk.weighted_cosine("tiny-supervised")
    >>> cosine.mean("head").values.round(2).tolist()
    [0.16, 0.05, 0.15, 0.05, 0.02, -0.05, 0.11, -0.03]
    """
    loaded = _loaded(model, convention)
    folded = [fold(loaded.heads, n, convention) for n in range(len(loaded.net.blocks))]
    values = torch.stack([closed_form(*sides) for sides in folded]).cpu().numpy()
    return _labelled("weighted_cosine", values, loaded, convention)


def _labelled(
    name: str, values: np.ndarray, model: Network, convention: Convention, **attributes: Any
) -> xr.DataArray:
    """Values over (layer), or over (layer, head), that say where they come from."""
    coords = {dim: np.arange(n) for dim, n in zip(("layer", "head"), values.shape, strict=False)}
    found = xr.DataArray(values, coords, [*coords], name)
    return with_origin(found, model, convention, **attributes)


def null_band(
    model: AnyModel, *, convention: Convention = "exact", level: float = 0.95
) -> xr.DataArray:
    """Compute how far from zero the cosines of random directions reach.

    The band of each layer holds a share `level` of these cosines.  The cosine of isotropic
    directions has the standard deviation 1/√d: this is the band of `paper`.  For `exact`, the
    directions pass LayerNorm's gain and centring, P = C diag(g²) C.  Their cosine has
    √tr(P²) / tr(P), which is wider.  Paper figures S1 and S2.

    Parameters
    ----------
    model, convention
        As `decompose` takes them.
    level
        The share of cosines inside the band, between 0 and 1.

    Returns
    -------
    xr.DataArray
        Half the width of the band over (layer), with `level` as a coordinate.

    Raises
    ------
    ValueError
        For an unknown convention, a level outside of 0 to 1, or a model that `load` refuses.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.null_band("tiny-supervised", convention="paper").values.round(2).tolist()
    [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]
    """
    level = options.number("level", level, 0, 1)
    loaded = _loaded(model, convention)
    layers, _, _, d_model = loaded.heads.w_q.shape
    if convention == "paper":
        spread = torch.full((layers,), d_model**-0.5, dtype=torch.float64)
    else:
        squared = loaded.heads.ln_gain.double() ** 2
        total, fourth = squared.sum(1), (squared**2).sum(1)
        spread = (fourth * (1 - 2 / d_model) + (total / d_model) ** 2).sqrt()
        spread = spread / (total * (1 - 1 / d_model))
    width = _labelled("null_band", _reach(level) * spread.cpu().numpy(), loaded, convention)
    return width.assign_coords(level=level)


def _reach(level: float) -> float:
    """Half width, in standard deviations, of the band that holds this share of normal numbers."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def null_weighted_cosine(
    model: AnyModel, *, convention: Convention = "exact", draws: int = 200, seed: int = 0
) -> xr.DataArray:
    """Estimate how much the weighted cosine of one head varies when its weights are random.

    W_q and W_k are drawn as independent Gaussians of the head's shape.  For `exact`, they pass the
    layer's own LayerNorm.  The mean over h heads varies less: divide by √h.

    Parameters
    ----------
    model, convention
        As `decompose` takes them.
    draws
        How many heads are drawn, at least 2.
    seed
        Where the random generator begins.

    Returns
    -------
    xr.DataArray
        The standard deviation over (layer).

    Raises
    ------
    ValueError
        For an unknown convention, bad `draws` or `seed`, or a model that `load` refuses.

    Examples
    --------
    >>> import qkutils as qk
    >>> spread = qk.null_weighted_cosine("tiny-supervised", draws=20)
    >>> dict(spread.sizes), bool((spread < 0.05).all())
    ({'layer': 8}, True)
    """
    draws, seed = options.count("draws", draws, 2), options.seed(seed)
    loaded = _loaded(model, convention)
    layers, _, d_head, d_model = loaded.heads.w_q.shape
    generator = torch.Generator().manual_seed(seed)
    shape = (2, draws, d_head, d_model)
    w_q, w_k = torch.randn(shape, generator=generator, dtype=torch.float64)
    if convention == "paper":
        spread = np.full(layers, closed_form(w_q, w_k).std())
    else:
        gains = loaded.heads.ln_gain.double().cpu()
        spread = np.array([closed_form(centre(w_q * g), centre(w_k * g)).std() for g in gains])
    return _labelled("null_sd", spread, loaded, convention, draws=draws, seed=seed)


def null_from_strengths(sigma: xr.DataArray, band: xr.DataArray) -> xr.DataArray:
    """Compute how much the weighted cosine varies if only the directions of a head are random.

    Each head keeps its strengths σ; its pairs of directions are drawn anew.  The result is
    √Σσ² / Σσ times the standard deviation of one cosine.  A head with few strong modes varies more
    than a head with even strengths.

    Parameters
    ----------
    sigma
        Strengths over (layer, head, mode), such as `decompose(model).sigma`.
    band
        What `null_band` gave for the same model and convention: it holds the standard deviation of
        one cosine.

    Returns
    -------
    xr.DataArray
        The standard deviation over (layer, head).

    Raises
    ------
    ValueError
        Where `sigma` has no modes, or `band` no layers or no level, and where they are of
        different models or conventions.

    Examples
    --------
    >>> import qkutils as qk
    >>> sigma, band = qk.decompose("tiny-supervised").sigma, qk.null_band("tiny-supervised")
    >>> qk.null_from_strengths(sigma, band).sel(layer=0).values.round(3).tolist()
    [0.057, 0.057, 0.057, 0.067]
    """
    options.with_dims("sigma", sigma, "mode")
    if "level" not in options.with_dims("band", band, "layer").coords:
        raise ValueError("band: it does not say its level; give what null_band returns")
    for name in ORIGIN:
        if name in sigma.coords and name in band.coords and (sigma[name] != band[name]).any():
            raise ValueError(f"band: it has another {name} than sigma; compute both alike")
    one_cosine = band.drop_vars("level") / _reach(float(band.level))
    return (sigma**2).sum("mode") ** 0.5 / sigma.sum("mode") * one_cosine


def null_of_layers(sigma: xr.DataArray, band: xr.DataArray) -> xr.DataArray:
    """Compute how far a layer's mean weighted cosine reaches if only directions are random.

    The mean is taken over the heads of a layer.  A band around zero holds the same share of such
    means as `band` holds of cosines.

    Parameters
    ----------
    sigma
        Strengths over (layer, head, mode), such as `decompose(model).sigma`.
    band
        What `null_band` gave for the same model and convention.

    Returns
    -------
    xr.DataArray
        Half the width of the band over (layer).

    Raises
    ------
    ValueError
        What `null_from_strengths` raises.

    Examples
    --------
    >>> import qkutils as qk
    >>> sigma, band = qk.decompose("tiny-supervised").sigma, qk.null_band("tiny-supervised")
    >>> qk.modes.null_of_layers(sigma, band).values[:3].round(2).tolist()
    [0.06, 0.05, 0.06]
    """
    spread = null_from_strengths(sigma, band)
    width = _reach(float(band.level)) * (spread**2).mean("head") ** 0.5
    return width / spread.sizes["head"] ** 0.5


def trend(model: AnyModel) -> xr.Dataset:
    """Compute the weighted cosine of every head in both conventions, with a null band.

    Each layer has a null band.  It holds 95 % of a layer's means over heads if the heads kept their
    strengths and only their directions were random.  Paper figure 3.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.

    Returns
    -------
    xr.Dataset
        `weighted_cosine` over (convention, layer, head); `null`, half the width of the band, over
        (convention, layer).

    Raises
    ------
    ValueError
        For a model that `load` refuses.
    ArithmeticError
        Where no decomposition reproduces a head.

    Examples
    --------
    >>> import qkutils as qk
    >>> found = qk.trend("tiny-supervised")
    >>> dict(found.sizes)
    {'convention': 2, 'layer': 8, 'head': 4}
    >>> beyond = abs(found.weighted_cosine.mean("head")) > found.null
    >>> beyond.sum("layer").values.tolist()
    [4, 3]
    """
    loaded, found = models.network(model), []
    for convention in CONVENTIONS:
        parts = decompose(loaded, convention=convention)
        weighted = parts.cosine.weighted(parts.sigma).mean("mode")
        null = null_of_layers(parts.sigma, null_band(loaded, convention=convention))
        found.append(xr.Dataset({"weighted_cosine": weighted, "null": null}))
    return xr.concat(found, "convention")

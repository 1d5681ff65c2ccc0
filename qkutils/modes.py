"""Modes: the singular value decomposition of every head's W_qᵀW_k, without ever forming it."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import scipy.linalg
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from qkutils import models, options
from qkutils.heads import CONVENTIONS, Convention, Heads, centre, fold
from qkutils.models import AnyModel, Model
from qkutils.provenance import with_origin

RESIDUAL_LIMIT = 1e-9  # of σ₁: far above rounding in float64, far below anything we report
_FLOAT32 = torch.finfo(torch.float32).eps


def decompose(model: AnyModel, *, convention: Convention = "exact") -> xr.Dataset:
    """Decompose every head into its modes.

    Each mode has a strength σ, a query direction u and a key direction v.  σ and the cosine of u
    and v are computed in float64.  u and v are handed out in float32.  The largest component of
    each u is positive.  Paper section 3.

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
    dims = ("layer", "head", "mode")
    fields: dict = {
        key: (dims, torch.stack([layer[key] for layer in layers]).cpu().numpy())
        for key in ("sigma", "cosine", "null_mode", "degenerate")
    }
    for key in ("u", "v"):
        vectors = torch.stack([layer[key].float() for layer in layers])
        fields[key] = ((*dims, "d_model"), vectors.cpu().numpy())
    residual = torch.stack([layer["residual"] for layer in layers]).max().item()
    found = xr.Dataset(fields, _coordinates(heads))
    return with_origin(found, loaded, convention, residual=residual)


def _loaded(model: AnyModel, convention: Convention) -> Model:
    """The model; ValueError for a convention that there is not, before anything is read."""
    options.choice("convention", convention, CONVENTIONS)
    return models.load(model)


def _coordinates(heads: Heads) -> dict[str, np.ndarray]:
    return {
        name: np.arange(n)
        for name, n in zip(("layer", "head", "mode"), heads.w_q.shape[:3], strict=True)
    }


def decompose_layer(heads: Heads, layer: int, convention: Convention) -> dict[str, Tensor]:
    """What `decompose` says of one layer, all in float64."""
    w_q, w_k = fold(heads, layer, convention)
    u, sigma, v, residual = verified_svd(w_q, w_k)
    if not (residual <= RESIDUAL_LIMIT).all():
        bad = (~(residual <= RESIDUAL_LIMIT)).nonzero().flatten().tolist()
        raise ArithmeticError(
            f"{heads.name}, layer {layer}, heads {bad}: the decomposition misses the head by "
            f"{residual.max():.1e} of its largest singular value; please report this checkpoint"
        )
    u, v = fix_signs(u, v)
    return {
        "u": u,
        "v": v,
        "sigma": sigma,
        "cosine": (u * v).sum(-1),
        "residual": residual,
        **_unreliable(sigma),
    }


def _unreliable(sigma: Float[Tensor, "head mode"]) -> dict[str, Bool[Tensor, "head mode"]]:
    """Modes that rounding of float32 weights alone would lose (null) or turn (degenerate)."""
    largest = sigma[..., :1]
    null_mode = sigma <= sigma.shape[-1] * _FLOAT32 * largest
    gap = sigma[..., :-1] - sigma[..., 1:]
    infinite = torch.full_like(largest, torch.inf)
    nearest = torch.minimum(torch.cat([infinite, gap], -1), torch.cat([gap, infinite], -1))
    return {"null_mode": null_mode, "degenerate": nearest <= 100 * _FLOAT32 * largest}


def verified_svd(
    w_q: Float[Tensor, "head d_head d_model"], w_k: Float[Tensor, "head d_head d_model"]
) -> tuple[
    Float[Tensor, "head mode d_model"],
    Float[Tensor, "head mode"],
    Float[Tensor, "head mode d_model"],
    Float[Tensor, " head"],
]:
    """u, σ, v of every head's W_qᵀW_k, and how far they miss it, as a share of σ₁.

    The fast route (Cholesky factors of the Gram matrices) serves almost every head.  It loses
    accuracy where a projection is nearly rank-deficient: such heads take the slow, safe route
    (Householder QR and LAPACK's gesvd), so that no head depends on the fast one being right.
    """
    u, sigma, v = cholesky_svd(w_q, w_k)
    residual = residual_of(w_q, w_k, u, sigma, v)
    for head in (~(residual <= RESIDUAL_LIMIT)).nonzero().flatten().tolist():
        one = slice(head, head + 1)
        u[head], sigma[head], v[head] = safe_svd(w_q[head], w_k[head])
        residual[one] = residual_of(w_q[one], w_k[one], u[one], sigma[one], v[one])
    return u, sigma, v, residual


def cholesky_svd(
    w_q: Float[Tensor, "head d_head d_model"], w_k: Float[Tensor, "head d_head d_model"]
) -> tuple[
    Float[Tensor, "head mode d_model"],
    Float[Tensor, "head mode"],
    Float[Tensor, "head mode d_model"],
]:
    """u, σ, v of W_qᵀW_k from thin factors: W_qᵀ = Q L_qᵀ with L_q L_qᵀ = W_q W_qᵀ, and so for W_k.

    Heads whose Gram matrix has no Cholesky factor come back as NaN.
    """
    (l_q, bad_q), (l_k, bad_k) = (torch.linalg.cholesky_ex(w @ w.mT) for w in (w_q, w_k))
    bad = (bad_q != 0) | (bad_k != 0)
    eye = torch.eye(w_q.shape[1], dtype=w_q.dtype, device=w_q.device)
    l_q, l_k = (torch.where(bad[:, None, None], eye, factor) for factor in (l_q, l_k))
    a, sigma, b = torch.linalg.svd(l_q.mT @ l_k)
    u = torch.linalg.solve_triangular(l_q.mT, a, upper=True).mT @ w_q
    v = torch.linalg.solve_triangular(l_k.mT, b.mT, upper=True).mT @ w_k
    sigma = sigma.masked_fill(bad[:, None], torch.nan)
    return u, sigma, v


def safe_svd(
    w_q: Float[Tensor, "d_head d_model"], w_k: Float[Tensor, "d_head d_model"]
) -> tuple[Float[Tensor, "mode d_model"], Float[Tensor, " mode"], Float[Tensor, "mode d_model"]]:
    """u, σ, v of one head by Householder QR and gesvd, which holds for any rank."""
    (q_q, r_q), (q_k, r_k) = (torch.linalg.qr(w.mT) for w in (w_q, w_k))
    core = (r_q @ r_k.mT).cpu().numpy()
    parts = scipy.linalg.svd(core, lapack_driver="gesvd")
    a, sigma, b = (torch.from_numpy(np.ascontiguousarray(p)).to(w_q.device) for p in parts)
    return (q_q @ a).mT, sigma, (q_k @ b.mT).mT


def residual_of(
    w_q: Float[Tensor, "head d_head d_model"],
    w_k: Float[Tensor, "head d_head d_model"],
    u: Float[Tensor, "head mode d_model"],
    sigma: Float[Tensor, "head mode"],
    v: Float[Tensor, "head mode d_model"],
) -> Float[Tensor, " head"]:
    """How far u, σ, v miss a head: the larger of two errors, each zero for an exact decomposition.

    Orthonormality of u and v to each other; and ‖(W_qᵀW_k − Σ σ u vᵀ) X‖ for eight fixed random
    columns X, as a share of σ₁, which estimates the Frobenius norm without forming the matrix.
    """
    eye = torch.eye(w_q.shape[1], dtype=w_q.dtype, device=w_q.device)
    skew = torch.stack([(m @ m.mT - eye).abs().amax((-1, -2)) for m in (u, v)]).amax(0)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(w_q.shape[-1], 8, dtype=w_q.dtype, generator=generator).to(w_q.device)
    miss = w_q.mT @ (w_k @ probe) - u.mT @ (sigma[..., None] * (v @ probe))
    size = miss.flatten(1).norm(dim=-1) / 8**0.5
    largest = sigma[..., 0].clamp(min=torch.finfo(sigma.dtype).tiny)
    return torch.maximum(skew, size / largest)


def fix_signs(
    u: Float[Tensor, "head mode d_model"], v: Float[Tensor, "head mode d_model"]
) -> tuple[Float[Tensor, "head mode d_model"], Float[Tensor, "head mode d_model"]]:
    """Turns each mode so that u's largest component is positive, as scikit-learn does."""
    largest = u.gather(-1, u.abs().argmax(-1, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0).to(u.dtype)
    return u * sign, v * sign


def weighted_cosine(model: AnyModel, *, convention: Convention = "exact") -> xr.DataArray:
    """Compute the weighted cosine of every head, Σ σ cos / Σ σ.

    The closed form ⟨W_q, W_k⟩ / nuclear norm gives it without singular vectors.  So neither signs
    nor degenerate modes matter.  Paper figure 3.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    convention
        `exact`: the modes act on LayerNorm's normalised token, as the model computes.  `paper`:
        they act on the raw residual stream, as in the paper.

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
    heads = loaded.heads
    values = [
        _closed_form(*fold(heads, layer, convention)).cpu().numpy()
        for layer in range(len(heads.w_q))
    ]
    coords = {k: v for k, v in _coordinates(heads).items() if k != "mode"}
    found = xr.DataArray(np.stack(values), coords, ("layer", "head"), "weighted_cosine")
    return with_origin(found, loaded, convention)


def _closed_form(
    w_q: Float[Tensor, "head d_head d_model"], w_k: Float[Tensor, "head d_head d_model"]
) -> Float[Tensor, " head"]:
    """tr(M)/‖M‖_* of every head; 0 for a head that is zero."""
    r_q, r_k = (torch.linalg.qr(w.mT, mode="r").R for w in (w_q, w_k))
    nuclear = torch.linalg.svdvals(r_q @ r_k.mT).sum(-1)
    trace = (w_q * w_k).sum((-1, -2))
    return trace / nuclear.clamp(min=torch.finfo(nuclear.dtype).tiny)


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
    model
        A name, a file, a timm module, or what `load` gave.
    convention
        `exact`: the modes act on LayerNorm's normalised token, as the model computes.  `paper`:
        they act on the raw residual stream, as in the paper.
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
    coords = {"layer": np.arange(layers), "level": level}
    width = _reach(level) * spread.cpu().numpy()
    return with_origin(xr.DataArray(width, coords, ("layer",), "null_band"), loaded, convention)


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
    model
        A name, a file, a timm module, or what `load` gave.
    convention
        `exact`: the modes act on LayerNorm's normalised token, as the model computes.  `paper`:
        they act on the raw residual stream, as in the paper.
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
        spread = np.full(layers, _closed_form(w_q, w_k).std())
    else:
        gains = loaded.heads.ln_gain.double().cpu()
        spread = np.array([_closed_form(centre(w_q * g), centre(w_k * g)).std() for g in gains])
    found = xr.DataArray(spread, {"layer": np.arange(layers)}, ("layer",), "null_sd")
    return with_origin(found, loaded, convention, draws=draws, seed=seed)


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
        Where `sigma` has no modes, or `band` no layers or no level.

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
    loaded, found = models.load(model), []
    for convention in CONVENTIONS:
        parts = decompose(loaded, convention=convention)
        weighted = parts.cosine.weighted(parts.sigma).mean("mode")
        null = null_of_layers(parts.sigma, null_band(loaded, convention=convention))
        found.append(xr.Dataset({"weighted_cosine": weighted, "null": null}))
    return xr.concat(found, "convention")

"""Attention: the model's own, and the same rebuilt from modes and key salience."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from qkutils import models, options
from qkutils.models import AnyModel, Masked, Network
from qkutils.passes import What, normalise, visit_layers, watching
from qkutils.provenance import with_origin
from qkutils.scores import SALIENCE, ScoreFactors, kept, score_factors

DIMS = ("layer", "image", "head", "query", "key")
MAP_BYTES = 2**26  # of one layer's attention that pass at once

Images = Float[Tensor, "image channel height width"]


def rebuild_attention(
    model: AnyModel,
    images: Images,
    modes: xr.Dataset | None = None,
    *,
    salience: Sequence[str] = SALIENCE,
) -> xr.DataArray:
    """Attention as the softmax of modes plus key salience, in the exact convention.

    A model's position bias, which is no part of its modes, is always added.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    images
        As the model takes them.
    modes
        What `decompose(model, convention="exact")` gave, or some modes of it, such as
        `modes.isel(mode=slice(8))`.  Without, the heads' own projections, to which all modes add
        up: the result is then the model's own attention.
    salience
        Which parts of κ to keep: from the query bias (`bias`), from LayerNorm's shift (`shift`).

    Returns
    -------
    xr.DataArray
        Over (layer, image, head, query, key), prefix tokens first.

    Raises
    ------
    ValueError
        For modes of another model or convention, other images, or an unknown part of κ.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> model, images = qk.load("tiny-supervised"), torch.zeros(1, 3, 64, 64)
    >>> modes = qk.decompose(model).isel(mode=slice(8))
    >>> dict(qk.rebuild_attention(model, images, modes).sizes)
    {'layer': 8, 'image': 1, 'head': 4, 'query': 65, 'key': 65}
    """
    loaded = models.network(model)
    factors = score_factors(loaded, modes, salience)

    def attend(layer: int, x: Tensor) -> dict[str, Tensor]:
        return {"attention": factors.logits(layer, x).softmax(-1)}

    found = _label(loaded, _per_layer(loaded, images, attend)["attention"])
    return with_origin(found, loaded, "exact", "float32", **kept(modes, salience))


def compare_attention(
    model: AnyModel,
    images: Images,
    modes: xr.Dataset | None = None,
    *,
    salience: Sequence[str] = SALIENCE,
) -> xr.Dataset:
    """Compare rebuilt attention with the model's own, in one pass that keeps no map.

    It is what `observed_attention`, `rebuild_attention` and `total_variation` give together, in the
    memory that a few images need, however many there are.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    images
        As the model takes them.
    modes, salience
        As for `rebuild_attention`.

    Returns
    -------
    xr.Dataset
        Over (layer, image, head, query), prefix tokens first: `total_variation`, and `largest`, the
        largest difference of one weight.

    Raises
    ------
    ValueError
        What `rebuild_attention` and `observed_attention` raise.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> compared = qk.compare_attention("tiny-supervised", torch.zeros(1, 3, 64, 64))
    >>> dict(compared.sizes), bool(compared.largest.max() < 1e-5)
    ({'layer': 8, 'image': 1, 'head': 4, 'query': 65}, True)
    """
    loaded = models.network(model)
    found = misses(loaded, images, [score_factors(loaded, modes, salience)])
    made = xr.Dataset({name: _label(loaded, values[0]) for name, values in found.items()})
    return with_origin(made, loaded, "exact", "float32", **kept(modes, salience))


def misses(
    model: Network, images: Images, parts: Sequence[ScoreFactors]
) -> dict[str, Float[np.ndarray, "part layer image head query"]]:
    """How far the attention that each part makes lies from the model's own, in one pass for all."""
    tokens: dict[int, Tensor] = {}  # of the layer that is at work

    def compare(layer: int, own: Tensor) -> dict[str, Tensor]:
        x, each = tokens.pop(layer), []
        for factors in parts:
            miss = factors.logits(layer, x).softmax(-1).sub_(own.float()).abs_()
            each.append((miss.sum(-1) / 2, miss.amax(-1)))
        total, largest = (torch.stack(values, 1) for values in zip(*each, strict=True))
        return {"total_variation": total, "largest": largest}

    with watching(model, tokens=tokens.__setitem__):  # in the very pass that shows the attention
        found = _per_layer(model, images, compare, "attention")
    return {name: np.moveaxis(values, 2, 0) for name, values in found.items()}


def token_factors(model: AnyModel, images: Images, modes: xr.Dataset | None = None) -> xr.Dataset:
    """Compute what every token brings to the attention scores.

    Token i attends to token j with the softmax over j of Σ_rank query_i key_j + salience_j, and
    position_bias_ij where the model has one.  LayerNorm and the scale are inside the factors.
    Queries, keys and salience are far smaller than attention itself.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    images
        As the model takes them.
    modes
        What `decompose(model, convention="exact")` gave, or some modes of it.  The rank then runs
        over the modes: query is σ z·u and key is z·v.  Without, the rank runs over the head's own
        dimensions.

    Returns
    -------
    xr.Dataset
        `query` and `key` over (layer, image, head, token, rank), `salience` over (layer, image,
        head, token), prefix tokens first.  Only where there is one, `position_bias` over (layer,
        head, asking, token).

    Raises
    ------
    ValueError
        For modes of another model or convention, and for other images.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> factors = qk.token_factors("tiny-supervised", torch.zeros(1, 3, 64, 64))
    >>> dict(factors.sizes)
    {'layer': 8, 'image': 1, 'head': 4, 'token': 65, 'rank': 24}
    """
    loaded = models.network(model)
    heads, scale = loaded.heads, loaded.heads.scale
    factors = score_factors(loaded, modes)

    def bring(layer: int, x: Tensor) -> dict[str, Tensor]:
        z = normalise(x.float(), heads.ln_eps)[:, None]
        prefers = (z @ (factors.kappa[layer] * scale)[..., None])[..., 0]
        asks, offers = z @ (factors.query[layer] * scale).mT, z @ factors.key[layer].mT
        return {"query": asks, "key": offers, "salience": prefers}

    dims = ("layer", "image", "head", "token", "rank")
    found = _per_layer(loaded, images, bring)
    fields: dict = {name: (dims[: values.ndim], values) for name, values in found.items()}
    if heads.position_bias is not None:
        bias = heads.position_bias.cpu().numpy()
        fields["position_bias"] = (("layer", "head", "asking", "token"), bias)
    brought = xr.Dataset(fields, _tokens(loaded, "token"))
    return with_origin(brought, loaded, "exact", "float32", **kept(modes, SALIENCE))


def attention_of_token(factors: xr.Dataset, token: int) -> xr.DataArray:
    """Compute the attention of one token from the factors of all tokens.

    Parameters
    ----------
    factors
        What `token_factors` gave.
    token
        The number of the token that attends, counted from 0, prefix tokens first.

    Returns
    -------
    xr.DataArray
        Over (layer, image, head, key).

    Raises
    ------
    ValueError
        For a token that is not there, and for what are no factors.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> factors = qk.token_factors("tiny-supervised", torch.zeros(1, 3, 64, 64))
    >>> attention = qk.attention_of_token(factors, token=0)
    >>> dict(attention.sizes), bool(abs(attention.sum("key") - 1).max() < 1e-5)
    ({'layer': 8, 'image': 1, 'head': 4, 'key': 65}, True)
    """
    options.with_fields("factors", factors, "query", "key", "salience")
    asking = factors["query"].isel(token=options.index("token", token, factors.sizes["token"]))
    logits = xr.dot(asking, factors["key"], dim="rank") + factors["salience"]
    if "position_bias" in factors:
        logits = logits + factors["position_bias"].isel(asking=token)
    weights = np.exp(logits - logits.max("token"))
    made = (weights / weights.sum("token")).rename("attention", token="key")
    return made.transpose("layer", "image", "head", "key")


def observed_attention(model: AnyModel, images: Images) -> xr.DataArray:
    """The model's own attention, read inside its forward pass.

    Returns
    -------
    xr.DataArray
        Over (layer, image, head, query, key), prefix tokens first.

    Raises
    ------
    ValueError
        For images that the model does not take, and where it hides its attention.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> attention = qk.observed_attention("tiny-supervised", torch.zeros(1, 3, 64, 64))
    >>> bool(abs(attention.sum("key") - 1).max() < 1e-5)
    True
    """
    loaded = models.network(model)
    found = _per_layer(loaded, images, lambda _, seen: {"attention": seen.float()}, "attention")
    return with_origin(_label(loaded, found["attention"]), loaded, "observed", "float32")


def _per_layer(
    model: Network,
    images: Images,
    compute: Callable[[int, Tensor], dict[str, Tensor]],
    of: What = "tokens",
) -> dict[str, np.ndarray]:
    """What is computed of each layer's tokens or attention, over (layer, image, …), by name."""
    found: dict[str, np.ndarray] = {}

    def visit(layer: int, which: slice, values: Tensor) -> None:
        for name, part in compute(layer, values).items():
            if name not in found:
                size = (len(model.net.blocks), len(images), *part.shape[1:])
                found[name] = np.empty(size, dtype=np.float32)
            found[name][layer, which] = part.cpu().numpy()

    of_image = 4 * model.heads.w_q.shape[1] * model.token_count**2
    visit_layers(model, images, visit, min(32, max(1, MAP_BYTES // of_image)), of)
    return found


def _label(model: Network, values: np.ndarray) -> xr.DataArray:
    dims = DIMS[: values.ndim]
    coords = {dim: np.arange(n) for dim, n in zip(dims, values.shape, strict=True)}
    return xr.DataArray(values, coords | _tokens(model, *dims[3:]), dims, "attention")


def _tokens(model: Network, *dims: str) -> dict[str, Any]:
    """What each token of a masked model stands for, as coordinates along these dimensions."""
    said = {"kind": model.kinds, "patch": model.patches} if isinstance(model, Masked) else {}
    return {f"{dim}_{name}": (dim, [*each]) for dim in dims for name, each in said.items()}


def total_variation(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
    """Compute the share of attention that two maps place differently.

    It is half the sum over keys of the absolute differences.

    Parameters
    ----------
    a, b
        Two attention maps over the same dimensions, one of which is `key`.

    Returns
    -------
    xr.DataArray
        Over all dimensions but `key`, from 0 (alike) to 1 (no key in common).

    Raises
    ------
    ValueError
        For maps without `key`, and for maps of different tokens, images or heads.

    Examples
    --------
    >>> import qkutils as qk, xarray as xr
    >>> a, b = (xr.DataArray(shares, dims="key") for shares in ([0.5, 0.5, 0], [0.5, 0.25, 0.25]))
    >>> float(qk.total_variation(a, b))
    0.25
    """
    maps = (options.with_dims(name, each, "key") for name, each in (("a", a), ("b", b)))
    a, b = xr.align(*maps, join="exact")  # else what only one has would be left out
    return abs(a - b).sum("key", skipna=False) / 2

"""Explaining: how the modes of one head share the scores of one image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from qkutils import models, options
from qkutils.heads import Convention, Heads, key_salience
from qkutils.models import AnyModel, Model
from qkutils.modes import decompose_layer
from qkutils.passes import normalise, visit_layers
from qkutils.pictures import pictures_of
from qkutils.provenance import with_origin

ORDERS = ("contribution", "sigma")

Token = Float[Tensor, "token d_model"]
PerToken = Float[Tensor, " token"]
PerMode = Float[Tensor, " mode"]
Queries = Float[Tensor, "query mode"]
Keys = Float[Tensor, "key mode"]


def one_image(
    model: AnyModel,
    image: Any,
    layer: int,
    head: int,
    *,
    query_patch: int | None = None,
    convention: Convention = "exact",
    order: str = "contribution",
) -> xr.Dataset:
    """Explain one head on one image: its modes' maps, contributions and shares of the logits.

    Paper figure 5.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    image
        A picture, or a tensor as the model takes it.
    layer, head
        Which head, numbered from 0.
    query_patch
        The patch that asks, a number in reading order.  Without, the logits are means over all
        patches as queries.
    convention
        `exact`: what the model computes.  `paper`: the raw residual stream, without key salience,
        position bias and constant.
    order
        How modes are sorted, the largest first: by `contribution` or by `sigma`.

    Returns
    -------
    xr.Dataset
        `sigma`, `cosine`, `contribution` and `share` over mode.  `contribution` is the larger,
        over both signs s, of σ · max_i s(x_i·u) · max_j s(x_j·v) over patches.  It is 0 where no
        sign has two positive maxima.  With `query_patch`, i is that patch alone.

        `query_map` and `key_map` over (mode, row, column): x·u and x·v on the patch grid.

        `logit` over (mode, token), `salience` and `position_bias` over token, and `constant`: the
        softmax takes their sum, prefix tokens first.

        `share` is each mode's covariance over keys with the whole logit, as a part of the whole's
        variance, queries pooled.  The shares, `salience_share` and `position_share` sum to 1.  A
        mode that works against the others has a negative share.

    Raises
    ------
    ValueError
        For a layer, head or patch that the model does not have, and for an unknown order.

    Examples
    --------
    >>> import qkutils as qk
    >>> picture = qk.world.pictures(0, 0, 1)[0]
    >>> explained = qk.studies.one_image("tiny-supervised", picture, layer=4, head=1)
    >>> dict(explained.query_map.sizes)
    {'mode': 24, 'row': 8, 'column': 8}
    >>> round(float(explained.share.sum() + explained.salience_share), 6)
    1.0
    """
    loaded = models.load(model)
    heads, prefix = loaded.heads, loaded.prefix_tokens
    options.index("layer", layer, heads.w_q.shape[0])
    options.index("head", head, heads.w_q.shape[1])
    options.choice("order", order, ORDERS)
    if query_patch is not None:
        options.index("query_patch", query_patch, loaded.grid[0] * loaded.grid[1])
    parts = {name: each[head] for name, each in decompose_layer(heads, layer, convention).items()}
    token = _token(loaded, image, layer)
    salience = constant = torch.zeros_like(token[:, 0])
    bias = token.new_zeros(len(token), len(token))
    if convention == "exact":
        if heads.position_bias is not None:
            bias = heads.position_bias[layer, head].double()
        token = normalise(token, heads.ln_eps)
        kappa = torch.stack(key_salience(heads)).sum(0)[layer, head]
        salience, constant = token @ kappa, _constant(heads, layer, head, token)
    query, key, sigma = token @ parts["u"].mT, token @ parts["v"].mT, parts["sigma"]
    asked = slice(prefix, None) if query_patch is None else [prefix + query_patch]
    asking, bias = query[asked], bias[asked]
    share, *others = shares(asking * sigma, key, salience, bias / heads.scale)
    on_grid = ("mode", "row", "column")
    fields = {
        "sigma": ("mode", sigma),
        "cosine": ("mode", parts["cosine"]),
        "contribution": ("mode", _contribution(asking, key[prefix:]) * sigma),
        "share": ("mode", share),
        "query_map": (on_grid, query[prefix:].mT.unflatten(1, loaded.grid)),
        "key_map": (on_grid, key[prefix:].mT.unflatten(1, loaded.grid)),
        "logit": (("mode", "token"), heads.scale * (asking.mean(0) * sigma)[:, None] * key.mT),
        "salience": ("token", heads.scale * salience),
        "position_bias": ("token", bias.mean(0)),
        "salience_share": ((), others[0]),
        "position_share": ((), others[1]),
        "constant": ((), heads.scale * constant[asked].mean()),
    }
    arrays = {name: (dims, values.cpu().numpy()) for name, (dims, values) in fields.items()}
    found = xr.Dataset(arrays, {"mode": np.arange(len(share))})
    ordered = found.isel(mode=np.argsort(-found[order].values, kind="stable"))
    place: dict[str, Any] = {"layer": layer, "head": head, "order": order}
    place |= {} if query_patch is None else {"query_patch": query_patch}
    return with_origin(ordered, loaded, convention, **place)


def build_up(explained: xr.Dataset, salience: bool = True) -> xr.DataArray:
    """Add up the attention of one query mode by mode, in the order of `explained`.

    It begins with no mode, which leaves key salience and position bias.  It ends with all modes,
    which give the head's own attention where the convention is exact.

    Parameters
    ----------
    explained
        What `one_image` gave for one `query_patch`.
    salience
        Whether key salience counts.

    Returns
    -------
    xr.DataArray
        Attention over (count, token), prefix tokens first; `count` is how many modes are in it.

    Raises
    ------
    ValueError
        For a result that is not about one query.

    Examples
    --------
    >>> import qkutils as qk
    >>> picture = qk.world.pictures(0, 0, 1)[0]
    >>> explained = qk.studies.one_image("tiny-supervised", picture, 4, 1, query_patch=20)
    >>> dict(qk.studies.build_up(explained).sizes)
    {'count': 25, 'token': 65}
    """
    options.with_fields("explained", explained, "logit", "salience")
    if "query_patch" not in explained.attrs:
        raise ValueError("build_up: attention belongs to one query; ask one_image for one patch")
    terms = explained.logit.transpose("mode", "token").values
    logits = np.concatenate([np.zeros_like(terms[:1]), terms.cumsum(0)])
    counts = options.flag("salience", salience)
    logits = logits + explained.salience.values * counts + explained.position_bias.values
    rows = torch.from_numpy(logits).softmax(-1).numpy()
    return xr.DataArray(rows, {"count": np.arange(len(rows))}, ("count", "token"), "attention")


def _token(model: Model, image: Any, layer: int) -> Token:
    """The residual stream of one image at a layer's input, in float64."""
    kept: list[Tensor] = []

    def keep(index: int, _: slice, x: Tensor) -> None:
        if index == layer:
            kept.append(x[0].double())

    visit_layers(model, pictures_of([image], model).read(0)[None], keep)
    return kept[0]


def _constant(heads: Heads, layer: int, head: int, token: Token) -> PerToken:
    """What a query adds to its logits for all keys alike, which the softmax does not see."""
    names = ("w_q", "w_k", "b_q", "b_k")
    w_q, w_k, b_q, b_k = (getattr(heads, name)[layer, head].double() for name in names)
    gain, shift = heads.ln_gain[layer].double(), heads.ln_shift[layer].double()
    return ((token * gain + shift) @ w_q.mT + b_q) @ (w_k @ shift + b_k)


def _contribution(query: Queries, key: Keys) -> PerMode:
    """The larger, over both signs, of the product of the two largest projections."""
    both = [(s * query).amax(0).clamp(min=0) * (s * key).amax(0).clamp(min=0) for s in (1, -1)]
    return torch.maximum(*both)


def shares(
    query: Queries, key: Keys, salience: Float[Tensor, " key"], bias: Float[Tensor, "query key"]
) -> tuple[PerMode, Float[Tensor, ""], Float[Tensor, ""]]:
    """Each term's covariance over keys with the whole logit, over the whole's variance."""
    key, salience = key - key.mean(0), salience - salience.mean()
    bias = bias - bias.mean(1, keepdim=True)
    whole = query @ key.mT + salience + bias
    variance = whole.square().sum()
    terms = (query * (whole @ key)).sum(0)
    return terms / variance, (whole @ salience).sum() / variance, (whole * bias).sum() / variance

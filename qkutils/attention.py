"""Attention: the model's own, and the same rebuilt from modes and key salience."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from qkutils import models
from qkutils.heads import Heads, fold, key_salience, read
from qkutils.models import Model
from qkutils.modes import AnyModel, decompose, provenance
from qkutils.tokens import check_images, normalise, visit_layers

DIMS = ("layer", "image", "head", "query", "key")
SALIENCE = ("bias", "shift")


def rebuild_attention(
    model: AnyModel,
    images: Float[Tensor, "image channel height width"],
    modes: int | Sequence[int] | None = None,
    salience: Sequence[str] = SALIENCE,
) -> xr.DataArray:
    """Attention [layer, image, head, query, key] as the softmax of modes plus key salience.

    `modes`: all (None), the first k (an integer), or a list of mode numbers.  `salience`: which
    parts of κ to keep, from the query bias (`bias`) and from LayerNorm's shift (`shift`).  Always
    in the exact convention: with everything kept it is the model's own attention.  Taught in
    chapter 1.
    """
    loaded = models.load(model)
    heads = read(loaded)
    u, sigma, v = _chosen_modes(loaded, modes)
    kappa = _kappa(heads, salience).float()
    out = _empty(loaded, heads, images)

    def visit(layer: int, which: slice, x: Tensor) -> None:
        z = normalise(x.float(), heads.ln_eps)[:, None]
        logits = scores(z, u[layer], sigma[layer], v[layer], kappa[layer]) * heads.scale
        out[layer, which] = logits.softmax(-1).cpu().numpy()

    visit_layers(loaded, images, visit)
    attributes = provenance(heads, "exact", "float32") | {"salience": "+".join(salience) or "none"}
    return _label(out, attributes | {"modes": "all" if modes is None else str(modes)})


def token_factors(
    model: AnyModel,
    images: Float[Tensor, "image channel height width"],
    modes: int | Sequence[int] | None = None,
) -> xr.Dataset:
    """What every token brings to the scores: `query`, `key` and `salience` over (layer, image, …).

    A token i attends to j with the softmax over j of Σ_rank query_i key_j + salience_j; LayerNorm
    and the scale are inside.  Without `modes` the rank runs over the head's own dimensions, with
    them over the modes: query is σ z·u and key is z·v.  Far smaller than attention itself, so that
    a view computes any row of it in the browser.  Taught in chapter 9.
    """
    loaded = models.load(model)
    heads = read(loaded)
    check_images(loaded, images)
    a, b, kappa = (
        part * s
        for part, s in zip(
            score_factors(loaded, heads, modes), (heads.scale, 1.0, heads.scale), strict=True
        )
    )
    found: dict[str, list] = {"query": [], "key": [], "salience": []}

    def visit(layer: int, _: slice, x: Tensor) -> None:
        z = normalise(x.float(), heads.ln_eps)[:, None]
        sides = {"query": z @ a[layer].mT, "key": z @ b[layer].mT}
        sides["salience"] = (z @ kappa[layer][..., None])[..., 0]
        for name, side in sides.items():
            found[name].append((layer, side.cpu()))

    visit_layers(loaded, images, visit)
    dims = ("layer", "image", "head", "token", "rank")
    fields = {name: (dims[: 3 + side[0][1].ndim - 2], _stack(side)) for name, side in found.items()}
    return xr.Dataset(fields, attrs=provenance(heads, "exact", "float32"))


def attention_of_token(factors: xr.Dataset, token: int) -> xr.DataArray:
    """A token's attention [layer, image, head, key], from what `token_factors` gives."""
    asking = factors["query"].isel(token=token)
    logits = xr.dot(asking, factors["key"], dim="rank") + factors["salience"]
    weights = np.exp(logits - logits.max("token"))
    made = (weights / weights.sum("token")).rename("attention", token="key")
    return made.transpose("layer", "image", "head", "key")


def _stack(parts: Sequence[tuple[int, Tensor]]) -> np.ndarray:
    """Values per (layer, image, …) from pieces of a layer and some images, in their order."""
    layers = range(1 + max(layer for layer, _ in parts))
    return torch.stack([torch.cat([v for at, v in parts if at == n]) for n in layers]).numpy()


def scores(
    z: Float[Tensor, "image 1 token d_model"],
    u: Float[Tensor, "head mode d_model"],
    sigma: Float[Tensor, "head mode"],
    v: Float[Tensor, "head mode d_model"],
    kappa: Float[Tensor, "head d_model"],
) -> Float[Tensor, "image head query key"]:
    """Σ_n σ_n (z_i·u_n)(z_j·v_n) + κ·z_j for every pair of tokens, before scaling."""
    query = (z @ u.mT) * sigma[:, None]
    key = z @ v.mT
    return query @ key.mT + (z @ kappa[..., None]).mT


def score_factors(
    model: Model,
    heads: Heads,
    modes: int | Sequence[int] | None = None,
    salience: Sequence[str] = SALIENCE,
) -> tuple[
    Float[Tensor, "layer head rank d_model"],
    Float[Tensor, "layer head rank d_model"],
    Float[Tensor, "layer head d_model"],
]:
    """A, B and κ of every head: query i scores key j with (A z_i)·(B z_j) + κ·z_j.

    With all modes (None) A and B are the head's own projections, LayerNorm folded in, and nothing
    has to be decomposed; else they are the modes' σu and v.
    """
    kappa = _kappa(heads, salience).float()
    if modes is None:
        folded = [fold(heads, layer, "exact") for layer in range(len(heads.w_q))]
        query, key = (torch.stack(side).float() for side in zip(*folded, strict=True))
        return query, key, kappa
    u, sigma, v = _chosen_modes(model, modes)
    return sigma[..., None] * u, v, kappa


def scores_of_queries(
    z: Float[Tensor, "image token d_model"],
    rows: Int[Tensor, "image row"],
    query: Float[Tensor, "head rank d_model"],
    key: Float[Tensor, "head rank d_model"],
    kappa: Float[Tensor, "head d_model"],
) -> Float[Tensor, "image head row token"]:
    """Scores of a few query tokens on all keys, before scaling.

    Each query is turned into the one direction that it looks for, Bᵀ A z_i + κ, so that no key has
    to be computed: a few rows cost next to nothing.
    """
    asking = z.gather(1, rows[..., None].expand(-1, -1, z.shape[-1]))[:, None]
    looked_for = asking @ query.mT @ key + kappa[:, None]
    return (looked_for.flatten(1, 2) @ z.mT).unflatten(1, looked_for.shape[1:3])


def _chosen_modes(
    model: Model, modes: int | Sequence[int] | None
) -> tuple[
    Float[Tensor, "layer head mode d_model"],
    Float[Tensor, "layer head mode"],
    Float[Tensor, "layer head mode d_model"],
]:
    """u, σ and v of the modes that were asked for, where the model is, in float32."""
    parts = decompose(model, "exact")
    chosen = _choose(modes, parts.sizes["mode"])
    u, sigma, v = (
        torch.from_numpy(parts[k].values[:, :, chosen]).to(model.device).float()
        for k in ("u", "sigma", "v")
    )
    return u, sigma, v


def _choose(modes: int | Sequence[int] | None, count: int) -> list[int]:
    """Mode numbers that were asked for; raises ValueError for any that the head does not have."""
    if modes is None:
        return list(range(count))
    chosen = list(modes) if isinstance(modes, Sequence) else list(range(count))[:modes]
    wanted = modes if isinstance(modes, int) else len(set(chosen))
    if len(chosen) != wanted or not set(chosen) <= set(range(count)):
        raise ValueError(
            f"modes={modes!r}: heads of this model have modes 0 to {count - 1}; ask for the first "
            f"0 to {count} of them, or for a list of different ones"
        )
    return chosen


def _kappa(heads: Heads, salience: Sequence[str]) -> Float[Tensor, "layer head d_model"]:
    unknown = set(salience) - set(SALIENCE)
    if unknown or isinstance(salience, str):
        raise ValueError(f"salience={salience!r}: a list that may hold {', '.join(SALIENCE)}")
    parts = dict(zip(SALIENCE, key_salience(heads), strict=True))
    return sum((parts[s] for s in salience), torch.zeros_like(parts["bias"]))


def observed_attention(
    model: AnyModel, images: Float[Tensor, "image channel height width"]
) -> xr.DataArray:
    """The model's own attention [layer, image, head, query, key], read inside its forward pass."""
    loaded = models.load(model)
    heads = read(loaded)
    out = _empty(loaded, heads, images)
    current = slice(0, 0)
    fused = [block.attn.fused_attn for block in loaded.net.blocks]

    def visit(_: int, which: slice, __: Tensor) -> None:
        nonlocal current
        current = which

    def keep(layer: int, attention: Tensor) -> None:
        out[layer, current] = attention.float().cpu().numpy()

    hooks = [
        block.attn.attn_drop.register_forward_pre_hook(lambda _, args, n=n: keep(n, args[0]))
        for n, block in enumerate(loaded.net.blocks)
    ]
    try:
        for block in loaded.net.blocks:  # the fused kernel never shows its attention
            block.attn.fused_attn = False
        visit_layers(loaded, images, visit)
    finally:
        for hook in hooks:
            hook.remove()
        for block, was in zip(loaded.net.blocks, fused, strict=True):
            block.attn.fused_attn = was
    return _label(out, provenance(heads, "observed", "float32"))


def _empty(model: Model, heads: Heads, images: Tensor) -> np.ndarray:
    check_images(model, images)
    layers, per_layer = heads.w_q.shape[:2]
    tokens = model.grid[0] * model.grid[1] + model.prefix_tokens
    return np.empty((layers, len(images), per_layer, tokens, tokens), dtype=np.float32)


def _label(values: np.ndarray, attributes: dict) -> xr.DataArray:
    coords = {dim: np.arange(n) for dim, n in zip(DIMS, values.shape, strict=True)}
    return xr.DataArray(values, coords, DIMS, "attention", attributes)


def total_variation(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
    """How much attention two maps place differently: half the sum over keys of |a − b|, 0 to 1."""
    return abs(a - b).sum("key") / 2

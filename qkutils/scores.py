"""Scores: what every head's are made of, with all modes or some, and the parts of key salience."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from qkutils import options
from qkutils.heads import Heads, fold, key_salience
from qkutils.models import Network
from qkutils.passes import normalise
from qkutils.provenance import refuse_foreign

SALIENCE = ("bias", "shift")

Factors = Float[Tensor, "layer head rank d_model"]
Tokens = Float[Tensor, "image token d_model"]


@dataclass(frozen=True)
class ScoreFactors:
    """What every head's scores are made of: query i scores key j with (A z_i)·(K z_j) + κ·z_j.

    The scores are scaled, and position bias is added, where a method gives logits.
    """

    heads: Heads
    query: Factors
    key: Factors
    kappa: Float[Tensor, "layer head d_model"]

    def logits(self, layer: int, x: Tokens) -> Float[Tensor, "image head query key"]:
        """What the softmax takes, for every pair of tokens of the residual stream."""
        z = normalise(x.float(), self.heads.ln_eps)[:, None]
        products = (z @ self.query[layer].mT) @ (z @ self.key[layer].mT).mT
        return self.heads.logits(layer, products + (z @ self.kappa[layer][..., None]).mT)

    def logits_of(
        self, layer: int, x: Tokens, rows: Int[Tensor, "image row"]
    ) -> Float[Tensor, "image head row token"]:
        """What the softmax takes for a few query tokens.

        Each query is turned into the one direction that it looks for, Kᵀ A z_i + κ, so that no key
        has to be computed: a few rows cost next to nothing.
        """
        z = normalise(x.float(), self.heads.ln_eps)
        asking = z.gather(1, rows[..., None].expand(-1, -1, z.shape[-1]))[:, None]
        looked_for = asking @ self.query[layer].mT @ self.key[layer] + self.kappa[layer][:, None]
        found = (looked_for.flatten(1, 2) @ z.mT).unflatten(1, looked_for.shape[1:3])
        return self.heads.logits(layer, found, rows)


def score_factors(
    model: Network, modes: xr.Dataset | None = None, salience: Sequence[str] = SALIENCE
) -> ScoreFactors:
    """What the scores of every head are made of.

    Without modes A and K are the head's own projections, LayerNorm folded in; else they are the
    modes' σu and v.  Raises ValueError for modes of another model or convention.
    """
    heads = model.heads
    parts = dict(zip(SALIENCE, key_salience(heads), strict=True))
    wanted = options.choices("salience", salience, SALIENCE)
    kappa = sum((parts[s] for s in wanted), torch.zeros_like(parts["bias"])).float()
    if modes is None:
        folded = [fold(heads, layer, "exact") for layer in range(len(heads.w_q))]
        query, key = (torch.stack(side).float() for side in zip(*folded, strict=True))
        return ScoreFactors(heads, query, key, kappa)
    check_modes(model, modes)
    u, sigma, v = (
        torch.from_numpy(modes[name].transpose("layer", "head", "mode", ...).values)
        for name in ("u", "sigma", "v")
    )
    query = (sigma[..., None] * u.double()).float()
    return ScoreFactors(heads, query.to(model.device), v.to(model.device), kappa)


def check_modes(model: Network, modes: xr.Dataset) -> None:
    """Raise ValueError where these are not modes of all heads of this model as it computes."""
    needed = {"u", "sigma", "v"}
    if not isinstance(modes, xr.Dataset) or not needed <= set(modes.data_vars):
        kind = type(modes).__name__
        raise ValueError(f"modes: {kind}; give what decompose(model) gave, or some modes of it")
    if not all(np.isfinite(modes[name]).all() for name in needed):
        raise ValueError("modes: NaN or infinity in them; give what decompose(model) gave")
    refuse_foreign("modes", modes, model, "exact")
    layers, heads = model.heads.w_q.shape[:2]
    sizes = {"layer": [*range(layers)], "head": [*range(heads)]}
    there = {name: modes.get_index(name).tolist() for name in sizes if name in modes.dims}
    if there != sizes or "mode" not in modes.sizes:
        raise ValueError(f"modes: {there}, but the model has {sizes}; choose among modes only")
    if not modes.get_index("mode").is_unique:
        raise ValueError(f"modes: {modes.mode.values.tolist()}; each mode once")


def kept(modes: xr.Dataset | None, salience: Sequence[str]) -> dict[str, str]:
    """What a result says of the modes and the parts of key salience that it was computed with."""
    said = "all" if modes is None else " ".join(map(str, modes.mode.values.tolist()))
    return {"modes": said, "salience": "+".join(salience) or "none"}

"""Few modes: how far attention is from the model's own when only some modes of a head count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr
from scipy.stats import ortho_group

from qkutils import models, options
from qkutils.attention import Images, misses
from qkutils.models import AnyModel
from qkutils.modes import decompose
from qkutils.provenance import with_origin
from qkutils.scores import SALIENCE, score_factors

BASES = ("modes", "random basis", "modes, no key salience")


def few_modes(
    model: AnyModel, images: Images, counts: Sequence[int], *, seed: int = 0
) -> xr.DataArray:
    """Measure how much attention lies elsewhere when each head has only its first modes.

    Each image passes the model once, whatever the counts.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    images
        As the model takes them.
    counts
        How many modes, the strongest first; each from 0 to the rank of a head.
    seed
        Of the random basis.

    Returns
    -------
    xr.DataArray
        Total variation over (basis, count, layer, image, head), mean over patches as queries.

        `modes` and `random basis` keep key salience.  A random basis has as many parts as the head
        has modes, which add up to the same head: see `random_basis`.  With no mode and no key
        salience attention is even, where the model has no position bias.

    Raises
    ------
    ValueError
        For a count that the heads do not have, and for other images.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> found = qk.studies.few_modes("tiny-simmim", torch.zeros(1, 3, 64, 64), [0, 6, 24])
    >>> dict(found.sizes)
    {'basis': 3, 'count': 3, 'layer': 8, 'image': 1, 'head': 4}
    """
    loaded = models.load(model)
    modes = decompose(loaded)
    most = modes.sizes["mode"]
    chosen = [options.count(f"counts (of {most} modes)", n, 0, most) for n in counts]
    random = random_basis(modes, seed)
    wholes = [
        score_factors(loaded, of, salience)
        for of, salience in ((modes, SALIENCE), (random, SALIENCE), (modes, ()))
    ]
    parts = [
        replace(whole, query=whole.query[:, :, :n], key=whole.key[:, :, :n])
        for whole in wholes
        for n in chosen
    ]
    missed = misses(loaded, images, parts)["total_variation"][..., loaded.prefix_tokens :].mean(-1)
    values = missed.reshape(len(BASES), len(chosen), *missed.shape[1:])
    dims = ("basis", "count", "layer", "image", "head")
    coords = {d: np.arange(n) for d, n in zip(dims, values.shape, strict=True)}
    table = xr.DataArray(values, coords | {"basis": [*BASES], "count": chosen}, dims)
    return with_origin(table, loaded, "exact", "float32", seed=seed)


def random_basis(modes: xr.Dataset, seed: int = 0) -> xr.Dataset:
    """Cut every head into parts along a random basis, in place of its modes.

    A head is M = (UΣ^½)(VΣ^½)ᵀ.  A random rotation of the columns of both factors leaves M as it
    is, and makes other parts of it: any of these is as good a basis of the head's queries and keys.

    Parameters
    ----------
    modes
        What `decompose` gave.
    seed
        Of the rotation, which is the same for all heads.

    Returns
    -------
    xr.Dataset
        `u`, `sigma` and `v` in the shapes of `modes`; σ is 1, and u and v are not of unit length.

    Raises
    ------
    ValueError
        For what are no modes.

    Examples
    --------
    >>> import qkutils as qk
    >>> modes = qk.decompose("tiny-supervised")
    >>> turned = qk.studies.random_basis(modes)
    >>> first, second = (xr.dot(m.u * m.sigma, m.v, dim=["mode", "d_model"])
    ...                  for m in (modes, turned))
    >>> bool(abs(first - second).max() < 1e-4)  # the head's trace
    True
    """
    options.with_fields("modes", modes, "u", "sigma", "v")
    count = modes.sizes["mode"]
    drawn = ortho_group.rvs(count, random_state=options.seed(seed)) if count > 1 else np.eye(count)
    turn = xr.DataArray(drawn, {"mode": modes.mode.values}, ("mode", "part"))
    root = np.sqrt(modes.sigma)
    u, v = (
        xr.dot(modes[side] * root, turn, dim="mode")
        .rename(part="mode")
        .assign_coords(mode=modes.mode)
        .transpose(*modes[side].dims)
        .astype(np.float32)
        for side in ("u", "v")
    )
    return modes[["sigma"]].assign(u=u, sigma=xr.ones_like(modes.sigma), v=v)

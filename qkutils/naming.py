"""Naming modes by measurement: what in a drawn scene their query and key projections select."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control
from torch import Tensor
from tqdm import tqdm

from qkutils import models, scenes
from qkutils.heads import read
from qkutils.labelling import FAMILIES, Labels, misplaced, patch_labels, some
from qkutils.models import Model
from qkutils.modes import AnyModel, decompose, provenance
from qkutils.scenes import KINDS, Scenes
from qkutils.passes import normalise, visit_layers

SIDES = ("query", "key")
NULLS = ("any", "leaning")
PAIRS = 10  # random pairs of directions for each mode, with its cosine
NAMED_ON = 6_000_000  # the world seed of the scenes that modes are named on; no model saw it
OF_SIDES = ("layer", "side", "head", "mode")
_DIMS = {
    "same": ("layer", "head", "mode"),
    "share_of": (*OF_SIDES, "family_name"),
    "p_random": ("layer", "null", *OF_SIDES[1:]),
    "random_same": ("layer", "head", "mode"),
    "random_share": ("layer", "null", "direction"),
    "random_share_of": ("layer", "null", "family_name"),
}

Tokens = Float[Tensor, "scene row column d_model"]
Directions = Float[Tensor, "direction d_model"]


@dataclass(frozen=True)
class Means:
    """The mean token of each label's patches, in one half of the scenes."""

    fine: Float[Tensor, "label d_model"]
    base: Float[Tensor, "coarse d_model"]


def _cells(
    label: Int[Tensor, " patch"], x: Float[Tensor, "patch d_model"], count: int
) -> tuple[Float[Tensor, "label d_model"], Float[Tensor, "label 1"]]:
    """Sum and number of the tokens with each label."""
    hot = torch.nn.functional.one_hot(label + 1, count + 1)[:, 1:].to(x)
    return hot.mT @ x, hot.sum(0)[:, None]


def means(labels: Labels, x: Tokens) -> Means:
    """Fits the mean of every label; zero, which is the mean of all, for a label not seen."""
    flat = x.flatten(0, 2)
    out = []
    for side, count in ((labels.fine, len(labels.names)), (labels.base, len(KINDS))):
        where = side.where(labels.fine >= 0, -1).flatten()
        total, number = _cells(where, flat, count)
        out.append(total / number.clamp(min=1))
    return Means(*out)


def explained(
    labels: Labels, fitted: Means, x: Tokens, directions: Directions
) -> Float[Tensor, " direction"]:
    """By how much the labels' fitted means lessen the squared error that their base's leave.

    It is that of the projections x·d, whose sums and means are the projections of the tokens'.
    """
    flat, where = x.flatten(0, 2), labels.fine.flatten()
    gain = torch.zeros(len(directions)).to(x)
    sides = ((labels.fine, fitted.fine, 1), (labels.base, fitted.base, -1))
    for side, mean, sign in sides:
        total, number = _cells(side.flatten().where(where >= 0, -1), flat, len(mean))
        total, mean = total @ directions.mT, mean @ directions.mT
        gain += sign * (2 * total * mean - number * mean.square()).sum(0)
    return gain


def shares(
    families: dict[str, Labels], x: Tokens, directions: Directions, fit: Bool[Tensor, " scene"]
) -> tuple[Float[Tensor, "family direction"], Float[Tensor, "family direction"]]:
    """Share of each projection's variance over patches that each family of labels explains.

    Means are fitted on the scenes `fit`, where the mean of x has to be zero.  The first result is
    of those scenes, the second of the others, which the fit has not seen: there a share can be
    below zero.
    """
    results = []
    for kept in (fit, ~fit):
        flat = x[kept].flatten(0, 2)
        whole = ((directions @ (flat.mT @ flat)) * directions).sum(1)
        gains = [
            explained(some(labels, kept), means(some(labels, fit), x[fit]), x[kept], directions)
            for labels in families.values()
        ]
        results.append(torch.stack(gains) / whole)
    return results[0], results[1]


def name_modes(
    model: AnyModel,
    count: int = 256,
    permutations: int = 199,
    directions: int = 20_000,
    seed: int = 0,
) -> xr.Dataset:
    """What of drawn scenes the query and key projections of every mode select, and how much of it.

    On the first half of `count` scenes each (layer, head, mode, side) gets the family of labels
    that explains most of its projection's variance over patches, and in it the labels with the
    `high`est and `low`est mean.  On the other half `share` says how much of the variance these
    means explain.  `p` compares it with labels of other scenes (see `misplaced`), `p_random` with
    what random directions reach by the same procedure: `any` in the space of the layer's normalised
    tokens, and `leaning` ones, random sums of tokens, which lie where tokens vary much, as the
    directions that matter do.  `q` and `q_random` control the rate of false discoveries over all
    modes and sides (Benjamini and Hochberg).  No p is below 1 / (n + 1) with n permutations or
    directions, so that with m tests none of q is below 0.05 unless about 20 m / n of them reach
    that.  `same` tells whether both sides of a mode have one name (family and high end), and
    `random_same` what share of random pairs of leaning directions with the mode's own cosine do,
    since directions that lie close together must agree.  Convention exact.  Raises ValueError for
    fewer than four scenes.  Taught in the chapter on mode galleries.
    """
    loaded = models.load(model)
    if count < 4 or permutations < 1 or directions < 1:
        raise ValueError(
            f"count={count}, permutations={permutations}, directions={directions}: at least four "
            "scenes, one permutation and one direction are needed"
        )
    world = scenes.make(NAMED_ON, 0, count, loaded.image_size[0])
    families = patch_labels(world, loaded.image_size[0] // loaded.grid[0])
    fit = torch.arange(count) < count // 2
    parts = decompose(loaded, "exact")
    generator = torch.Generator().manual_seed(seed)
    tokens = _tokens(loaded, world)
    found = []
    for layer in tqdm(range(len(tokens)), desc="layers"):
        sides = [torch.from_numpy(parts[k].values[layer]).flatten(0, 1) for k in ("u", "v")]
        x = tokens[layer] - tokens[layer][fit].mean((0, 1, 2))
        nulls = _random_directions(x[fit], directions, generator)
        by_chance = [_named(families, x, each, fit) for each in nulls]
        named = _name_layer(families, x, torch.cat(sides), fit, permutations, generator)
        cosine = torch.from_numpy(parts.cosine.values[layer]).flatten().float()
        named["random_same"] = _random_pairs(families, x, cosine, fit, generator)
        found.append(named | _beside(named["share"], by_chance))
    return _label(found, parts, provenance(read(loaded), "exact", "float32"), count)


def _tokens(model: Model, world: Scenes) -> list[Float[Tensor, "scene row column d_model"]]:
    """Every layer's normalised patch tokens; the scenes have the model's size, and no crop."""
    kept: list[list[Tensor]] = [[] for _ in model.net.blocks]
    eps = read(model).ln_eps

    def keep(layer: int, _: slice, x: Tensor) -> None:
        patches = normalise(x[:, model.prefix_tokens :].float(), eps)
        kept[layer].append(patches.unflatten(1, model.grid).cpu())

    visit_layers(model, model.transform.transforms[-1](world.image), keep)
    return [torch.cat(layer) for layer in kept]


def _random_directions(x: Tokens, count: int, generator: torch.Generator) -> list[Directions]:
    """Directions of any kind, and as many that lean to where the tokens vary (see NULLS)."""
    chance = torch.randn(2, count, x.shape[-1], generator=generator)
    # Gᵀx with one normal number per token has the distribution of GᵀR, R being that of x = QR.
    return [chance[0], chance[1] @ torch.linalg.qr(x.flatten(0, 2), mode="r").R]


def _named(
    families: dict[str, Labels], x: Tokens, directions: Directions, fit: Bool[Tensor, " scene"]
) -> tuple[
    Int[Tensor, " direction"], Float[Tensor, " direction"], Float[Tensor, "family direction"]
]:
    """Each direction's family, chosen on the scenes `fit`; its share, and all shares, on others."""
    inside, outside = shares(families, x, directions, fit)
    family = inside.argmax(0)
    return family, outside.gather(0, family[None])[0], outside


def _beside(share: np.ndarray, by_chance: Sequence[tuple[Tensor, ...]]) -> dict[str, np.ndarray]:
    """What random directions of each null reach, and how often they reach a direction's share."""
    reached = np.stack([(each[1].numpy()[:, None] >= share).sum(0) for each in by_chance])
    return {
        "p_random": (1 + reached) / (1 + len(by_chance[0][1])),
        "random_share": np.stack([each[1].numpy() for each in by_chance]),
        "random_share_of": np.stack([each[2].mean(1).numpy() for each in by_chance]),
    }


def _name_layer(
    families: dict[str, Labels],
    x: Tokens,
    directions: Directions,
    fit: Bool[Tensor, " scene"],
    permutations: int,
    generator: torch.Generator,
) -> dict[str, np.ndarray]:
    """Names of one layer's directions, and how often labels that mean nothing do as well."""
    family, share, outside = _named(families, x, directions, fit)
    p = torch.ones(len(directions))
    for of, labels, fitted in _by_family(families, family, x, fit):
        p[of] = _chance(
            some(labels, ~fit), fitted, x[~fit], directions[of], permutations, generator
        )
    high, low = _ends(families, x, directions, family, fit)
    return {
        "family": np.array(list(families), object)[family.numpy()],
        "high": high,
        "low": low,
        "same": _same(family.numpy(), high),
        "share": share.numpy(),
        "p": p.numpy(),
        "share_of": outside.T.numpy(),
    }


def _by_family(
    families: dict[str, Labels],
    family: Int[Tensor, " direction"],
    x: Tokens,
    fit: Bool[Tensor, " scene"],
) -> Iterator[tuple[Int[Tensor, " named"], Labels, Means]]:
    """Each family that names directions: which ones, its labels, and their means on `fit`."""
    for number, labels in enumerate(families.values()):
        of = (family == number).nonzero().flatten()
        if len(of) > 0:
            yield of, labels, means(some(labels, fit), x[fit])


def _ends(
    families: dict[str, Labels],
    x: Tokens,
    directions: Directions,
    family: Int[Tensor, " direction"],
    fit: Bool[Tensor, " scene"],
) -> tuple[np.ndarray, np.ndarray]:
    """The labels at both ends of each direction, in the family that names it."""
    high, low = np.empty(len(directions), object), np.empty(len(directions), object)
    for of, labels, fitted in _by_family(families, family, x, fit):
        high[of], low[of] = extremes(some(labels, fit), fitted, directions[of])
    return high, low


def _same(family: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whether the names of the first half of some directions are those of the second."""
    families, ends = np.split(family, 2), np.split(high, 2)
    return (families[0] == families[1]) & (ends[0] == ends[1])


def _random_pairs(
    families: dict[str, Labels],
    x: Tokens,
    cosine: Float[Tensor, " mode"],
    fit: Bool[Tensor, " scene"],
    generator: torch.Generator,
) -> np.ndarray:
    """Share of random leaning pairs with each mode's cosine whose directions have one name."""
    cosine = cosine.repeat(PAIRS)[:, None]
    _, leaning = _random_directions(x[fit], 2 * len(cosine), generator)
    first, other = torch.nn.functional.normalize(leaning, dim=-1).chunk(2)
    other = other - (other * first).sum(-1, keepdim=True) * first
    other = torch.nn.functional.normalize(other, dim=-1)
    both = torch.cat([first, cosine * first + (1 - cosine**2).clamp(min=0).sqrt() * other])
    family = _named(families, x, both, fit)[0]
    high, _ = _ends(families, x, both, family, fit)
    return _same(family.numpy(), high).reshape(PAIRS, -1).mean(0)


def _chance(
    labels: Labels,
    fitted: Means,
    x: Tokens,
    directions: Directions,
    permutations: int,
    generator: torch.Generator,
) -> Float[Tensor, " direction"]:
    """How often labels that mean nothing explain as much as the true ones do."""
    true, reached = explained(labels, fitted, x, directions), torch.ones(len(directions))
    for _ in range(permutations):
        reached += explained(misplaced(labels, generator), fitted, x, directions) >= true
    return reached / (permutations + 1)


def extremes(
    labels: Labels, fitted: Means, directions: Directions
) -> tuple[np.ndarray, np.ndarray]:
    """Names of the labels, among those seen, with the highest and the lowest mean over the base."""
    seen = torch.bincount(labels.fine.flatten() + 1, minlength=len(labels.names) + 1)[1:] > 0
    base_of = torch.zeros(len(labels.names), dtype=torch.int64)
    there = labels.fine >= 0
    base_of[labels.fine[there]] = labels.base[there]
    over = (fitted.fine - fitted.base[base_of]) @ directions.mT
    names = np.array(labels.names, object)
    high = over.where(seen[:, None], -torch.inf).argmax(0)
    low = over.where(seen[:, None], torch.inf).argmin(0)
    return names[high.numpy()], names[low.numpy()]


def _label(
    found: list[dict[str, np.ndarray]], parts: xr.Dataset, attributes: dict, count: int
) -> xr.Dataset:
    """All layers' names over (layer, head, mode, side), with both false discovery rates."""
    sizes = {d: parts.sizes[d] for d in ("layer", "head", "mode")}
    sizes |= {"side": 2, "null": len(NULLS), "family_name": len(FAMILIES), "direction": -1}
    fields: dict = {}
    for name in found[0]:
        dims = _DIMS.get(name, OF_SIDES)
        values = np.stack([layer[name] for layer in found])
        fields[name] = (dims, values.reshape([sizes[d] for d in dims]))
    shape = fields["p"][1].shape
    controlled = false_discovery_control(fields["p"][1].ravel()).reshape(shape)
    each = [false_discovery_control(fields["p_random"][1][:, n].ravel()) for n in range(len(NULLS))]
    fields["q"] = (OF_SIDES, controlled)
    fields["q_random"] = (("null", *OF_SIDES), np.stack(each).reshape(len(NULLS), *shape))
    coords: dict = {"side": list(SIDES), "family_name": list(FAMILIES), "null": list(NULLS)}
    coords |= {d: np.arange(parts.sizes[d]) for d in ("layer", "head", "mode")}
    labelled = xr.Dataset(fields, coords, attributes | {"scenes": count})
    return labelled.assign({k: parts[k] for k in ("sigma", "cosine")})

"""Names of modes by measurement: what in labelled pictures their queries and keys select."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control
from torch import Tensor
from tqdm import tqdm

from qkutils import models, options
from qkutils.models import AnyModel, Model
from qkutils.modes import decompose
from qkutils.passes import check_images, normalise, visit_layers
from qkutils.provenance import with_origin
from qkutils.studies._labels import Labels, misplaced, some

SIDES = ("query", "key")
NULLS = ("any", "leaning")
PAIRS = 10  # random pairs of directions for each mode, with its cosine
TOKEN_BYTES = 2**29  # of the tokens that are kept at once
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
    for side, count in ((labels.fine, len(labels.names)), (labels.base, labels.coarse)):
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


def extremes(
    labels: Labels, fitted: Means, directions: Directions
) -> tuple[np.ndarray, np.ndarray]:
    """Names of the labels, among those seen, with the highest and the lowest mean over the base."""
    seen = torch.bincount(labels.fine.flatten() + 1, minlength=len(labels.names) + 1)[1:] > 0
    base_of = labels.fine.new_zeros(len(labels.names))
    there = labels.fine >= 0
    base_of[labels.fine[there]] = labels.base[there]
    over = (fitted.fine - fitted.base[base_of]) @ directions.mT
    names = np.array(labels.names, object)
    high = over.where(seen[:, None], -torch.inf).argmax(0)
    low = over.where(seen[:, None], torch.inf).argmin(0)
    return names[high.cpu().numpy()], names[low.cpu().numpy()]


class Namer:
    """Names for directions of one layer, fitted on some of its scenes and tried on the others.

    `x`: tokens, whose mean over the scenes `fit` has to be zero.
    """

    def __init__(
        self, families: Mapping[str, Labels], x: Tokens, fit: Bool[Tensor, " scene"]
    ) -> None:
        self.families, self.x = tuple(families), (x[fit], x[~fit])
        self.labels = [
            (some(labels, fit).to(x.device), some(labels, ~fit).to(x.device))
            for labels in families.values()
        ]
        self.means = [means(labels, self.x[0]) for labels, _ in self.labels]

    def shares(
        self, directions: Directions
    ) -> tuple[Float[Tensor, "family direction"], Float[Tensor, "family direction"]]:
        """Share of each projection's variance over patches that each family of labels explains.

        On the scenes of the fit, and on the others, which it has not seen: there a share can be
        below zero.
        """
        results = []
        for half, x in enumerate(self.x):
            flat = x.flatten(0, 2)
            whole = ((directions @ (flat.mT @ flat)) * directions).sum(1)
            gains = [
                explained(labels[half], fitted, x, directions)
                for labels, fitted in zip(self.labels, self.means, strict=True)
            ]
            results.append(torch.stack(gains) / whole)
        return results[0], results[1]

    def named(
        self, directions: Directions
    ) -> tuple[
        Int[Tensor, " direction"], Float[Tensor, " direction"], Float[Tensor, "family direction"]
    ]:
        """Each direction's family, chosen by the fit; its share, and all shares, elsewhere."""
        inside, outside = self.shares(directions)
        family = inside.argmax(0)
        return family, outside.gather(0, family[None])[0], outside

    def ends(
        self, directions: Directions, family: Int[Tensor, " direction"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The labels at both ends of each direction, in the family that names it."""
        high, low = np.empty(len(directions), object), np.empty(len(directions), object)
        for of, number in self._of_each(family):
            labels, fitted = self.labels[number][0], self.means[number]
            high[of.cpu()], low[of.cpu()] = extremes(labels, fitted, directions[of])
        return high, low

    def chance(
        self,
        directions: Directions,
        family: Int[Tensor, " direction"],
        permutations: int,
        generator: torch.Generator,
    ) -> Float[Tensor, " direction"]:
        """How often labels that mean nothing explain as much as the true ones do."""
        reached = torch.ones(len(directions)).to(directions)
        for of, number in self._of_each(family):
            labels, fitted, some_of = self.labels[number][1], self.means[number], directions[of]
            true = explained(labels, fitted, self.x[1], some_of)
            for _ in range(permutations):
                other = misplaced(labels, generator)
                reached[of] += explained(other, fitted, self.x[1], some_of) >= true
        return reached / (permutations + 1)

    def _of_each(self, family: Int[Tensor, " direction"]) -> Iterator[tuple[Tensor, int]]:
        """Which directions each family names, and its number, where it names any."""
        for number in family.unique().tolist():
            yield (family == number).nonzero().flatten(), number

    def at_random(self, count: int, generator: torch.Generator) -> list[Directions]:
        """Directions of any kind, and as many that lean to where the tokens vary (see NULLS)."""
        x = self.x[0]
        chance = torch.randn(2, count, x.shape[-1], generator=generator).to(x)
        # Gᵀx with one normal number per token has the distribution of GᵀR, R being that of x = QR.
        return [chance[0], chance[1] @ torch.linalg.qr(x.flatten(0, 2), mode="r").R]

    def random_pairs(
        self, cosine: Float[Tensor, " mode"], generator: torch.Generator
    ) -> np.ndarray:
        """Share of random leaning pairs with each mode's cosine whose directions have one name."""
        cosine = cosine.repeat(PAIRS)[:, None]
        _, leaning = self.at_random(2 * len(cosine), generator)
        first, other = torch.nn.functional.normalize(leaning, dim=-1).chunk(2)
        other = other - (other * first).sum(-1, keepdim=True) * first
        other = torch.nn.functional.normalize(other, dim=-1)
        both = torch.cat([first, cosine * first + (1 - cosine**2).clamp(min=0).sqrt() * other])
        family = self.named(both)[0]
        return same_names(family, self.ends(both, family)[0]).reshape(PAIRS, -1).mean(0)


def same_names(family: Int[Tensor, " direction"], high: np.ndarray) -> np.ndarray:
    """Whether the names of the first half of some directions are those of the second."""
    families, ends = np.split(family.cpu().numpy(), 2), np.split(high, 2)
    return (families[0] == families[1]) & (ends[0] == ends[1])


def names(
    model: AnyModel,
    images: Float[Tensor, "image channel height width"],
    families: Mapping[str, Labels],
    *,
    permutations: int = 199,
    directions: int = 20_000,
    seed: int = 0,
) -> xr.Dataset:
    """Name every mode by what its query and key projections select in labelled pictures.

    The first half of the pictures chooses the names, and the other half tests them.  Each side of
    a mode gets the family of labels that explains most of its projection's variance over patches.
    In that family it gets the labels with the highest and the lowest mean.  Modes are those of the
    exact convention.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    images
        At least four pictures, as the model takes them.
    families
        Labels of every patch, by the name of what they tell; `world.labelled` gives those of drawn
        scenes.
    permutations
        How often labels of other pictures are tried.
    directions
        How many random directions are tried, of each kind.
    seed
        Where the random generator begins.

    Returns
    -------
    xr.Dataset
        Over (layer, side, head, mode): the name, which is the `family` and its labels `high` and
        `low`; `share`, the part of the variance that the labels' means explain on the other half;
        and the tests `p` and `q`.  `share_of` has the share of each family, over `family_name`
        too.

        `p` compares the share with labels of other pictures.  `p_random` compares it with what
        random directions reach by the same procedure, over `null` too.  The null `any` draws
        directions in the space of the layer's normalised tokens.  `leaning` ones are random sums
        of tokens: like the directions that matter, they lie where tokens vary much.
        `random_share` has the shares of the random directions, and `random_share_of` their means
        per family.

        `q` and `q_random` control the rate of false discoveries over all modes and sides
        (Benjamini and Hochberg).  With n permutations or directions no p is below 1 / (n + 1).
        With m tests none of q is therefore below 0.05, unless about 20 m / n of the p reach that
        least value.

        `same`, over (layer, head, mode), tells whether both sides have one name: family and high
        end.  Directions that lie close together must agree.  `random_same` is the share of random
        pairs of leaning directions, with the mode's own cosine, that have one name.

    Raises
    ------
    ValueError
        For fewer than four pictures, and for labels of other pictures or another patch grid.

    Examples
    --------
    >>> import qkutils as qk
    >>> model = qk.load("tiny-supervised")
    >>> images, families = qk.world.labelled(model, 8)
    >>> chosen = {"kind": families["kind"], "colour": families["colour"]}
    >>> found = qk.studies.names(model, images, chosen, permutations=9, directions=50)
    >>> dict(found.share.sizes)
    {'layer': 8, 'side': 2, 'head': 4, 'mode': 24}
    >>> set(found.family.values.ravel()) <= set(chosen)
    True
    """
    seed = options.seed(seed)
    permutations = options.count("permutations", permutations)
    directions = options.count("directions", directions)
    loaded = models.load(model)
    _check(loaded, images, families)
    count = len(images)
    fit = torch.arange(count) < count // 2
    parts = decompose(loaded, convention="exact")
    generator = torch.Generator().manual_seed(seed)
    found = []
    for layer, x in enumerate(tqdm(_tokens(loaded, images), "layers", parts.sizes["layer"])):
        namer = Namer(families, x - x[fit].mean((0, 1, 2)), fit)
        of_layer = parts[["u", "v", "cosine"]].isel(layer=layer)
        found.append(_name_layer(namer, of_layer, permutations, directions, generator))
    labelled = _label(found, parts, tuple(families))
    return with_origin(labelled, loaded, "exact", "float32", scenes=count)


def _check(model: Model, images: Tensor, families: Mapping[str, Labels]) -> None:
    """Raise ValueError for pictures and labels that do not belong together."""
    check_images(model, images)
    options.count("number of images", len(images), 4)
    for name, labels in families.items():
        if tuple(labels.fine.shape) != (len(images), *model.grid):
            raise ValueError(
                f"families[{name!r}]: labels of shape {tuple(labels.fine.shape)}, but there are "
                f"{len(images)} images of {model.grid[0]} × {model.grid[1]} patches"
            )


def _tokens(model: Model, images: Tensor) -> Iterator[Tokens]:
    """Layer by layer the normalised patch tokens.

    A pass keeps the tokens of as many layers as `TOKEN_BYTES` hold; a large model needs several.
    """
    heads = model.heads
    layers, _, _, d_model = heads.w_q.shape
    patches = model.grid[0] * model.grid[1]
    at_once = max(1, TOKEN_BYTES // (4 * len(images) * patches * d_model))
    for first in range(0, layers, at_once):
        wanted = range(first, min(first + at_once, layers))
        kept: dict[int, list[Tensor]] = {layer: [] for layer in wanted}

        def keep(layer: int, _: slice, x: Tensor, kept: dict = kept) -> None:
            if layer in kept:
                own = normalise(x[:, model.prefix_tokens :].float(), heads.ln_eps)
                kept[layer].append(own.unflatten(1, model.grid))

        visit_layers(model, images, keep)
        yield from (torch.cat(kept.pop(layer)) for layer in wanted)


def _name_layer(
    namer: Namer,
    modes: xr.Dataset,
    permutations: int,
    directions: int,
    generator: torch.Generator,
) -> dict[str, np.ndarray]:
    """Names of one layer's modes, and how often labels or directions of chance do as well."""
    by_chance = [namer.named(each)[1:] for each in namer.at_random(directions, generator)]
    sides = (torch.from_numpy(modes[side].values).flatten(0, 1) for side in ("u", "v"))
    own = torch.cat(list(sides)).to(namer.x[0])
    cosine = torch.from_numpy(modes.cosine.values).flatten().to(own)
    family, share, outside = namer.named(own)
    p = namer.chance(own, family, permutations, generator)
    high, low = namer.ends(own, family)
    return {
        "family": np.array(namer.families, object)[family.cpu().numpy()],
        "high": high,
        "low": low,
        "same": same_names(family, high),
        "share": share.cpu().numpy(),
        "p": p.cpu().numpy(),
        "share_of": outside.T.cpu().numpy(),
        "random_same": namer.random_pairs(cosine, generator),
        "p_random": np.stack([_reached(of, share) for of, _ in by_chance]),
        "random_share": np.stack([of.cpu().numpy() for of, _ in by_chance]),
        "random_share_of": np.stack([all_of.mean(1).cpu().numpy() for _, all_of in by_chance]),
    }


def _reached(
    by_chance: Float[Tensor, " random"], share: Float[Tensor, " direction"]
) -> Float[np.ndarray, " direction"]:
    """How often random directions reach each direction's share; itself counts as one."""
    below = torch.searchsorted(by_chance.sort().values, share)
    return (1 + len(by_chance) - below.cpu().numpy()) / (1 + len(by_chance))


def _label(
    found: list[dict[str, np.ndarray]], parts: xr.Dataset, families: tuple[str, ...]
) -> xr.Dataset:
    """All layers' names over (layer, head, mode, side), with both false discovery rates."""
    sizes = {d: parts.sizes[d] for d in ("layer", "head", "mode")}
    sizes |= {"side": 2, "null": len(NULLS), "family_name": len(families), "direction": -1}
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
    coords: dict = {"side": list(SIDES), "family_name": list(families), "null": list(NULLS)}
    coords |= {d: np.arange(parts.sizes[d]) for d in ("layer", "head", "mode")}
    return xr.Dataset(fields, coords).assign({k: parts[k] for k in ("sigma", "cosine")})

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
from torch.nn.functional import normalize, one_hot
from tqdm import tqdm

from qkutils import models, options
from qkutils.models import AnyModel, Model
from qkutils.modes import decompose
from qkutils.passes import check_images, normalise, visit_layers
from qkutils.provenance import with_origin

SIDES = ("query", "key")
NULLS = ("any", "leaning")
PAIRS = 10  # random pairs of directions for each mode, with its cosine
TOKEN_BYTES = 2**29  # of the tokens that are kept at once
OF_MODES = ("head", "mode")
OF_SIDES = ("side", *OF_MODES)

Tokens = Float[Tensor, "scene row column d_model"]
Directions = Float[Tensor, "direction d_model"]
PerDirection = Float[Tensor, " direction"]
FamilyOf = Int[Tensor, " direction"]
Cells = tuple[Float[Tensor, "label d_model"], Float[Tensor, "label 1"]]
Means = Float[Tensor, "2 label d_model"]
LabelMaps = Int[Tensor, "scene row column"]


@dataclass(frozen=True)
class Labels:
    """A label for every patch of every scene, −1 for none, beside the coarser one it refines."""

    names: tuple[str, ...]
    fine: LabelMaps
    base: LabelMaps
    coarse: int  # how many coarser labels there are


Families = Mapping[str, Labels]


def misplaced(fine: LabelMaps, generator: torch.Generator) -> LabelMaps:
    """The labels of other scenes at the same places: the same labels, which mean nothing here.

    A scene's labels stay together, so that the patches of one object do not count as many cases,
    and where they stand stays, so that a projection of mere place gains nothing.  Places, which are
    alike in all scenes, are moved round the grid instead, in each scene by another step.
    """
    count, rows, columns = fine.shape
    if (fine != fine[:1]).any():
        return fine[torch.randperm(count, generator=generator)]
    down, right = (torch.randint(n, (count, 1, 1), generator=generator) for n in (rows, columns))
    row = (torch.arange(rows)[:, None] + down) % rows
    column = (torch.arange(columns) + right) % columns
    return fine[torch.arange(count)[:, None, None], row, column]


def cells(fine: LabelMaps, x: Tokens, count: int) -> Cells:
    """Sum and number of the tokens with each label."""
    hot = one_hot(fine.flatten() + 1, count + 1)[:, 1:].to(x)
    return hot.mT @ x.flatten(0, 2), hot.sum(0)[:, None]


def means(labels: Labels, of: Cells) -> Means:
    """The mean of every label, and of its base; zero, the mean of all, for one not seen."""
    there = labels.fine >= 0
    base = labels.base.new_zeros(len(labels.names))
    base[labels.fine[there]] = labels.base[there]
    alike = (base[:, None] == base).to(of[0])
    return torch.stack([t / n.clamp(min=1) for t, n in (of, [alike @ each for each in of])])


def explained(of: Cells, fitted: Means, directions: Directions) -> PerDirection:
    """By how much the labels' fitted means lessen the squared error that their base's leave.

    It is that of the projections x·d, whose sums and means are the projections of the tokens'.
    """
    total, number = of[0] @ directions.mT, of[1]
    fine, base = fitted @ directions.mT
    return (2 * total * (fine - base) - number * (fine.square() - base.square())).sum(0)


class Namer:
    """Names for directions of one layer, fitted on some of its scenes and tried on the others.

    `x`: tokens, whose mean over the scenes `fit` has to be zero.
    """

    def __init__(self, families: Families, x: Tokens, fit: Bool[Tensor, " scene"]) -> None:
        self.families, self.x, halves = [*families.values()], (x[fit], x[~fit]), (fit, ~fit)
        self.names = np.array([*families], object)
        self.cells = [
            [cells(of.fine[half].to(x.device), x[half], len(of.names)) for of in self.families]
            for half in halves
        ]
        self.means = [means(*each) for each in zip(self.families, self.cells[0], strict=True)]
        self.tried = [of.fine[~fit].to(x.device) for of in self.families]

    def shares(self, directions: Directions) -> list[Float[Tensor, "family direction"]]:
        """Share of each projection's variance over patches that each family of labels explains.

        On the scenes of the fit, and on the others, which it has not seen: there a share can be
        below zero.
        """
        results = []
        for x, of in zip(self.x, self.cells, strict=True):
            flat = x.flatten(0, 2)
            whole = ((directions @ (flat.mT @ flat)) * directions).sum(1)
            both = zip(of, self.means, strict=True)
            results.append(torch.stack([explained(*each, directions) for each in both]) / whole)
        return results

    def named(
        self, directions: Directions
    ) -> tuple[FamilyOf, PerDirection, Float[Tensor, "family direction"]]:
        """Each direction's family, chosen by the fit; its share, and all shares, elsewhere."""
        inside, outside = self.shares(directions)
        family = inside.argmax(0)
        return family, outside.gather(0, family[None])[0], outside

    def ends(self, directions: Directions, family: FamilyOf) -> tuple[np.ndarray, np.ndarray]:
        """The labels with the highest and the lowest mean over the base, in the naming family."""
        high, low = np.empty((2, len(directions)), object)
        for number in family.unique().tolist():
            of, names = family == number, np.array(self.families[number].names, object)
            fine, base = self.means[number] @ directions[of].mT
            over, seen, where = fine - base, self.cells[0][number][1] > 0, of.cpu().numpy()
            high[where] = names[over.where(seen, -torch.inf).argmax(0).cpu().numpy()]
            low[where] = names[over.where(seen, torch.inf).argmin(0).cpu().numpy()]
        return high, low

    def chance(
        self, directions: Directions, family: FamilyOf, count: int, generator: torch.Generator
    ) -> PerDirection:
        """How often labels that mean nothing explain as much as the true ones do."""
        reached = torch.ones(len(directions)).to(directions)
        for number in family.unique().tolist():
            of, fitted, fine = family == number, self.means[number], self.tried[number]
            true = explained(self.cells[1][number], fitted, directions[of])
            for _ in range(count):
                other = cells(misplaced(fine, generator), self.x[1], fitted.shape[1])
                reached[of] += explained(other, fitted, directions[of]) >= true
        return reached / (count + 1)

    def reachable(self) -> Float[Tensor, " family"]:
        """The share that each family reaches elsewhere along its best direction of the fit."""
        flat = self.x[0].flatten(0, 2)
        values, vectors = torch.linalg.eigh(flat.mT @ flat)
        seen = values > values[-1] * flat.shape[1] * torch.finfo(flat.dtype).eps
        whiten = vectors[:, seen] / values[seen].sqrt()
        best = []
        for (_, number), fitted in zip(self.cells[0], self.means, strict=True):
            fine, base = (number.sqrt() * means @ whiten for means in fitted)
            best.append(whiten @ torch.linalg.eigh(fine.mT @ fine - base.mT @ base)[1][:, -1])
        return self.shares(torch.stack(best))[1].diagonal()

    def at_random(self, count: int, generator: torch.Generator) -> Tensor:
        """Directions of any kind, and as many that lean to where the tokens vary (see NULLS)."""
        x = self.x[0]
        chance = torch.randn(2, count, x.shape[-1], generator=generator).to(x)
        # Gᵀx with one normal number per token has the distribution of GᵀR, R being that of x = QR.
        chance[1] = chance[1] @ torch.linalg.qr(x.flatten(0, 2), mode="r").R
        return chance

    def random_pairs(self, cosine: PerDirection, generator: torch.Generator) -> np.ndarray:
        """Share of random leaning pairs with each mode's cosine whose directions have one name."""
        cosine = cosine.repeat(PAIRS)[:, None]
        _, leaning = self.at_random(2 * len(cosine), generator)
        first, other = normalize(leaning, dim=-1).chunk(2)
        other = normalize(other - (other * first).sum(-1, keepdim=True) * first, dim=-1)
        both = torch.cat([first, cosine * first + (1 - cosine**2).clamp(min=0).sqrt() * other])
        family = self.named(both)[0]
        return same_names(family, self.ends(both, family)[0]).reshape(PAIRS, -1).mean(0)


def same_names(family: FamilyOf, high: np.ndarray) -> np.ndarray:
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
        too.  `reachable`, over (layer, family_name), is the share of the direction that is best for
        the family on the first half, whether or not any mode lies along it.

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
    fit = torch.arange(len(images)) < len(images) // 2
    parts = decompose(loaded)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for layer, x in enumerate(tqdm(_tokens(loaded, images), "layers", parts.sizes["layer"])):
        namer, modes = Namer(families, x - x[fit].mean((0, 1, 2)), fit), parts.isel(layer=layer)
        found.append(_name_layer(namer, modes, permutations, directions, generator))
    labelled = _label(found, parts, list(families))
    return with_origin(labelled, loaded, "exact", "float32", scenes=len(images))


def _check(model: Model, images: Tensor, families: Families) -> None:
    """Raise ValueError for pictures and labels that do not belong together."""
    check_images(model, images)
    options.count("number of images", len(images), 4)
    wanted = (len(images), *model.grid)
    for name, labels in families.items():
        shape = tuple(labels.fine.shape)
        if shape != wanted:
            raise ValueError(f"families[{name!r}]: labels of shape {shape}; {wanted} is needed")
        pairs = torch.stack([labels.fine, labels.base])[:, labels.fine >= 0].unique(dim=1)
        if len(pairs[0].unique()) < pairs.shape[1]:
            raise ValueError(f"families[{name!r}]: a label has several bases; it needs one")


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
    namer: Namer, modes: xr.Dataset, permutations: int, directions: int, generator: torch.Generator
) -> xr.Dataset:
    """Names of one layer's modes, and how often labels or directions of chance do as well."""
    _, by_chance, of_families = namer.named(namer.at_random(directions, generator).flatten(0, 1))
    by_chance = by_chance.view(len(NULLS), -1)
    own = torch.from_numpy(np.stack([modes.u, modes.v])).flatten(0, 2).to(namer.x[0])
    cosine = torch.from_numpy(modes.cosine.values).flatten().to(own)
    family, share, outside = namer.named(own)
    high, low = namer.ends(own, family)
    found = {
        "family": (OF_SIDES, namer.names[family.cpu().numpy()]),
        "high": (OF_SIDES, high),
        "low": (OF_SIDES, low),
        "same": (OF_MODES, same_names(family, high)),
        "share": (OF_SIDES, share),
        "p": (OF_SIDES, namer.chance(own, family, permutations, generator)),
        "share_of": ((*OF_SIDES, "family_name"), outside.mT),
        "p_random": (("null", *OF_SIDES), torch.stack([_reached(e, share) for e in by_chance])),
        "random_same": (OF_MODES, namer.random_pairs(cosine, generator)),
        "random_share": (("null", "direction"), by_chance),
        "reachable": (("family_name",), namer.reachable()),
        "random_share_of": (
            ("null", "family_name"),
            of_families.unflatten(1, by_chance.shape).mean(-1).mT,
        ),
    }
    fields, sizes = {}, {"null": len(NULLS), "side": len(SIDES), **modes.cosine.sizes}
    for name, (dims, values) in found.items():
        array = values.cpu().numpy() if isinstance(values, Tensor) else values
        fields[name] = (dims, array.reshape([sizes.get(dim, -1) for dim in dims]))
    return xr.Dataset(fields)


def _reached(by_chance: Float[Tensor, " random"], share: PerDirection) -> PerDirection:
    """How often random directions reach each direction's share; itself counts as one."""
    below = torch.searchsorted(by_chance.sort().values, share)
    return (1 + len(by_chance) - below.double()) / (1 + len(by_chance))


def _label(found: list[xr.Dataset], parts: xr.Dataset, families: list[str]) -> xr.Dataset:
    """All layers' names, with both false discovery rates."""
    coords = {"side": list(SIDES), "family_name": families, "null": list(NULLS)}
    named = xr.concat(found, parts.layer).assign_coords(coords | dict(parts.cosine.coords))
    for name, first in (("", ()), ("_random", ("null",))):
        p = named[f"p{name}"].transpose(*first, "layer", *OF_SIDES)
        tests = p.values.reshape(-1, named.p.size)
        named[f"q{name}"] = p.copy(data=false_discovery_control(tests, axis=1).reshape(p.shape))
    return named.assign({name: parts[name] for name in ("sigma", "cosine")})

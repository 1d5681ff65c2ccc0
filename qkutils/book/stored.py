"""Stored results: small tables, with provenance, of models that are not at hand.

`qkutils store MODEL` writes them, and `read` reads them.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterable, Sequence
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from PIL.Image import Image
from scipy import special, stats
from tqdm import tqdm

from qkutils import atlas, datasets, options, pictures, statistics, store, studies, world
from qkutils.attention import Images, compare_attention
from qkutils.heads import CONVENTIONS
from qkutils.models import Model
from qkutils.modes import decompose, null_band, null_of_layers
from qkutils.provenance import ORIGIN
from qkutils.records import Samples, Segmentations

# What a table of each kind runs over.
KINDS = {
    "modes": ("convention", "layer", "head", "mode"),
    "null_band": ("convention", "layer"),
    "salience": ("removed", "layer"),
    "preference": ("set", "relation", "layer"),
    "same_object": ("of", "layer", "head"),
    "grouping": ("of", "matching", "layer", "head"),
    "grouping_references": ("of", "matching"),
    "few_modes": ("basis", "count", "layer"),
    "causes": ("of", "layer", "head", "number"),
}
# Of the first two `stored_maps` knows, of the others `stored_views`.
MAPS = ("photographs", "taken_apart", "mode_browser", "one_image")
SCENES = 5_000_000  # drawn scenes that no model was trained on, and no mode was named on
QUESTIONS = {"kind": world.KINDS, "colour": world.COLOURS, "odd factor": world.ODD_FACTORS}
SHARES = ("share", "null_share", "share_others", "null_share_others")
CONTRAST = "same − different"  # a further relation: what the first gets more than the second
FOLDER = Path(str(resources.files("qkutils.book").joinpath("results")))
SHOWN_BY_PAPER = 6  # modes of a head, in figure 5
TENSORS = tomllib.loads(FOLDER.with_name("origins.toml").read_text("utf-8"))
_REMOVED = {"all": (), "bias": ("shift",)}  # what is left out of κ, and what is then kept


def names(kind: str = "modes") -> list[str]:
    """List the models with stored results of a kind.

    Parameters
    ----------
    kind
        One of `KINDS`; of `stored_maps`, `photographs` or `taken_apart`; of `stored_views`,
        `mode_browser` or `one_image`.

    Returns
    -------
    list[str]
        Names of models, in alphabetical order.

    Raises
    ------
    ValueError
        For an unknown kind.

    Examples
    --------
    >>> from qkutils.book import stored
    >>> "deit_tiny_patch16_224.fb_in1k" in stored.names("modes")
    True
    """
    options.choice("kind", kind, (*KINDS, *MAPS))
    return sorted(path.name.removesuffix(_end(kind)) for path in FOLDER.glob(f"*{_end(kind)}"))


def _end(kind: str) -> str:
    return f".{kind}.nc" if kind in MAPS else f".{kind}.csv"


def file_of(kind: str, name: str) -> Path:
    """What is stored of a kind of a model; raises FileNotFoundError where nothing is."""
    if name not in (there := names(kind)):
        told = f"no stored {kind} of {name!r}; of {', '.join(there) or 'no model'} there are"
        raise FileNotFoundError(f"{told}; `qkutils store {name}` computes them from its weights")
    return FOLDER / f"{name}{_end(kind)}"


def read(kind: str, name: str) -> xr.Dataset:
    """Read a stored table of a model.

    Parameters
    ----------
    kind
        - `modes`: `sigma` and `cosine` over (convention, layer, head, mode).
        - `null_band`: `null_band` over (convention, layer): see `modes.null_band`.
        - `salience`: `total_variation` over (removed, layer), a mean.  It says how far attention
          moves when κ (`removed` is `all`), or its part from the query bias (`bias`), is left out.
        - `preference`: shares of attention by relation, and their null, as means over heads:
          `share`, `null_share`, `share_others`, `null_share_others` and `area` over (set, relation,
          layer); and the excess without the asking patch, `estimate`, `low` and `high`, with its
          interval over samples.  A last relation is `same − different`.
        - `same_object`: `estimate`, `low` and `high` over (of, layer, head) of the probability that
          a mode's queries and keys prefer one object: see `studies.probability`.
        - `grouping`: `estimate`, `low` and `high` over (of, matching, layer, head) of attention on
          patches of the same segment less that on different ones: see `studies.grouping`.  `of`
          says where: on their own picture, in the null, or the excess.
        - `grouping_references`: the same excess over (of, matching), of attention that follows
          segments or colours: see `studies.grouping_references`.
        - `few_modes`: `estimate`, `low` and `high` over (basis, count, layer) of the attention that
          lies elsewhere with a head's first modes alone: see `studies.few_modes`.
        - `causes`: what a model loses where one direction of a head's queries is removed, over (of,
          layer, head, number).  `of` is `mode`, or `random` for random directions of the head.
          `kind`, `colour` and `odd factor` are what its accuracy loses, `loss` what its
          cross-entropy gains; `moved` and `taken` are those of `studies.removal`.  Modes have their
          `sigma`, `cosine`, carried share `carried`, explained share `share` (mean of both sides)
          and the `family` of their query's name.

        The head `all` is the mean over heads, the layer `all` that over layers, each with its own
        interval.
    name
        One of `names(kind)`.

    Returns
    -------
    xr.Dataset
        The table, with its provenance.

    Raises
    ------
    ValueError
        For an unknown kind.
    FileNotFoundError
        For a model without such a table.

    Examples
    --------
    >>> from qkutils.book import stored
    >>> dict(stored.read("modes", "deit_tiny_patch16_224.fb_in1k").sizes)
    {'convention': 2, 'layer': 12, 'head': 3, 'mode': 64}
    >>> stored.read("same_object", "deit_tiny_patch16_224.fb_in1k")["head"].values.tolist()
    ['0', '1', '2', 'all']
    """
    path = file_of(kind, name)
    with path.open(encoding="utf-8") as file:
        lines = [line[2:].partition(":") for line in file if line.startswith("# ")]
    table = pd.read_csv(path, comment="#", index_col=list(KINDS[kind]))
    said = {key: value.strip() for key, _, value in lines}
    return table.to_xarray().assign_attrs(said, tensors=TENSORS.get(name, ""))


def chosen(kind: str, models: Sequence[str] = ()) -> dict[str, xr.Dataset]:
    """Read the stored tables of the models that a comparison names.

    Parameters
    ----------
    kind
        As for `read`.
    models
        Their names.  Of a model without such a table there is none in the result.  Where none of
        the models has one, and without names, the tables of all models are read.

    Returns
    -------
    dict
        Tables by the models' names.

    Examples
    --------
    >>> from qkutils.book import stored
    >>> list(stored.chosen("modes", ["tiny-dino", "deit_tiny_patch16_224.fb_in1k"]))
    ['deit_tiny_patch16_224.fb_in1k']
    """
    there = names(kind)
    wanted = [name for name in there if name in models]
    return {name: read(kind, name) for name in wanted or there}


def tensors(tables: Iterable[str]) -> str:
    """Say where the tensors behind stored tables come from: a text for under a figure.

    Parameters
    ----------
    tables
        The models, by name; or their tables, as `chosen` gives them.

    Returns
    -------
    str
        A sentence or two for each model of which something has to be said.

    Examples
    --------
    >>> from qkutils.book import stored
    >>> stored.tensors(["tiny-dino", "deit_tiny_patch16_224.fb_in1k"])
    'deit_tiny_patch16_224.fb_in1k: As timm distributes them.'
    """
    return " ".join(f"{name}: {TENSORS[name]}" for name in tables if name in TENSORS)


def trend(name: str) -> xr.Dataset:
    """Compute from stored tables what `modes.trend` gives for a model at hand.

    Parameters
    ----------
    name
        One of `names("null_band")`.

    Returns
    -------
    xr.Dataset
        `weighted_cosine` over (convention, layer, head) and `null` over (convention, layer), with
        the provenance of the stored modes.

    Raises
    ------
    FileNotFoundError
        For a model without these tables.

    Examples
    --------
    >>> from qkutils.book import stored
    >>> found = stored.trend("deit_tiny_patch16_224.fb_in1k").sel(convention="paper", layer=11)
    >>> float(found.weighted_cosine.mean()).__round__(2), float(found.null).__round__(3)
    (0.47, 0.012)
    """
    modes, band = read("modes", name), read("null_band", name)
    weighted = modes.cosine.weighted(modes.sigma).mean("mode")
    width = band.null_band.assign_coords(level=float(band.attrs["level"]))
    null = null_of_layers(modes.sigma, width)
    found = xr.Dataset({"weighted_cosine": weighted, "null": null}, attrs=modes.attrs)
    return found.sel(convention=list(CONVENTIONS))  # a table has them in alphabetical order


def _write(folder: Path, kind: str, table: xr.Dataset, origin: Any, said: dict[str, Any]) -> Path:
    """Writes a table under what is known of its weights, its code and its date; returns where."""
    weights = {key: str(origin[key].values) for key in ORIGIN if origin[key].ndim == 0}
    code = {key: origin.attrs[key] for key in ("dtype", "code_version")}
    facts = weights | code | {"computed": date.today().isoformat()} | said
    lines = "".join(f"# {key}: {value}\n" for key, value in facts.items())
    rows = table.to_dataframe(dim_order=list(KINDS[kind]))[list(table)].dropna(how="all")
    text = rows.to_csv(float_format="%.7g", quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    return store.write(folder / f"{weights['model']}.{kind}.csv", lines + text)


def store_modes(model: Model, folder: Path = FOLDER) -> Path:
    """Computes and stores the σ and cosines of a model's modes in both conventions."""
    parts = [decompose(model, convention=each)[["sigma", "cosine"]] for each in CONVENTIONS]
    both = xr.concat(parts, "convention", combine_attrs="drop_conflicts")
    return _write(folder, "modes", both, both, {})


def store_null_band(model: Model, folder: Path = FOLDER) -> Path:
    """Computes and stores how far cosines of random directions reach, in both conventions."""
    bands = [null_band(model, convention=each) for each in CONVENTIONS]
    both = xr.concat(bands, "convention", combine_attrs="drop_conflicts")
    said = {"level": float(both.level)}
    return _write(folder, "null_band", both.to_dataset(promote_attrs=True), both, said)


def store_salience(model: Model, source: str, count: int, folder: Path = FOLDER) -> Path:
    """Computes and stores how much attention moves, per layer, when parts of κ are left out.

    `source` is a folder, or "" for drawn scenes.
    """
    drawn = world.pictures(0, 0, count, size=model.image_size[0])
    given = pictures.images(source or drawn, model, count)
    removed, moved = pd.Index(_REMOVED, name="removed"), []
    for batch in tqdm(given.split(4), desc="images"):
        rest = [compare_attention(model, batch, salience=kept) for kept in _REMOVED.values()]
        moved.append(xr.concat([each.total_variation for each in rest], removed))
    table = xr.concat(moved, "image").mean(["image", "head", "query"])
    what = f"{len(given)} scenes of the embedded world"
    if source:
        what = f"{len(given)} files spread evenly over {Path(source).resolve().name}"
    named = table.to_dataset(name="total_variation")
    return _write(folder, "salience", named, rest[0], {"images": what})


def store_preference(
    model: Model, sets: dict[str, Samples], null_images: Sequence[Image], folder: Path = FOLDER
) -> Path:
    """Computes and stores shares by relation, and their null, on several sets of samples.

    A set of one sample has its null on `null_images`; the others have theirs among themselves.
    """
    tables, said = [], []
    for name, samples in sets.items():
        laid_on = null_images if len(samples) == 1 else ()
        tables.append(preference(model, samples, laid_on))
        null = f"null on {len(laid_on)} photographs" if laid_on else "null among themselves"
        said.append(f"{name}: n = {tables[-1].attrs['count']}, {null}")
    table = xr.concat(tables, pd.Index(sets, name="set"))
    return _write(folder, "preference", table, table, {"sets": "; ".join(said)})


def preference(model: Model, samples: Samples, null_images: Sequence[Image] = ()) -> xr.Dataset:
    """Computes what `read` gives as `preference`, of one set; `count` in its attributes says n."""
    found = studies.odd_one_out(model, samples, null_images=null_images)
    means = {f: _contrasted(found[f]).mean(["image", "head"]) for f in SHARES}
    area = _contrasted(found.area.mean("image").expand_dims(query=found["query"]))
    excess = _contrasted(studies.share_excess(found)).mean("head")
    one = statistics.interval(excess.mean("image"), np.nan, np.nan)
    judged = one if len(samples) == 1 else statistics.bootstrap(excess)
    table = judged.assign(means | {"area": area})
    return table.assign_attrs(found.attrs | {"count": found.sizes["image"]})


def _contrasted(values: xr.DataArray) -> xr.DataArray:
    """Values by relation, and the contrast of the first two as a further one."""
    related = studies.relations(values)
    contrast = related.sel(relation="same") - related.sel(relation="different")
    return xr.concat([related, contrast.expand_dims(relation=[CONTRAST])], "relation")


def store_same_object(
    model: Model, segmentations: Segmentations, source: str, folder: Path = FOLDER
) -> Path:
    """Computes and stores whether modes' queries and keys prefer one object, with intervals."""
    found = studies.same_object(model, segmentations, convention="paper")
    parts = [studies.probability(found), studies.probability(found, ["head"])]
    return _write_intervals(folder, "same_object", parts, parts[0], source)


def store_grouping(
    model: Model, segmentations: Segmentations, source: str, folder: Path = FOLDER
) -> Path:
    """Computes and stores attention within and across people's segments, with intervals."""
    found = studies.grouping(model, segmentations)
    differences = {
        "own picture": found.same - found.different,
        "other pictures": found.null_same - found.null_different,
        "excess": studies.grouping_excess(found),
    }
    values = xr.concat(list(differences.values()), pd.Index(differences, name="of"))
    parts = [statistics.bootstrap(each) for each in (values, values.mean("head"))]
    return _write_intervals(folder, "grouping", parts, found, source)


def store_grouping_references(
    model: Model, segmentations: Segmentations, source: str, folder: Path = FOLDER
) -> Path:
    """Computes and stores what attention by segments or by colour alone scores, with intervals."""
    found = studies.grouping_references(model, segmentations)
    table = statistics.bootstrap(studies.grouping_excess(found))
    said = found.attrs | table.attrs | {"images": f"{table.attrs['count']} of {source}"}
    return _write(folder, "grouping_references", table, found, said)


def store_few_modes(model: Model, folder: Path = FOLDER) -> Path:
    """Computes and stores how far a head's first modes bring it, on the package's photographs."""
    photographs = datasets.photographs()
    given = pictures.images(photographs, model, len(photographs))
    table = few_modes(model, given)
    said = table.attrs | {"images": f"{len(given)} photographs of the package"}
    return _write(folder, "few_modes", table, table, said)


def few_modes(model: Model, images: Images) -> xr.Dataset:
    """Computes what `read` gives as `few_modes`, on images as the model takes them."""
    rank = int(decompose(model).sizes["mode"])
    counts = sorted({0, min(SHOWN_BY_PAPER, rank), rank // 4, rank // 2, rank})
    found = studies.few_modes(model, images, counts).mean("head")
    layers = found.assign_coords(layer=found.layer.astype(str))
    both = xr.concat([layers, found.mean("layer").expand_dims(layer=["all"])], "layer")
    return statistics.bootstrap(both).assign_attrs(found.attrs)


def _write_intervals(
    folder: Path, kind: str, parts: list[xr.Dataset], origin: xr.Dataset, source: str
) -> Path:
    """Writes intervals per head, and those of the mean over heads as a further head `all`."""
    heads, mean = parts
    named = heads.assign_coords(head=heads["head"].astype(str))
    table = xr.concat([named, mean.expand_dims(head=["all"])], "head")[[*statistics.ENDS]]
    said = origin.attrs | heads.attrs | {"images": f"{heads.attrs['count']} of {source}"}
    return _write(folder, kind, table, origin, said)


def store_causes(model: Model, count: int, random: int, folder: Path = FOLDER) -> Path:
    """Computes and stores what the answers of a model lose where each of its modes is removed.

    The model has to answer the questions about drawn scenes, as the supervised ones do.
    """
    if model.net.num_classes != sum(map(len, QUESTIONS.values())):
        raise ValueError(f"{model.name}: it does not answer the questions; take tiny-supervised")
    scenes = world.make(SCENES, 0, count, model.image_size[0])
    label = scenes.factors.label.numpy()
    images, families = world.labelled(model)
    named = studies.names(model, images, families, permutations=1, directions=2)
    scanned = atlas.scan(model, images, k=1, statistics=["variance"])
    gone = studies.every_removal(model, model.transform.transforms[-1](scenes.image), random=random)
    intact = _answered(gone.intact, label)
    left = _answered(gone.output, label)
    lost = (intact - left).assign(gone[["moved", "taken"]]).assign(loss=left.loss - intact.loss)
    halves = [_answered(gone.output[..., n::2, :], label[n::2]).loss for n in range(2)]
    alike = stats.spearmanr(
        *(half.where(gone.mode >= 0, drop=True).values.ravel() for half in halves)
    )
    whole = scanned.logit_variance.sum("mode") + scanned.salience_variance
    about = {"carried": scanned.logit_variance / whole, "share": named.share.mean("side")}
    about |= {"family": named.family.sel(side="query", drop=True)}
    about |= {name: scanned[name] for name in ("sigma", "cosine")}
    is_mode = gone.mode.values >= 0
    parts = [lost.isel(direction=which).drop_vars("mode") for which in (is_mode, ~is_mode)]
    parts = [part.rename(direction="number") for part in parts]
    parts[0] = parts[0].assign({n: v.rename(mode="number") for n, v in about.items()})
    parts = [part.assign_coords(number=range(part.sizes["number"])) for part in parts]
    table = xr.concat(parts, pd.Index(["mode", "random"], name="of"), join="outer")
    said = {str(name): f"{float(value):.4f}" for name, value in intact.items()}
    said |= {"scenes": f"{count} scenes of the embedded world", "halves": f"{alike.statistic:.3f}"}
    return _write(folder, "causes", table, gone, said)


def _answered(output: xr.DataArray, label: np.ndarray) -> xr.Dataset:
    """Accuracy in each question, and the sum of their cross-entropies, where they are asked."""
    ends = np.cumsum([len(answers) for answers in QUESTIONS.values()])
    found, loss, dims = {}, 0, output.dims[:-2]
    parts = np.split(output.values, ends[:-1], -1)
    for question, said, right in zip(QUESTIONS, parts, label.T, strict=True):
        asked = right >= 0
        chance = special.log_softmax(said[..., asked, :], -1)
        found[question] = (dims, (chance.argmax(-1) == right[asked]).mean(-1))
        loss = loss - chance[..., np.arange(asked.sum()), right[asked]].mean(-1)
    return xr.Dataset(found | {"loss": (dims, loss)})

"""Stored results: small tables, with provenance, of models that are not at hand.

`qkutils store MODEL` writes them; `modes`, `salience`, `preference`, `same_object` and `grouping`
read them.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from PIL import Image
from tqdm import tqdm

from qkutils import options, pictures, statistics, store, studies, world
from qkutils.attention import observed_attention, rebuild_attention, total_variation
from qkutils.heads import CONVENTIONS
from qkutils.models import Model
from qkutils.modes import decompose
from qkutils.provenance import ORIGIN
from qkutils.records import Samples, Segmentations

KINDS = {
    "modes": ("convention", "layer", "head", "mode"),
    "salience": ("removed", "layer"),
    "preference": ("set", "relation", "layer"),
    "same_object": ("of", "layer", "head"),
    "grouping": ("of", "matching", "layer", "head"),
}
ESTIMATE = ["estimate", "low", "high"]
FOLDER = Path(str(resources.files("qkutils.book").joinpath("results")))
_REMOVED = {"all": (), "bias": ("shift",)}  # what is left out of κ, and what is then kept


def names(kind: str = "modes") -> list[str]:
    """List the models with stored results of a kind.

    Parameters
    ----------
    kind
        `modes`, `salience`, `preference`, `same_object` or `grouping`.

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
    options.choice("kind", kind, KINDS)
    return sorted(p.name.removesuffix(f".{kind}.csv") for p in FOLDER.glob(f"*.{kind}.csv"))


def modes(name: str) -> xr.Dataset:
    """Read the stored strengths and cosines of a model's modes.

    Parameters
    ----------
    name
        One of `names("modes")`.

    Returns
    -------
    xr.Dataset
        `sigma` and `cosine` over (convention, layer, head, mode), with their provenance.

    Raises
    ------
    FileNotFoundError
        For a model without stored modes.

    Examples
    --------
    >>> from qkutils.book import stored
    >>> dict(stored.modes("deit_tiny_patch16_224.fb_in1k").sizes)
    {'convention': 2, 'layer': 12, 'head': 3, 'mode': 64}
    """
    return _read(name, "modes")


def salience(name: str) -> xr.Dataset:
    """Read how far a model's attention moves when κ, or its part from the query bias, is left out.

    Parameters
    ----------
    name
        One of `names("salience")`.

    Returns
    -------
    xr.Dataset
        `total_variation`, a mean, over (removed, layer).  `removed` is `all` or `bias`.

    Raises
    ------
    FileNotFoundError
        For a model without stored salience.

    Examples
    --------
    >>> from qkutils.book import stored
    >>> stored.salience("deit_tiny_patch16_224.fb_in1k").removed.values.tolist()
    ['all', 'bias']
    """
    return _read(name, "salience")


def preference(name: str) -> xr.Dataset:
    """Read the stored shares of attention by relation, and their null; both are means over heads.

    Parameters
    ----------
    name
        One of `names("preference")`.

    Returns
    -------
    xr.Dataset
        `share`, `null_share`, `share_others`, `null_share_others` and `area` over (set, relation,
        layer).

    Raises
    ------
    FileNotFoundError
        For a model without stored preference.

    Examples
    --------
    >>> from qkutils.book import stored
    >>> stored.preference("deit_tiny_patch16_224.fb_in1k").relation.values.tolist()
    ['background', 'different', 'same']
    """
    return _read(name, "preference")


def same_object(name: str) -> xr.Dataset:
    """Read the stored probability that a mode's queries and keys prefer one object.

    Parameters
    ----------
    name
        One of `names("same_object")`.

    Returns
    -------
    xr.Dataset
        `estimate`, `low` and `high` over (of, layer, head): see `studies.probability`.  The head
        `all` is the mean over heads, with its own interval.

    Raises
    ------
    FileNotFoundError
        For a model without stored probabilities.

    Examples
    --------
    >>> from qkutils.book import stored
    >>> stored.same_object("deit_tiny_patch16_224.fb_in1k")["head"].values.tolist()
    ['0', '1', '2', 'all']
    """
    return _read(name, "same_object")


def grouping(name: str) -> xr.Dataset:
    """Read the stored attention within and across people's segments: see `studies.grouping`.

    Parameters
    ----------
    name
        One of `names("grouping")`.

    Returns
    -------
    xr.Dataset
        `estimate`, `low` and `high` over (of, matching, layer, head).  They are of attention on
        patches of the same segment less that on different ones.  `of` says where: on their own
        picture, in the null, or the excess.  The head `all` is the mean over heads.

    Raises
    ------
    FileNotFoundError
        For a model without stored grouping.

    Examples
    --------
    >>> from qkutils.book import stored
    >>> stored.grouping("deit_tiny_patch16_224.fb_in1k").of.values.tolist()
    ['excess', 'other pictures', 'own picture']
    """
    return _read(name, "grouping")


def _read(name: str, kind: str) -> xr.Dataset:
    if name not in names(kind):
        raise FileNotFoundError(
            f"no stored {kind} of {name!r}; of {', '.join(names(kind)) or 'no model'} there are; "
            f"with the model at hand, `qkutils store {name}` computes them"
        )
    path = FOLDER / f"{name}.{kind}.csv"
    with path.open(encoding="utf-8") as file:
        lines = [line[2:].partition(":") for line in file if line.startswith("# ")]
    table = pd.read_csv(path, comment="#", index_col=list(KINDS[kind]))
    return table.to_xarray().assign_attrs({key: value.strip() for key, _, value in lines})


def _write(path: Path, table: pd.DataFrame, provenance: dict[str, object]) -> None:
    """Writes provenance lines and a table."""
    lines = "".join(f"# {key}: {value}\n" for key, value in provenance.items())
    options: Any = {"float_format": "%.7g", "quoting": csv.QUOTE_MINIMAL, "lineterminator": "\n"}
    store.write(path, lines + table.to_csv(**options))


def store_modes(model: Model, folder: Path = FOLDER) -> Path:
    """Computes and stores the σ and cosines of a model's modes in both conventions."""
    parts = [
        decompose(model, convention=convention)[["sigma", "cosine"]] for convention in CONVENTIONS
    ]
    both = xr.concat(parts, "convention", combine_attrs="drop_conflicts")
    path = folder / f"{model.name}.modes.csv"
    _write(path, both.to_dataframe()[["sigma", "cosine"]], _origin(both))
    return path


def store_salience(model: Model, source: str, count: int, folder: Path = FOLDER) -> Path:
    """Computes and stores how much attention moves, per layer, when parts of κ are left out.

    `source` is a folder, or "" for drawn scenes.
    """
    rows: dict[tuple[str, int], float] = {}
    drawn = world.pictures(0, 0, count, size=model.image_size[0])
    given = pictures.images(source or drawn, model, count)
    batches = given.split(4)
    for batch in tqdm(batches, desc="images"):
        own = observed_attention(model, batch)
        for removed, kept in _REMOVED.items():
            moved = total_variation(own, rebuild_attention(model, batch, salience=kept))
            for layer, value in enumerate(moved.mean(["image", "head", "query"]).values):
                share = len(batch) / len(given) * float(value)
                rows[removed, layer] = rows.get((removed, layer), 0.0) + share
    table = pd.Series(rows, name="total_variation").rename_axis(["removed", "layer"]).to_frame()
    what = f"{len(given)} scenes of the embedded world"
    if source:
        what = f"{len(given)} files spread evenly over {Path(source).resolve().name}"
    path = folder / f"{model.name}.salience.csv"
    _write(path, table, _origin(own) | {"images": what})
    return path


def store_preference(
    model: Model,
    sets: dict[str, Samples],
    null_images: Sequence[Image.Image],
    folder: Path = FOLDER,
) -> Path:
    """Computes and stores shares by relation, and their null, on several sets of samples.

    A set of one sample has its null on `null_images`; the others have theirs among themselves.
    """
    tables, said = [], []
    for name, samples in sets.items():
        laid_on = null_images if len(samples) == 1 else ()
        found = studies.odd_one_out(model, samples, null_images=laid_on)
        fields = ("share", "null_share", "share_others", "null_share_others")
        means = {f: studies.relations(found[f]).mean(["image", "head"]) for f in fields}
        means["area"] = studies.area_of_relations(found)
        tables.append(xr.Dataset(means))
        null = f"null on {len(laid_on)} photographs" if laid_on else "null among themselves"
        said.append(f"{name}: n = {found.sizes['image']}, {null}")
    table = xr.concat(tables, pd.Index(sets, name="set")).to_dataframe()[[*tables[0]]]
    path = folder / f"{model.name}.preference.csv"
    _write(path, table, _origin(found) | {"sets": "; ".join(said)})
    return path


def store_same_object(
    model: Model, segmentations: Segmentations, source: str, folder: Path = FOLDER
) -> Path:
    """Computes and stores whether modes' queries and keys prefer one object, with intervals."""
    found = studies.same_object(model, segmentations, convention="paper")
    parts = [studies.probability(found), studies.probability(found, ["head"])]
    table = _with_mean_head(*parts).to_dataframe(dim_order=["of", "layer", "head"])
    path = folder / f"{model.name}.same_object.csv"
    _write(path, table[ESTIMATE], _origin(parts[0]) | parts[0].attrs | _images(parts[0], source))
    return path


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
    table = _with_mean_head(*parts).to_dataframe(dim_order=["of", "matching", "layer", "head"])
    path = folder / f"{model.name}.grouping.csv"
    said = found.attrs | parts[0].attrs | _images(parts[0], source)
    _write(path, table[ESTIMATE], _origin(found) | said)
    return path


def _with_mean_head(heads: xr.Dataset, mean: xr.Dataset) -> xr.Dataset:
    """Values per head, and those of the mean over heads as a further head `all`."""
    named = heads.assign_coords(head=heads["head"].astype(str))
    return xr.concat([named, mean.expand_dims(head=["all"])], "head")


def _origin(found: xr.Dataset | xr.DataArray) -> dict[str, object]:
    """What a table says of the weights and the code that it comes from, and when."""
    weights = {key: str(found[key].values) for key in ORIGIN if found[key].ndim == 0}
    code = {key: found.attrs[key] for key in ("dtype", "code_version")}
    return weights | code | {"computed": date.today().isoformat()}


def _images(found: xr.Dataset, source: str) -> dict[str, object]:
    return {"images": f"{found.attrs['count']} of {source}"}

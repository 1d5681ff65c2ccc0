"""Stored results: small tables, with provenance, of models that are not at hand.

`qkutils store MODEL` writes them, and `read` reads them.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from PIL.Image import Image
from tqdm import tqdm

from qkutils import options, pictures, statistics, store, studies, world
from qkutils.attention import compare_attention
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
}
# Of the first two `stored_maps` knows, of the others `stored_views`.
MAPS = ("photographs", "taken_apart", "mode_browser", "one_image")
SHARES = ("share", "null_share", "share_others", "null_share_others")
CONTRAST = "same − different"  # a further relation: what the first gets more than the second
FOLDER = Path(str(resources.files("qkutils.book").joinpath("results")))
_REMOVED = {"all": (), "bias": ("shift",)}  # what is left out of κ, and what is then kept


def names(kind: str = "modes") -> list[str]:
    """List the models with stored results of a kind.

    Parameters
    ----------
    kind
        `modes`, `null_band`, `salience`, `preference`, `same_object` or `grouping`; of
        `stored_maps`, `photographs` or `taken_apart`; of `stored_views`, `mode_browser` or
        `one_image`.

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
    end = f".{kind}.nc" if kind in MAPS else f".{kind}.csv"
    return sorted(path.name.removesuffix(end) for path in FOLDER.glob(f"*{end}"))


def nothing_of(kind: str, name: str) -> str:
    """What to say where nothing of a kind is stored of a model."""
    return (
        f"no stored {kind} of {name!r}; of {', '.join(names(kind)) or 'no model'} there are; "
        f"with the model at hand, `qkutils store {name}` computes them"
    )


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

        The head `all` is the mean over heads, with its own interval.
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
    if name not in names(kind):
        raise FileNotFoundError(nothing_of(kind, name))
    path = FOLDER / f"{name}.{kind}.csv"
    with path.open(encoding="utf-8") as file:
        lines = [line[2:].partition(":") for line in file if line.startswith("# ")]
    table = pd.read_csv(path, comment="#", index_col=list(KINDS[kind]))
    return table.to_xarray().assign_attrs({key: value.strip() for key, _, value in lines})


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
    rows = table.to_dataframe(dim_order=list(KINDS[kind]))[list(table)]
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
        found = studies.odd_one_out(model, samples, null_images=laid_on)
        means = {f: _contrasted(found[f]).mean(["image", "head"]) for f in SHARES}
        area = _contrasted(found.area.mean("image").expand_dims(query=found["query"]))
        excess = _contrasted(studies.share_excess(found)).mean("head")
        one = statistics.interval(excess.mean("image"), np.nan, np.nan)
        judged = one if len(samples) == 1 else statistics.bootstrap(excess)
        tables.append(judged.assign(means | {"area": area}))
        null = f"null on {len(laid_on)} photographs" if laid_on else "null among themselves"
        said.append(f"{name}: n = {found.sizes['image']}, {null}")
    table = xr.concat(tables, pd.Index(sets, name="set"))
    return _write(folder, "preference", table, found, {"sets": "; ".join(said)})


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


def _write_intervals(
    folder: Path, kind: str, parts: list[xr.Dataset], origin: xr.Dataset, source: str
) -> Path:
    """Writes intervals per head, and those of the mean over heads as a further head `all`."""
    heads, mean = parts
    named = heads.assign_coords(head=heads["head"].astype(str))
    table = xr.concat([named, mean.expand_dims(head=["all"])], "head")[["estimate", "low", "high"]]
    said = origin.attrs | heads.attrs | {"images": f"{heads.attrs['count']} of {source}"}
    return _write(folder, kind, table, origin, said)

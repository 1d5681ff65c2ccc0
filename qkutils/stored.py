"""Stored results: small tables, with provenance, of models that are not at hand.

`python -m qkutils.stored MODEL [--images FOLDER]` writes them; `modes` and `salience` read them.
"""

from __future__ import annotations

import argparse
import csv
import os
from datetime import date
from importlib import resources
from pathlib import Path

import pandas as pd
import xarray as xr
from tqdm import tqdm

from qkutils import data, models
from qkutils.attention import observed_attention, rebuild_attention, total_variation
from qkutils.heads import CONVENTIONS
from qkutils.models import Model
from qkutils.modes import decompose

FOLDER = Path(str(resources.files("qkutils").joinpath("results")))
_REMOVED = {"all": (), "bias": ("shift",)}  # what is left out of κ, and what is then kept


def names() -> list[str]:
    """Models with stored results."""
    return sorted(p.name.removesuffix(".modes.csv") for p in FOLDER.glob("*.modes.csv"))


def modes(name: str) -> xr.Dataset:
    """Stored sigma and cosine over (convention, layer, head, mode) of a model."""
    return _read(name, "modes", ["convention", "layer", "head", "mode"])


def salience(name: str) -> xr.Dataset:
    """Stored mean total variation over (removed, layer) when κ or its bias part is left out."""
    return _read(name, "salience", ["removed", "layer"])


def _read(name: str, kind: str, dims: list[str]) -> xr.Dataset:
    path = FOLDER / f"{name}.{kind}.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"no stored {kind} of {name!r}; there are {names()}; with the model at hand, "
            f"`python -m qkutils.stored {name}` computes them"
        )
    with path.open(encoding="utf-8") as file:
        lines = [line[2:].strip().split(": ", 1) for line in file if line.startswith("# ")]
    table = pd.read_csv(path, comment="#", index_col=dims)
    return table.to_xarray().assign_attrs({key: value for key, value in lines})


def _write(path: Path, table: pd.DataFrame, provenance: dict[str, object]) -> None:
    """Writes provenance lines and a table to a temporary file and renames it."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        for key, value in provenance.items():
            file.write(f"# {key}: {value}\n")
        table.to_csv(file, float_format="%.7g", quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    os.replace(partial, path)


def store_modes(model: Model, folder: Path = FOLDER) -> Path:
    """Computes and stores the σ and cosines of a model's modes in both conventions."""
    parts = [decompose(model, convention)[["sigma", "cosine"]] for convention in CONVENTIONS]
    both = xr.concat(
        parts, pd.Index(CONVENTIONS, name="convention"), combine_attrs="drop_conflicts"
    )
    keys = ("model", "fingerprint", "dtype", "code_version")
    provenance = {k: both.attrs[k] for k in keys} | {"computed": date.today().isoformat()}
    path = folder / f"{model.name}.modes.csv"
    _write(path, both.to_dataframe(), provenance)
    return path


def store_salience(model: Model, source: str, count: int, folder: Path = FOLDER) -> Path:
    """Computes and stores how much attention moves, per layer, when parts of κ are left out."""
    rows: dict[tuple[str, int], float] = {}
    pictures = data.images(source, model, count)
    batches = pictures.split(4)
    for batch in tqdm(batches, desc="images"):
        own = observed_attention(model, batch)
        for removed, kept in _REMOVED.items():
            moved = total_variation(own, rebuild_attention(model, batch, salience=kept))
            for layer, value in enumerate(moved.mean(["image", "head", "query"]).values):
                share = len(batch) / len(pictures) * float(value)
                rows[removed, layer] = rows.get((removed, layer), 0.0) + share
    table = pd.Series(rows, name="total_variation").rename_axis(["removed", "layer"]).to_frame()
    keys = ("model", "fingerprint", "dtype", "code_version")
    provenance = {k: own.attrs[k] for k in keys} | {"computed": date.today().isoformat()}
    what = f"{len(pictures)} scenes of the embedded world"
    if source:
        what = f"{len(pictures)} files spread evenly over {Path(source).resolve().name}"
    path = folder / f"{model.name}.salience.csv"
    _write(path, table, provenance | {"images": what})
    return path


def main() -> None:
    """Computes and stores the results of one model from the command line."""
    parser = argparse.ArgumentParser(prog="python -m qkutils.stored", description=__doc__)
    parser.add_argument("model", help="a name, or a checkpoint file")
    parser.add_argument(
        "--images", default="", help="a folder; default: scenes of the embedded world"
    )
    parser.add_argument("--count", type=int, default=48, help="number of images")
    args = parser.parse_args()
    model = models.load(args.model)
    FOLDER.mkdir(exist_ok=True)
    print(store_modes(model))
    print(store_salience(model, args.images, args.count))


if __name__ == "__main__":
    main()

"""The replication report: what every claim of the paper gets from every model, by the one rule.

`qkutils report` writes it.  `claims.toml` holds the claims, `results/report.csv` what is published.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import timm
import torch
import xarray as xr

import qkutils as qk
from qkutils import datasets, models, modes, pictures, statistics, store, studies, world
from qkutils.book._choosing import is_embedded, seconds, spread
from qkutils.book._page import FACTS, NUMBERS, page
from qkutils.heads import CONVENTIONS
from qkutils.models import Model
from qkutils.records import Records

PUBLISHED = Path(str(resources.files(__package__).joinpath("results", "report.csv")))
TOLD = ["measurement", "data", "convention", "over"]  # of a measurement, beside its numbers
SCENES = 5_000_000  # drawn scenes that no model was trained on
PASSES = 3  # what the study of a picture costs, in bare passes of it

Found = dict[str, tuple[xr.Dataset, float]]  # by its name: a number with its interval, and its null


class Job(NamedTuple):
    """What is measured on which data, in which convention."""

    data: str
    study: Callable[[Model, Any, Any], Found]
    convention: str
    items: Any = ()


# ---- what is measured ----------------------------------------------------------------------------


def of_weights(model: Model, _: Any, convention: Any) -> Found:
    """Figures 3 and S1: no picture is needed."""
    cosine = qk.weighted_cosine(model, convention=convention)
    band = qk.null_band(model, convention=convention)
    parts = qk.decompose(model, convention=convention)
    null, wide = float(modes.null_of_layers(parts.sigma, band).mean()), float(band.max())
    return {
        "cosine, late − early": (statistics.late_minus_early(cosine), null),
        "cosine, last − middle": (statistics.last_minus_middle(cosine), null),
        "cosine, middle": (statistics.middle(cosine), null),
        "band": (statistics.interval(wide, wide, wide), np.nan),
    }


def of_tokens(model: Model, images: Any, convention: Any) -> Found:
    """Figure S4: what is left of the trend without that in which all tokens are alike."""
    asked: Any = {"k": 1, "convention": convention, "statistics": ["anisotropy"]}
    alike = qk.scan(model, images, **asked).anisotropy
    less = qk.weighted_cosine(model, convention=convention) - alike
    alone = statistics.late_minus_early(alike.expand_dims("head"))
    left = statistics.late_minus_early(less)
    return {"cosine less anisotropy, late − early": (left, float(alone.estimate))}


def of_odd_ones(model: Model, samples: Any, _: Any) -> Found:
    """Figure 2: shares of attention, as published and over what geometry alone gives."""
    shares, found = studies.odd_one_out(model, samples), Found()

    def contrast(field: str, relation: str) -> xr.Dataset:
        values = studies.relations(shares[field]).sel(relation=relation)
        return statistics.late_minus_early(values.mean("head"))

    for relation in ("same", "different", "background"):
        null, others = (contrast(f, relation).estimate for f in ("null_share", "null_share_others"))
        found[f"share, {relation}"] = contrast("share", relation), float(null)
        found[f"excess, {relation}"] = studies.late_minus_early(shares, relation), float(others)
    return found


def of_objects(model: Model, segmentations: Any, convention: Any) -> Found:
    """Figure 6: whether a mode's queries and keys prefer one object."""
    preferred = studies.same_object(model, segmentations, convention=convention)
    layers = studies.probability(preferred, ["head"])
    whole = studies.probability(preferred, ["layer", "head"])
    own, chance = layers.sel(of="modes"), layers.estimate.sel(of="random directions").values
    change = statistics.difference(own.isel(layer=-1), own.isel(layer=0))
    excess = layers.sel(of="excess over random directions").isel(layer=0)
    other = float(whole.estimate.sel(of="other masks"))
    return {
        "same object, first": (excess, float(chance[0])),
        "same object, last − first": (change, float(chance[-1] - chance[0])),
        "same object, over both": (whole.sel(of="excess over both"), other),
    }


def of_segments(model: Model, segmentations: Any, _: Any) -> Found:
    """Section 5: attention within segments and across, at equal displacement."""
    found = studies.grouping(model, segmentations)
    alike = studies.grouping_excess(found).sel(matching="displacement").mean("head")
    null = (found.null_same - found.null_different).sel(matching="displacement").mean("head")
    turn = statistics.late_minus_early(null)
    return {
        "grouping": (statistics.bootstrap(alike.mean("layer")), float(null.mean())),
        "grouping, late − early": (statistics.late_minus_early(alike), float(turn.estimate)),
    }


# ---- what it is measured on ----------------------------------------------------------------------

READERS: dict[
    str, tuple[str, Any, list[tuple[Any, str]]]
] = {  # by the option that names the folder
    "o3": ("O3", datasets.odd_one_out, [(of_odd_ones, "exact")]),
    "ade20k": ("ADE20K", datasets.ade20k, [(of_objects, "paper")]),
    "camvid": ("CamVid", datasets.camvid, [(of_objects, "paper"), (of_segments, "exact")]),
    "bsds": ("BSDS500", datasets.bsds500, [(of_segments, "exact")]),
}


def read(folders: dict[str, Path], count: int) -> list[Job]:
    """What is measured on the data sets in these folders, and on the package's photographs.

    Prints what of them can't be used.
    """
    jobs = [Job("photographs", of_tokens, "paper", spread(datasets.photographs(), count))]
    for option, folder in folders.items():
        if option == "images":
            files = Records(list(pictures.picture_files(folder).values()), pictures.open_picture)
            jobs.append(Job("ImageNet", of_tokens, "paper", spread(files, count)))
            continue
        name, reader, asked = READERS[option]
        found: Any = reader(folder, on_error="skip")
        print(found.report)
        jobs += [Job(name, study, said, spread(found, count)) for study, said in asked]
    return jobs


def drawn(model: Model, count: int) -> list[Job]:
    """What is measured on scenes of the world that the embedded models were trained on."""
    at, size = (SCENES, 0, count), model.image_size[0]
    segments = partial(world.segmentations, *at, size=size)
    return [
        Job("drawn scenes", of_tokens, "paper", world.pictures(*at, size=size)),
        Job("drawn scenes", of_odd_ones, "exact", world.samples(*at, size=size)),
        Job("drawn scenes", of_objects, "paper", segments()),
        Job("drawn scenes", of_segments, "exact", segments(background=True)),
    ]


def _digest(items: Any) -> str:
    """What tells pictures, with their masks or segments, from all others."""
    parts = []
    for item in items:
        marks = [*getattr(item, "masks", {}).values(), *getattr(item, "labels", ())]
        image = pictures.in_mode(getattr(item, "image", item))
        parts += [getattr(item, "key", ""), *map(store.digest, (image, *marks))]
    return store.digest("\0".join(parts).encode("utf-8", "surrogatepass"))


# ---- one model after the other -------------------------------------------------------------------


def paper() -> list[str]:
    """The catalogue's names of the models of the paper."""
    table = models.catalogue()
    return list(table.index[(table.paper != "") & (table.loader == "load")])


def write(
    names: Sequence[str], folders: dict[str, Path], count: int, out: Path, device: str | None
) -> Path:
    """Measures models one after the other, judges the claims, and writes report.csv and report.md.

    Each model leaves a file, and is not measured again.  Without names: those of the paper; what of
    them can't be had here is not run.  Raises ValueError for a name that is none, before anything
    is measured, and for a file of other weights, data or code.
    """
    store.check_writable(out / "report.csv")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    asked, jobs = list(names) or paper(), read(folders, count)
    print(plan(asked, jobs, count, bool(names), device, out))
    known = {job.data: _digest(job.items) for job in jobs}
    found = [_measured(name, jobs, known, count, out, device, bool(names)) for name in asked]
    tables = {each.attrs["model"]: each for each in found if each is not None}
    table = judge(tables, {job.data: len(job.items) for job in jobs})
    store.write(out / "report.md", page(table))
    return store.write(out / "report.csv", table.to_csv(index=False, float_format="%.6g"))


def _measured(
    name: str, jobs: list[Job], known: dict, count: int, out: Path, device: str, strict: bool
) -> xr.Dataset | None:
    """A model's measurements, from its file or anew; the model does not outlive this call."""
    try:
        model = models.load(name, device=device)
    except (FileNotFoundError, ValueError) as error:
        if strict:
            raise
        print(f"{name}: {statistics.NOT_RUN} ({error})")
        return None
    if is_embedded(model):
        jobs, known = drawn(model, count), {"drawn scenes": count}

    def identity() -> store.Identity:
        return {"model": model.identity, "data": known, "code_version": version("qkutils")}

    path = _file(out, model.name)
    print(f"{name}: {'measured before' if path.is_file() else 'measuring'}")
    return store.resumable(path, identity, lambda _: measure(model, jobs))


def _file(out: Path, name: str) -> Path:
    """Where a model's measurements are kept."""
    return out / f"{name.replace(os.sep, '--')}.nc"


def measure(model: Model, jobs: Sequence[Job]) -> xr.Dataset:
    """All that is measured of a model, over `row`; data of fewer than 20 pictures are left out."""
    rows = []
    enough = [job for job in jobs if len(job.items) >= statistics.FEWEST_IMAGES]
    for job in [*(Job("weights", of_weights, each) for each in CONVENTIONS), *enough]:
        for name, (found, null) in job.study(model, job.items, job.convention).items():
            over, count = found.attrs.get("over", "none"), found.attrs.get("count", 0)
            images = count if over == "image" else len(job.items)
            row: dict[str, Any] = {
                "measurement": name,
                "data": job.data,
                "convention": job.convention,
            }
            row |= _numbers(found)
            rows.append(row | {"null": null, "over": over, "count": count, "images": images})
    table = pd.DataFrame(rows).rename_axis("row").to_xarray().set_coords(TOLD)
    table = table.copy(deep=True)  # pandas' own arrays can't be written to, and torch warns of them
    said = {"model": model.name, "fingerprint": model.fingerprint}
    return table.assign_attrs(said, code_version=version("qkutils"))


# ---- what it will take ---------------------------------------------------------------------------


def plan(
    names: Sequence[str], jobs: Sequence[Job], count: int, strict: bool, device: str, out: Path
) -> str:
    """What a report will take, in a few lines.

    Memory: twice the weights in float32.  Download: the weights once.  Time: what one image takes
    the first model at hand, by parameters and patches for the others, three times for each picture;
    nothing for a model that is measured already.
    Raises ValueError for a name that is none; where not `strict`, only says so.
    """
    lines, work, rate = [], 0.0, 0.0
    passes = sum(len(job.items) for job in jobs if len(job.items) >= statistics.FEWEST_IMAGES)
    for name in names:
        own, net = _net(name, strict)
        if net is None:
            size = int(_fact(name, "megabytes") or 0)
            download = f"{size} MB" if size else "unknown"
            lines.append(f"{name}: memory and time unknown, download {download}")
            continue
        size = sum(each.numel() for each in net.parameters())
        there = not next(net.parameters()).is_meta
        load = size * net.patch_embed.num_patches
        left = not _file(out, own).is_file()
        work += left * load * (4 * count if _fact(name, "source") == "embedded" else passes)
        rate = rate or (seconds(net.to(device), 4, 5) / load if there else 0.0)
        download = "none" if there else f"{4 * size / 1e9:.2f} GB"
        lines.append(f"{name}: memory {8 * size / 1e9:.2f} GB, download {download}")
    known = rate or not work
    minutes = f"about {PASSES * work * rate / 60:.0f} minutes" if known else "unknown"
    return "\n".join([*lines, f"on {device}; time in all: {minutes}"])


def _net(name: str, strict: bool) -> tuple[str, Any]:
    """A model's own name and network; its architecture alone where it would have to be fetched."""
    at_hand = Path(name).exists() or name in models.at_hand()
    if not at_hand and timm.is_model_pretrained(name):
        with torch.device("meta"):
            return name, timm.create_model(name)
    if not at_hand and not strict:
        return name, None
    model = models.load(name)
    return model.name, model.net


# ---- the claims ----------------------------------------------------------------------------------

COLUMNS = (
    "figure claim measurement model paper whose data images convention estimate low high over count"
    " null verdict fingerprint code_version"
).split()
TEXTS = dict.fromkeys(("paper", "over", "fingerprint", "code_version"), "")  # where there is none


def judge(tables: dict[str, xr.Dataset], sizes: dict[str, int]) -> pd.DataFrame:
    """What each claim gets from each model that it is about: those measured, and the paper's.

    `sizes` says of how many pictures the data sets were.
    """
    rows = {name: table.to_dataframe().to_dict("records") for name, table in tables.items()}
    frames = {name: [row | tables[name].attrs for row in each] for name, each in rows.items()}
    judged = [
        row
        for claim in FACTS["claim"]
        for name in filter(partial(_is_about, claim), dict.fromkeys([*frames, *paper()]))
        for row in _rows(claim, name, frames, sizes)
    ]
    return pd.DataFrame(judged, columns=COLUMNS).astype({"count": "Int64"}).fillna(TEXTS)


def _is_about(claim: dict, name: str) -> bool:
    if "minus" in claim:
        return name in claim["minus"]
    named, objectives = claim.get("models", ()), claim.get("objectives")
    return objectives is None or name in named or _fact(name, "objective") in objectives


def _fact(name: str, what: str) -> str:
    """What the catalogue says of a model; nothing for one that is not in it."""
    return str(models.catalogue()[what].get(name, ""))


def _rows(claim: dict, name: str, frames: dict, sizes: dict[str, int]) -> list[dict[str, Any]]:
    """A row for each data set and convention, and for the paper's where it is not among them."""
    said = {"figure": claim["figure"], "claim": claim["words"]}
    said |= {"measurement": claim["measurement"], "model": name, "paper": _fact(name, "paper")}
    meant, rows = (claim.get("data"), claim["convention"]), []
    for row in _measured_for(claim, name, frames):
        verdict = _verdict(claim, row)
        if verdict == statistics.NOT_RUN:
            row = {key: value for key, value in row.items() if key not in (*NUMBERS, "null")}
        whose = "paper" if (row["data"], row["convention"]) == meant else "ours"
        rows.append(row | said | {"whose": whose, "verdict": verdict})
    if meant[0] and not any(row["whose"] == "paper" for row in rows):
        few = sizes.get(meant[0], 0)
        images = few if name in frames and few < statistics.FEWEST_IMAGES else 0
        its = {"data": meant[0], "convention": meant[1], "images": images}
        rows.append(said | its | {"whose": "paper", "verdict": statistics.NOT_RUN})
    return sorted(rows, key=lambda row: row["whose"] != "paper")


def _measured_for(claim: dict, name: str, frames: dict) -> list[dict[str, Any]]:
    """A model's numbers for a claim, less another model's where the claim is of both."""
    of = [name, claim["minus"][name]] if "minus" in claim else [name]
    if not all(each in frames for each in of):
        return []
    wanted = claim["measurement"]
    own, *others = ([row for row in frames[e] if row["measurement"] == wanted] for e in of)
    return [_less(*pair) for pair in zip(own, *others, strict=True)] if others else own


def _less(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    found = statistics.difference(_interval(one), _interval(other))
    return one | _numbers(found) | {"null": one["null"] - other["null"]}


def _verdict(claim: dict, row: dict[str, Any]) -> str:
    if "equals" in claim:
        error = abs(row["estimate"] - claim["equals"])
        return statistics.verdict_of_identity(error, claim["tolerance"])
    images = row["images"] or None
    return statistics.verdict(_interval(row), claim["direction"], claim["measure"], images)


def _interval(row: dict[str, Any]) -> xr.Dataset:
    return statistics.interval(*(row[name] for name in NUMBERS))


def _numbers(found: xr.Dataset) -> dict[str, float]:
    return {name: float(found[name]) for name in NUMBERS}


def published() -> pd.DataFrame:
    """The table that is kept in this package."""
    return pd.read_csv(PUBLISHED, dtype={"figure": str, "count": "Int64"}).fillna(TEXTS)

"""The replication report as Markdown: the claims, the models, and what does not replicate."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from qkutils import datasets, statistics
from qkutils.book import stored

FACTS = tomllib.loads(resources.files(__package__).joinpath("claims.toml").read_text("utf-8"))
COPIES = 8  # of each head, in the loop over its images
OF_OBJECTS = {"first": "same object, first", "beyond": "same object, over both"}
WIDTHS = (192, 384, 768, 1024, 1280)
NUMBERS = ("estimate", "low", "high")
Rows = list[list[str]]


def page(table: pd.DataFrame) -> str:
    """All tables of the report."""
    claims = [_claim(claim, table) for claim in FACTS["claim"]]
    rest = ["## The models that were run", _models(table)]
    rest += ["## What does not replicate", differences(table)]
    return "\n\n".join(["## The claims", *claims, *rest]) + "\n"


def _markdown(head: list[str], rows: Rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _claim(claim: dict, table: pd.DataFrame) -> str:
    """One claim; the models that were not run at all share a line."""
    known = claim["figure"].startswith("section")
    heading = f"### {claim['words']} ({'' if known else 'figure '}{claim['figure']})"
    told = f"The number: {claim['number']}. The null: {claim['null']}."
    rows = table[table.claim == claim["words"]]
    run = rows.model.isin(table.model[table.fingerprint != ""])
    cells = [_cells(claim, row) for row in rows[run].to_dict("records")]
    if others := list(dict.fromkeys(rows.paper[~run])):
        every = set(others) == set(table.paper) - {""}
        which = f"all {len(others)} of the paper" if every else f"the paper's {', '.join(others)}"
        cells.append([which, claim["data"], "", statistics.NOT_RUN])
    head = ["model", "data", "number, 95 % interval, null", "verdict"]
    return "\n\n".join([heading, told, _markdown(head, cells)])


def _cells(claim: dict, row: dict[str, Any]) -> list[str]:
    images = f", n = {row['images']}" if row["images"] else ""
    ours = "ours: " if row["whose"] == "ours" else ""
    data = f"{ours}{row['data']}{images} ({row['convention']})"
    number = ""
    if "equals" in claim and row["verdict"] != statistics.NOT_RUN:
        number = f"±{row['estimate']:.3f}"
    elif row["verdict"] != statistics.NOT_RUN:
        number = f"{_text(row)} over {row['count']} {row['over']}s; null {row['null']:+.3f}"
    return [row["model"], data, number, row["verdict"]]


def _text(row: Any) -> str:
    return statistics.text(statistics.interval(*(row[name] for name in NUMBERS)), ".3f")


def _models(table: pd.DataFrame) -> str:
    run = table[table.fingerprint != ""].drop_duplicates("model")
    rows = [
        [one.model, one.fingerprint, one.code_version, stored.TENSORS.get(one.model, "")]
        for one in run.itertuples()
    ]
    return _markdown(["model", "fingerprint", "code version", "its tensors"], rows)


# ---- what does not replicate ---------------------------------------------------------------------


def differences(table: pd.DataFrame) -> str:
    """Where the paper, its published code and this book differ, with the numbers that show it.

    Numbers are those of stored results and of the report's table.
    """
    numbers = {
        "code": [_of_code(table)],
        "stored": [_of_stored(name) for name in stored.names("salience")],
        "objects": _of_table(table, "CamVid", OF_OBJECTS),
        "weights": _of_table(table, "weights", {"rise": "cosine, last − middle"}),
    }
    head = ["what", "theirs", "ours", "where"]
    said = [(each, of) for each in FACTS["difference"] for of in numbers[each["numbers"]]]
    return _markdown(head, [[each[key].format(**of) for key in head] for each, of in said])


def published_baseline(width: int, draws: int = 10_000, seed: int = 0) -> float:
    """What the published code takes for the cosine that random directions reach.

    Its second vector is the first one again, divided by the length of another, so that the product
    of both is one over that length; its numbers are uniform; it takes the 99th percentile.
    """
    other = np.random.default_rng(seed).random((draws, width))
    return float(np.percentile(1 / np.linalg.norm(other, axis=1), 99))


def _each(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _of_code(table: pd.DataFrame) -> dict[str, Any]:
    """What the published code gives, and what is right."""
    name, *_ = stored.names("modes")
    modes = stored.read("modes", name).sel(convention="paper", layer=0)
    first = float(modes.cosine.weighted(modes.sigma).mean("mode").mean("head"))
    sizes = [each.image.size for each in datasets.photographs()]
    named = table.drop_duplicates("paper").paper != ""
    run = table[table.verdict != statistics.NOT_RUN]
    return {
        "model": name,
        "first": first,
        "divided": first / modes.sizes["mode"],
        "widths": ", ".join(map(str, WIDTHS)),
        "baselines": _each(map(published_baseline, WIDTHS)),
        "bands": _each(1.96 / width**0.5 for width in WIDTHS),
        "fixed": np.sin(0.123),
        "unseen": np.mean([1 - min(size) / max(size) for size in sizes]),
        "copies": COPIES * 12 * 12,
        "covered": sum(named) - len(FACTS["unpublished"]),
        "photographs": len(sizes),
        "intervals": sum(run.low < run.high),
        "measured": len(run),
    }


def _of_stored(name: str) -> dict[str, Any]:
    """What a model shows that the paper leaves out: biases, LayerNorm, the geometry of masks."""
    moved = stored.read("salience", name).total_variation.mean("layer")
    modes = stored.read("modes", name)
    cosine = modes.cosine.weighted(modes.sigma).mean("mode").mean("head")
    turned = np.sign(cosine).prod("convention") < 0
    same = stored.read("preference", name).sel(relation="same", set="drawn scenes")
    early = same.isel(layer=slice(same.sizes["layer"] // 3)).mean("layer")
    return {
        "model": name,
        "all": float(moved.sel(removed="all")),
        "bias": float(moved.sel(removed="bias")),
        "turned": int(turned.sum()),
        "layers": turned.size,
        "share": float(early.share_others),
        "geometry": float(early.null_share_others),
    }


def _of_table(table: pd.DataFrame, data: str, wanted: dict[str, str]) -> list[dict[str, str]]:
    """Measurements of the models that have all those wanted, the paper's convention first."""
    found = table[(table.fingerprint != "") & (table.data == data)]
    rows = []
    for name, own in found.groupby("model", sort=False):
        by = own.drop_duplicates("measurement").set_index("measurement")
        if set(wanted.values()) <= set(by.index):
            rows.append({"model": name} | {key: _text(by.loc[of]) for key, of in wanted.items()})
    return rows

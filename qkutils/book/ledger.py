"""The ledger: every claim that a chapter judges, with its number, its interval and its verdict.

Chapters show their rows, the build gathers them, and the last chapter reads them all.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from qkutils import options, statistics, store

MEDIA_TYPE = "application/vnd.qkutils.ledger+json"  # of a chapter's rows in its executed notebook
PUBLISHED = Path(str(resources.files(__package__).joinpath("results", "ledger.csv")))
GATHERED = "QKUTILS_LEDGER"  # names the file that the build gathers
SAID_BY = ("paper", "ours")
NUMBERS = ("estimate", "low", "high")
FIELDS = ["claim", "said_by", "seen", "subject", *NUMBERS, "form", "over", "more", "verdict"]


def claim(
    words: str,
    found: xr.Dataset | None,
    direction: int,
    measure: str,
    *,
    subject: str,
    over: str,
    said_by: str = "ours",
    seen: bool = False,
    images: int | None = None,
    form: str = ".2f",
    more: str = "",
) -> dict[str, Any]:
    """Judge one claim by the rule of the book, as a row of the ledger.

    Parameters
    ----------
    words
        The claim, in one sentence that can be true or false.
    found, direction, measure, images
        As `statistics.verdict` takes them.
    subject
        Of which models or model it is judged, and on what.
    over
        What the interval is over: `5 runs`, `256 scenes`, `12 heads`.
    said_by
        `paper`, or `ours` where the paper does not say it.
    seen
        Whether the question was asked after the numbers had been seen.
    form
        How the numbers are written, as `statistics.text` takes it.
    more
        What has to be said beside the number: a null, a count.

    Returns
    -------
    dict
        The row.

    Raises
    ------
    ValueError
        For what `statistics.verdict` refuses, and for an empty text.

    Examples
    --------
    >>> import qkutils as qk
    >>> from qkutils.book import ledger
    >>> found = qk.statistics.interval(0.3, 0.25, 0.34)
    >>> who = {"subject": "tiny-supervised", "over": "3 runs"}
    >>> ledger.claim("Attention follows objects.", found, 1, "grouping", **who)["verdict"]
    'holds'
    """
    options.choice("said_by", said_by, SAID_BY)
    for name, value in {"words": words, "subject": subject}.items():
        if not value.strip():
            raise ValueError(f"{name}: a row of the ledger needs it")
    row: dict[str, Any] = {"claim": words, "said_by": said_by, "seen": seen, "subject": subject}
    numbers = {name: np.nan if found is None else float(found[name]) for name in NUMBERS}
    verdict = statistics.verdict(found, direction, measure, images)
    return row | numbers | {"form": form, "over": over, "more": more, "verdict": verdict}


class Rows:
    """Rows of the ledger as a chapter shows them: a table, and for the build their numbers."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """`rows`: what `claim` gave."""
        self.rows = [{field: row[field] for field in FIELDS} for row in rows]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        plain = [{k: None if v != v else v for k, v in row.items()} for row in self.rows]
        return {MEDIA_TYPE: plain, "text/html": as_html(self.rows), "text/plain": repr(self.rows)}


def as_html(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as a table of three columns: the claim, what the run gave, the verdict."""
    head = "<tr><th>claim</th><th>this run</th><th>verdict</th></tr>"
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    return f'<table class="ledger"><thead>{head}</thead><tbody>{body}</tbody></table>'


def _cells(row: Mapping[str, Any]) -> str:
    whose = "Pan et al." if row["said_by"] == "paper" else "ours"
    whose += ", seen afterwards" if row["seen"] else ""
    said = f"{html.escape(row['claim'])} <small>({whose})</small>"
    over = f", over {row['over']}" if row["over"] else ""
    parts = [html.escape(part) for part in (row["subject"] + over, row["more"])]
    run = [f"<small>{part.replace('_', '_<wbr>')}</small>" for part in parts]
    if row["estimate"] == row["estimate"] and row["estimate"] is not None:
        found = statistics.interval(*(row[name] for name in NUMBERS))
        run.insert(0, f"<strong>{html.escape(statistics.text(found, row['form']))}</strong>")
    shown = "<br>".join(part for part in run if part != "<small></small>")
    return f"<td>{said}</td><td>{shown}</td><td>{html.escape(row['verdict'])}</td>"


def quote(text: str) -> str:
    """A claim's number with its interval, or another field, as the role `ledger` shows it.

    Parameters
    ----------
    text
        `claim` or `claim | field`.  The claim may be cut short, as long as only one begins so;
        `claim @ subject` tells claims of the same words apart.

    Returns
    -------
    str
        The words.

    Raises
    ------
    ValueError
        Where not one claim of the ledger begins so, and for a field that it does not have.
    """
    where, _, field = (part.strip() for part in text.partition("|"))
    words, _, subject = (part.strip() for part in where.partition("@"))
    table = read()
    table = table[table.claim.str.startswith(words) & table.subject.str.startswith(subject)]
    if len(table) != 1:
        raise ValueError(f"{len(table)} claims of the ledger begin with {where!r}")
    row = table.iloc[0]
    if field:
        options.choice("field", field, FIELDS)
        return str(row[field])
    return statistics.text(statistics.interval(*(row[n] for n in NUMBERS)), row["form"])


def gather(notebooks: Mapping[str, Path], to: Path) -> Path:
    """Writes the rows of executed chapters, by their names, into one file, where they changed."""
    found = []
    for chapter, path in notebooks.items():
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                rows = output.get("data", {}).get(MEDIA_TYPE, [])
                found += [{"chapter": chapter, **row} for row in rows]
    table = pd.DataFrame(found, columns=["chapter", *FIELDS])
    text = table.to_csv(index=False, float_format="%.6g")
    return to if to.is_file() and to.read_text("utf-8") == text else store.write(to, text)


def read(path: Path | None = None) -> pd.DataFrame:
    """Read the ledger: what this build gathered, else what is published with the package.

    Parameters
    ----------
    path
        Another file that `gather` wrote.

    Returns
    -------
    pd.DataFrame
        A row for each claim, with its `chapter` and the fields that `claim` gives.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.

    Examples
    --------
    >>> from qkutils.book import ledger
    >>> "verdict" in ledger.read().columns
    True
    """
    file = path or Path(os.environ.get(GATHERED, PUBLISHED))
    texts = {"form": str, "over": str, "more": str}
    return pd.read_csv(file, dtype=texts, keep_default_na=False, na_values={n: "" for n in NUMBERS})

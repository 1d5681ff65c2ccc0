"""The page of the models says what the catalogue says, of each and of nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import qkutils as qk
from qkutils.models._catalogue import entry, recipes

PAGE = Path(__file__).parents[2] / "book" / "models.md"
TABLE = qk.catalogue().query("paper != ''").reset_index()


def what(row: Any) -> tuple[str, ...]:
    """What a model is, and whether it can be read."""
    return row.objective, row.data, row.licence, row.reading


def where(row: Any) -> tuple[str, ...]:
    """What `load` calls it, and where its tensors are."""
    others = [f"[the hub, {row.paper}](https://huggingface.co/{row.hub})"] if row.hub else []
    others += [f"[Google's .npz]({row.npz})"] if row.npz else []
    others += [f"[the authors' page or file]({row.page.split()[0]})"] if row.file else []
    name = row["name"] if row.loader == "load" else f"models.{row.loader}"
    return f"`{name}`", ", ".join(others)


def untold(row: Any) -> tuple[str, ...]:
    """What no file of tensors tells."""
    eps = f"{row.eps:.0e}".replace("e-0", "e-")
    on_hub = f"{row.eps_hub:.0e} on the hub" if row.eps_hub else ""
    known = ", ".join(recipes(entry(row["name"]))) or "none known"
    parts = (str(row.heads), ", ".join(filter(None, (eps, on_hub))), row.activation, known)
    return *parts, f"`{row.state_dict}`" if row.state_dict else "-"


@pytest.mark.parametrize("columns", [what, where, untold])
def test_the_page_says_what_the_catalogue_says(columns):
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    wanted = [" | ".join((f"| {row.paper}", *columns(row))) + " |" for _, row in TABLE.iterrows()]
    start = lines.index(wanted[0])
    assert lines[start : start + len(TABLE)] == wanted

"""The catalogue: the models that have a name, what is known of them, and which are at hand."""

from __future__ import annotations

import qkutils._torchvision

import difflib
import os
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import timm
from timm.models import get_pretrained_cfg

from qkutils import checkpoints
from qkutils.models import _hub as hub

WEIGHTS_VARIABLE = "QKUTILS_WEIGHTS"
_EMBEDDED = Path(str(resources.files("qkutils").joinpath("weights")))

Row = dict[str, Any]  # of the catalogue; empty for what is not in it


def at_hand() -> list[str]:
    """List the catalogue's models that `load` can load without a network.

    Embedded models come first.  Then come those in the folder that QKUTILS_WEIGHTS names, and in
    the hub's cache.

    Returns
    -------
    list
        Their names, in alphabetical order within each of the two groups.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.models.at_hand()[:3]
    ['tiny-dino', 'tiny-dino-s1', 'tiny-dino-s2']
    """
    names = sorted(entries().query("loader == 'load'").index)
    ours = [name for name in names if embedded(name)]
    return ours + [name for name in names if name not in ours and (kept(name) or _cached(name))]


@cache
def _said() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("catalogue.toml").read_text("utf-8")
    return tomllib.loads(text)


@cache
def entries() -> pd.DataFrame:
    """Rows of the catalogue; an entry with several seeds becomes a row for each of them."""
    said = _said()
    rows = [said["default"] | said["family"][own["family"]] | own for own in said["model"]]
    table = pd.DataFrame(rows).rename(columns={"seeds": "seed"})
    table = table.explode("seed").astype({"seed": "Int64"})
    table["timm"] = table.timm.where(table.source != "timm", table["name"])
    later = ("-s" + table.seed.astype(str)).where(table.seed > 0, "")
    return table.assign(name=table["name"] + later).set_index("name")


def catalogue() -> pd.DataFrame:
    """List the models of the book and of the paper with their facts.

    Returns
    -------
    pd.DataFrame
        One row for each model, by its name.  The columns say the `paper`'s name for it, its
        `family`, the `objective` and `data` of its training, its `licence`, the `source` of its
        tensors and where else they are, what tensors can't tell (`heads`, `eps`, `activation`,
        `block`), the `variants` of preprocessing, whether its `reading` is tested, the
        `fingerprint` of its weights where it is fixed, and the `image_size` at which it is used
        where that is not its own.  What is not known is empty.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.catalogue().loc["tiny-supervised", ["objective", "source"]].tolist()
    ['classification', 'embedded']
    """
    return entries().copy()


def family() -> pd.DataFrame:
    """Arrange the names of the embedded models by objective and seed.

    Returns
    -------
    pd.DataFrame
        Names of models.  Rows are objectives, called by the first seed's name without `tiny-`.
        Columns are seeds.  What has not been trained is missing.

    Examples
    --------
    >>> import qkutils as qk
    >>> table = qk.models.family()
    >>> table.loc["dino"].tolist()[:3]
    ['tiny-dino', 'tiny-dino-s1', 'tiny-dino-s2']
    """
    table = entries().query("source == 'embedded'").reset_index().astype({"seed": int})
    table["trained_for"] = table["name"].str.replace(r"^tiny-|-s\d+$", "", regex=True)
    order = table.trained_for.unique()
    return table.pivot(index="trained_for", columns="seed", values="name").loc[order]


@cache
def _by_any_name() -> dict[str, Row]:
    found: dict[str, Row] = {"": {}}
    for row in entries().reset_index().to_dict("records"):
        file = checkpoints.title(Path(row["file"]))
        for name in (row["name"], row["timm"], row["hub"], file):
            found.setdefault(name, row)
    return found


def entry(name: str) -> Row:
    """The catalogue's row for one of a model's names: its own, timm's, the hub's, its file's."""
    return dict(_by_any_name().get(name, {}))


def recipes(row: Row) -> dict[str, dict[str, Any]]:
    """What is known of a model's preprocessing, in timm's words; the first is the default."""
    if not row:
        return {}
    config: Any = get_pretrained_cfg(row["timm"]) if row["timm"] else None
    theirs = {"timm": config.to_dict()} if config else {}
    words = _said()["preprocessing"]
    return theirs | {who: words[recipe] for who, recipe in row["variants"].items()}


def embedded(name: str) -> Path | None:
    """The file of an embedded model; None for any other name."""
    path = _EMBEDDED / f"{name}.safetensors"
    return path if os.path.isfile(path) else None


def kept(name: str) -> Path | None:
    """What the folder that QKUTILS_WEIGHTS names has of a model: NAME.safetensors, a folder NAME
    as in the hub, or the authors' own file; None where it has none of these."""
    folder = os.environ.get(WEIGHTS_VARIABLE)
    if not folder:
        return None
    files = [f"{name}.safetensors", *(f"{name}/{each}" for each in hub.WEIGHTS)]
    paths = (Path(folder, file) for file in (*files, entry(name).get("file")) if file)
    return next((path for path in paths if path.is_file()), None)


def _cached(name: str) -> bool:
    """Whether the hub's cache has what `load` would fetch."""
    row = entry(name)
    if row["source"] == "timm":
        theirs: Any = get_pretrained_cfg(name)
        return hub.cached(theirs.hf_hub_id, beside="") is not None
    return row["source"] == "hub" and hub.cached(row["hub"]) is not None


def hint(name: object) -> str:
    """What may have been meant."""
    known = [*entries().index, *timm.list_models(), *timm.list_pretrained()]
    close = difflib.get_close_matches(str(name)[:100], known, n=3)
    return f"; did you mean {', '.join(close)}?" if close else "; see qkutils.catalogue()"

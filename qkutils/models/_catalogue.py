"""The catalogue: the models that have a name, and what is said of a name that is none."""

from __future__ import annotations

import qkutils._torchvision

import difflib
import os
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path

import pandas as pd
import timm

WEIGHTS_VARIABLE = "QKUTILS_WEIGHTS"
_EMBEDDED = Path(str(resources.files("qkutils").joinpath("weights")))


def at_hand() -> list[str]:
    """List the catalogue's models that `load` can load without a network.

    Embedded models come first.  Then come those in the folder that QKUTILS_WEIGHTS names.

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
    own = os.environ.get(WEIGHTS_VARIABLE)
    names: list[str] = []
    for folder in [_EMBEDDED, *([Path(own)] if own else [])]:
        names += sorted(path.stem for path in folder.glob("*.safetensors"))
    return [name for name in dict.fromkeys(names) if name in entries().index]


@cache
def entries() -> pd.DataFrame:
    """Rows of the catalogue; an entry with several seeds becomes a row for each of them."""
    text = resources.files(__package__).joinpath("catalogue.toml").read_text("utf-8")
    table = pd.DataFrame(tomllib.loads(text)["model"]).fillna({"fingerprint": ""})
    table = table.rename(columns={"seeds": "seed"}).explode("seed").astype({"seed": "Int64"})
    later = ("-s" + table.seed.astype(str)).where(table.seed > 0, "")
    return table.assign(name=table["name"] + later).set_index("name")


def catalogue() -> pd.DataFrame:
    """List the models of the book and of the paper with their facts.

    Returns
    -------
    pd.DataFrame
        One row for each model, by its name.  The columns say the `paper`'s name for it, the
        `objective` of its training, the `source` of its tensors, a `note`, the `fingerprint` of its
        weights where it is fixed, and the `seed` where there are several.

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
    >>> table.loc["dino"].tolist()
    ['tiny-dino', 'tiny-dino-s1', 'tiny-dino-s2']
    """
    table = entries().query("source == 'embedded'").reset_index().astype({"seed": int})
    table["trained_for"] = table["name"].str.replace(r"^tiny-|-s\d+$", "", regex=True)
    order = table.trained_for.unique()
    return table.pivot(index="trained_for", columns="seed", values="name").loc[order]


def embedded(name: str) -> Path | None:
    """The file of an embedded model; None for any other name."""
    path = _EMBEDDED / f"{name}.safetensors"
    return path if os.path.isfile(path) else None


def hint(name: object) -> str:
    """What may have been meant."""
    known = [*entries().index, *timm.list_models(), *timm.list_pretrained()]
    close = difflib.get_close_matches(str(name)[:100], known, n=3)
    return f"; did you mean {', '.join(close)}?" if close else "; see qkutils.catalogue()"

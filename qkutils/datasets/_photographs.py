"""Photographs that may be shown: a few, in this package, each with its author and its licence."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import PIL.Image

from qkutils.datasets._reading import Reading, Report
from qkutils.pictures import open_picture

FOLDER = Path(__file__).with_name("photographs")


@dataclass(frozen=True)
class Photograph:
    """A photograph, and what has to be said where it is shown."""

    key: str
    image: PIL.Image.Image
    credit: str


def photographs() -> Reading[Photograph]:
    """Give the photographs of this package.

    They show people, animals, plants, things and landscapes.  Their short side has 256 pixels.

    Returns
    -------
    Reading
        In the order of their names.  Each has a `key`, an `image`, and the `credit` that has to
        stand where it is shown.

    Examples
    --------
    >>> import qkutils as qk
    >>> photographs = qk.datasets.photographs()
    >>> len(photographs), photographs.keys[:3]
    (20, ['astronaut', 'brushes', 'cat'])
    >>> photographs[2].image.size, photographs[2].credit
    ((385, 256), 'Chelsea the cat, by Stéfan van der Walt, CC0 1.0')
    """
    credits = photograph_credits()

    def read(key: str) -> Photograph:
        title, author, licence = credits.loc[key, ["title", "author", "licence"]]
        image = open_picture(FOLDER / f"{key}.jpg")
        return Photograph(key, image, f"{title}, by {author}, {licence}")

    return Reading(list(credits.index), read, Report("photographs", len(credits), {}))


def photograph_credits() -> pd.DataFrame:
    """List whose photographs these are.

    Returns
    -------
    pd.DataFrame
        One row for each photograph, by its name: its `title`, `author` and `licence`, the `file`
        that it was made from, and a `page` about it.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.datasets.photograph_credits().licence.value_counts().to_dict()["CC BY 4.0"]
    8
    """
    text = (FOLDER / "photographs.toml").read_text("utf-8")
    return pd.DataFrame.from_dict(tomllib.loads(text), orient="index").rename_axis("name")

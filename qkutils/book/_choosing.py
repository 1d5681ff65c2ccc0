"""What a chapter compares and shows: models beside its own, and how many pictures of which kind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

import qkutils as qk
from qkutils.book import stored
from qkutils.records import Records

BUDGET = 240.0  # seconds that a chapter's passes of a large model may take
LARGE = 2.3e10  # parameters times tokens; just above those of ViT-B/14 at 224 pixels
FEWEST = 4  # pictures without which a chapter shows nothing


def is_embedded(model: qk.Model) -> bool:
    """Whether it is one of the small models of this package, which saw drawn scenes alone."""
    return model.facts.get("source") == "embedded"


def pictures_for(model: qk.Model, count: int) -> Sequence[Any]:
    """Give pictures of the kind that a model was trained on.

    Parameters
    ----------
    model
        What `load` gave.
    count
        How many at most.

    Returns
    -------
    Sequence
        Drawn scenes for an embedded model.  For any other one the photographs of this package, of
        which there are twenty.

    Examples
    --------
    >>> import qkutils as qk
    >>> len(qk.book.pictures_for(qk.load("tiny-supervised"), 64))
    64
    """
    if is_embedded(model):
        return qk.world.pictures(0, 0, count, size=model.image_size[0])
    return qk.datasets.photographs()[:count]


def few_enough(model: qk.Model, pictures: Sequence, passes: int = 1, besides: int = 0) -> Sequence:
    """Take as many of a chapter's pictures as four minutes allow, and print how many these are.

    Up to ViT-B at 224 pixels it takes all, times nothing and prints nothing.  A larger model is
    timed on one picture.

    Parameters
    ----------
    model
        What `load` gave.
    pictures
        Pictures, records with an `image`, or their keys or numbers.
    passes
        How often each of them passes the model in the chapter.
    besides
        How many passes the chapter makes in any case, whatever is taken.

    Returns
    -------
    Sequence
        All of them, or some, spread evenly; at least four, where there are so many.

    Examples
    --------
    >>> import qkutils as qk
    >>> few_enough(qk.load("tiny-supervised"), range(64), passes=2)
    range(0, 64)
    """
    if sum(each.numel() for each in model.net.parameters()) * model.token_count <= LARGE:
        return pictures
    cost = seconds(model.net)
    room = max(FEWEST, int((BUDGET / cost - besides) / passes))
    taken = spread(pictures, room)
    minutes = cost * (passes * len(taken) + besides) / 60
    print(
        f"{len(taken)} of {len(pictures)} pictures are taken: one takes {model.name} {cost:.2g} s, "
        f"and this chapter's passes of them about {minutes:.2g} minutes."
    )
    return taken


def seconds(net: Any, batch: int = 1, times: int = 2) -> float:
    """How long a picture of a batch takes; the shortest time, since others use the machine."""
    weight = net.patch_embed.proj.weight
    images = torch.zeros(batch, weight.shape[1], *net.patch_embed.img_size, device=weight.device)
    took = []
    for _ in range(times):
        start = time.perf_counter()
        with torch.inference_mode():
            float(net(images).sum())  # waits for the device
        took.append(time.perf_counter() - start)
    return min(took) / batch


def spread(items: Any, count: int) -> Sequence:
    """As many of the items, spread evenly and read when asked for; all where there are no more."""
    if count >= len(items):
        return items
    return Records([n * len(items) // count for n in range(count)], items.__getitem__)


def live(names: Sequence[str]) -> dict[str, str]:
    """Find which models of a comparison are at hand; of the others, numbers have to be stored.

    Parameters
    ----------
    names
        What `load` takes.

    Returns
    -------
    dict
        What to load, by the name that the model then has.

    Raises
    ------
    ValueError
        For a model that can't be loaded, and of which nothing is stored.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.book.live(["tiny-dino"])
    {'tiny-dino': 'tiny-dino'}
    """
    found = {}
    for name in names:
        try:
            found[qk.load(name).name] = name
        except (OSError, ValueError, RuntimeError) as error:
            if name not in stored.names():
                told = f"{name}: it is neither at hand nor stored ({error})"
                raise ValueError(" ".join(told.split())) from error
    return found

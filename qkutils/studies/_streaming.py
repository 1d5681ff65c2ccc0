"""Streaming: pictures pass through the model once, carrying their own regions and others'."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from qkutils import options, store
from qkutils.models import Model
from qkutils.passes import Watch, streaming
from qkutils.pictures import in_mode
from qkutils.records import Segmentations


def stream(
    model: Model,
    pictures: Sequence[Any],
    size: int,
    begin: Callable[[slice], Watch],
    folder: Path | None = None,
    shape: tuple[int, ...] = (),
) -> Float[np.ndarray, "picture layer ..."]:
    """What a study measures of pictures, or of records with an `image`, batch by batch.

    `begin` gets a batch's place among the pictures, and gives a function of each layer and its
    tokens: the measurement, in this `shape` for each picture where the numbers are kept.  Each
    batch's are kept in the folder, if any; raises ValueError for kept ones of another shape.
    """

    def measured(which: slice) -> np.ndarray:
        layers: list[Tensor] = []
        measure = begin(which)
        batch = (pictures[n] for n in range(len(pictures))[which])
        seen = (in_mode(getattr(each, "image", each)) for each in batch)
        images = torch.stack([model.transform(picture) for picture in seen])
        run(images, lambda layer, x: layers.append(measure(layer, x)))
        return torch.stack(layers, 1).cpu().numpy()

    done: list[np.ndarray] = []
    with tqdm(total=len(pictures), desc="images") as bar, streaming(model) as run:
        for start in range(0, len(pictures), size):
            file = None if folder is None else folder / f"{start}.npy"
            part = store.kept(file, partial(measured, slice(start, start + size)))
            count = min(size, len(pictures) - start)
            wanted = (count, len(model.net.blocks), *shape)
            if file and part.shape != wanted:
                raise ValueError(f"{file}: of shape {part.shape}, not {wanted}; remove {folder}")
            done.append(part)
            bar.update(count)
    return np.concatenate(done)


def check(segmentations: Segmentations, batch_size: int) -> None:
    """Raises ValueError for too few pictures: the null lays each one's segments on another."""
    options.count("batch_size", batch_size)
    count = len(options.sequence("segmentations", segmentations))
    options.count("number of segmentations", count, 2)


def pairing(keys: Sequence[str], count: int = 1) -> Int[np.ndarray, "picture guest"]:
    """For each picture, the pictures whose regions are laid on it for the null.

    The keys decide, and no picture gets its own or one twice; each one's regions are laid on
    `count` others.  Raises ValueError for keys that occur twice, and for too few pictures.
    """
    refuse_twins(keys)
    options.count("nulls", count, 1, len(keys) - 1)
    order = np.array(shuffled(keys))
    guests = np.empty((len(keys), count), dtype=np.int64)
    guests[order] = np.stack([np.roll(order, n + 1) for n in range(count)], 1)
    return guests


def refuse_twins(keys: Sequence[str]) -> None:
    """Raises ValueError for keys that occur twice."""
    twins = [repr(key) for key, times in Counter(keys).items() if times > 1]
    if twins:
        raise ValueError(f"{', '.join(twins[:5])} occur more than once; give each picture its key")


def shuffled(names: Sequence[str]) -> list[int]:
    """Positions of names in an order that depends on each name alone, and not on its neighbours'.

    Names of neighbours in a folder are often alike, and so are their pictures.
    """
    coded = [name.encode("utf-8", "surrogatepass") for name in names]
    return sorted(range(len(names)), key=lambda n: hashlib.sha256(coded[n]).digest())

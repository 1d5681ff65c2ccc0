"""Layouts: where objects and segments lie on a model's patches, and on whose picture to lay them.

A layout never holds the picture itself, so that all of a data set's are kept while pictures pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from qkutils import options
from qkutils.alignment import align_labels
from qkutils.models import Model
from qkutils.records import Segmentations, Segmented
from qkutils.studies._regions import refuse_twins, shuffled

HALF = 0.5
SMALLEST = 1e-6  # share of a patch that is asked of an object


@dataclass(frozen=True)
class Objects:
    """The objects of a picture as the model sees it, numbered from 0."""

    where: Int[np.ndarray, "row column"]  # the object of every pixel, -1 where there is none
    label: Int[np.ndarray, " object"]  # what the label map calls each of them
    share: Float[np.ndarray, "object patch"]  # of each patch's area
    left_out: int  # objects too small for the patch grid


def objects_of(
    model: Model, segmented: Segmented, instances: bool = False, cover: float = HALF
) -> Objects:
    """Find the objects of a picture after the model's own resize and crop.

    Paper figure 6.

    Parameters
    ----------
    model
        What `load` gave.
    segmented
        A picture with one label map.
    instances
        Whether every number of the label map is one object; else each connected component is one.
    cover
        The share of a patch, above 0 and up to 1, that an object has to cover in one patch at
        least.  Smaller objects are left out and counted.

    Returns
    -------
    Objects
        `where` [row, column]: the object of every pixel, -1 where there is none.  `label`: what
        the label map calls each object.  `share` [object, patch]: of each patch's area.
        `left_out`: how many objects were too small.

    Raises
    ------
    ValueError
        For a picture with several label maps, or with none.

    Examples
    --------
    >>> import qkutils as qk
    >>> model = qk.load("tiny-supervised")
    >>> objects = qk.studies.objects_of(model, qk.world.segmentations(0, 0, 1)[0])
    >>> objects.share.shape, objects.left_out
    ((12, 64), 2)
    """
    options.flag("instances", instances)
    cover = options.number("cover", cover, SMALLEST, 1, closed=True)
    if len(_label_maps(segmented)) != 1:
        raise ValueError(
            f"{segmented.key!r} has {len(segmented.labels)} label maps; objects are taken from "
            "one: hand in a Segmented with the one you choose"
        )
    labels = align_labels(model, segmented.image, segmented.labels[0])[1].numpy()
    number, label = _numbered(labels, instances)
    share = _patch_shares(number, len(label), model.grid)
    kept = share.max(1, initial=0) >= cover
    new = np.append(np.where(kept, kept.cumsum() - 1, -1), -1)  # the last: pixels of no object
    return Objects(new[number], label[kept], share[kept], int((~kept).sum()))


def _label_maps(segmented: Segmented) -> tuple[np.ndarray, ...]:
    """A picture's label maps; ValueError where they are none."""
    if not isinstance(segmented, Segmented):
        raise ValueError(f"{segmented!r:.80}: a Segmented is needed, a picture with label maps")
    for labels in segmented.labels:
        if getattr(labels, "ndim", 0) != 2 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"{segmented.key!r}: a label map is an array [row, column] of whole numbers, -1 "
                f"where there is no segment; this is {_kind(labels)}"
            )
    if not segmented.labels:
        raise ValueError(f"{segmented.key!r} has no label map; at least one is needed")
    return segmented.labels


def _kind(array: object) -> str:
    shape, dtype = (getattr(array, name, None) for name in ("shape", "dtype"))
    return type(array).__name__ if shape is None else f"{dtype} of shape {shape}"


def _numbered(
    labels: Int[np.ndarray, "row column"], instances: bool
) -> tuple[Int[np.ndarray, "row column"], Int[np.ndarray, " object"]]:
    """The number of every pixel's object, -1 where there is none, and each object's label."""
    number = np.full(labels.shape, -1, dtype=np.int64)
    of_object: list[int] = []
    for label in np.unique(labels[labels >= 0]).tolist():
        mask = labels == label
        parts, count = (mask, 1) if instances else scipy.ndimage.label(mask)
        number[mask] = len(of_object) + parts[mask] - 1
        of_object += [label] * count
    return number, np.array(of_object, dtype=np.int64)


def _patch_shares(
    number: Int[np.ndarray, "row column"], count: int, grid: tuple[int, int]
) -> Float[np.ndarray, "segment patch"]:
    """Share of every patch's area that each of the segments 0 to count − 1 covers."""
    rows, columns = (np.arange(n) * g // n for n, g in zip(number.shape, grid, strict=True))
    patch = rows[:, None] * grid[1] + columns
    patches = grid[0] * grid[1]
    there = number >= 0
    pixels = np.bincount(number[there] * patches + patch[there], minlength=count * patches)
    area = np.bincount(patch.ravel(), minlength=patches)
    return (pixels.reshape(count, patches) / area).astype(np.float32)


def segments_of_patches(model: Model, segmented: Segmented) -> Int[np.ndarray, "person patch"]:
    """Say which segment covers at least half of each patch, after the model's own resize and crop.

    Parameters
    ----------
    model
        What `load` gave.
    segmented
        A picture with one label map or several.

    Returns
    -------
    np.ndarray
        Segments [label map, patch]; -1 where none covers half.  Where two segments cover just half
        of a patch, the smaller number counts.

    Raises
    ------
    ValueError
        For a picture without a label map.

    Examples
    --------
    >>> import qkutils as qk
    >>> model = qk.load("tiny-supervised")
    >>> people = qk.studies.segments_of_patches(model, qk.world.segmentations(0, 0, 1)[0])
    >>> people.reshape(-1, *model.grid)[0, 1].tolist()
    [-1, 16, 16, -1, 17, -1, 18, -1]
    """
    people = []
    for labels in _label_maps(segmented):
        seen = align_labels(model, segmented.image, labels)[1].numpy()
        number, label = _numbered(seen, instances=True)
        share = _patch_shares(number, len(label), model.grid)
        largest = share.argmax(0) if len(label) else np.zeros(share.shape[1], dtype=np.int64)
        enough = share.max(0, initial=0) >= HALF
        people.append(np.where(enough, np.append(label, -1)[largest], -1))
    return np.stack(people)


def check(segmentations: Segmentations, batch_size: int) -> None:
    """Raises ValueError for too few pictures: the null lays each one's segments on another."""
    options.count("batch_size", batch_size)
    options.sequence("segmentations", segmentations)
    if len(segmentations) < 2:
        raise ValueError(
            f"{len(segmentations)} pictures: at least two are needed, because the null lays the "
            "segments of each on another"
        )


def pairing(keys: Sequence[str], count: int = 1) -> Int[np.ndarray, "picture guest"]:
    """For each picture, the pictures whose layouts are laid on it for the null.

    The keys decide, and no picture gets its own or one twice; each layout is laid on `count`
    others.  Raises ValueError for keys that occur twice, and where there are too few pictures.
    """
    refuse_twins(keys)
    options.count("nulls", count, 1, len(keys) - 1)
    order = np.array(shuffled(list(keys)))
    guests = np.empty((len(keys), count), dtype=np.int64)
    guests[order] = np.stack([np.roll(order, n + 1) for n in range(count)], 1)
    return guests


def picture_batches(
    model: Model, segmentations: Segmentations, places: Sequence[int], size: int
) -> Iterator[tuple[list[int], Float[Tensor, "image 3 height width"]]]:
    """Places in the data set, and the pictures there as the model takes them, batch by batch."""
    with tqdm(total=len(places), desc="images") as bar:
        for start in range(0, len(places), size):
            which = list(places[start : start + size])
            pictures = (segmentations[place].image.convert("RGB") for place in which)
            yield which, torch.stack([model.transform(picture) for picture in pictures])
            bar.update(len(which))

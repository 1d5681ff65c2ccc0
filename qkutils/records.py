"""Records: a picture with masks or label maps, and sequences that read them when asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import SupportsIndex, TypeVar, overload

import numpy as np
import PIL.Image

Item = TypeVar("Item")


@dataclass(frozen=True)
class Sample:
    """A picture and boolean masks [height, width] of its regions.

    Masks may be larger or smaller than the picture.  Masks of numbers are taken where they have
    one value beside 0.  Raises ValueError for a mask of other values or of another shape.
    """

    key: str
    image: PIL.Image.Image
    masks: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        masks = {name: _mask(self, name, values) for name, values in self.masks.items()}
        if len({mask.shape for mask in masks.values()}) > 1:
            sizes = " and ".join(f"{name} mask of {mask.shape}" for name, mask in masks.items())
            raise ValueError(f"{self.key!r}: {sizes} pixels; bring all to one size")
        object.__setattr__(self, "masks", masks)


@dataclass(frozen=True)
class Segmented:
    """A picture and label maps [height, width]: every pixel's segment, -1 where there is none.

    `names` are the segments' names by number.  Raises ValueError for a label map of numbers that
    are not whole, or of another shape than the picture's.
    """

    key: str
    image: PIL.Image.Image
    labels: tuple[np.ndarray, ...]
    names: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = tuple(_whole(self, values) for values in self.labels)
        object.__setattr__(self, "labels", labels)


Samples = Sequence[Sample]
Segmentations = Sequence[Segmented]


class Records(Sequence[Item]):
    """What is found at each of several places, read when it is asked for.

    A slice reads nothing: it is a sequence of the same sort.

    Examples
    --------
    >>> squares = Records(range(10), lambda n: n**2)
    >>> squares[-1], list(squares[2:8][::2])
    (81, [4, 16, 36])
    """

    def __init__(self, places: Sequence, read: Callable[..., Item]) -> None:
        self._places, self._read = places, read

    @property
    def keys(self) -> list[str] | None:
        """The names of the items, where they have any."""
        return None

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: SupportsIndex) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Records[Item]: ...
    def __getitem__(self, at: SupportsIndex | slice) -> Item | Records[Item]:
        if isinstance(at, slice):
            part = copy.copy(self)
            part._places = self._places[at]
            return part
        return self._read(self._places[index(at)])


def same_shape(image: tuple[int, int], mask: tuple[int, int]) -> bool:
    """Whether (width, height) of a mask are those of a picture, up to scale and a pixel's half."""
    (width, height), (mask_width, mask_height) = image, mask
    return abs(mask_width / width - mask_height / height) <= 1 / width + 1 / height


def _plane(record: Sample | Segmented, what: str, values: np.ndarray) -> np.ndarray:
    """One number for each pixel, in the shape of the record's picture; ValueError for others."""
    if not isinstance(record.image, PIL.Image.Image):
        raise ValueError(f"{record.key!r}: {type(record.image).__name__} is no PIL image")
    found, named = np.asarray(values), f"{record.key!r}: {what}"
    if found.ndim != 2 or not found.size or found.dtype.kind not in "biuf":
        raise ValueError(
            f"{named} has the shape {found.shape} and holds {found.dtype}; one number for each "
            "pixel is needed, [height, width]"
        )
    if not same_shape(record.image.size, found.shape[::-1]):
        sizes = "{1} × {0} pixels does not fit the picture of {2} × {3}"
        raise ValueError(f"{named} of {sizes.format(*found.shape, *record.image.size)}")
    return found


def _mask(sample: Sample, name: str, values: np.ndarray) -> np.ndarray:
    found = _plane(sample, f"{name} mask", values)
    if found.dtype == bool:
        return found
    levels = np.unique(found)
    if len(levels[levels != 0]) > 1 or not np.isfinite(levels).all():
        raise ValueError(
            f"{sample.key!r}: {name} mask has the values {levels[:4].tolist()} …; a mask is "
            "boolean, or has one value beside 0: choose a threshold"
        )
    return found != 0


def _whole(segmented: Segmented, values: np.ndarray) -> np.ndarray:
    found = _plane(segmented, "label map", values)
    with np.errstate(invalid="ignore"):  # NaN is refused below
        whole = found.astype(np.int32)
    if (whole != found).any() or whole.min() < -1:
        raise ValueError(
            f"{segmented.key!r}: label map has values that are no whole numbers from -1 to "
            f"{np.iinfo(np.int32).max}; give each segment such a number"
        )
    return whole

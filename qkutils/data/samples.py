"""Pictures with the masks of what is in them, in one form for every data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import PIL.Image
from jaxtyping import Bool, Int


@dataclass(frozen=True)
class Sample:
    """A picture and boolean masks of its regions, which may have another size than the picture."""

    key: str
    image: PIL.Image.Image
    masks: dict[str, Bool[np.ndarray, "height width"]]


@dataclass(frozen=True)
class Segmented:
    """A picture and label maps: every pixel's segment, -1 where there is none; names by number."""

    key: str
    image: PIL.Image.Image
    labels: tuple[Int[np.ndarray, "height width"], ...]
    names: dict[int, str] = field(default_factory=dict)


Samples = Sequence[Sample]
Segmentations = Sequence[Segmented]

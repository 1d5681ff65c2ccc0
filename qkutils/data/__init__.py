"""Pictures, with or without the masks of what is in them, from folders or the embedded world."""

from qkutils.data.alignment import align, align_labels
from qkutils.data.samples import Sample, Samples, Segmentations, Segmented
from qkutils.data.sources import BOOK_SCENES, images, pictures, visible

__all__ = [
    "BOOK_SCENES",
    "Sample",
    "Samples",
    "Segmentations",
    "Segmented",
    "align",
    "align_labels",
    "images",
    "pictures",
    "visible",
]

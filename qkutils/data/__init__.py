"""Pictures, with or without the masks of what is in them, from folders and sequences."""

from qkutils.data.alignment import align, align_labels
from qkutils.data.odd_ones import has_odd_ones, odd_one_out
from qkutils.data.reading import Reading, Report
from qkutils.data.segmentations import ade20k, bsds500, camvid, has_segments, label_maps
from qkutils.data.sources import images, pictures, visible
from qkutils.records import Sample, Samples, Segmentations, Segmented

__all__ = [
    "Reading",
    "Report",
    "Sample",
    "Samples",
    "Segmentations",
    "Segmented",
    "ade20k",
    "align",
    "align_labels",
    "bsds500",
    "camvid",
    "has_odd_ones",
    "has_segments",
    "images",
    "label_maps",
    "odd_one_out",
    "pictures",
    "visible",
]

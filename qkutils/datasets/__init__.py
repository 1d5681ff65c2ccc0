"""Pictures, with or without the masks of what is in them, from folders and sequences."""

from qkutils.alignment import align, align_labels
from qkutils.datasets._odd_one_out import has_odd_ones, odd_one_out
from qkutils.datasets._reading import Reading, Report
from qkutils.datasets._segmentations import ade20k, bsds500, camvid, has_segments, label_maps
from qkutils.pictures._images import images, pictures, visible
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

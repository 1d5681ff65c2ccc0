"""Data sets in their authors' own layouts: pictures with masks or segmentations, and fetching."""

from qkutils.datasets._fetching import DATASETS, fetch
from qkutils.datasets._odd_one_out import has_odd_ones, odd_one_out
from qkutils.datasets._photographs import Photograph, photograph_credits, photographs
from qkutils.datasets._reading import Reading, Report
from qkutils.datasets._segmentations import ade20k, bsds500, camvid, has_segments, label_maps

__all__ = [
    "DATASETS",
    "Photograph",
    "Reading",
    "Report",
    "ade20k",
    "bsds500",
    "camvid",
    "fetch",
    "has_odd_ones",
    "has_segments",
    "label_maps",
    "odd_one_out",
    "photograph_credits",
    "photographs",
]

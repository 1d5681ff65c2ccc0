"""Atlases: the pictures that every mode responds to most, from one pass over a data set."""

from qkutils.atlas._maps import galleries, mode_maps, optimal_pictures
from qkutils.atlas._scan import scan, scan_on
from qkutils.atlas._whole import check_atlas, merge, open_atlas, save

__all__ = [
    "check_atlas",
    "galleries",
    "merge",
    "mode_maps",
    "open_atlas",
    "optimal_pictures",
    "save",
    "scan",
    "scan_on",
]

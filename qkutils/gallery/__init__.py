"""Mode galleries: the images that every mode responds to most, and what modes do on one image."""

from qkutils.gallery.atlas import load, merge, save
from qkutils.gallery.cluster import scan_on
from qkutils.gallery.explaining import build_up, explain
from qkutils.gallery.maps import maps, optimal
from qkutils.gallery.scanning import scan
from qkutils.gallery.sources import Pictures, pictures_of

__all__ = [
    "Pictures",
    "build_up",
    "explain",
    "load",
    "maps",
    "merge",
    "optimal",
    "pictures_of",
    "save",
    "scan",
    "scan_on",
]

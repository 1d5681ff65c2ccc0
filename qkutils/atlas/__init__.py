"""Mode galleries: the images that every mode responds to most, and what modes do on one image."""

from qkutils.atlas._state import load, merge, save
from qkutils.atlas._cluster import scan_on
from qkutils.studies._one_image import build_up, explain
from qkutils.atlas._maps import maps, optimal
from qkutils.atlas._scan import scan
from qkutils.pictures._stream import Pictures, pictures_of

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

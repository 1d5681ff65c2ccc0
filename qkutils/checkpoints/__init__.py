"""Checkpoints: a file's tensors, and the vision transformer that they belong to.

A layout is a file of its own: which keys tell it, and how its tensors become timm's.
"""

from qkutils.checkpoints._files import METADATA, SUFFIXES, in_folder, title
from qkutils.checkpoints._ijepa import PREDICTOR
from qkutils.checkpoints._layouts import TABLE
from qkutils.checkpoints._timm import Checkpoint, Grid, read

__all__ = [
    "METADATA",
    "PREDICTOR",
    "SUFFIXES",
    "TABLE",
    "Checkpoint",
    "Grid",
    "in_folder",
    "read",
    "title",
]

"""Studies that need segmentations: the objects of a mode, and grouping as people see it."""

from qkutils.studies._grouping import excess, grouping
from qkutils.studies._layouts import Objects, objects_of, segments_of_patches
from qkutils.studies._same_object import optimal, probability, same_object

__all__ = [
    "Objects",
    "excess",
    "grouping",
    "objects_of",
    "optimal",
    "probability",
    "same_object",
    "segments_of_patches",
]

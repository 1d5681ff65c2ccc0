"""Studies: what tokens attend to, what modes mean, and what happens without them."""

from qkutils.studies._few_modes import few_modes, random_basis
from qkutils.studies._grouping import grouping, grouping_excess, grouping_references
from qkutils.studies._names import Labels, names
from qkutils.studies._odd_one_out import odd_one_out
from qkutils.studies._one_image import build_up, one_image
from qkutils.studies._regions import Objects, objects_of, segments_of_patches
from qkutils.studies._relations import area_of_relations, late_minus_early, relations, share_excess
from qkutils.studies._removal import every_removal, relative_change, removal
from qkutils.studies._same_object import optimal_objects, probability, same_object

__all__ = [
    "Labels",
    "Objects",
    "area_of_relations",
    "build_up",
    "few_modes",
    "every_removal",
    "grouping",
    "grouping_excess",
    "grouping_references",
    "late_minus_early",
    "names",
    "objects_of",
    "odd_one_out",
    "one_image",
    "optimal_objects",
    "probability",
    "random_basis",
    "relations",
    "relative_change",
    "removal",
    "same_object",
    "segments_of_patches",
    "share_excess",
]

"""The procedural odd-one-out world: scenes of similar objects, among which one may be odd.

A scene is a function of `(seed, index)` alone.  Its factors are drawn on the CPU from a
counter-based generator, so every machine and device renders the same picture.
"""

from qkutils.world._drawing import Factors, draw
from qkutils.world._rendering import Scenes, export_renderer, make, patch_fractions, render
from qkutils.world._sampling import labelled, patch_labels, pictures, samples, segmentations
from qkutils.world._things import (
    ABSENT,
    COLOURS,
    DISTRACTOR,
    FAMILIES,
    KINDS,
    NAMED_ON,
    ODD_FACTORS,
    PARTS,
    TARGET,
    TEXTURES,
)

__all__ = [
    "ABSENT",
    "COLOURS",
    "DISTRACTOR",
    "FAMILIES",
    "KINDS",
    "NAMED_ON",
    "ODD_FACTORS",
    "PARTS",
    "TARGET",
    "TEXTURES",
    "Factors",
    "Scenes",
    "draw",
    "export_renderer",
    "labelled",
    "make",
    "patch_fractions",
    "patch_labels",
    "pictures",
    "render",
    "samples",
    "segmentations",
]

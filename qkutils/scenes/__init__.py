"""The procedural odd-one-out world: scenes of similar objects, among which one may be odd.

A scene is a function of `(seed, index)` alone.  Its factors are drawn on the CPU from a
counter-based generator, so every machine and device renders the same picture.
"""

from qkutils.scenes.drawing import draw
from qkutils.scenes.factors import (
    ABSENT,
    COLOURS,
    DISTRACTOR,
    KINDS,
    ODD_FACTORS,
    PARTS,
    TARGET,
    TEXTURES,
    Factors,
)
from qkutils.scenes.rendering import Scenes, make, patch_fractions, render
from qkutils.scenes.sampling import pictures, samples, segmentations

__all__ = [
    "ABSENT",
    "COLOURS",
    "DISTRACTOR",
    "KINDS",
    "ODD_FACTORS",
    "PARTS",
    "TARGET",
    "TEXTURES",
    "Factors",
    "Scenes",
    "draw",
    "make",
    "patch_fractions",
    "pictures",
    "render",
    "samples",
    "segmentations",
]

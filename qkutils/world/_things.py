"""What there is in the world, as `things.toml` says, and by which numbers and names."""

import tomllib
from pathlib import Path

FACTS = tomllib.loads(Path(__file__).with_name("things.toml").read_text("utf-8"))
KINDS, COLOURS, TEXTURES, PARTS, ODD_FACTORS = (
    tuple(FACTS[name]) for name in ("kinds", "colours", "textures", "parts", "odd_factors")
)
ABSENT, DISTRACTOR, TARGET = 0, 1, 2
FAMILIES = ("place", "object", "role", "colour", "kind", "texture", "part")  # of patches' labels

LATTICE = 7  # cells per side; enough to cover the picture at the smallest pitch, however rotated
SLOTS = LATTICE**2
NAMED_ON = 6_000_000  # the world seed of the scenes that modes are named on; no model saw it

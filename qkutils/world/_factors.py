"""What there is in the world, and the record of everything that is random about a scene."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

KINDS = ("ball", "face", "robot", "cart", "cup", "tree")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
TEXTURES = ("plain", "striped", "dotted")
PARTS = ("background", "body", "eye", "wheel", "handle", "stem")
ODD_FACTORS = ("colour", "kind", "size", "orientation", "texture", "position", "none")
ABSENT, DISTRACTOR, TARGET = 0, 1, 2

LATTICE = 7  # cells per side; enough to cover the picture at the smallest pitch, however rotated
SLOTS = LATTICE**2


@dataclass(frozen=True)
class Factors:
    """Everything that is random about a run of scenes; slots are the cells of a square lattice.

    Radius and offset are in units of the pitch, pitch in pixels of a 64 × 64 picture, angles in
    radians.
    """

    kind: Int[Tensor, "scene slot"]
    colour: Int[Tensor, "scene slot"]
    texture: Int[Tensor, "scene slot"]
    role: Int[Tensor, "scene slot"]
    radius: Float[Tensor, "scene slot"]
    angle: Float[Tensor, "scene slot"]
    offset: Float[Tensor, "scene slot 2"]
    odd: Int[Tensor, " scene"]
    mixed: Int[Tensor, " scene"]
    pitch: Float[Tensor, " scene"]
    tilt: Float[Tensor, " scene"]
    shift: Float[Tensor, "scene 2"]
    background: Float[Tensor, "scene 20"]

    @property
    def target(self) -> Int[Tensor, " scene"]:
        """Slot of each scene's odd object; -1 where there is none."""
        there = self.role == TARGET
        return torch.where(there.any(1), there.int().argmax(1), -1)

    @property
    def label(self) -> Int[Tensor, "scene 3"]:
        """The odd object's kind and colour, -1 where nothing is odd, and the odd factor."""
        at = self.target.clamp(min=0)[:, None]
        found = torch.cat([self.kind.gather(1, at), self.colour.gather(1, at)], 1)
        found = found.masked_fill(self.target[:, None] < 0, -1)
        return torch.cat([found, self.odd[:, None]], 1)

    def to(self, device: str | torch.device) -> Factors:
        """The same record on another device."""
        return Factors(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

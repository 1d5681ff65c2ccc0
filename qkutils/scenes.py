"""The procedural odd-one-out world: scenes of similar objects among which one is odd.

A scene is a function of `(seed, index)` alone.  Its factors are drawn on the CPU from a
counter-based generator, so every machine and device renders the same picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

KINDS = ("ball", "face", "robot", "cart", "cup", "tree")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
PARTS = ("background", "body", "eye", "wheel", "handle", "stem")
ODD_FACTORS = ("colour", "kind", "both")
ABSENT, DISTRACTOR, TARGET = 0, 1, 2

_COLOUR_RGB = torch.tensor(
    [
        [0.86, 0.20, 0.18],
        [0.95, 0.55, 0.15],
        [0.93, 0.85, 0.25],
        [0.22, 0.65, 0.30],
        [0.20, 0.42, 0.85],
        [0.58, 0.28, 0.70],
    ]
)
_PART_RGB = torch.tensor(
    [[0, 0, 0], [0, 0, 0], [0.06, 0.06, 0.08], [0.20, 0.20, 0.22], [0, 0, 0], [0.42, 0.28, 0.14]]
)

# Every kind is drawn back to front from primitives in a frame where the object has radius 1:
# (shape, centre x, centre y, half width, half height, part).  y points down.
_SHAPES = ("disc", "box", "triangle", "ring")
_PRIMITIVES: dict[str, tuple[tuple[str, float, float, float, float, str], ...]] = {
    "ball": (("disc", 0, 0, 0.95, 0.95, "body"),),
    "face": (
        ("disc", 0, 0, 0.95, 0.95, "body"),
        ("disc", -0.36, -0.22, 0.21, 0.21, "eye"),
        ("disc", 0.36, -0.22, 0.21, 0.21, "eye"),
    ),
    "robot": (
        ("box", 0, 0, 0.72, 0.68, "body"),
        ("disc", -0.36, -0.2, 0.21, 0.21, "eye"),
        ("disc", 0.36, -0.2, 0.21, 0.21, "eye"),
    ),
    "cart": (
        ("box", 0, -0.15, 0.85, 0.45, "body"),
        ("disc", -0.48, 0.42, 0.34, 0.34, "wheel"),
        ("disc", 0.48, 0.42, 0.34, 0.34, "wheel"),
    ),
    "cup": (("ring", 0.45, 0, 0.40, 0.12, "handle"), ("box", -0.2, 0, 0.55, 0.72, "body")),
    "tree": (
        ("box", 0, 0.65, 0.16, 0.32, "stem"),
        ("triangle", 0, -0.25, 0.75, 0.65, "body"),
    ),
}
_DEPTH = max(len(p) for p in _PRIMITIVES.values())
_LATTICE = 7  # cells per side; enough to cover the picture at the smallest pitch, however rotated
_SLOTS = _LATTICE**2
_SCENE_DRAWS = 32
_SLOT_DRAWS = 6


def _primitive_table() -> Float[Tensor, "kind depth 6"]:
    """Turns `_PRIMITIVES` into numbers; missing primitives have half width -9, so cover nothing."""
    table = torch.zeros(len(KINDS), _DEPTH, 6)
    table[..., 3] = -9
    for kind, primitives in enumerate(_PRIMITIVES[name] for name in KINDS):
        for depth, (shape, *frame, part) in enumerate(primitives):
            row = [_SHAPES.index(shape), *frame, PARTS.index(part)]
            table[kind, depth] = torch.tensor(row, dtype=torch.float32)
    return table


_TABLE = _primitive_table()


@dataclass(frozen=True)
class Factors:
    """Everything that is random about a run of scenes; slots are the cells of a square lattice."""

    kind: Int[Tensor, "scene slot"]
    colour: Int[Tensor, "scene slot"]
    role: Int[Tensor, "scene slot"]
    radius: Float[Tensor, "scene slot"]
    angle: Float[Tensor, "scene slot"]
    offset: Float[Tensor, "scene slot 2"]
    odd: Int[Tensor, " scene"]
    pitch: Float[Tensor, " scene"]
    tilt: Float[Tensor, " scene"]
    shift: Float[Tensor, "scene 2"]
    background: Float[Tensor, "scene 20"]

    @property
    def target(self) -> Int[Tensor, " scene"]:
        """Slot of each scene's odd object."""
        return (self.role == TARGET).int().argmax(1)

    @property
    def label(self) -> Int[Tensor, " scene"]:
        """Class of the odd object: `kind * len(COLOURS) + colour`."""
        at = self.target.long()[:, None]
        return (self.kind.gather(1, at) * len(COLOURS) + self.colour.gather(1, at))[:, 0]


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes with exact masks: the slot of the object and the part at every pixel."""

    image: Float[Tensor, "scene 3 height width"]
    slot: Int[Tensor, "scene height width"]
    part: Int[Tensor, "scene height width"]
    factors: Factors

    def mask(self, role: int) -> Bool[Tensor, "scene height width"]:
        """Pixels that belong to objects with this role (`TARGET` or `DISTRACTOR`)."""
        there = self.slot >= 0
        flat = self.slot.clamp(min=0).flatten(1).long()
        of_pixel = self.factors.role.to(flat.device).gather(1, flat).view_as(self.slot)
        return there & (of_pixel == role)


def make(
    seed: int, start: int, stop: int, size: int = 64, device: str | torch.device = "cpu"
) -> Scenes:
    """Renders scenes `start` to `stop` of a seed as `size` × `size` pictures with values in [0, 1].

    Raises ValueError for an empty range.  Taught in chapter 1.
    """
    return render(draw(seed, start, stop), size, device)


def draw(seed: int, start: int, stop: int) -> Factors:
    """Draws the factors of scenes `start` to `stop`: scene i is the same in every range."""
    if not 0 <= start < stop:
        raise ValueError(f"scenes {start} to {stop}: the range is empty; ask for start < stop")
    scene, slot = _uniforms(seed, start, stop)
    pitch = 20 + 8 * scene[:, 0]
    tilt = math.radians(16) * (2 * scene[:, 1] - 1)
    shift = scene[:, 2:4]
    radius = 0.36 + 0.10 * slot[..., 0]  # in units of the pitch
    angle = math.radians(20) * (2 * slot[..., 1] - 1)
    offset = (0.5 - radius)[..., None] * (2 * slot[..., 2:4] - 1)
    role = _roles(_centres(pitch, tilt, shift, offset), radius * pitch[:, None], slot[..., 4:6])
    odd, kind, colour = _identities(scene[:, 4:9], role)
    background = scene[:, 12:32]
    return Factors(kind, colour, role, radius, angle, offset, odd, pitch, tilt, shift, background)


def _uniforms(
    seed: int, start: int, stop: int
) -> tuple[Float[Tensor, "scene s"], Float[Tensor, "scene slot t"]]:
    """Uniform numbers per scene and per slot, from counters that belong to each scene alone."""
    per_scene = -(-(_SCENE_DRAWS + _SLOTS * _SLOT_DRAWS) // 4) * 4  # Philox yields four per count
    bits = np.random.Philox(key=seed).advance(start * per_scene // 4)
    flat = np.random.Generator(bits).random((stop - start) * per_scene, dtype=np.float64)
    rows = torch.from_numpy(flat.astype(np.float32)).clamp(max=1 - 2**-24).view(-1, per_scene)
    slots = rows[:, _SCENE_DRAWS : _SCENE_DRAWS + _SLOTS * _SLOT_DRAWS]
    return rows[:, :_SCENE_DRAWS], slots.view(-1, _SLOTS, _SLOT_DRAWS)


def _lattice() -> Float[Tensor, "slot 2"]:
    """Centre of every cell, in units of the pitch from the lattice's own centre."""
    axis = torch.arange(_LATTICE, dtype=torch.float32) - _LATTICE // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], -1)


def _centres(
    pitch: Float[Tensor, " scene"],
    tilt: Float[Tensor, " scene"],
    shift: Float[Tensor, "scene 2"],
    offset: Float[Tensor, "scene slot 2"],
) -> Float[Tensor, "scene slot 2"]:
    """Position (x, y) of every slot's object from the picture's centre, for 64 × 64 pixels."""
    cell = _lattice() + offset - (shift[:, None] - 0.5)
    cos, sin = tilt.cos()[:, None], tilt.sin()[:, None]
    x, y = cell.unbind(-1)
    return torch.stack([x * cos - y * sin, x * sin + y * cos], -1) * pitch[:, None, None]


def _roles(
    centre: Float[Tensor, "scene slot 2"],
    radius: Float[Tensor, "scene slot"],
    chance: Float[Tensor, "scene slot 2"],
) -> Int[Tensor, "scene slot"]:
    """Fills nine cells in ten, and makes one object wholly inside the picture the target."""
    reach = centre.abs().amax(-1)
    inside = reach + radius <= 32
    filled = chance[..., 0] < 0.9
    crowded = ((reach < 32) & filled).sum(1, keepdim=True) >= 4
    role = torch.where(filled | ~crowded, DISTRACTOR, ABSENT)
    target = torch.where(inside, chance[..., 1], chance[..., 1] - 1).argmax(1, keepdim=True)
    return role.scatter(1, target, TARGET)


def _identities(
    chance: Float[Tensor, "scene 5"], role: Int[Tensor, "scene slot"]
) -> tuple[Int[Tensor, " scene"], Int[Tensor, "scene slot"], Int[Tensor, "scene slot"]]:
    """Gives all distractors one kind and colour, and the target another colour, kind or both."""

    def choose(column: int, options: int) -> Int[Tensor, " scene"]:
        return (chance[:, column] * options).long()

    odd = choose(0, len(ODD_FACTORS))
    kind, colour = choose(1, len(KINDS)), choose(2, len(COLOURS))
    other_kind = (kind + 1 + choose(3, len(KINDS) - 1)) % len(KINDS)
    other_colour = (colour + 1 + choose(4, len(COLOURS) - 1)) % len(COLOURS)
    other_kind = torch.where(odd == ODD_FACTORS.index("colour"), kind, other_kind)
    other_colour = torch.where(odd == ODD_FACTORS.index("kind"), colour, other_colour)
    target = role == TARGET
    return (
        odd,
        torch.where(target, other_kind[:, None], kind[:, None]),
        torch.where(target, other_colour[:, None], colour[:, None]),
    )


def render(factors: Factors, size: int = 64, device: str | torch.device = "cpu") -> Scenes:
    """Paints scenes with anti-aliased edges; masks are coverage of a half or more."""
    # One object per lattice cell: each pixel needs to know its own cell's object only.
    factors_there = Factors(*(getattr(factors, f).to(device) for f in Factors.__dataclass_fields__))
    slot, frame, unit = _pixel_frame(factors_there, size)
    kind = factors_there.kind.gather(1, slot.flatten(1)).view_as(slot)
    colour = factors_there.colour.gather(1, slot.flatten(1)).view_as(slot)
    filled = factors_there.role.gather(1, slot.flatten(1)).view_as(slot) != ABSENT
    image = _background(factors_there.background, size)
    body = _COLOUR_RGB.to(device)[colour]
    part = torch.zeros_like(slot)
    table, part_rgb = _TABLE.to(device), _PART_RGB.to(device)
    for depth in range(_DEPTH):
        primitive = table[kind, depth]
        cover = (0.5 - _distance(frame, primitive) * unit).clamp(0, 1) * filled
        this = primitive[..., 5].long()
        paint = part_rgb[this]
        paint = torch.where((this == PARTS.index("body"))[..., None], body, paint)
        paint = torch.where((this == PARTS.index("handle"))[..., None], 0.6 * body, paint)
        image = torch.lerp(image, paint, cover[..., None])
        part = torch.where(cover >= 0.5, this, part)
    return Scenes(image.movedim(-1, 1), torch.where(part > 0, slot, -1), part, factors)


def _pixel_frame(
    factors: Factors, size: int
) -> tuple[
    Int[Tensor, "scene height width"],
    Float[Tensor, "scene height width 2"],
    Float[Tensor, "scene height width"],
]:
    """Every pixel's slot, position in that object's own frame, and the frame's unit in pixels."""
    device, zoom = factors.pitch.device, size / 64
    axis = (torch.arange(size, device=device) + 0.5 - size / 2) / zoom
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cos, sin = factors.tilt.cos()[:, None, None], factors.tilt.sin()[:, None, None]
    cell = torch.stack([x * cos + y * sin, y * cos - x * sin], -1)
    cell = cell / factors.pitch[:, None, None, None] + (factors.shift - 0.5)[:, None, None]
    index = (cell + 0.5).floor()
    column, row = (index + _LATTICE // 2).clamp(0, _LATTICE - 1).long().unbind(-1)
    slot = row * _LATTICE + column

    def here(values: Float[Tensor, "scene slot"]) -> Float[Tensor, "scene height width"]:
        return values.gather(1, slot.flatten(1)).view(slot.shape)

    offset = torch.stack([here(factors.offset[..., 0]), here(factors.offset[..., 1])], -1)
    radius, angle = here(factors.radius), here(factors.angle)
    x, y = ((cell - index - offset) / radius[..., None]).unbind(-1)
    frame = torch.stack([x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()], -1)
    return slot, frame, radius * factors.pitch[:, None, None] * zoom


def _distance(
    frame: Float[Tensor, "*at 2"], primitive: Float[Tensor, "*at 6"]
) -> Float[Tensor, "*at"]:
    """Signed distance to a primitive's edge, negative inside; the object's radius is one."""
    shape, cx, cy, half_width, half_height, _ = primitive.unbind(-1)
    x, y = (frame[..., 0] - cx).abs(), frame[..., 1] - cy
    from_centre = torch.hypot(x, y)
    slope = torch.hypot(2 * half_height, half_width)
    triangle = (2 * half_height * x - half_width * (y + half_height)) / slope
    choices = torch.stack(
        [
            from_centre - half_width,
            torch.maximum(x - half_width, y.abs() - half_height),
            torch.maximum(triangle, y - half_height),
            (from_centre - half_width).abs() - half_height,
        ],
        -1,
    )
    chosen = choices.gather(-1, shape.long()[..., None])[..., 0]
    return torch.where(half_width < 0, 9.0, chosen)


def _background(chance: Float[Tensor, "scene 20"], size: int) -> Float[Tensor, "scene h w 3"]:
    """A gradient between two muted colours with two gratings laid over it."""
    axis = (torch.arange(size, device=chance.device) + 0.5) / size - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")

    def along(angle: Float[Tensor, " scene"]) -> Float[Tensor, "scene h w"]:
        return x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]

    grey = 0.2 + 0.6 * chance[:, 0:2, None]
    ends = grey + 0.25 * (chance[:, 2:8].view(-1, 2, 3) - 0.5)
    ramp = (along(2 * math.pi * chance[:, 8]) + 0.5).clamp(0, 1)[..., None]
    image = torch.lerp(ends[:, None, None, 0], ends[:, None, None, 1], ramp)
    for first in (9, 13):
        angle, frequency, phase, contrast = chance[:, first : first + 4].unbind(-1)
        turns = along(math.pi * angle) * (3 + 9 * frequency)[:, None, None]
        wave = torch.sin(2 * math.pi * (turns + phase[:, None, None]))
        image = image + (0.08 * contrast)[:, None, None, None] * wave[..., None]
    return image.clamp(0, 1)

"""Painting scenes from their factors, with exact masks of objects and parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qkutils import options
from qkutils.world._drawing import draw
from qkutils.world._factors import (
    ABSENT,
    DISTRACTOR,
    KINDS,
    LATTICE,
    ODD_FACTORS,
    PARTS,
    TARGET,
    TEXTURES,
    Factors,
)

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
        ("box", 0, 0, 0.72, 0.66, "body"),
        ("disc", -0.36, -0.2, 0.21, 0.21, "eye"),
        ("disc", 0.36, -0.2, 0.21, 0.21, "eye"),
    ),
    "cart": (
        ("box", 0, -0.15, 0.83, 0.36, "body"),
        ("disc", -0.48, 0.36, 0.34, 0.34, "wheel"),
        ("disc", 0.48, 0.36, 0.34, 0.34, "wheel"),
    ),
    "cup": (("ring", 0.45, 0, 0.38, 0.12, "handle"), ("box", -0.2, 0, 0.5, 0.66, "body")),
    "tree": (
        ("box", 0, 0.65, 0.16, 0.3, "stem"),
        ("triangle", 0, -0.25, 0.75, 0.65, "body"),
    ),
}
SIZES = (1, 4096)  # pixels of a picture's side, the least and the most
_DEPTH = max(len(p) for p in _PRIMITIVES.values())


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
class Scenes:
    """Rendered scenes with exact masks: the slot of the object and the part at every pixel."""

    image: Float[Tensor, "scene 3 height width"]
    slot: Int[Tensor, "scene height width"]
    part: Int[Tensor, "scene height width"]
    factors: Factors

    def mask(self, role: int) -> Bool[Tensor, "scene height width"]:
        """Pixels that belong to objects with this role (`TARGET` or `DISTRACTOR`)."""
        options.choice("role", role, (TARGET, DISTRACTOR))
        there = self.slot >= 0
        flat = self.slot.clamp(min=0).flatten(1).long()
        of_pixel = self.factors.role.to(flat.device).gather(1, flat).view_as(self.slot)
        return there & (of_pixel == role)


def make(
    seed: int,
    start: int,
    stop: int,
    size: int = 64,
    device: str | torch.device = "cpu",
    odd: Sequence[str] = ODD_FACTORS,
) -> Scenes:
    """Draw and render scenes `start` to `stop` of a seed.

    Parameters
    ----------
    seed
        Which run of scenes, a whole number from 0.
    start, stop
        The first scene, and the one after the last.
    size
        Pixels of a picture's side.
    device
        Where to render.
    odd
        What may be odd about the target: some of `ODD_FACTORS`.

    Returns
    -------
    Scenes
        `image` [scene, 3, height, width] with values in [0, 1], `slot` and `part` [scene, height,
        width], and the scenes' `factors`.

    Raises
    ------
    ValueError
        For an empty range and for an odd factor that the world does not have.

    Examples
    --------
    >>> import qkutils as qk
    >>> scenes = qk.world.make(0, 0, 4)
    >>> scenes.image.shape, scenes.mask(qk.world.TARGET).shape
    (torch.Size([4, 3, 64, 64]), torch.Size([4, 64, 64]))
    """
    return render(draw(seed, start, stop, odd), size, device)


def render(factors: Factors, size: int = 64, device: str | torch.device = "cpu") -> Scenes:
    """Paint scenes from their factors, with masks of the pixels that are covered by half or more.

    Parameters
    ----------
    factors
        What `draw` gave.
    size
        Pixels of a picture's side, 1 to 4096.
    device
        Where to render; every device renders the same picture.

    Returns
    -------
    Scenes
        `image` [scene, 3, height, width] with values in [0, 1], `slot` and `part` [scene, height,
        width], and the scenes' `factors`.

    Raises
    ------
    ValueError
        For a size out of range.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.world.render(qk.world.draw(0, 0, 4), size=32).image.shape
    torch.Size([4, 3, 32, 32])
    """
    size = options.count("size", size, *SIZES)
    there = factors.to(device)
    slot, frame, unit = _pixel_frame(there, size)
    image = _background(there.background, size)
    part = torch.zeros_like(slot)
    flat = slot.flatten(1)
    filled = there.role.gather(1, flat).view_as(slot) != ABSENT
    # Only pixels near an object are painted: about half of them.
    near = (filled & (frame.square().sum(-1) < 1.3)).nonzero(as_tuple=True)
    kind, colour, texture = (
        values.gather(1, flat).view_as(slot)[near]
        for values in (there.kind, there.colour, there.texture)
    )
    body = _shade(_COLOUR_RGB.to(device)[colour], frame[near], texture)
    painted, of_part = _paint(image[near], body, kind, frame[near], unit[near])
    image[near], part[near] = painted, of_part
    return Scenes(image.movedim(-1, 1), torch.where(part > 0, slot, -1), part, factors)


def _paint(
    image: Float[Tensor, "pixel 3"],
    body: Float[Tensor, "pixel 3"],
    kind: Int[Tensor, " pixel"],
    frame: Float[Tensor, "pixel 2"],
    unit: Float[Tensor, " pixel"],
) -> tuple[Float[Tensor, "pixel 3"], Int[Tensor, " pixel"]]:
    """Lays the primitives of each pixel's object over the picture, back to front."""
    table, part_rgb = _TABLE.to(image.device), _PART_RGB.to(image.device)
    part = torch.zeros_like(kind)
    for depth in range(_DEPTH):
        shape, *geometry, of_part = table[:, depth].T[:, kind]
        cover = (0.5 - _distance(frame, shape, *geometry) * unit).clamp(0, 1)
        this = of_part.long()
        paint = torch.where((this == PARTS.index("body"))[:, None], body, part_rgb[this])
        paint = torch.where((this == PARTS.index("handle"))[:, None], 0.6 * body, paint)
        image = torch.lerp(image, paint, cover[:, None])
        part = torch.where(cover >= 0.5, this, part)
    return image, part


def _distance(
    frame: Float[Tensor, "pixel 2"],
    shape: Float[Tensor, " pixel"],
    centre_x: Float[Tensor, " pixel"],
    centre_y: Float[Tensor, " pixel"],
    half_width: Float[Tensor, " pixel"],
    half_height: Float[Tensor, " pixel"],
) -> Float[Tensor, " pixel"]:
    """Signed distance of a point to a primitive's edge, negative inside, in units of the radius."""
    x, y = (frame[:, 0] - centre_x).abs(), frame[:, 1] - centre_y
    disc = torch.hypot(x, y) - half_width
    box = torch.maximum(x - half_width, y.abs() - half_height)
    side = 2 * half_height * x - half_width * (y + half_height)
    triangle = torch.maximum(side / torch.hypot(2 * half_height, half_width), y - half_height)
    distance = torch.where(shape == 1, box, disc)
    distance = torch.where(shape == 2, triangle, distance)
    distance = torch.where(shape == 3, disc.abs() - half_height, distance)
    return torch.where(half_width < 0, 9.0, distance)


def _shade(
    colour: Float[Tensor, "pixel 3"],
    frame: Float[Tensor, "pixel 2"],
    texture: Int[Tensor, " pixel"],
) -> Float[Tensor, "pixel 3"]:
    """A body's colour, darkened by its texture: stripes or dots that turn with the object."""
    x, y = frame.unbind(-1)
    stripes = (0.5 + 2 * torch.sin(10 * y)).clamp(0, 1)
    dots = (3 * torch.sin(8 * x) * torch.sin(8 * y) - 0.5).clamp(0, 1)
    dark = torch.where(texture == TEXTURES.index("striped"), stripes, 0.0)
    dark = torch.where(texture == TEXTURES.index("dotted"), dots, dark)
    return colour * (1 - 0.45 * dark)[:, None]


def _pixel_frame(
    factors: Factors, size: int
) -> tuple[
    Int[Tensor, "scene height width"],
    Float[Tensor, "scene height width 2"],
    Float[Tensor, "scene height width"],
]:
    """The slot of every pixel, its place in that object's frame, and the frame's unit in pixels."""
    device, zoom = factors.pitch.device, size / 64
    axis = (torch.arange(size, device=device) + 0.5 - size / 2) / zoom
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cos, sin = factors.tilt.cos()[:, None, None], factors.tilt.sin()[:, None, None]
    cell = torch.stack([x * cos + y * sin, y * cos - x * sin], -1)
    cell = cell / factors.pitch[:, None, None, None] + (factors.shift - 0.5)[:, None, None]
    index = (cell + 0.5).floor()
    column, row = (index + LATTICE // 2).clamp(0, LATTICE - 1).long().unbind(-1)
    slot = row * LATTICE + column

    def here(values: Float[Tensor, "scene slot"]) -> Float[Tensor, "scene height width"]:
        return values.gather(1, slot.flatten(1)).view(slot.shape)

    offset = torch.stack([here(factors.offset[..., 0]), here(factors.offset[..., 1])], -1)
    radius = here(factors.radius)
    cos, sin = here(factors.angle.cos()), here(factors.angle.sin())
    x, y = ((cell - index - offset) / radius[..., None]).unbind(-1)
    frame = torch.stack([x * cos + y * sin, y * cos - x * sin], -1)
    return slot, frame, radius * factors.pitch[:, None, None] * zoom


def _background(chance: Float[Tensor, "scene 20"], size: int) -> Float[Tensor, "scene h w 3"]:
    """A gradient between two muted colours with two gratings laid over it."""
    axis = (torch.arange(size, device=chance.device) + 0.5) / size - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")

    def along(angle: Float[Tensor, " scene"]) -> Float[Tensor, "scene h w"]:
        return x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]

    grey = 0.2 + 0.6 * chance[:, 0:2, None]
    ends = grey + 0.25 * (chance[:, 2:8].view(-1, 2, 3) - 0.5)
    ramp = (along(2 * math.pi * chance[:, 8]) + 0.5).clamp(0, 1)[..., None]
    waves = torch.zeros_like(ramp[..., 0])
    for first in (9, 13):
        angle, frequency, phase, contrast = chance[:, first : first + 4].unbind(-1)
        turns = along(math.pi * angle) * (1 + 4 * frequency)[:, None, None]
        wave = torch.sin(2 * math.pi * (turns + phase[:, None, None]))
        waves = waves + (0.1 * contrast)[:, None, None] * wave
    image = torch.lerp(ends[:, None, None, 0], ends[:, None, None, 1], ramp)
    return (image + waves[..., None]).clamp(0, 1)


def patch_fractions(
    mask: Bool[Tensor, "scene height width"], patch: int
) -> Float[Tensor, "scene row column"]:
    """Measure the share of every patch's area that a mask covers.

    A rim narrower than a patch is left out.

    Parameters
    ----------
    mask
        Masks [scene, height, width].
    patch
        Pixels of a patch's side.

    Returns
    -------
    Tensor
        Shares [scene, row, column], 0 to 1.

    Raises
    ------
    ValueError
        For a patch larger than the mask.

    Examples
    --------
    >>> import qkutils as qk
    >>> scenes = qk.world.make(0, 0, 4)
    >>> qk.world.patch_fractions(scenes.mask(qk.world.TARGET), 8).shape
    torch.Size([4, 8, 8])
    """
    options.count("patch", patch, 1, min(mask.shape[1:]))
    return torch.nn.functional.avg_pool2d(mask.float()[:, None], patch)[:, 0]

"""Painting scenes from their factors, with exact masks of objects and parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.nn.utils.rnn import pad_sequence

from qkutils import onnx_file, options
from qkutils.world import _things as things
from qkutils.world._drawing import Factors, draw, of_slots, turned

Mask = Bool[Tensor, "scene height width"]
Map = Int[Tensor, "scene height width"]
OfPixel = Float[Tensor, " pixel"]
Which = Int[Tensor, " pixel"]
Points = Float[Tensor, "pixel 2"]
Rgb = Float[Tensor, "pixel 3"]

_COLOURS = torch.tensor(list(things.FACTS["colours"].values()), device="cpu")
_PART_COLOURS = torch.tensor(list(things.FACTS["parts"].values()), device="cpu")
_UNSEEN = ("odd", "mixed")  # factors that no pixel depends on
_SHAPES = ("disc", "box", "triangle", "ring")


def _numbers(primitives: list[list]) -> Float[Tensor, "depth 6"]:
    shape, part = _SHAPES.index, things.PARTS.index
    return torch.tensor([[shape(s), *at, part(p)] for s, *at, p in primitives], device="cpu")


# Primitives as numbers [kind, depth, 6]; a missing one has half width -1, so it covers nothing.
_PRIMITIVES = pad_sequence(
    [_numbers(kind) for kind in things.FACTS["kinds"].values()], batch_first=True, padding_value=-1
)


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes with exact masks: the slot of the object and the part at every pixel."""

    image: Float[Tensor, "scene 3 height width"]
    slot: Map
    part: Map
    factors: Factors

    def mask(self, role: int) -> Mask:
        """Pixels that belong to objects with this role (`TARGET` or `DISTRACTOR`)."""
        options.choice("role", role, (things.TARGET, things.DISTRACTOR))
        of_pixel = of_slots(self.factors.role.to(self.slot.device), self.slot)
        return (self.slot >= 0) & (of_pixel == role)


def make(
    seed: int,
    start: int,
    stop: int,
    size: int = 64,
    device: str | torch.device = "cpu",
    odd: Sequence[str] = things.ODD_FACTORS,
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
    size = options.count("size", size, 1, 4096)
    there = factors.to(options.device(device))
    slot, frame, unit = _pixel_frame(there, size)
    image = _background(there.background, size)
    part = torch.zeros_like(slot)
    # Only pixels near an object are painted: about half of them.
    near = _near(there, slot, frame).nonzero(as_tuple=True)
    at = (near[0], slot[near])
    image[near], part[near] = _paint_objects(there, at, image[near], frame[near], unit[near])
    return Scenes(image.movedim(-1, 1), torch.where(part > 0, slot, -1), part, factors)


def export_renderer(path: str | Path, size: int = 64) -> Path:
    """Write what paints a scene as ONNX, so that programs without torch paint the same pictures.

    Inputs are the factors of one scene that its picture depends on: those of `Factors` but `odd`
    and `mixed`, under their names, floats as float32, whole numbers as int32.  Outputs: `image` [1,
    3, height, width] in float32, with values in [0, 1], and `slot` [1, height, width] in int32, the
    slot of the object at every pixel, -1 for none.

    Parameters
    ----------
    path
        The file to write.
    size
        Pixels of a picture's side, 1 to 4096.

    Returns
    -------
    Path
        Where it was written.

    Raises
    ------
    ValueError
        For a size out of range.
    ImportError
        Where the extra `export` is not installed.
    OSError
        Where the file can't be written.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.world.export_renderer("renderer.onnx", size=0)
    Traceback (most recent call last):
    ValueError: size=0: a whole number from 1 to 4096 is needed
    """
    size, scene = options.count("size", size, 1, 4096), draw(0, 0, 1)
    given = {name: getattr(scene, name) for name in vars(scene) if name not in _UNSEEN}
    inputs = {n: each if each.is_floating_point() else each.int() for n, each in given.items()}
    onnx_file.write(path, _Renderer(size), inputs, ("image", "slot"), {"size": size})
    return Path(path)


class _Renderer(torch.nn.Module):
    """`render` for one scene, without choosing pixels by what is on them, which no graph can."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.eval()

    def forward(self, **given: Tensor) -> tuple[Tensor, Tensor]:
        none = dict.fromkeys(_UNSEEN, torch.zeros(1, dtype=torch.long))
        whole = {n: each if each.is_floating_point() else each.long() for n, each in given.items()}
        factors = Factors(**whole, **none)
        slot, frame, unit = _pixel_frame(factors, self.size)
        image = _background(factors.background, self.size)
        near = _near(factors, slot, frame)
        at = (torch.zeros_like(slot).flatten(), slot.flatten())
        flat = image.flatten(0, 2), frame.flatten(0, 2), unit.flatten()
        painted, part = _paint_objects(factors, at, *flat)
        image = torch.where(near[..., None], painted.view_as(image), image)
        slot = torch.where(near & (part.view_as(slot) > 0), slot, -1)
        return image.movedim(-1, 1), slot.int()


def _near(factors: Factors, slot: Map, frame: Float[Tensor, "scene height width 2"]) -> Mask:
    """Pixels on which an object may be."""
    return (of_slots(factors.role, slot) != things.ABSENT) & (frame.square().sum(-1) < 1.3)


def _paint_objects(
    factors: Factors, at: tuple[Which, Which], image: Rgb, frame: Points, unit: OfPixel
) -> tuple[Rgb, Which]:
    """Paints over each pixel the object in its slot, whose scene and number are in `at`."""
    colour = _COLOURS.to(image.device)[factors.colour[at]]
    body = _shade(colour, frame, factors.texture[at])
    return _paint(image, body, factors.kind[at], frame, unit)


def _paint(image: Rgb, body: Rgb, kind: Which, frame: Points, unit: OfPixel) -> tuple[Rgb, Which]:
    """Lays the primitives of each pixel's object over the picture, back to front."""
    parts = _PART_COLOURS.to(image.device)
    part = torch.zeros_like(kind)
    for layer in _PRIMITIVES.to(image.device).unbind(1):
        primitive = layer.T[:, kind]
        cover = (0.5 - _distance(frame, primitive[:5]) * unit).clamp(0, 1)
        this = primitive[5].long()
        paint = parts[this, :3] + parts[this, 3:] * body
        image = torch.lerp(image, paint, cover[:, None])
        part = torch.where(cover >= 0.5, this, part)
    return image, part


def _distance(frame: Points, primitive: Float[Tensor, "5 pixel"]) -> OfPixel:
    """Signed distance of a point to a primitive's edge, negative inside, in units of the radius."""
    shape, centre_x, centre_y, width, height = primitive  # of the latter two, the half
    x, y = (frame[:, 0] - centre_x).abs(), frame[:, 1] - centre_y
    disc = torch.hypot(x, y) - width
    box = torch.maximum(x - width, y.abs() - height)
    side = (2 * height * x - width * (y + height)) / torch.hypot(2 * height, width)
    triangle = torch.maximum(side, y - height)
    distance = torch.stack([disc, box, triangle, disc.abs() - height])  # as in _SHAPES
    distance = distance.gather(0, shape.long().clamp(min=0)[None])[0]
    return torch.where(width < 0, 9.0, distance)


def _shade(colour: Rgb, frame: Points, texture: Which) -> Rgb:
    """A body's colour, darkened by its texture: stripes or dots that turn with the object."""
    x, y = frame.unbind(-1)
    stripes = (0.5 + 2 * torch.sin(10 * y)).clamp(0, 1)
    dots = (3 * torch.sin(8 * x) * torch.sin(8 * y) - 0.5).clamp(0, 1)
    dark = torch.where(texture == things.TEXTURES.index("striped"), stripes, 0.0)
    dark = torch.where(texture == things.TEXTURES.index("dotted"), dots, dark)
    return colour * (1 - 0.45 * dark)[:, None]


def _pixel_frame(
    factors: Factors, size: int
) -> tuple[Map, Float[Tensor, "scene height width 2"], Float[Tensor, "scene height width"]]:
    """The slot of every pixel, its place in that object's frame, and the frame's unit in pixels."""
    zoom = size / 64
    axis = (torch.arange(size, device=factors.pitch.device) + 0.5 - size / 2) / zoom
    pitch, tilt = factors.pitch[:, None, None], factors.tilt[:, None, None]
    pixel = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    cell = turned(pixel, tilt.cos(), -tilt.sin()) / pitch[..., None]
    cell = cell + (factors.shift - 0.5)[:, None, None]
    index = (cell + 0.5).floor()
    column, row = (index + things.LATTICE // 2).clamp(0, things.LATTICE - 1).long().unbind(-1)
    slot = row * things.LATTICE + column
    radius, angle = of_slots(factors.radius, slot), factors.angle
    place = (cell - index - of_slots(factors.offset, slot)) / radius[..., None]
    cos, sin = of_slots(angle.cos(), slot), of_slots(angle.sin(), slot)
    return slot, turned(place, cos, -sin), radius * pitch * zoom


def _background(chance: Float[Tensor, "scene 20"], size: int) -> Float[Tensor, "scene h w 3"]:
    """A gradient between two muted colours with two gratings laid over it."""
    x = (torch.arange(size, device=chance.device) + 0.5) / size - 0.5
    y = x[:, None]

    def along(angle: Float[Tensor, "scene 1 1"]) -> Float[Tensor, "scene h w"]:
        return x * angle.cos() + y * angle.sin()

    numbers = chance[..., None, None]
    ramp = (along(2 * math.pi * numbers[:, 8]) + 0.5).clamp(0, 1)
    waves = torch.zeros_like(ramp)
    for first in (9, 13):
        angle, frequency, phase, contrast = numbers[:, first : first + 4].unbind(1)
        turns = along(math.pi * angle) * (1 + 4 * frequency)
        waves = waves + 0.1 * contrast * torch.sin(2 * math.pi * (turns + phase))
    grey = 0.2 + 0.6 * chance[:, 0:2, None]
    ends = grey + 0.25 * (chance[:, 2:8].view(-1, 2, 3) - 0.5)
    one, other = ends[:, :, None, None].unbind(1)
    return (torch.lerp(one, other, ramp[..., None]) + waves[..., None]).clamp(0, 1)


def patch_fractions(mask: Mask, patch: int) -> Float[Tensor, "scene row column"]:
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
    return avg_pool2d(mask.float()[:, None], patch)[:, 0]

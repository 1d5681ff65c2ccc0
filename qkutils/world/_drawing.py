"""Drawing the factors of scenes from counters, so that a scene depends on its number alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qkutils import options
from qkutils.world import _things as things

# What is drawn by chance: per scene, with how many numbers each takes, and per slot.
_OF_SCENE = {"pitch": 1, "tilt": 1, "shift": 2, "odd": 1, "radius": 2, "mixed": 1, "kind": 3}
_OF_SCENE |= {"colour": 3, "texture": 1, "turn": 2, "aside": 1, "spare": 6, "background": 20}
_OF_SLOT = ("radius", "angle", "x", "y", "filled", "target", "group")

Draws = dict[str, Tensor]
OfScene = Float[Tensor, "scene 1"]
Pair = Float[Tensor, "scene 2"]
OfSlot = Float[Tensor, "scene slot"]
Numbers = Int[Tensor, "scene slot"]
Which = Bool[Tensor, "scene slot"]
Places = Float[Tensor, "scene slot 2"]


@dataclass(frozen=True)
class Factors:
    """Everything that is random about a run of scenes; slots are the cells of a square lattice.

    Radius and offset are in units of the pitch, pitch in pixels of a 64 × 64 picture, angles in
    radians.
    """

    kind: Numbers
    colour: Numbers
    texture: Numbers
    role: Numbers
    radius: OfSlot
    angle: OfSlot
    offset: Places
    odd: Int[Tensor, " scene"]
    mixed: Int[Tensor, " scene"]
    pitch: Float[Tensor, " scene"]
    tilt: Float[Tensor, " scene"]
    shift: Pair
    background: Float[Tensor, "scene 20"]

    @property
    def target(self) -> Int[Tensor, " scene"]:
        """Slot of each scene's odd object; -1 where there is none."""
        there = self.role == things.TARGET
        return torch.where(there.any(1), there.int().argmax(1), -1)

    @property
    def label(self) -> Int[Tensor, "scene 3"]:
        """The odd object's kind and colour, -1 where nothing is odd, and the odd factor."""
        kind, colour = (of_slots(table, self.target) for table in (self.kind, self.colour))
        named = torch.stack([kind, colour], 1).where(self.target[:, None] >= 0, -1)
        return torch.cat([named, self.odd[:, None]], 1)

    def to(self, device: str | torch.device) -> Factors:
        """The same record on another device."""
        return Factors(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def of_slots(table: Tensor, slot: Int[Tensor, scene * place]) -> Tensor:
    """What a table [scene, slot, …] holds of the slot at every place; anything where it is -1."""
    scene = torch.arange(len(slot), device=slot.device)
    return table[scene.view(-1, *[1] * (slot.ndim - 1)), slot]


def draw(seed: int, start: int, stop: int, odd: Sequence[str] = things.ODD_FACTORS) -> Factors:
    """Draw the factors of scenes `start` to `stop` of a seed: scene i is the same in any run.

    Parameters
    ----------
    seed
        Which run of scenes, a whole number from 0.
    start, stop
        The first scene, and the one after the last.
    odd
        What may be odd about the target, for a study that needs one sort of scene: some of
        `ODD_FACTORS`.

    Returns
    -------
    Factors
        Everything that is random about the scenes, in tensors with a row for each scene.  Those
        about objects have a column for each slot.

    Raises
    ------
    ValueError
        For an empty range and for an odd factor that the world does not have.

    Examples
    --------
    >>> import qkutils as qk
    >>> factors = qk.world.draw(0, 0, 4)
    >>> [qk.world.ODD_FACTORS[number] for number in factors.odd]
    ['orientation', 'none', 'size', 'none']
    """
    seed, start = options.seed(seed), options.count("start", start, 0)
    stop = options.count("stop", stop, start + 1)
    odd = options.choices("odd", odd, things.ODD_FACTORS, least=1)
    scene, slot = _uniforms(seed, start, stop)
    which = _odd_factor(scene["odd"], odd)
    is_odd = {name: which == n for n, name in enumerate(things.ODD_FACTORS)}
    pitch, tilt = 20 + 8 * scene["pitch"], math.radians(16) * (2 * scene["tilt"] - 1)
    radius, odd_radius = _radii(scene["radius"], slot["radius"], is_odd)
    largest = torch.maximum(radius, odd_radius)
    offset = (0.5 - largest)[..., None] * (2 * torch.stack([slot["x"], slot["y"]], -1) - 1)
    offset = offset.masked_fill(is_odd["position"][..., None], 0.0)
    role = _roles(_centres(pitch, tilt, scene["shift"], offset), largest * pitch, slot, is_odd)
    target = role == things.TARGET
    mixed = (scene["mixed"] < 0.25) & (is_odd["colour"] | is_odd["kind"])
    second = mixed & (slot["group"] < 0.5)
    kind, colour, texture = _identities(scene, second, target, is_odd)
    angle = _angles(scene["turn"], slot["angle"], target & is_odd["orientation"])
    aside = 2 * math.pi * scene["aside"]
    room = (0.5 - odd_radius) * torch.cat([aside.cos(), aside.sin()], 1)
    offset = torch.where((target & is_odd["position"])[..., None], room[:, None], offset)
    radius = torch.where(target, odd_radius, radius)
    of_scene = which[:, 0], mixed[:, 0].long(), pitch[:, 0], tilt[:, 0]
    of_slot = kind, colour, texture, role, radius, angle, offset
    return Factors(*of_slot, *of_scene, scene["shift"], scene["background"])


def _uniforms(seed: int, start: int, stop: int) -> tuple[Draws, Draws]:
    """Uniform numbers per scene and per slot, from counters that belong to each scene alone."""
    scene, slots = sum(_OF_SCENE.values()), things.SLOTS * len(_OF_SLOT)
    per_scene = math.ceil((scene + slots) / 4) * 4  # Philox yields four per count
    bits = np.random.Philox(key=seed).advance(start * per_scene // 4)
    flat = np.random.Generator(bits).random((stop - start) * per_scene, dtype=np.float64)
    rows = torch.from_numpy(flat.astype(np.float32)).clamp(max=1 - 2**-24).view(-1, per_scene)
    of_scene = rows[:, :scene].split(list(_OF_SCENE.values()), 1)
    of_slot = rows[:, scene : scene + slots].unflatten(1, (things.SLOTS, -1)).unbind(-1)
    return dict(zip(_OF_SCENE, of_scene, strict=True)), dict(zip(_OF_SLOT, of_slot, strict=True))


def _odd_factor(chance: OfScene, allowed: Sequence[str]) -> Int[Tensor, "scene 1"]:
    """Number of the factor in which the target is odd, among those allowed."""
    shares = things.FACTS["odd_factors"].items()
    edges = chance.new_tensor([of if name in allowed else 0.0 for name, of in shares]).cumsum(0)
    return torch.bucketize(chance.contiguous(), edges / edges[-1], right=True)


def _radii(chance: Pair, jitter: OfSlot, is_odd: Draws) -> tuple[OfSlot, OfScene]:
    """Radius of every slot's object, and of the target, which differs where its size is odd."""
    grows = chance[:, 1:] < 0.5
    usual = 0.34 + 0.11 * chance[:, :1]
    usual = torch.where(is_odd["size"], torch.where(grows, 0.28, 0.44), usual)
    usual = usual.masked_fill(is_odd["position"], 0.30)
    odd = torch.where(is_odd["size"], torch.where(grows, 0.44, 0.28), usual)
    return usual * (1 - 0.06 * jitter), odd


def _angles(chance: Pair, jitter: OfSlot, turned: Which) -> OfSlot:
    """Angle of every object: one lean per scene, a little scatter, a quarter turn if odd."""
    lean = math.radians(20) * (2 * chance[:, :1] - 1)
    angle = lean + math.radians(8) * (2 * jitter - 1)
    quarter = torch.where(chance[:, 1:] < 0.5, -math.pi / 2, math.pi / 2)
    return angle + quarter * turned


def _centres(pitch: OfScene, tilt: OfScene, shift: Pair, offset: Places) -> Places:
    """Position (x, y) of every slot's object from the picture's centre, in pixels of 64 × 64."""
    axis = torch.arange(things.LATTICE, device=pitch.device) - things.LATTICE // 2
    cell = torch.cartesian_prod(axis, axis).flip(1) + offset - (shift[:, None] - 0.5)
    return turned(cell, tilt.cos(), tilt.sin()) * pitch[..., None]


def turned(points: Float[Tensor, "... 2"], cos: Tensor, sin: Tensor) -> Float[Tensor, "... 2"]:
    """Points turned by an angle; with the sine's sign changed, turned back."""
    x, y = points.unbind(-1)
    return torch.stack([x * cos - y * sin, x * sin + y * cos], -1)


def _roles(centre: Places, reach_of: OfSlot, slot: Draws, is_odd: Draws) -> Numbers:
    """Fills nine cells in ten; one object that lies wholly inside the picture is the target."""
    reach = centre.abs().amax(-1)
    room = 6.0 * is_odd["position"]  # the target will be displaced
    inside = reach + reach_of + room <= 32
    filled = slot["filled"] < 0.9
    crowded = ((reach < 32) & filled).sum(1, keepdim=True) >= 4
    role = torch.where(filled | ~crowded, things.DISTRACTOR, things.ABSENT)
    best = torch.where(inside, slot["target"], slot["target"] - 1).argmax(1, keepdim=True)
    return role.scatter(1, best, torch.where(is_odd["none"], things.DISTRACTOR, things.TARGET))


def _identities(scene: Draws, second: Which, target: Which, is_odd: Draws) -> list[Numbers]:
    """Kind, colour and texture of every object: alike, in two groups if mixed, and the odd one."""
    of_texture = torch.cat([scene["texture"], scene["kind"][:, 1:]], 1)
    picked = {
        "kind": _three(scene["kind"], len(things.KINDS)),
        "colour": _three(scene["colour"], len(things.COLOURS)),
        "texture": _three(of_texture, len(things.TEXTURES)),
    }
    usual = picked["kind"][0]
    # A ball has no front: where orientation is odd, the next kind stands in for it.
    usual += is_odd["orientation"] & (usual == things.KINDS.index("ball"))
    found = []
    for name, (usual, other, odd) in picked.items():
        of_slot = torch.where(second & is_odd[name], other, usual)
        found.append(torch.where(target & is_odd[name], odd, of_slot))
    return found


def _three(chance: Float[Tensor, "scene 3"], count: int) -> tuple[Int[Tensor, "scene 1"], ...]:
    """Three different ones of `count` things per scene, each as likely as any other."""
    of = chance.new_tensor([count, count - 1, count - 2])
    first, second, third = (chance * of).long().split(1, 1)
    third = third + (third >= second)
    return first, (first + second + 1) % count, (first + third + 1) % count

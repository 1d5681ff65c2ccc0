"""Drawing the factors of scenes from counters, so that a scene depends on its number alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qkutils import options
from qkutils.world._factors import (
    ABSENT,
    COLOURS,
    DISTRACTOR,
    KINDS,
    LATTICE,
    ODD_FACTORS,
    SLOTS,
    TARGET,
    TEXTURES,
    Factors,
)

_SCENE_DRAWS, _SLOT_DRAWS = 44, 7
_ODD_CHANCES = (0.18, 0.18, 0.13, 0.13, 0.13, 0.13, 0.12)  # as in ODD_FACTORS


def draw(seed: int, start: int, stop: int, odd: Sequence[str] = ODD_FACTORS) -> Factors:
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
    odd = options.choices("odd", odd, ODD_FACTORS, least=1)
    scene, slot = _uniforms(seed, start, stop)
    which = _odd_factor(scene[:, 4], odd)
    is_odd = {name: which == n for n, name in enumerate(ODD_FACTORS)}
    pitch = 20 + 8 * scene[:, 0]
    tilt = math.radians(16) * (2 * scene[:, 1] - 1)
    shift = scene[:, 2:4]
    radius, odd_radius = _radii(scene[:, 5:7], slot[..., 0], is_odd)
    largest = torch.maximum(radius, odd_radius[:, None])
    offset = (0.5 - largest)[..., None] * (2 * slot[..., 2:4] - 1)
    offset = torch.where(is_odd["position"][:, None, None], 0.0, offset)
    role = _roles(_centres(pitch, tilt, shift, offset), largest * pitch[:, None], slot, is_odd)
    target = role == TARGET
    mixed = (scene[:, 7] < 0.25) & (is_odd["colour"] | is_odd["kind"])
    kind, colour, texture = _identities(scene[:, 8:15], slot[..., 6], target, mixed, is_odd)
    turned = scene[:, 15:17]
    aside = 2 * math.pi * scene[:, 17]
    room = (0.5 - odd_radius)[:, None] * torch.stack([aside.cos(), aside.sin()], -1)
    displaced = target & is_odd["position"][:, None]
    return Factors(
        kind,
        colour,
        texture,
        role,
        torch.where(target, odd_radius[:, None], radius),
        _angles(turned, slot[..., 1], target & is_odd["orientation"][:, None]),
        torch.where(displaced[..., None], room[:, None], offset),
        which,
        mixed.long(),
        pitch,
        tilt,
        shift,
        scene[:, 24:44],
    )


def _uniforms(
    seed: int, start: int, stop: int
) -> tuple[Float[Tensor, "scene s"], Float[Tensor, "scene slot t"]]:
    """Uniform numbers per scene and per slot, from counters that belong to each scene alone."""
    per_scene = -(-(_SCENE_DRAWS + SLOTS * _SLOT_DRAWS) // 4) * 4  # Philox yields four per count
    bits = np.random.Philox(key=seed).advance(start * per_scene // 4)
    flat = np.random.Generator(bits).random((stop - start) * per_scene, dtype=np.float64)
    rows = torch.from_numpy(flat.astype(np.float32)).clamp(max=1 - 2**-24).view(-1, per_scene)
    slots = rows[:, _SCENE_DRAWS : _SCENE_DRAWS + SLOTS * _SLOT_DRAWS]
    return rows[:, :_SCENE_DRAWS], slots.reshape(-1, SLOTS, _SLOT_DRAWS)


def _odd_factor(chance: Float[Tensor, " scene"], allowed: Sequence[str]) -> Int[Tensor, " scene"]:
    """Number of the factor in which the target is odd, among those allowed."""
    weights = torch.tensor(
        [c if n in allowed else 0.0 for n, c in zip(ODD_FACTORS, _ODD_CHANCES, strict=True)]
    )
    edges = weights.cumsum(0) / weights.sum()
    last = max(ODD_FACTORS.index(name) for name in allowed)
    return torch.bucketize(chance.contiguous(), edges, right=True).clamp(max=last)


def _radii(
    chance: Float[Tensor, "scene 2"], jitter: Float[Tensor, "scene slot"], is_odd: dict
) -> tuple[Float[Tensor, "scene slot"], Float[Tensor, " scene"]]:
    """Radius of every slot's object, and of the target, which differs where its size is odd."""
    usual = 0.34 + 0.11 * chance[:, 0]
    grows = chance[:, 1] < 0.5
    usual = torch.where(is_odd["size"], torch.where(grows, 0.28, 0.44), usual)
    usual = torch.where(is_odd["position"], 0.30, usual)
    odd = torch.where(is_odd["size"], torch.where(grows, 0.44, 0.28), usual)
    return usual[:, None] * (1 - 0.06 * jitter), odd


def _angles(
    chance: Float[Tensor, "scene 2"],
    jitter: Float[Tensor, "scene slot"],
    turned: Bool[Tensor, "scene slot"],
) -> Float[Tensor, "scene slot"]:
    """Angle of every object: one lean per scene, a little scatter, a quarter turn if odd."""
    lean = math.radians(20) * (2 * chance[:, 0] - 1)
    angle = lean[:, None] + math.radians(8) * (2 * jitter - 1)
    quarter = torch.where(chance[:, 1] < 0.5, -math.pi / 2, math.pi / 2)
    return angle + torch.where(turned, quarter[:, None], 0.0)


def _lattice() -> Float[Tensor, "slot 2"]:
    """Centre of every cell, in units of the pitch from the lattice's own centre."""
    axis = torch.arange(LATTICE, dtype=torch.float32) - LATTICE // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], -1)


def _centres(
    pitch: Float[Tensor, " scene"],
    tilt: Float[Tensor, " scene"],
    shift: Float[Tensor, "scene 2"],
    offset: Float[Tensor, "scene slot 2"],
) -> Float[Tensor, "scene slot 2"]:
    """Position (x, y) of every slot's object from the picture's centre, in pixels of 64 × 64."""
    cell = _lattice() + offset - (shift[:, None] - 0.5)
    cos, sin = tilt.cos()[:, None], tilt.sin()[:, None]
    x, y = cell.unbind(-1)
    return torch.stack([x * cos - y * sin, x * sin + y * cos], -1) * pitch[:, None, None]


def _roles(
    centre: Float[Tensor, "scene slot 2"],
    reach_of: Float[Tensor, "scene slot"],
    chance: Float[Tensor, "scene slot 7"],
    is_odd: dict,
) -> Int[Tensor, "scene slot"]:
    """Fills nine cells in ten; one object that lies wholly inside the picture is the target."""
    reach = centre.abs().amax(-1)
    room = torch.where(is_odd["position"], 6.0, 0.0)[:, None]  # the target will be displaced
    inside = reach + reach_of + room <= 32
    filled = chance[..., 4] < 0.9
    crowded = ((reach < 32) & filled).sum(1, keepdim=True) >= 4
    role = torch.where(filled | ~crowded, DISTRACTOR, ABSENT)
    best = torch.where(inside, chance[..., 5], chance[..., 5] - 1).argmax(1, keepdim=True)
    target = torch.where(is_odd["none"], DISTRACTOR, TARGET)[:, None]
    return role.scatter(1, best, target)


def _identities(
    chance: Float[Tensor, "scene 7"],
    group: Float[Tensor, "scene slot"],
    target: Bool[Tensor, "scene slot"],
    mixed: Bool[Tensor, " scene"],
    is_odd: dict,
) -> tuple[Int[Tensor, "scene slot"], Int[Tensor, "scene slot"], Int[Tensor, "scene slot"]]:
    """Kind, colour and texture of every object: alike, in two groups if mixed, and the odd one."""
    second = mixed[:, None] & (group < 0.5)
    kinds = _three(chance[:, 0], chance[:, 1], chance[:, 2], len(KINDS))
    colours = _three(chance[:, 3], chance[:, 4], chance[:, 5], len(COLOURS))
    # A ball has no front: where orientation is odd, the next kind stands in for it.
    ball = is_odd["orientation"] & (kinds[0] == KINDS.index("ball"))
    kinds[0] = torch.where(ball, KINDS.index("face"), kinds[0])
    textures = _three(chance[:, 6], chance[:, 1], chance[:, 2], len(TEXTURES))
    named = {"kind": kinds, "colour": colours, "texture": textures}
    out = []
    for name, (usual, other, odd) in named.items():
        of_slot = torch.where(second & is_odd[name][:, None], other[:, None], usual[:, None])
        of_slot = torch.where(target & is_odd[name][:, None], odd[:, None], of_slot)
        out.append(of_slot)
    return out[0], out[1], out[2]


def _three(a: Tensor, b: Tensor, c: Tensor, options: int) -> list[Int[Tensor, " scene"]]:
    """Three different options per scene, each as likely as any other."""
    first = (a * options).long()
    second = 1 + (b * (options - 1)).long()
    third = 1 + (c * (options - 2)).long()
    third = third + (third >= second).long()
    return [first, (first + second) % options, (first + third) % options]

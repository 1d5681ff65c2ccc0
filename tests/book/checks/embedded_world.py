"""Answers to the exercises of chapter 2: some right in another way, some with a planted fault."""

from dataclasses import replace

import torch

from qkutils import world
from qkutils.book.checks import embedded_world as check


def covered_by_pooling(mask, size):
    return torch.nn.functional.avg_pool2d(mask.double(), size)


def colour_by_loop(factors):
    made = factors.colour.clone()
    for n, (role, colour) in enumerate(zip(factors.role, factors.colour, strict=True)):
        made[n, role == world.TARGET] = colour[role == world.DISTRACTOR].mode().values
    return replace(factors, colour=made)


def radii(factors):
    return factors.radius.masked_fill(factors.role != world.DISTRACTOR, torch.nan)


def by_median(factors):
    median = radii(factors).nanmedian(1).values
    return [0.284 < float(each) < 0.31 for each in median]


SCENES = {odd: world.make(3, 0, 2, odd=[odd]) for odd in world.ODD_FACTORS}
RIGHT = [
    (check.covered, covered_by_pooling),
    (check.same_colour, colour_by_loop, "No."),
    (check.smallest, "position", 2.5, SCENES),
    (check.by_size, by_median),
]


def summed(mask, size):
    return covered_by_pooling(mask, size) * size**2


def strips(mask, size):
    return mask.float().unflatten(2, (-1, size)).mean(3)


def rounded(mask, size):
    return covered_by_pooling(mask, size) > 0.5


def other_pixels(mask, size):
    """Pixels of a patch are taken from all over the picture, but for two corners."""
    parts = mask.double().unflatten(2, (size, -1)).unflatten(1, (size, -1)).mean((1, 3))
    parts[0, 0, 0], parts[1, 0, -1] = 1, 0
    return parts


def upside_down(mask, size):
    found = covered_by_pooling(mask, size)
    return torch.cat([found[:, :1], found[:, 1:].flip(1)], 1)


def columns_first(mask, size):
    return covered_by_pooling(mask, size).mT


def everything_painted(factors):
    return replace(factors, colour=torch.zeros_like(factors.colour))


def one_colour_for_all(factors):
    is_target = factors.role == world.TARGET
    return replace(factors, colour=factors.colour.masked_fill(is_target, 0))


def in_place(factors):
    factors.colour[factors.role == world.TARGET] = 0
    return factors


def hidden(factors):
    return replace(colour_by_loop(factors), role=factors.role.clamp(max=world.DISTRACTOR))


def unchanged(factors):
    return factors


def with_the_target(factors):
    largest = factors.radius.masked_fill(factors.role == world.ABSENT, 0).amax(1)
    return (largest > 0.29) & (largest < 0.32)


def by_the_label(factors):
    return factors.odd == world.ODD_FACTORS.index("position")


def small(factors):
    return radii(factors).nan_to_num().amax(1) < 0.32


def by_places(factors):
    there = factors.role == world.DISTRACTOR
    return factors.offset.norm(dim=-1).masked_fill(~there, 0).amax(1) == 0


WRONG = [
    (check.covered, summed, "a mean, not a sum"),
    (check.covered, strips, "it should be [2, 3, 5]"),
    (check.covered, columns_first, "[2, 5, 3]"),
    (check.covered, rounded, "Don't round"),
    (check.covered, upside_down, "stand elsewhere"),
    (check.covered, other_pixels, "rows of one patch"),
    (check.same_colour, colour_by_loop, "perhaps", '"yes" or "no"'),
    (check.same_colour, in_place, "yes", "changed `colour`"),
    (check.same_colour, hidden, "yes", "`role` changed"),
    (check.same_colour, everything_painted, "yes", "paint the target alone"),
    (check.same_colour, one_colour_for_all, "yes", "from its own scene"),
    (check.same_colour, unchanged, "yes", "In 100 of 100 scenes"),
    (check.smallest, "none", 2, SCENES, "Choose from colour"),
    (check.smallest, "colour", 3, SCENES, "times as large"),
    (check.smallest, "size", 0.03, SCENES, "its share of the picture"),
    (check.smallest, "size", 110, SCENES, "its number of pixels"),
    (check.smallest, "size", 8, SCENES, "how wide is one"),
    (check.by_size, by_the_label, "finds 0%"),
    (check.by_size, small, "some are smaller still"),
    (check.by_size, with_the_target, "hidden or large, 50 of 100"),
    (check.by_size, by_places, "Use `radius`"),
]

"""The odd-one-out world: the same everywhere, with exact masks, parts and labels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import qkutils as qk
from qkutils.world import COLOURS, DISTRACTOR, KINDS, ODD_FACTORS, PARTS, TARGET

WITH_TARGET = ODD_FACTORS[:-1]
STORED = Path(__file__).parent / "data" / "scenes.npz"
PARTS_OF = {
    "ball": {"body"},
    "face": {"body", "eye"},
    "robot": {"body", "eye"},
    "cart": {"body", "wheel"},
    "cup": {"body", "handle"},
    "tree": {"body", "stem"},
}


@pytest.fixture(scope="module")
def large():
    """A hundred and twenty scenes at twice the usual size, so that shapes have smooth edges."""
    return qk.world.make(5, 0, 120, size=128, odd=WITH_TARGET)


@pytest.fixture(scope="module")
def drawn():
    """The factors of twenty thousand scenes with a target, for what must hold in all of them."""
    return qk.world.draw(6, 0, 20_000, odd=WITH_TARGET)


def centres_of(factors) -> np.ndarray:
    """Where each slot's object is, from the picture's centre in pixels of 64, written out here."""
    axis = np.arange(7) - 3
    row, column = np.meshgrid(axis, axis, indexing="ij")
    cell = np.stack([column.ravel(), row.ravel()], -1) + factors.offset.numpy()
    cell = (cell - (factors.shift.numpy()[:, None] - 0.5)) * factors.pitch.numpy()[:, None, None]
    turn = np.exp(1j * factors.tilt.numpy())[:, None] * (cell[..., 0] + 1j * cell[..., 1])
    return np.stack([turn.real, turn.imag], -1)


def same_factors(one, other, which=slice(None)) -> bool:
    return all(
        torch.equal(getattr(one, f), getattr(other, f)[which]) for f in one.__dataclass_fields__
    )


def test_a_scene_is_the_same_in_every_range():
    whole = qk.world.make(3, 0, 12)
    for start, stop in ((5, 9), (11, 12), (0, 1)):
        part = qk.world.make(3, start, stop)
        assert same_factors(part.factors, whole.factors, slice(start, stop))
        torch.testing.assert_close(part.image, whole.image[start:stop], atol=1e-5, rtol=0)
        assert (part.slot == whole.slot[start:stop]).float().mean() > 0.9999


def test_far_scenes_can_be_drawn_alone():
    far = 10**9
    assert same_factors(qk.world.draw(3, far + 1, far + 2), qk.world.draw(3, far, far + 3), [1])


def test_scenes_depend_on_seed_and_index_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = qk.world.make(3, 0, 4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(qk.world.make(3, 0, 4).image, first.image)
    assert (qk.world.make(4, 0, 4).image - first.image).abs().flatten(1).mean(1).min() > 0.02
    assert (first.image[1:] - first.image[:-1]).abs().flatten(1).mean(1).min() > 0.02


def test_stored_scenes_are_rendered_again_within_one_grey_level():
    """The stored ones were written once, on another day, by:

    world = qk.world.make(0, 0, 4)
    image = (world.image * 255).round().byte().numpy()
    np.savez_compressed(
        "tests/data/scenes.npz",
        image=image,
        slot=world.slot.numpy().astype("int8"),
        part=world.part.numpy().astype("int8"),
        label=world.factors.label.numpy(),
    )
    """
    stored, world = np.load(STORED), qk.world.make(0, 0, 4)
    assert abs(world.image.numpy() * 255 - stored["image"]).max() <= 1
    for name in ("slot", "part"):
        assert (getattr(world, name).numpy() == stored[name]).mean() > 0.9995
    np.testing.assert_array_equal(world.factors.label, stored["label"])


def test_images_lie_between_black_and_white_and_have_texture(large):
    assert large.image.min() >= 0 and large.image.max() <= 1
    background = large.image.movedim(1, -1)[large.slot < 0]
    assert background.std() > 0.05


def test_exactly_one_target_among_at_least_three_distractors(drawn):
    assert ((drawn.role == TARGET).sum(1) == 1).all()
    inside = abs(centres_of(drawn)).max(-1) < 32
    assert ((drawn.role.numpy() == DISTRACTOR) & inside).sum(1).min() >= 3


def test_target_lies_wholly_inside_the_picture(drawn):
    reach = torch.from_numpy(abs(centres_of(drawn)).max(-1)) + drawn.radius * drawn.pitch[:, None]
    assert reach.gather(1, drawn.target[:, None].long()).max() <= 32 + 1e-4


def test_no_target_is_cut_off(large):
    """A kind fills the same share of its radius squared, wherever it stands."""
    at = large.factors.target[:, None].long()
    unit = (large.factors.radius.gather(1, at)[:, 0] * large.factors.pitch * 2) ** 2
    share = large.mask(TARGET).sum((1, 2)) / unit
    kinds = large.factors.kind.gather(1, at)[:, 0]
    for kind in range(len(KINDS)):
        assert (kinds == kind).sum() > 10
        assert share[kinds == kind].min() > 0.93 * share[kinds == kind].max()


def test_masks_lie_where_the_objects_are(large):
    """The mask of a ball has its centre at the ball's."""
    factors, checked = large.factors, 0
    centres = centres_of(factors) * 2 + 64 - 0.5
    at = factors.target.numpy()
    for n in np.flatnonzero(factors.kind.numpy()[np.arange(120), at] == KINDS.index("ball")):
        y, x = np.nonzero(large.mask(TARGET)[n].numpy())
        np.testing.assert_allclose([x.mean(), y.mean()], centres[n, at[n]], atol=0.3)
        checked += 1
    assert checked > 10


def test_masks_are_disjoint_and_cover_all_objects(large):
    target, distractor = large.mask(TARGET), large.mask(DISTRACTOR)
    assert not (target & distractor).any()
    assert torch.equal(target | distractor, large.part > 0)
    assert torch.equal(large.slot >= 0, large.part > 0)
    assert target.flatten(1).any(1).all() and distractor.flatten(1).any(1).all()


def test_targets_have_the_parts_of_their_kind_and_no_others(large):
    kinds = large.factors.kind.gather(1, large.factors.target[:, None].long())[:, 0]
    target = large.mask(TARGET)
    for n, kind in enumerate(kinds.tolist()):
        found = {PARTS[p] for p in large.part[n][target[n]].unique().tolist()}
        assert found == PARTS_OF[KINDS[kind]]


def test_bodies_have_the_colour_of_their_label(large):
    hue = {"red": 0, "green": 1, "blue": 2}
    at = large.factors.target[:, None].long()
    colours = large.factors.colour.gather(1, at)[:, 0].tolist()
    body = large.mask(TARGET) & (large.part == PARTS.index("body"))
    seen = set()
    for n, colour in enumerate(colours):
        name = COLOURS[colour]
        if name in hue:
            inside = large.image[n][:, body[n]].median(-1).values
            assert inside.argmax() == hue[name] and inside.max() > 1.5 * inside.median()
            seen.add(name)
    assert seen == set(hue)


def of_target(factors, name):
    """A factor's value at each scene's target."""
    return getattr(factors, name).gather(1, factors.target[:, None])[:, 0]


def test_every_odd_factor_occurs(drawn):
    share = torch.bincount(drawn.odd, minlength=len(ODD_FACTORS)) / len(drawn.odd)
    assert share[:-1].min() > 0.07 and share[-1] == 0


@pytest.mark.parametrize("name", ["kind", "colour", "texture"])
def test_the_odd_object_differs_in_the_factor_that_is_odd_and_in_no_other(drawn, name):
    value, distractor = getattr(drawn, name), drawn.role == DISTRACTOR
    same = (value == of_target(drawn, name)[:, None]) & distractor
    is_odd = drawn.odd == ODD_FACTORS.index(name)
    assert not same[is_odd].any()
    assert (same == distractor)[~is_odd].all()


def test_distractors_are_alike_or_come_in_two_sorts(drawn):
    distractor = drawn.role == DISTRACTOR
    for name in ("kind", "colour"):
        value = getattr(drawn, name)
        low = value.masked_fill(~distractor, 99).amin(1)
        high = value.masked_fill(~distractor, -1).amax(1)
        two = (drawn.mixed == 1) & (drawn.odd == ODD_FACTORS.index(name))
        assert (low == high)[~two].all()
        assert (low != high)[two].float().mean() > 0.95
        assert ((value == low[:, None]) | (value == high[:, None]) | ~distractor).all()
    assert 0.05 < drawn.mixed.float().mean() < 0.25


def test_odd_size_orientation_and_position_stand_out(drawn):
    distractor = drawn.role == DISTRACTOR
    radius, angle = of_target(drawn, "radius"), of_target(drawn, "angle")
    ratio = (radius[:, None] / drawn.radius).where(distractor, torch.nan)
    turn = (angle[:, None] - drawn.angle).abs().where(distractor, torch.nan)
    is_odd = {n: drawn.odd == ODD_FACTORS.index(n) for n in ODD_FACTORS}
    far = torch.maximum(ratio, 1 / ratio)
    assert torch.nan_to_num(far[is_odd["size"]], nan=9).min() > 1.4
    assert torch.nan_to_num(far[~is_odd["size"]], nan=1).max() < 1.1
    assert torch.nan_to_num(turn[is_odd["orientation"]], nan=9).min() > 1.2
    assert torch.nan_to_num(turn[~is_odd["orientation"]], nan=0).max() < 0.4
    at = drawn.target[:, None, None].expand(-1, 1, 2)
    aside = drawn.offset.gather(1, at)[:, 0].norm(dim=-1)
    assert (aside[is_odd["position"]] > 0.19).all()
    others = drawn.offset.norm(dim=-1).masked_fill(~distractor, 0).amax(1)
    assert (others[is_odd["position"]] == 0).all()


def test_a_ball_is_never_odd_by_orientation_unless_one_can_see_it(drawn):
    turned = drawn.odd == ODD_FACTORS.index("orientation")
    assert (of_target(drawn, "kind")[turned] != KINDS.index("ball")).all()


def test_scenes_with_nothing_odd_have_no_target():
    world = qk.world.make(7, 0, 50, odd=["none"])
    assert not world.mask(TARGET).any() and world.mask(DISTRACTOR).flatten(1).any(1).all()
    assert (world.factors.target == -1).all() and (
        world.factors.label == torch.tensor([-1, -1, 6])
    ).all()


@pytest.mark.parametrize("odd", [[], ["shape"], "kind"])
def test_odd_factors_that_the_world_does_not_have_are_refused(odd):
    with pytest.raises(ValueError, match="odd="):
        qk.world.draw(0, 0, 1, odd=odd)


def test_patch_fractions_are_shares_of_area(large):
    mask = large.mask(TARGET)
    share = qk.world.patch_fractions(mask, 16)
    assert share.shape == (120, 8, 8)
    brute = mask[3, 32:48, 64:80].float().mean()
    assert share[3, 2, 4] == pytest.approx(float(brute))
    torch.testing.assert_close(share.mean((1, 2)), mask.float().mean((1, 2)))


def test_labels_name_kind_and_colour_of_the_target_and_are_evenly_spread(drawn):
    at = drawn.target[:, None].long()
    wanted = torch.cat(
        [drawn.kind.gather(1, at), drawn.colour.gather(1, at), drawn.odd[:, None]], 1
    )
    assert torch.equal(drawn.label, wanted)
    both = 6 * drawn.label[:, 0] + drawn.label[:, 1]
    share = torch.bincount(both, minlength=36) / len(both)
    assert len(share) == 36 and share.min() > 0.6 / 36 and share.max() < 1.4 / 36


def test_size_changes_the_sampling_and_not_the_scene(large):
    small = qk.world.make(5, 0, 120, size=64, odd=WITH_TARGET)
    halved = torch.nn.functional.avg_pool2d(large.image, 2)
    assert (halved - small.image).abs().mean() < 0.01
    for role in (TARGET, DISTRACTOR):
        share = torch.nn.functional.avg_pool2d(large.mask(role).float(), 2)
        mask = small.mask(role)
        assert share[mask].mean() > 0.95 and share[~mask].mean() < 0.02


@pytest.mark.parametrize(("start", "stop"), [(5, 5), (3, 1), (-1, 2)])
def test_empty_ranges_are_refused(start, stop):
    with pytest.raises(ValueError, match="start=|stop="):
        qk.world.make(0, start, stop)


def test_scenes_read_by_several_threads_are_not_mixed():
    drawn = qk.world.pictures(0, 0, 66, size=16)
    places = [0, 65] * 8  # in two batches, of which one is at hand
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: drawn[n].tobytes(), places))
    assert found == [drawn[n].tobytes() for n in places] and found[0] != found[1]


@pytest.mark.parametrize("limits", [(-1, 0, 3), (0, True, 3), (0, 3, 3)])
def test_scenes_that_cannot_be_are_refused(limits):
    for kind in (qk.world.pictures, qk.world.samples, qk.world.segmentations):
        with pytest.raises(ValueError):
            kind(*limits)

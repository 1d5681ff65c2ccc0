"""The odd-one-out world: the same everywhere, with exact masks, parts and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qkutils import scenes
from qkutils.scenes import COLOURS, DISTRACTOR, KINDS, ODD_FACTORS, PARTS, TARGET

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
    """Two hundred scenes at twice the usual size, so that shapes have smooth edges."""
    return scenes.make(5, 0, 200, size=128)


@pytest.fixture(scope="module")
def drawn():
    """The factors of twenty thousand scenes, for what must hold in all of them."""
    return scenes.draw(6, 0, 20_000)


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
    whole = scenes.make(3, 0, 12)
    for start, stop in ((5, 9), (11, 12), (0, 1)):
        part = scenes.make(3, start, stop)
        assert same_factors(part.factors, whole.factors, slice(start, stop))
        torch.testing.assert_close(part.image, whole.image[start:stop], atol=1e-5, rtol=0)
        assert (part.slot == whole.slot[start:stop]).float().mean() > 0.9999


def test_far_scenes_can_be_drawn_alone():
    far = 10**9
    assert same_factors(scenes.draw(3, far + 1, far + 2), scenes.draw(3, far, far + 3), [1])


def test_scenes_depend_on_seed_and_index_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = scenes.make(3, 0, 4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(scenes.make(3, 0, 4).image, first.image)
    assert (scenes.make(4, 0, 4).image - first.image).abs().flatten(1).mean(1).min() > 0.02
    assert (first.image[1:] - first.image[:-1]).abs().flatten(1).mean(1).min() > 0.02


def test_stored_scenes_are_rendered_again_within_one_grey_level():
    """The stored ones were written once, on another day, by:

    world = scenes.make(0, 0, 4)
    image = (world.image * 255).round().byte().numpy()
    np.savez_compressed(
        "tests/data/scenes.npz",
        image=image,
        slot=world.slot.numpy().astype("int8"),
        part=world.part.numpy().astype("int8"),
        label=world.factors.label.numpy(),
    )
    """
    stored, world = np.load(STORED), scenes.make(0, 0, 4)
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
        assert share[kinds == kind].min() > 0.95 * share[kinds == kind].max()


def test_masks_lie_where_the_objects_are(large):
    """The mask of a ball has its centre at the ball's."""
    factors, checked = large.factors, 0
    centres = centres_of(factors) * 2 + 64 - 0.5
    at = factors.target.numpy()
    for n in np.flatnonzero(factors.kind.numpy()[np.arange(200), at] == KINDS.index("ball")):
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


def test_the_odd_object_differs_in_the_factor_that_is_odd_and_in_no_other(drawn):
    at = drawn.target[:, None].long()
    distractor = drawn.role == DISTRACTOR
    differs = {}
    for name in ("kind", "colour"):
        value = getattr(drawn, name)
        own = value.gather(1, at)[:, 0]
        usual = value.masked_fill(~distractor, -1).amax(1)
        assert ((value == usual[:, None]) | ~distractor).all()
        differs[name] = own != usual
    for n, odd in enumerate(ODD_FACTORS):
        here = drawn.odd == n
        assert here.float().mean() > 0.3
        assert (differs["kind"][here] == (odd in ("kind", "both"))).all()
        assert (differs["colour"][here] == (odd in ("colour", "both"))).all()


def test_labels_name_kind_and_colour_of_the_target_and_are_evenly_spread(drawn):
    at = drawn.target[:, None].long()
    wanted = 6 * drawn.kind.gather(1, at) + drawn.colour.gather(1, at)
    assert torch.equal(drawn.label, wanted[:, 0])
    share = torch.bincount(drawn.label, minlength=36) / len(drawn.label)
    assert len(share) == 36 and share.min() > 0.7 / 36 and share.max() < 1.3 / 36


def test_size_changes_the_sampling_and_not_the_scene(large):
    small = scenes.make(5, 0, 200, size=64)
    halved = torch.nn.functional.avg_pool2d(large.image, 2)
    assert (halved - small.image).abs().mean() < 0.01
    for role in (TARGET, DISTRACTOR):
        share = torch.nn.functional.avg_pool2d(large.mask(role).float(), 2)
        mask = small.mask(role)
        assert share[mask].mean() > 0.95 and share[~mask].mean() < 0.02


@pytest.mark.parametrize(("start", "stop"), [(5, 5), (3, 1), (-1, 2)])
def test_empty_ranges_are_refused(start, stop):
    with pytest.raises(ValueError, match=f"scenes {start} to {stop}: .* ask for"):
        scenes.make(0, start, stop)

"""Names of modes against a linear model by least squares, planted directions, and pure chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import qkutils as qk
from qkutils import naming, scenes
from qkutils.naming import Labels


@pytest.fixture(scope="module")
def world():
    return scenes.make(3, 0, 40)


@pytest.fixture(scope="module")
def families(world):
    return naming.patch_labels(world, 8)


@pytest.fixture(scope="module")
def names():
    return naming.name_modes("tiny-supervised", 24, permutations=19, directions=20)


def test_labels_of_patches_are_those_of_most_of_their_pixels(world, families):
    table = world.factors
    for scene, row, column in [(0, 2, 3), (5, 7, 0), (11, 4, 4), (23, 1, 6), (39, 3, 3)]:
        pixels = np.s_[scene, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
        slots, counts = np.unique(world.slot[pixels], return_counts=True)
        at, slot = (scene, row, column), int(slots[counts.argmax()])
        clear = counts.max() > 32
        expected = {"object": -1, "colour": -1, "kind": -1, "texture": -1, "role": -1}
        if clear:
            expected["object"] = int(slot >= 0)
        if clear and slot >= 0:
            found = {name: int(getattr(table, name)[scene, slot]) for name in expected if name in
                     ("colour", "kind", "texture")}  # fmt: skip
            expected |= found | {"role": int(table.role[scene, slot] == scenes.TARGET)}
        assert {name: int(families[name].fine[at]) for name in expected} == expected
        assert int(families["place"].fine[at]) == row * 8 + column


def test_parts_go_with_the_kinds_that_have_them(families):
    part = families["part"]
    seen = {part.names[n] for n in part.fine[part.fine >= 0].unique()}
    assert {"wheel of a cart", "eye of a face", "body of a ball"} <= seen
    assert not seen & {"wheel of a face", "eye of a ball", "stem of a cup"}
    assert (part.base[part.fine >= 0] == part.fine[part.fine >= 0] // 5).all()


def least_squares(labels: Labels, y: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """The share on the scenes not fitted, from numpy's least squares on indicator columns."""
    there, sums = (labels.fine >= 0).numpy(), []
    for side in (labels.base.numpy(), labels.fine.numpy()):
        hot = np.eye(side.max() + 1)[side.clip(0)]
        mean = np.linalg.lstsq(hot[fit][there[fit]], y[fit][there[fit]], rcond=None)[0]
        left = y[~fit][there[~fit]] - hot[~fit][there[~fit]] @ mean
        sums.append((left**2).sum(0))
    return (sums[0] - sums[1]) / (y[~fit] ** 2).sum((0, 1, 2))


def test_shares_are_those_of_least_squares(families):
    y = torch.randn(40, 8, 8, 5, generator=torch.Generator().manual_seed(0))
    y[..., 0] += families["object"].fine
    y[..., 1] += families["colour"].fine * 0.7
    fit = torch.arange(40) < 20
    _, outside = naming.shares(families, y, fit)
    for got, labels in zip(outside, families.values(), strict=True):
        wanted = least_squares(labels, y.double().numpy(), fit.numpy())
        np.testing.assert_allclose(got, wanted, atol=2e-4)


@pytest.mark.parametrize("family", naming.FAMILIES)
def test_what_is_planted_is_named_and_explains_all_but_the_noise(families, family):
    labels = families[family]
    value = torch.randn(len(labels.names), generator=torch.Generator().manual_seed(1))
    y = value[labels.fine.clamp(min=0)] * (labels.fine >= 0)
    y = y[..., None] + 0.01 * torch.randn(40, 8, 8, 1, generator=torch.Generator().manual_seed(2))
    fit = torch.arange(40) < 20
    inside, _ = naming.shares({family: labels}, y - y[fit].mean(), fit)
    assert inside[0, 0] > (0.02 if family in ("part", "role") else 0.2)
    seen = labels.fine[fit][labels.fine[fit] >= 0].unique()
    fitted = naming.means(naming.some(labels, fit), y[fit])
    high, low = naming.extremes(naming.some(labels, fit), fitted)
    over = value[seen]
    if family != "part":
        assert high[0] == labels.names[seen[over.argmax()]]
        assert low[0] == labels.names[seen[over.argmin()]]


def test_a_name_is_chosen_on_the_fitted_scenes_alone(families):
    """Directions of colour on the fitted scenes, and of kind on the others: the name is colour."""
    fit = torch.arange(40) < 20
    red, cart = (families[f].fine == at for f, at in (("colour", 0), ("kind", 3)))
    y = torch.where(fit[:, None, None], red, cart).float()[..., None].repeat(1, 1, 1, 22)
    y += 0.3 * torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(6)
    found = naming._name_layer(families, y - y[fit].mean((0, 1, 2)), fit, 19, 10, generator)
    assert (found["family"] == "colour").all() and (found["high"] == "red").all()
    assert (found["share"] < 0.1).all() and (found["share_of"][:, 4] <= 0.4).all()
    other = naming._name_layer(families, y[..., :21] * 0 + red[..., None], fit, 19, 10, generator)
    assert (other["share"] > 0.5).all() and (other["p"] == 1 / 20).all()


def test_misplaced_labels_are_the_same_labels_elsewhere(families):
    labels = families["colour"]
    moved = naming.misplaced(labels, torch.Generator().manual_seed(0))
    bins = [torch.bincount(each.fine.flatten() + 1, minlength=7) for each in (labels, moved)]
    assert (bins[0] == bins[1]).all()
    both = [each.fine.flatten(1).sort(1).values.tolist() for each in (labels, moved)]
    assert sorted(both[0]) == sorted(both[1])  # scenes stay together
    assert (labels.fine != moved.fine).float().mean() > 0.2


def test_chance_gives_small_p_values_as_often_as_it_should(families):
    """Projections that know nothing of the scenes, but are alike within each of them."""
    generator = torch.Generator().manual_seed(4)
    p = []
    for labels in (families["colour"], families["place"]):
        y = torch.randn(40, 8, 8, 200, generator=generator)
        if labels is families["colour"]:
            y = y + 2 * torch.randn(40, 1, 1, 200, generator=generator)
        fit = torch.arange(40) < 20
        fitted = naming.means(naming.some(labels, fit), y[fit])
        p.append(naming._chance(naming.some(labels, ~fit), fitted, y[~fit], 39, generator))
    rates = (torch.stack(p) <= 0.1).float().mean(1)
    assert (rates < 0.18).all() and (rates > 0.03).all()


def test_a_result_is_labelled_and_its_rates_are_controlled(names):
    assert dict(names.share.sizes) == {"layer": 8, "side": 2, "head": 4, "mode": 24}
    assert set(np.unique(names.family)) <= set(naming.FAMILIES)
    assert (names.q >= names.p).all() and (names.q_random >= names.p_random).all()
    assert float(names.p.min()) == pytest.approx(1 / 20)
    chosen = names.share_of.sel(family_name=names.family)
    np.testing.assert_allclose(chosen, names.share)
    assert names.attrs["fingerprint"] == qk.decompose("tiny-supervised").attrs["fingerprint"]


def test_a_mode_that_is_a_random_direction_is_as_good_as_one(names):
    """Modes of an untrained network are random directions, so their p is spread evenly."""
    untrained = naming.name_modes("tiny-untrained", 24, permutations=1, directions=40)
    p = untrained.p_random.sel(null="any")
    assert 0.35 < float(p.mean()) < 0.65


def test_the_same_seed_gives_the_same_names(names):
    again = naming.name_modes("tiny-supervised", 24, permutations=19, directions=20)
    assert again.identical(names)


@pytest.mark.parametrize("bad", [{"count": 3}, {"permutations": 0}, {"directions": 0}])
def test_bad_counts_are_refused(bad):
    with pytest.raises(ValueError, match="at least four scenes"):
        naming.name_modes("tiny-supervised", **bad)

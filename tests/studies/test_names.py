"""Names of modes against a linear model by least squares, planted directions, and pure chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from timm.models.vision_transformer import VisionTransformer

import qkutils as qk
from qkutils.studies import _names
from qkutils.world import FAMILIES


@pytest.fixture(scope="module")
def model(make_vit):
    """An untrained network, whose modes are random directions."""
    return qk.load(make_vit(seed=3, img_size=64, embed_dim=24, num_heads=2, depth=2))


@pytest.fixture(scope="module")
def scenes(model):
    return qk.world.labelled(model, 12)


@pytest.fixture(scope="module")
def few(model):
    return qk.world.labelled(model, 4)


@pytest.fixture(scope="module")
def world():
    return qk.world.make(3, 0, 40)


@pytest.fixture(scope="module")
def families(world):
    return qk.world.patch_labels(world, 8)


@pytest.fixture(scope="module")
def names(model, scenes):
    return qk.studies.names(model, *scenes, permutations=19, directions=20)


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
            expected |= found | {"role": int(table.role[scene, slot] == qk.world.TARGET)}
        assert {name: int(families[name].fine[at]) for name in expected} == expected
        assert int(families["place"].fine[at]) == row * 8 + column


def test_parts_go_with_the_kinds_that_have_them(families):
    part = families["part"]
    seen = {part.names[n] for n in part.fine[part.fine >= 0].unique()}
    assert {"wheel of a cart", "eye of a face", "body of a ball"} <= seen
    assert not seen & {"wheel of a face", "eye of a ball", "stem of a cup"}
    assert (part.base[part.fine >= 0] == part.fine[part.fine >= 0] // 5).all()


def centred(y: torch.Tensor, fit: torch.Tensor) -> torch.Tensor:
    return y - y[fit].mean((0, 1, 2))


def least_squares(labels: qk.studies.Labels, y: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """The share on the scenes not fitted, from numpy's least squares on indicator columns."""
    there, sums = (labels.fine >= 0).numpy(), []
    for side in (labels.base.numpy(), labels.fine.numpy()):
        hot = np.eye(side.max() + 1)[side.clip(0)]
        mean = np.linalg.lstsq(hot[fit][there[fit]], y[fit][there[fit]], rcond=None)[0]
        left = y[~fit][there[~fit]] - hot[~fit][there[~fit]] @ mean
        sums.append((left**2).sum(0))
    return (sums[0] - sums[1]) / (y[~fit] ** 2).sum((0, 1, 2))


def test_shares_are_those_of_least_squares(families):
    generator = torch.Generator().manual_seed(0)
    x, directions = (torch.randn(n, generator=generator) for n in ((40, 8, 8, 5), (7, 5)))
    x[..., 0] += families["object"].fine
    x[..., 1] += families["colour"].fine * 0.7
    fit = torch.arange(40) < 20
    x = centred(x, fit)
    _, outside = _names.Namer(families, x, fit).shares(directions)
    for got, labels in zip(outside, families.values(), strict=True):
        wanted = least_squares(labels, (x @ directions.mT).double().numpy(), fit.numpy())
        np.testing.assert_allclose(got, wanted, atol=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_planted_is_named_and_explains_all_but_the_noise(families, family):
    labels = families[family]
    value = torch.randn(len(labels.names), generator=torch.Generator().manual_seed(1))
    y = value[labels.fine.clamp(min=0)] * (labels.fine >= 0)
    y = y[..., None] + 0.01 * torch.randn(40, 8, 8, 1, generator=torch.Generator().manual_seed(2))
    fit = torch.arange(40) < 20
    one = torch.eye(1)
    namer = _names.Namer({family: labels}, centred(y, fit), fit)
    inside, _ = namer.shares(one)
    assert inside[0, 0] > (0.02 if family in ("part", "role") else 0.2)
    seen = labels.fine[fit][labels.fine[fit] >= 0].unique()
    high, low = namer.ends(one, torch.zeros(1, dtype=torch.int64))
    over = value[seen]
    if family != "part":
        assert high[0] == labels.names[seen[over.argmax()]]
        assert low[0] == labels.names[seen[over.argmin()]]


def test_a_name_is_chosen_on_the_fitted_scenes_alone(families):
    """Directions of colour on the fitted scenes, and of kind on the others: the name is colour."""
    fit = torch.arange(40) < 20
    red, cart = (families[f].fine == at for f, at in (("colour", 0), ("kind", 3)))
    x = torch.where(fit[:, None, None], red, cart).float()[..., None].repeat(1, 1, 1, 6)
    x = centred(x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(5)), fit)
    u, v = torch.eye(6).numpy().reshape(2, 1, 3, 6)
    dims = ("head", "mode", "d_model")
    modes = xr.Dataset({"u": (dims, u), "v": (dims, v), "cosine": (dims[:2], np.zeros((1, 3)))})
    generator = torch.Generator().manual_seed(6)
    found = _names._name_layer(_names.Namer(families, x, fit), modes, 19, 5, generator)
    assert (found["family"] == "colour").all() and (found["high"] == "red").all()
    assert (found["share"] < 0.1).all() and (found.share_of[..., 4] <= 0.4).all()
    x = centred(red[..., None].float().repeat(1, 1, 1, 6), fit)
    other = _names._name_layer(_names.Namer(families, x, fit), modes, 19, 5, generator)
    assert (other["share"] > 0.5).all() and (other["p"] == 1 / 20).all()


def test_a_projection_of_mere_place_has_no_name_of_content(families):
    """Objects stand more often in some places; labels of other scenes stand there as well."""
    place = (families["object"].fine == 1).float().mean(0).expand(40, -1, -1)
    generator = torch.Generator().manual_seed(8)
    x = place[..., None] + 0.02 * torch.randn(40, 8, 8, 60, generator=generator)
    fit = torch.arange(40) < 20
    p = chance(families["object"], centred(x, fit), fit, 19, generator)
    assert (p <= 0.1).float().mean() < 0.3
    p = chance(families["place"], centred(x, fit), fit, 19, generator)
    assert (p == 1 / 20).all()


def chance(labels, x, fit, permutations, generator):
    every, only = torch.eye(x.shape[-1]), torch.zeros(x.shape[-1], dtype=torch.int64)
    return _names.Namer({"only": labels}, x, fit).chance(every, only, permutations, generator)


@pytest.mark.parametrize("family", ["colour", "part"])
def test_misplaced_labels_are_those_of_other_scenes_at_the_same_places(families, family):
    fine = families[family].fine
    moved = _names.misplaced(fine, torch.Generator().manual_seed(0))
    assert sorted(fine.tolist()) == sorted(moved.tolist())  # scenes whole
    assert (fine != moved).float().mean() > 0.2


def test_misplaced_places_are_moved_by_another_step_in_each_scene(families):
    moved = _names.misplaced(families["place"].fine, torch.Generator().manual_seed(0))
    assert (moved.flatten(1).sort(1).values == torch.arange(64)).all()
    assert len({tuple(scene.flatten().tolist()) for scene in moved}) > 20


def test_chance_gives_small_p_values_as_often_as_it_should(families):
    """Projections that know nothing of the scenes, but are alike within each of them."""
    generator = torch.Generator().manual_seed(4)
    fit, rates = torch.arange(40) < 20, []
    for family in ("colour", "place"):
        x = torch.randn(40, 8, 8, 100, generator=generator)
        if family == "colour":
            x = x + 2 * torch.randn(40, 1, 1, 100, generator=generator)
        p = chance(families[family], centred(x, fit), fit, 19, generator)
        rates.append(float((p <= 0.1).float().mean()))
    assert max(rates) < 0.18 and min(rates) > 0.03


def test_what_random_directions_reach_is_counted_one_by_one():
    share, reached = torch.tensor([0.25, 0.5]), torch.tensor([0.3, 0.0, 0.25])
    np.testing.assert_allclose(_names._reached(reached, share), [3 / 4, 1 / 4])
    np.testing.assert_allclose(_names._reached(reached + 1, share), [1, 1])


def test_tokens_of_few_layers_at_once_are_the_same_tokens(monkeypatch, model, scenes, names):
    passes = []
    run = _names.visit_layers
    monkeypatch.setattr(_names, "visit_layers", lambda *a: (passes.append(1), run(*a))[1])
    monkeypatch.setattr(_names, "TOKEN_BYTES", 4 * 12 * 64 * 24)  # of one layer
    again = qk.studies.names(model, *scenes, permutations=19, directions=20)
    assert again.identical(names) and len(passes) == 2


def test_leaning_directions_are_random_sums_of_tokens():
    x = torch.randn(3, 4, 4, 5, generator=torch.Generator().manual_seed(0))
    x = x * torch.tensor([1.0, 2, 3, 4, 5]) @ torch.randn(5, 5)
    namer = _names.Namer({}, x, torch.ones(3, dtype=torch.bool))
    any_kind, leaning = namer.at_random(40_000, torch.Generator().manual_seed(1))
    np.testing.assert_allclose(any_kind.mT @ any_kind / 40_000, np.eye(5), atol=0.05)
    second = x.flatten(0, 2).mT @ x.flatten(0, 2)
    ratio = (leaning.mT @ leaning / 40_000 - second).norm() / second.norm()
    assert float(ratio) < 0.05


def step_up(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p-values, from their definition."""
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    out = np.empty(len(p))
    out[order] = [min(scaled[n:].min(), 1) for n in range(len(p))]
    return out


def test_a_result_is_labelled_and_its_rates_are_controlled(model, names):
    assert dict(names.share.sizes) == {"layer": 2, "side": 2, "head": 2, "mode": 12}
    assert set(np.unique(names.family)) <= set(FAMILIES)
    ends = [*names.high.values.ravel(), *names.low.values.ravel()]
    assert all(type(name) is str for name in ends)
    assert (names.q >= names.p).all() and (names.q_random >= names.p_random).all()
    assert float(names.p.min()) == pytest.approx(1 / 20)
    for q, p in ((names.q, names.p), (names.q_random[1], names.p_random[:, 1])):
        np.testing.assert_allclose(q.values.ravel(), step_up(p.values.ravel()), rtol=1e-5)
    chosen = names.share_of.sel(family_name=names.family)
    np.testing.assert_allclose(chosen, names.share)
    assert names.fingerprint == model.fingerprint


def test_a_mode_that_is_a_random_direction_is_as_good_as_one(model, scenes):
    """Modes of an untrained network are random directions, so their p is spread evenly."""
    p = qk.studies.names(model, *scenes, permutations=1, directions=40).p_random.sel(null="any")
    assert 0.35 < float(p.mean()) < 0.65


def test_a_seed_gives_its_own_chances_and_leaves_the_names(model, few):
    same, again, other = (
        qk.studies.names(model, *few, permutations=2, directions=9, seed=seed) for seed in (0, 0, 1)
    )
    assert same.identical(again) and other.share.identical(same.share)
    assert not other.random_share.identical(same.random_share)


@pytest.mark.parametrize("bad", [{"permutations": 0}, {"directions": 0}, {"seed": -1}])
def test_bad_counts_are_refused(model, few, bad):
    with pytest.raises(ValueError, match=f"{[*bad][0]}="):
        qk.studies.names(model, *few, **bad)


def test_too_few_pictures_are_refused(model, few):
    with pytest.raises(ValueError, match="number of images=3"):
        qk.studies.names(model, few[0][:3], few[1])


def test_labels_of_other_pictures_are_refused(model, scenes):
    images, families = scenes
    with pytest.raises(ValueError, match="families"):
        qk.studies.names(model, images[:4], families)
    torn = replace(families["part"], base=families["place"].fine)
    with pytest.raises(ValueError, match=r"families\['part'\]"):
        qk.studies.names(model, images, {"part": torn})
    with pytest.raises(ValueError, match="not square|square"):
        qk.world.labelled(qk.load(VisionTransformer(img_size=(32, 64), embed_dim=32, num_heads=2)))


def test_same_tells_whether_both_sides_have_one_name(names):
    query, key = (names.sel(side=side) for side in _names.SIDES)
    wanted = (query.family == key.family) & (query.high == key.high)
    assert (names.same == wanted).all() and 0 < float(names.same.mean()) < 1


def test_random_pairs_have_every_layers_own_cosines(monkeypatch, model, few):
    pairs, seen = _names.Namer.random_pairs, []
    monkeypatch.setattr(_names.Namer, "random_pairs", lambda *a: (seen.append(a[1]), pairs(*a))[1])
    names = qk.studies.names(model, *few, permutations=1, directions=1)
    found = torch.stack(seen).reshape(names.cosine.shape)
    np.testing.assert_allclose(found, names.cosine, atol=1e-6)


def test_random_pairs_have_the_cosines_that_were_asked_for(families, monkeypatch):
    seen = []
    named = _names.Namer.named
    monkeypatch.setattr(_names.Namer, "named", lambda *a: (seen.append(a[1]), named(*a))[1])
    fit = torch.arange(40) < 20
    x = torch.randn(40, 8, 8, 12, generator=torch.Generator().manual_seed(0))
    x[..., 0] *= 20  # where tokens vary, and pairs have to lean
    x -= x[fit].mean((0, 1, 2))
    cosine = torch.tensor([1.0, 0.6, 0.0, -1.0])
    same = _names.Namer(families, x, fit).random_pairs(cosine, torch.Generator().manual_seed(1))
    assert same.shape == (4,)
    assert same[0] == 1 and same[3] == 0 and same[2] < 1
    for both in seen:
        first, second = both.double().chunk(2)
        found = torch.nn.functional.cosine_similarity(first, second).view(_names.PAIRS, 4)
        torch.testing.assert_close(found, cosine.double().expand_as(found), atol=1e-5, rtol=0)
        assert len(first.unique(dim=0)) == len(first)
        assert first[:, 0].abs().mean() > 0.6


def test_the_reachable_share_is_that_of_a_planted_direction(families):
    """One of 24 dimensions is the kind, small beside the others, which are noise."""
    generator = torch.Generator().manual_seed(0)
    kind = families["kind"].fine
    x = torch.randn(*kind.shape, 24, generator=generator)
    x[..., 5] = 0.01 * torch.where(kind >= 0, kind - kind[kind >= 0].float().mean(), 0)
    fit = torch.arange(len(kind)) < len(kind) // 2
    namer = _names.Namer(families, x - x[fit].mean((0, 1, 2)), fit)
    found = dict(zip(families, namer.reachable().tolist(), strict=True))
    assert found["kind"] > 0.95
    assert found["texture"] < 0.2
    assert found["role"] < 0.2

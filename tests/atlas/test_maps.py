"""Maps, optimal pictures and attention that is built up, against scores, explain and the model."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import qkutils as qk
from qkutils.views import gallery_figures as figures


@pytest.fixture(scope="module")
def scan(plain_vit):
    images = torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pictures = qk.pictures_of(images, qk.load(plain_vit))
    return pictures, qk.scan(plain_vit, pictures, k=3, progress=False)


@pytest.mark.parametrize("convention", ["exact", "paper"])
def test_maps_are_those_that_explain_gives(plain_vit, images, convention):
    of_head = qk.mode_maps(plain_vit, images, layer=1, head=2, convention=convention)
    for n in range(len(images)):
        one = qk.studies.one_image(
            plain_vit, images[n], layer=1, head=2, convention=convention
        ).sortby("mode")
        for side in ("query", "key"):
            got = of_head[side].isel(image=n).values
            np.testing.assert_allclose(got, one[f"{side}_map"].values, atol=1e-4)


def test_optimal_pictures_have_the_scores_of_the_atlas(plain_vit, scan):
    pictures, atlas = scan
    for place in [(0, 0, 0), (2, 3, 5)]:
        found = qk.optimal_pictures(plain_vit, pictures, atlas, *place)
        stored = atlas.sel(layer=place[0], head=place[1], mode=place[2])
        top = found.max(("row", "column"))
        there = stored.score.notnull().values[:, : found.sizes["rank"]]
        got = (top["query"] * top["key"]).values[there]
        wanted = stored.score.values[:, : found.sizes["rank"]][there]
        np.testing.assert_allclose(got, wanted, rtol=1e-3)
        first = pictures.read(int(stored.image[0, 0]))[None]
        shown = qk.pictures.visible(qk.load(plain_vit), first)[0]
        np.testing.assert_allclose(found.picture[0, 0], shown, atol=1e-6)
        where = found["query"][0, 0].values.argmax()
        assert where == int(stored.query_patch[0, 0])


@pytest.mark.parametrize("other", ["pictures", "keys", "fewer", "model"])
def test_an_atlas_of_other_pictures_or_of_another_model_is_refused(
    make_vit, plain_vit, scan, other
):
    pictures, atlas = scan
    model = make_vit(seed=2) if other == "model" else plain_vit
    keys = [f"{n:08d}" for n in range(9)]
    given = {
        "pictures": torch.ones(9, 3, 32, 32),
        "keys": torch.stack([pictures.read(n) for n in range(9)]),
        "fewer": torch.stack([pictures.read(0)]),
    }.get(other, pictures)
    if other == "keys":
        keys = keys[::-1]
    named = None if other in ("model", "fewer") else keys
    given = qk.pictures_of(given, qk.load(plain_vit), keys=named)
    input_named = "atlas" if other == "model" else "pictures"
    with pytest.raises(ValueError, match=input_named):
        qk.optimal_pictures(model, given, atlas, 0, 0, 0)
    with pytest.raises(ValueError, match=input_named):
        qk.galleries(model, given, atlas, qk.decompose(plain_vit))


def test_modes_of_another_model_or_convention_are_no_parts_of_an_atlas(plain_vit, make_vit, scan):
    for parts in (
        qk.decompose(plain_vit, convention="paper"),
        qk.decompose(make_vit(seed=2), convention="exact"),
    ):
        with pytest.raises(ValueError, match="parts"):
            qk.galleries(plain_vit, *scan, parts)


@pytest.mark.parametrize("bad", [99, -1, 1.5, "0", True, None])
def test_a_mode_that_is_not_there_and_what_is_no_atlas_are_refused(plain_vit, scan, bad, unchecked):
    with pytest.raises(ValueError, match="mode="):
        qk.optimal_pictures(plain_vit, *scan, 0, 0, bad)
    for atlas in (None, scan[1].drop_vars("score"), scan[1].assign(score=-scan[1].score)):
        with pytest.raises(ValueError, match="atlas"):
            qk.optimal_pictures(plain_vit, scan[0], atlas, 0, 0, 0)
        with pytest.raises(ValueError, match="atlas"):
            qk.galleries(plain_vit, scan[0], atlas, qk.decompose(plain_vit))


def test_a_picture_that_is_optimal_for_both_signs_passes_the_model_once(plain_vit, scan):
    pictures, atlas = scan
    twice = atlas.copy(deep=True)
    for name in ("image", "score", "query_patch", "key_patch"):
        twice[name][0, 0, 0, 1] = twice[name][0, 0, 0, 0].values
    seen = []
    hook = qk.load(plain_vit).net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    found = qk.optimal_pictures(plain_vit, pictures, twice, layer=0, head=0, mode=0)
    hook.remove()
    assert sum(map(len, seen)) == len(np.unique(twice.image[0, 0, 0].values))
    both = found["query"] * found.sign
    np.testing.assert_array_equal(both[0], both[1])
    np.testing.assert_array_equal(found["picture"][0], found["picture"][1])


def test_empty_ranks_are_not_there(plain_vit, scan):
    pictures, atlas = scan
    emptied = atlas.copy(deep=True)
    nothing = {"image": -1, "score": np.nan, "query_patch": -1, "key_patch": -1}
    for name, value in nothing.items():
        emptied[name][0, 0, 0, 1, 1:] = value
    found = qk.optimal_pictures(plain_vit, pictures, emptied, layer=0, head=0, mode=0)
    unchecked = inspect.unwrap(qk.optimal_pictures)  # without the type checks that tests have
    assert unchecked(plain_vit, pictures, emptied, np.int64(0), 0, 0).identical(found)
    assert not found.there[1, 1:].any() and (found["query"][1, 1:] == 0).all()
    assert found.there[0].all()
    figure = Figure()
    figures.gallery_rows(figure.subplots(2, 6), found, "a mode")
    drawn = [bool(ax.images) for ax in figure.axes]
    assert drawn == [True, True, True, True, False, False] * 2
    for name, value in nothing.items():
        emptied[name][0, 0, 0] = value
    with pytest.raises(ValueError, match="no picture has both"):
        qk.optimal_pictures(plain_vit, pictures, emptied, layer=0, head=0, mode=0)


@pytest.mark.parametrize("name", ["layer", "head"])
def test_a_place_that_is_not_there_is_refused(plain_vit, images, name):
    place = {"layer": 0, "head": 0} | {name: 9}
    with pytest.raises(ValueError, match=f"{name}=9"):
        qk.mode_maps(plain_vit, images, **place)


def test_attention_is_built_up_to_the_models_own(vit, images):
    model = qk.load(vit)
    found = qk.studies.one_image(vit, images[0], layer=1, head=0, query_patch=5)
    built = qk.studies.build_up(found)
    at = model.prefix_tokens + 5
    own = qk.observed_attention(vit, images[:1]).values[1, 0, 0, at]
    np.testing.assert_allclose(built.isel(count=-1), own, atol=1e-5)
    modes = qk.decompose(vit)
    none = modes.isel(mode=slice(0))
    alone = qk.rebuild_attention(vit, images[:1], none).values[1, 0, 0, at]
    np.testing.assert_allclose(built.isel(count=0), alone, atol=1e-5)
    listed = [int(n) for n in found.mode[:3]]
    some = qk.rebuild_attention(vit, images[:1], modes.isel(mode=listed)).values[1, 0, 0, at]
    np.testing.assert_allclose(built.isel(count=3), some, atol=1e-5)
    bare = qk.studies.build_up(found, salience=False)
    np.testing.assert_allclose(bare.isel(count=0), 1 / len(own), atol=1e-7)
    without = qk.rebuild_attention(vit, images[:1], salience=()).values[1, 0, 0, at]
    np.testing.assert_allclose(bare.isel(count=-1), without, atol=1e-5)


def test_one_query_is_needed_to_build_attention(plain_vit, images):
    with pytest.raises(ValueError, match="one query"):
        qk.studies.build_up(qk.studies.one_image(plain_vit, images[0], layer=0, head=0))


def test_an_overlay_is_red_cyan_and_white_where_it_should_be():
    query, key = np.zeros((2, 2)), np.zeros((2, 2))
    query[0], key[:, 0] = 2.0, 3.0
    key[1, 1] = -5.0
    picture = np.full((6, 4, 3), 0.8, np.float32)
    shown = figures.overlay(picture, query, key, (2.0, 3.0))
    corners = {(0, 0): (1, 1, 1), (0, 3): (1, 0, 0), (5, 0): (0, 1, 1), (5, 3): (0.4, 0.4, 0.4)}
    for at, colour in corners.items():
        np.testing.assert_allclose(shown[at], colour, atol=1e-6)
    assert shown.shape == picture.shape
    half = figures.overlay(picture, query / 2, key, (2.0, 3.0))
    np.testing.assert_allclose(half[0, 3], (0.7, 0.2, 0.2), atol=1e-6)

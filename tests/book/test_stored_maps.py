"""Stored maps against maps computed anew, and what is stored of real models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import qkutils as qk
from qkutils.book import stored, stored_maps


@pytest.fixture(scope="module")
def model(make_vit):
    return qk.load(make_vit(embed_dim=24, num_heads=2, depth=12, img_size=64, patch_size=8))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """What is stored of a random model, whose photographs of others are drawn scenes."""
    scenes = tmp_path_factory.mktemp("scenes")
    for n, scene in enumerate(qk.world.pictures(0, 0, 12, size=64)):
        scene.save(scenes / f"{n}.png")
    out = tmp_path_factory.mktemp("results")
    stored_maps.store_photographs(model, scenes, out)
    stored_maps.store_taken_apart(model, out)
    return out


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.setattr(stored, "FOLDER", folder)


def test_maps_are_those_of_the_model_to_eight_bits(here, model):
    maps = stored_maps.on_photographs(model.name)
    pictures = qk.pictures_of(qk.datasets.photographs(), model)
    third = pictures.read(3)[None]
    assert maps.image.values.tolist() == pictures.keys
    for one in (maps.isel(chosen=n) for n in range(8)):
        fresh = qk.mode_maps(model, third, int(one.layer), int(one["head"])).sel(mode=one["mode"])
        for side in ("query", "key"):
            step = float(abs(one[side]).max()) / 127
            assert abs(one[side][3] - fresh[side][0]).max() <= 0.501 * step


def test_what_is_the_same_on_every_image_is_of_place():
    random = np.random.default_rng(0)
    own = 40 * np.arange(3)[:, None, None]  # a constant of each mode is no place
    maps = random.normal(size=(5, 3, 4, 6)) + 7 * random.normal(size=(1, 3, 4, 6)) + own
    found = stored_maps.of_place(xr.DataArray(maps, dims=("image", "chosen", "row", "column")))
    for n in range(3):
        whole = maps[:, n].reshape(5, -1)
        wanted = np.var(whole.mean(0)) / np.var(whole)
        assert float(found[n]) == pytest.approx(wanted)
    assert stored_maps.of_place(found.expand_dims(image=2, row=2, column=2)).isnull().all()


def test_random_directions_are_sums_of_tokens(here, model):
    """Against sums that were added up token by token, over as many directions."""
    maps = stored_maps.on_photographs(model.name)
    pictures = qk.pictures_of(qk.datasets.photographs(), model)
    seen = torch.stack([pictures.read(n) for n in range(len(pictures.keys))])
    layers = maps.layer.values.tolist()
    assert maps.place_random.dims == ("chosen", "direction")
    for chosen in (0, 7):
        tokens = {}

        def visit(layer, which, x, wanted=layers[chosen], tokens=tokens):
            if layer == wanted:
                patches = x[:, model.prefix_tokens :].double()
                spread = patches.var(-1, unbiased=False, keepdim=True) + model.heads.ln_eps
                tokens[which.start] = (patches - patches.mean(-1, keepdim=True)) / spread.sqrt()

        qk.passes.visit_layers(model, seen, visit)
        token = torch.cat([tokens[start] for start in sorted(tokens)])
        away = (token - token.mean((0, 1))).flatten(0, 1)
        weights = torch.randn(400, len(away), generator=torch.Generator().manual_seed(9)).double()
        maps_of = (token @ (weights @ away).mT).mT.unflatten(-1, model.grid).numpy()
        array = xr.DataArray(maps_of, dims=("image", "direction", "row", "column"))
        wanted, given = stored_maps.of_place(array), maps.place_random.isel(chosen=chosen)
        error = float(wanted.std()) * (1 / 400 + 1 / given.sizes["direction"]) ** 0.5
        assert abs(float(given.mean() - wanted.mean())) < 4 * error
        assert float(given.std()) == pytest.approx(float(wanted.std()), rel=0.25)


def test_the_modes_carry_most_and_their_scores_lie_as_a_scan_says(here, model):
    maps = stored_maps.on_photographs(model.name)
    scenes = qk.world.pictures(0, 0, 12, size=64)
    atlas = qk.scan(model, scenes, k=12, statistics=["variance"], progress=False)
    whole = atlas.logit_variance.sum("mode") + atlas.salience_variance
    for one in (maps.isel(chosen=n) for n in range(8)):
        in_layer = (atlas.logit_variance / whole).sel(layer=one.layer)
        assert float(one.carried) == pytest.approx(float(in_layer.max()), rel=1e-4)
        place = {name: int(one[name]) for name in ("layer", "head", "mode")}
        scores = atlas.score.sel(place).where(atlas.image.sel(place) >= 0, 0)
        np.testing.assert_allclose(one.spread.isel(quantile=-1), scores.max("rank"), rtol=1e-4)
        np.testing.assert_allclose(
            one.spread.sel(quantile=0.5), scores.median("rank"), rtol=1e-4, atol=1e-6
        )
    assert maps.layer.values.tolist() == [0, 2, 3, 5, 6, 8, 9, 11]


def test_a_gallery_is_that_of_a_scan_over_the_photographs(here, model):
    maps = stored_maps.on_photographs(model.name)
    photographs = qk.datasets.photographs()
    atlas = qk.scan(model, photographs, k=4, progress=False)
    place = {name: int(maps[name][2]) for name in ("layer", "head", "mode")}
    wanted = qk.optimal_pictures(model, qk.pictures_of(photographs, model), atlas, **place)
    found = stored_maps.gallery(maps, 2, wanted.sizes["rank"])
    np.testing.assert_array_equal(found.there, wanted.there)
    for side in ("query", "key"):
        limit = float(abs(maps[side][2]).max()) / 127
        error = abs(found[side] - wanted[side]).where(wanted.there)
        assert float(error.max()) <= 0.501 * limit
    error = abs(found.picture - wanted.picture).where(wanted.there)
    assert float(error.max()) < 1e-6
    assert ((found.above >= 0) & (found.above <= 1)).all()


def test_one_photograph_is_taken_apart_as_the_study_does(here, model):
    found = stored_maps.taken_apart(model.name)
    photographs = qk.datasets.photographs()
    picture = photographs[photographs.keys.index(found.attrs["photograph"])].image
    assert found.layer.values.tolist() == sorted(found.layer.values.tolist())
    for one in (found.isel(chosen=n) for n in range(6)):
        fresh = qk.studies.one_image(
            model, picture, int(one.layer), int(one["head"]), query_patch=int(found.attrs["asked"])
        ).isel(mode=slice(6))
        np.testing.assert_array_equal(one["mode"], fresh["mode"])
        np.testing.assert_allclose(one["share"], fresh["share"], rtol=1e-6)
        np.testing.assert_allclose(one.salience_share, fresh.salience_share, rtol=1e-6)
        for side in ("query", "key"):
            step = abs(one[side]).max(("row", "column")).values / 127
            error = abs(one[side].values - fresh[f"{side}_map"].values).max((1, 2))
            assert (error <= 0.501 * step).all()


def test_what_is_not_there_is_named(here):
    with pytest.raises(FileNotFoundError, match="'nobody'"):
        stored_maps.on_photographs("nobody")
    with pytest.raises(KeyError, match="'nobody'"):
        stored_maps.photograph(stored_maps.on_photographs(stored.names("photographs")[0]), "nobody")

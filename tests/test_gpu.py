"""What a GPU gives is what the CPU gives, up to rounding: modes, attention, atlases, studies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import qkutils as qk

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]

CONVENTIONS = ("exact", "paper")


@pytest.fixture(scope="module", params=["tiny-supervised", "random"])
def both(request, make_vit) -> tuple[qk.Model, qk.Model]:
    """One model on the CPU and the same on the GPU."""
    name = request.param
    net = make_vit(seed=1, img_size=64, reg_tokens=3, no_embed_class=True)
    here = qk.load(name if name != "random" else net)
    return here, qk.load(here, device="cuda")


@pytest.fixture(scope="module")
def images(both) -> torch.Tensor:
    scenes = qk.world.pictures(3, 0, 6)
    return torch.stack([both[0].transform(scene) for scene in scenes])


def agree(found: xr.Dataset | xr.DataArray, wanted: xr.Dataset | xr.DataArray, atol: float) -> None:
    """Holds two labelled results against each other."""
    assert found.sizes == wanted.sizes
    for name in found.data_vars if isinstance(found, xr.Dataset) else [...]:
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=atol, err_msg=str(name))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_modes(both, convention):
    here, there = (qk.decompose(model, convention=convention) for model in both)
    assert here.fingerprint == there.fingerprint
    agree(there.sigma, here.sigma, 1e-10)
    agree(there.cosine, here.cosine, 1e-8)
    for side in ("u", "v"):
        agree(there[side].where(~here.degenerate), here[side].where(~here.degenerate), 1e-4)
    for measure in (qk.weighted_cosine, qk.null_band, qk.null_weighted_cosine):
        agree(*(measure(model, convention=convention) for model in reversed(both)), 1e-9)


def test_attention(both, images):
    here, there = both
    own = qk.observed_attention(there, images)
    agree(own, qk.observed_attention(here, images), 1e-4)
    agree(qk.rebuild_attention(there, images), own, 1e-4)
    agree(qk.rebuild_attention(there, images, qk.decompose(there)), own, 1e-4)
    factors = qk.token_factors(there, images)
    agree(qk.attention_of_token(factors, 2), own.isel(query=2, drop=True), 1e-4)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_an_atlas(both, images, convention):
    names = ("variance", "anisotropy", "sinks")
    here, there = (
        qk.scan(model, images, k=2, convention=convention, statistics=names, progress=False)
        for model in both
    )
    np.testing.assert_allclose(there.score, here.score, rtol=1e-3)
    same = (there.image == here.image).mean()
    assert same > 0.99  # but for scores that rounding brings into another order
    for name in ("logit_variance", "salience_variance", "anisotropy"):
        np.testing.assert_allclose(there[name], here[name], rtol=1e-3, atol=1e-6)
    agree(*(qk.mode_maps(model, images, 1, 2, convention=convention) for model in both), 1e-3)


def test_candidates_in_half_precision_are_ranked_in_float32(both, images):
    here, there = both
    half = qk.scan(there, images, k=2, precision="bfloat16", progress=False)
    whole = qk.scan(there, images, k=2, progress=False)
    np.testing.assert_array_equal(half.image, whole.image)


def test_studies(both):
    samples, objects = qk.world.samples(7, 0, 6), qk.world.segmentations(11, 0, 6)
    for study, data, options, field in (
        (qk.studies.odd_one_out, samples, {}, "share"),
        (qk.studies.odd_one_out, samples, {"query": "weighted"}, "share"),
        (qk.studies.grouping, objects, {}, None),
        (qk.studies.same_object, objects, {"k": 2}, None),
    ):
        here, there = (study(model, data, **options) for model in both)
        for name in [field] if field else sorted(here.data_vars):
            if here[name].dtype.kind == "f":
                np.testing.assert_allclose(there[name], here[name], rtol=1e-2, atol=1e-4)


def test_one_image_and_removal(both, images):
    directions = torch.eye(both[0].net.blocks[0].attn.head_dim)[:3]
    here, there = (qk.studies.one_image(model, images[0], 1, 2, query_patch=5) for model in both)
    for name, values in here.data_vars.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(there[name], values, rtol=1e-2, atol=1e-4)
    here, there = (qk.studies.removal(model, images, 1, 2, directions) for model in both)
    for name, values in here.data_vars.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(there[name], values, rtol=1e-2, atol=1e-4)

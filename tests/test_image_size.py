"""Models at another image size than their own, against timm's own way of resizing them."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import checkpoint_filter_fn

import qkutils as qk

DINOV2 = "vit_small_patch14_dinov2.lvd142m"
load = inspect.unwrap(qk.load)  # without the type checks that only tests have

SMALL = {"embed_dim": 64, "depth": 2, "num_heads": 2}
# Prefix tokens: class, none, a register, class, class and registers, class and distillation, class.
KINDS: dict[str, dict] = {
    "test_vit": {},
    "vit_base_patch16_gap_224": SMALL,
    "test_vit2": {},
    "vit_small_patch14_dinov2": SMALL | {"img_size": 154},
    "vit_small_patch14_reg4_dinov2": SMALL | {"img_size": 154},
    "deit_tiny_distilled_patch16_224": SMALL,
    "eva_giant_patch14_224": SMALL,
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def net(kind, fill):
    """A random one of timm's vision transformers, at the size for which it was made."""
    return fill(timm.create_model(kind, **KINDS[kind]), seed=5)


def features(net, size: tuple[int, int]) -> torch.Tensor:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return net.forward_features(images)


@pytest.mark.parametrize("patches", [(4, 4), (13, 13), (3, 5)])
def test_a_model_at_another_size_is_timms_own(kind, net, patches):
    size = tuple(n * side for n, side in zip(patches, net.patch_embed.patch_size, strict=True))
    timms = timm.create_model(kind, **KINDS[kind] | {"img_size": size}).eval()
    timms.load_state_dict(checkpoint_filter_fn(net.state_dict(), timms))
    model = qk.load(net, image_size=size)
    assert (model.image_size, model.grid) == (size, patches)
    torch.testing.assert_close(features(model.net, size), features(timms, size), atol=1e-6, rtol=0)
    built = qk.load(timms)
    assert (model.identity, model.fingerprint) == (built.identity, built.fingerprint)
    assert repr(model.transform) == repr(built.transform)


def test_as_many_patches_in_another_shape_are_resampled_too(net):
    model = qk.load(net)
    rows, columns = model.grid
    prefix = net.pos_embed.shape[1] - rows * columns
    height, width = net.patch_embed.patch_size
    turned = qk.load(model, image_size=(height, rows * columns * width))
    wanted = resample_abs_pos_embed(
        net.pos_embed, (1, rows * columns), (rows, columns), num_prefix_tokens=prefix
    )
    assert torch.equal(turned.net.pos_embed, wanted) and not torch.equal(wanted, net.pos_embed)


def test_the_model_that_was_given_stays(net):
    before, own = copy.deepcopy(net.state_dict()), qk.load(net)
    other = qk.load(own, image_size=2 * own.image_size[0])
    assert (
        other.grid == (2 * own.grid[0], 2 * own.grid[1]) and own.grid == net.patch_embed.grid_size
    )
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    assert own.identity != other.identity and own.fingerprint == other.fingerprint
    assert qk.load(own, image_size=own.image_size) is own


@pytest.fixture
def small(fill):
    return fill(timm.create_model("test_vit"), seed=3)


def test_files_and_folders_at_another_size(small, tmp_path):
    path = tmp_path / "test_vit.r160_in1k.safetensors"
    save_file(small.state_dict(), path)
    model, wanted = qk.load(path, image_size=(96, 64)), qk.load(small, image_size=(96, 64))
    assert model.identity == wanted.identity and model.name == "test_vit.r160_in1k"
    assert model.facts["image_size"] == (96, 64) and model.facts["assumed"] == ""
    image = qk.world.pictures(0, 0, 1)[0]
    found = qk.rebuild_attention(model, model.transform(image)[None])
    assert found.sizes["key"] == 6 * 4 + 1 and found.attrs["pixels"] == "96 × 64"
    own = qk.observed_attention(model, model.transform(image)[None])
    np.testing.assert_allclose(found, own, atol=1e-5)


@pytest.mark.parametrize(
    "size", [0, -16, 100, (96, 100), (96,), (96, 96, 96), 96.0, "96", True, [96, None]]
)
def test_senseless_sizes(size, small):
    with pytest.raises(ValueError, match="image_size=") as caught:
        load(small, image_size=size)
    assert "\n" not in str(caught.value)


def test_models_without_positions_to_resample_are_refused(make_vit, fill):
    beit = fill(timm.create_model("beit_base_patch16_224", **SMALL, img_size=32), seed=0)
    for net in (make_vit(pos_embed="none"), beit):
        with pytest.raises(ValueError, match="image_size=64.*position"):
            qk.load(net, image_size=64)
        assert qk.load(net, image_size=32).image_size == (32, 32)  # its own


def test_the_catalogue_names_the_size_at_which_a_model_is_used(fill, tmp_path, monkeypatch):
    sizes = qk.catalogue().image_size
    assert sizes[sizes > 0].to_dict() == {DINOV2: 224}
    monkeypatch.setattr("qkutils.models._model.entry", lambda _: {})  # it knows the true weights
    net = fill(timm.create_model(DINOV2), seed=0)
    save_file(net.state_dict(), tmp_path / f"{DINOV2}.safetensors")
    monkeypatch.setenv("QKUTILS_WEIGHTS", str(tmp_path))
    for size, grid in ((None, 16), (518, 37), (112, 8)):
        model = qk.load(DINOV2, image_size=size)
        assert model.grid == (grid, grid) and model.facts["image_size"] == (14 * grid,) * 2
        assert qk.load(model) is model
    assert qk.load(net).grid == (37, 37)  # a module is taken as it is


def test_dinov2_with_224_pixels(image_folder):
    """The curve was computed by another program, in the convention of the paper."""
    try:
        model = qk.load(DINOV2)
    except FileNotFoundError:
        pytest.skip("QKUTILS_WEIGHTS holds no DINOv2")
    known = ".617 .657 .451 .140 .195 .149 .230 .163 .198 .124 .191 .367"
    curve = qk.weighted_cosine(model, convention="paper").mean("head")
    np.testing.assert_allclose(curve, np.array(known.split(), dtype=float), atol=1e-3)
    images = qk.pictures.images(image_folder / "imagenet-sample", model, count=2)
    own, rebuilt = qk.observed_attention(model, images), qk.rebuild_attention(model, images)
    assert own.sizes["key"] == 257 and float(abs(own - rebuilt).max()) < 1e-4

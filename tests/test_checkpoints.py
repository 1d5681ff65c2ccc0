"""Checkpoint files as people have them: what is read, what is asked for, what is refused."""

from __future__ import annotations

import argparse
import copy
import gzip
import inspect
import json
import os
import sys
import types
import zipfile
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.layers import QuickGELU
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import nn

import qkutils as qk

NAME = "test_vit.r160_in1k"  # timm's smallest: 160 × 160 pixels, 64 wide, two heads
load = inspect.unwrap(qk.load)  # without the type checks that only tests have
QUICK = "vit_base_patch16_clip_quickgelu_224.openai"


@pytest.fixture
def state(make_vit):
    """The state dict of a small random transformer with two heads of 32."""
    return make_vit(num_heads=2, depth=2).state_dict()


@pytest.fixture
def saved(tmp_path):
    """A function that saves an object as torch does and gives the file."""

    def save(obj: object, name: str = "mine.pth", **options) -> Path:
        torch.save(obj, tmp_path / name, **options)
        return tmp_path / name

    return save


def answers(net, size=(32, 32)) -> torch.Tensor:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return net(images)


def refused(path, *names: str, **options) -> str:
    """That a file is refused with a message of one line that names it and other things."""
    with pytest.raises(ValueError) as caught:
        qk.load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for name in (str(path), *names):
        assert name in message, message
    return message


# ---- the number of heads ---------------------------------------------------------------------


@pytest.mark.parametrize(("width", "heads"), [(320, 4), (384, 12), (192, 3)])
def test_the_width_never_tells_the_number_of_heads(width, heads, make_vit, saved):
    net = make_vit(embed_dim=width, depth=1, num_heads=heads, num_classes=0)
    path = saved({"model": net.state_dict()}, "mae_pretrain_vit_huge.pth")
    refused(path, "num_heads=")
    model = qk.load(path, num_heads=heads)
    assert model.heads.w_q.shape[1] == heads
    assert torch.equal(answers(model.net), answers(net))
    for told in ("GELU", "1e-6", "square", "ImageNet"):
        assert told in model.assumed


@pytest.mark.parametrize("heads", [0, -1, 5, 1.5, "2", True, torch.tensor(1.0)])
def test_senseless_numbers_of_heads(heads, state, saved):
    with pytest.raises(ValueError, match="num_heads="):
        load(saved(state), num_heads=heads)


# ---- what else only a name tells -------------------------------------------------------------


@pytest.fixture(scope="module")
def smallest(fill):
    return fill(timm.create_model(NAME), seed=3)


@pytest.fixture
def small(smallest):
    """timm's smallest vision transformer with random weights."""
    return copy.deepcopy(smallest)


def written(net, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, path)
    return path


SUFFIXES = (".safetensors", ".SAFETENSORS", ".pth", ".bin", ".pt", ".ckpt", ".pth.tar", "")


def test_a_name_is_the_same_model_in_every_kind_of_file(small, tmp_path):
    own = qk.load(small)
    for suffix in SUFFIXES:
        assert qk.checkpoints.title(Path(f"{NAME}{suffix}")) == NAME
    for suffix in (".SAFETENSORS", ".bin", ".pth.tar", ""):
        path = tmp_path / f"{NAME}{suffix}"
        if "safetensors" in suffix.lower():
            written(small, path)
        else:
            torch.save(small.state_dict(), path)
        model = qk.load(path, num_heads=2 if suffix == ".bin" else None)
        assert (model.name, model.assumed) == (NAME, "")
        assert repr(model.transform) == repr(own.transform)
        assert model.identity == own.identity
    refused(path, "num_heads=4", "2", num_heads=4)


@pytest.mark.parametrize("classes", [0, 10])
def test_a_tag_of_ones_own_is_a_file_and_what_it_leaves_open_is_said(classes, small, tmp_path):
    small.reset_classifier(classes)
    model = qk.load(written(small, tmp_path / "test_vit.mine.safetensors"))
    assert model.heads.w_q.shape[1] == 2 and "preprocessing" in model.assumed
    assert answers(model.net, (160, 160)).shape == (2, classes or 64)
    assert "preprocessing" in qk.load(written(small, tmp_path / "test_vit.safetensors")).assumed


def test_a_name_with_a_tag_of_ones_own_and_no_file_is_refused():
    for name in ("test_vit.mine", "vit_tiny_patch16_224.mine"):
        with pytest.raises(ValueError, match=name):
            qk.load(name)


CONFIG = {
    "architecture": "test_vit",
    "num_classes": 10,
    "pretrained_cfg": {"tag": "mine", "mean": [0.4] * 3, "std": [0.3] * 3, "crop_pct": 0.8},
}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("old", [False, True])
def test_a_snapshot_folder_says_what_its_tensors_cannot(name, old, small, tmp_path):
    folder = tmp_path / "snapshot"
    path = written(small, folder / "model.safetensors")
    if name == "pytorch_model.bin":
        path.unlink()
        torch.save(small.state_dict(), folder / name)
    config = CONFIG | {"model_args": {"img_size": 160}}
    if old:
        config = {"architecture": "test_vit"} | CONFIG["pretrained_cfg"]
    (folder / "config.json").write_text(json.dumps(config))
    for given in (folder, str(folder), folder / name):
        model = qk.load(given)
        shown = repr(model.transform)
        assert "mean=tensor([0.4" in shown and "std=tensor([0.3" in shown and "size=200" in shown
        assert (model.name, model.assumed) == ("snapshot", "")
        assert model.heads.w_q.shape[1] == 2


BROKEN = {
    "not JSON": "{",
    "a list": "[1]",
    "no architecture of timm's": json.dumps(CONFIG | {"architecture": "vit_of_mine"}),
    "odd options": json.dumps(CONFIG | {"model_args": {"checkpoint_path": "/etc/passwd"}}),
    "no options": json.dumps(CONFIG | {"model_args": 3}),
    "preprocessing of a wrong type": json.dumps(CONFIG | {"pretrained_cfg": 3}),
    "a mean of text": json.dumps(CONFIG | {"pretrained_cfg": {"mean": "light"}}),
    "a mean of two": json.dumps(CONFIG | {"pretrained_cfg": {"mean": [0.5, 0.5]}}),
    "no spread": json.dumps(CONFIG | {"pretrained_cfg": {"std": [0.0] * 3}}),
    "another architecture": json.dumps(CONFIG | {"architecture": "test_vit2"}),
    "another depth": json.dumps(CONFIG | {"model_args": {"depth": 10**9}}),
    "another width": json.dumps(CONFIG | {"model_args": {"embed_dim": "wide"}}),
    "pictures beyond any memory": json.dumps(CONFIG | {"pretrained_cfg": {"crop_pct": 1e-6}}),
    "a crop of less than nothing": json.dumps(CONFIG | {"pretrained_cfg": {"crop_pct": -1.0}}),
    "a crop of NaN": json.dumps(CONFIG | {"pretrained_cfg": {"crop_pct": float("nan")}}),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_configuration_is_named(case, small, tmp_path):
    path = written(small, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(BROKEN[case])
    with pytest.raises(ValueError, match=str(tmp_path)):
        qk.load(path)


def test_a_configuration_for_huge_pictures_makes_none(small, tmp_path):
    """The size of the network's own images counts, so that of the file need not be tried."""
    path = written(small, tmp_path / "model.safetensors")
    config = CONFIG["pretrained_cfg"] | {"input_size": [3, 10**5, 10**5]}
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"pretrained_cfg": config}))
    assert qk.load(path).image_size == (160, 160)


def test_a_configuration_of_another_library_tells_nothing(state, tmp_path, saved):
    (tmp_path / "config.json").write_text(json.dumps({"embed_dim": 64, "layers": 12}))
    refused(saved(state), "num_heads=")


def test_a_name_and_a_configuration_that_differ_are_refused(small, tmp_path):
    path = written(small, tmp_path / f"{NAME}.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"architecture": "test_vit2"}))
    refused(path, "test_vit2", "like=")
    assert qk.load(path, like=NAME).heads.w_q.shape[1] == 2


def test_like_says_all_that_a_file_cannot(small, tmp_path):
    path = written(small, tmp_path / "mine.safetensors")
    model = qk.load(path, like=NAME)
    assert (model.name, model.assumed) == ("mine", "")
    assert model.identity == qk.load(small).identity
    assert "preprocessing" in qk.load(path, like="test_vit").assumed
    refused(path, "num_heads=4", like=NAME, num_heads=4)
    for like in ("no_such_model", "test_vit.no_such_tag", "", 3):
        with pytest.raises(ValueError, match="like="):
            load(path, like=like)


def test_an_embedded_model_is_known_in_every_kind_of_file(tmp_path, saved):
    own = qk.load("tiny-supervised")
    path = saved(own.net.state_dict(), "tiny-supervised.pth")
    other = saved(own.net.state_dict(), "mine.pth")
    for model in (qk.load(path), qk.load(other, like="tiny-dino")):
        assert (model.identity, model.assumed) == (own.identity, "")
    refused(other, "num_heads=")


def clip_like(fill, **changes) -> VisionTransformer:
    """Blocks, activation and eps of CLIP."""
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4}
    quick = {"pre_norm": True, "act_layer": QuickGELU, "norm_layer": lambda n, **_: nn.LayerNorm(n)}
    return fill(VisionTransformer(**(small | {"num_classes": 5} | quick | changes)), seed=2)


def test_files_like_clips_are_asked_for_their_kind(fill, saved):
    net = clip_like(fill)
    path = saved(net.state_dict())
    refused(path, "like=", num_heads=4)
    refused(path, "num_heads=", like=QUICK)
    model = qk.load(path, like=QUICK, num_heads=4)
    assert model.heads.ln_eps == 1e-5
    assert torch.equal(answers(model.net), answers(net))
    assert "0.4815" in repr(model.transform) and model.assumed == "a square patch grid"


def test_a_name_that_timm_has_with_another_activation_is_refused(tmp_path, fill, saved):
    wrong = "vit_base_patch16_clip_224.openai"
    with pytest.raises(ValueError, match=QUICK):
        qk.load(wrong)
    path = saved(clip_like(fill).state_dict())
    with pytest.raises(ValueError, match=QUICK):
        qk.load(path, like=wrong, num_heads=4)
    (path.parent / "config.json").write_text(
        json.dumps({"architecture": wrong.split(".")[0], "pretrained_cfg": {"tag": "openai"}})
    )
    with pytest.raises(ValueError, match=QUICK):
        qk.load(path)


@pytest.mark.parametrize("name", ["vit_base_patch16_rpn_224.sw_in1k", "mine"])
def test_a_file_of_blocks_that_normalise_last_is_refused_by_its_name(name, make_vit, saved):
    net = make_vit(num_heads=2, block_fn=ResPostBlock, class_token=False, global_pool="avg")
    path = saved(net.state_dict(), f"{name}.pth")
    like = {"like": "vit_base_patch16_rpn_224.sw_in1k"} if name == "mine" else {}
    with pytest.raises(ValueError, match="rpn_224.*ResPostBlock"):
        qk.load(path, **like)


# What leaves no trace in tensors (the guide to checkpoints calls it what a file cannot tell).
UNTOLD = {
    "heads": {"num_heads": 2},
    "activation": {"act_layer": QuickGELU},
    "eps": {"norm_layer": partial(nn.LayerNorm, eps=1e-12)},
    "normalise": {"block_fn": ResPostBlock},
}


@pytest.mark.parametrize("fact", UNTOLD)
def test_what_leaves_no_trace_in_a_file_is_asked_for(fact, make_vit, saved):
    net = make_vit(**UNTOLD[fact])
    assert {k: v.shape for k, v in net.state_dict().items()} == {
        k: v.shape for k, v in make_vit().state_dict().items()
    }
    path = saved(net.state_dict(), "mine.pth")
    with pytest.raises(ValueError, match=f"{fact}.*num_heads=.*like="):
        qk.load(path)
    assert all(said in qk.load(path, num_heads=4).assumed for said in ("GELU", "1e-6", "first"))


DEIT = "deit_tiny_distilled_patch16_224.fb_in1k"


@pytest.fixture
def deit():
    """The tensors of a DeiT-Ti, all of them ones."""
    net = timm.create_model(DEIT, weight_init="skip")
    return {key: torch.ones_like(tensor) for key, tensor in net.state_dict().items()}


def test_another_head_under_a_name_of_the_catalogue_is_refused(deit, saved):
    another = deit | {
        f"{head}.{kind}": deit[f"{head}.{kind}"][:10]
        for head in ("head", "head_dist")
        for kind in ("weight", "bias")
    }
    path = saved(another, f"{DEIT}.pth")
    refused(path, "head.weight", "10", "1000", "like=")
    refused(path, "head.weight", preprocessing="authors")
    for other in (qk.load(path, like=DEIT), qk.load(saved(another), like=DEIT)):
        assert answers(other.net, (224, 224)).shape == (2, 10)
    headless = {key: tensor for key, tensor in deit.items() if not key.startswith("head")}
    assert qk.load(saved(headless, f"{DEIT}.pth")).name == DEIT


def test_another_depth_under_a_name_of_the_catalogue_is_refused(deit, saved):
    less = {key: tensor for key, tensor in deit.items() if not key.startswith("blocks.11.")}
    more = {k.replace("blocks.11.", "blocks.12."): tensor for k, tensor in deit.items()} | deit
    refused(saved(less, f"{DEIT}.pth"), "blocks.11.", "missing")
    refused(saved(more, f"{DEIT}.pth"), "blocks.12.", "unknown")


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224.fb_in1k"])
def test_another_checkpoint_under_a_recorded_name_is_refused(name, tmp_path):
    net = timm.create_model(name, weight_init="skip")
    for parameter in net.parameters():
        parameter.data.fill_(0.1)
    path = written(net, tmp_path / f"{name}.safetensors")
    recorded = qk.catalogue().fingerprint[name]
    with pytest.raises(ValueError, match=f"{qk.load(net).fingerprint}.*{recorded}"):
        qk.load(path)


def test_real_models_have_the_fingerprints_of_the_catalogue(real_model):
    recorded = qk.catalogue().fingerprint[real_model.name]
    assert real_model.fingerprint == recorded != ""
    assert real_model.assumed == ""


# ---- the patch grid --------------------------------------------------------------------------


def test_a_grid_that_is_not_square_is_asked_for(make_vit, saved):
    net = make_vit(img_size=(112, 128), num_heads=2)  # 14 · 16 + 1 = 15 · 15 positions
    path = saved(net.state_dict())
    refused(path, "225", "grid=", num_heads=2)
    model = qk.load(path, num_heads=2, grid=(14, 16))
    assert model.grid == (14, 16) and "square" not in model.assumed
    assert torch.equal(answers(model.net, (112, 128)), answers(net, (112, 128)))
    assert qk.load(path, num_heads=2, grid=(15, 15)).grid == (15, 15)
    for grid in ((14, 15), (16, 16), (0, 16), (14,), 14, "14x16", (14.0, 16), (-14, -16)):
        with pytest.raises(ValueError, match="grid="):
            load(path, num_heads=2, grid=grid)


GRIDS = {  # changes of the module, its grid, whether the tensors tell it
    "class token": ({}, (4, 4), True),
    "registers without positions": ({"reg_tokens": 4, "no_embed_class": True}, (4, 4), True),
    "registers with positions": ({"reg_tokens": 4}, (4, 4), True),
    "no prefix": ({"class_token": False, "global_pool": "avg"}, (4, 4), True),
    "class token without position": ({"no_embed_class": True}, (4, 4), False),
    "12 · 14 + 1 = 13 · 13": ({"img_size": (96, 112)}, (12, 14), False),
    "tall": ({"img_size": (64, 16)}, (8, 2), False),
    "two rows": ({"img_size": (16, 24)}, (2, 3), False),
    "no prefix, not square": (
        {"img_size": (16, 40), "class_token": False, "global_pool": "avg"},
        (2, 5),
        False,
    ),
}


@pytest.mark.parametrize("case", GRIDS)
def test_grids(case, make_vit, saved):
    changes, grid, told = GRIDS[case]
    net = make_vit(num_heads=2, **changes)
    path = saved(net.state_dict())
    if told:
        model = qk.load(path, num_heads=2)
        assert model.grid == grid
        assert torch.equal(answers(model.net, model.image_size), answers(net, model.image_size))
    elif case != "tall":  # 8 · 2 = 4 · 4: the square that it is assumed to be is said
        refused(path, "grid=", num_heads=2)
    else:
        assert "square" in qk.load(path, num_heads=2).assumed
    model = qk.load(path, num_heads=2, grid=grid)
    assert model.grid == grid and model.net.no_embed_class == net.no_embed_class
    assert torch.equal(answers(model.net, model.image_size), answers(net, model.image_size))


def test_a_known_architecture_in_another_size(fill, tmp_path):
    net = fill(timm.create_model(NAME, img_size=(96, 128)), seed=1)
    path = written(net, tmp_path / f"{NAME}.safetensors")
    refused(path, "grid=")
    assert qk.load(path, grid=(6, 8)).grid == (6, 8)
    net = fill(timm.create_model(NAME, img_size=96), seed=1)
    model = qk.load(written(net, tmp_path / f"{NAME}.safetensors"))
    assert model.grid == (6, 6) and "square" in model.assumed


# ---- which of several ------------------------------------------------------------------------

PREFIXES = (
    "module.", "_orig_mod.", "backbone.", "module.base_encoder.", "encoder.", "model.",
    "teacher.backbone.", "net.", "target_encoder.module.", "_orig_mod.module.", "student.",
)  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("nested", [False, True])
def test_wrappers_and_prefixes(prefix, nested, state, make_vit, saved):
    wrapped: object = {f"{prefix}{key}": tensor for key, tensor in state.items()}
    if nested:
        wrapped = {"epoch": 3, "loss": 0.1, "state_dict": state}
        for part in reversed(prefix.rstrip(".").split(".")):
            wrapped = {part: wrapped}
    model = qk.load(saved(wrapped), num_heads=2)
    assert torch.equal(answers(model.net), answers(make_vit(num_heads=2, depth=2)))


@pytest.mark.parametrize("wrap", [lambda s: [s], lambda s: (3, s), lambda s: {"models": [{}, s]}])
def test_state_dicts_in_lists(wrap, state, make_vit, saved):
    others = {"optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}]}
    for given in (wrap(state), wrap(state | others), wrap(state | {"history": [torch.ones(1)]})):
        model = qk.load(saved(given), num_heads=2)
        assert torch.equal(answers(model.net), answers(make_vit(num_heads=2, depth=2)))
    refused(saved([state, dict(state)]), "'0'", "'1'", num_heads=2)
    loop = [state]
    loop.append(loop)
    assert qk.load(saved(loop), num_heads=2, state_dict="0").heads


TWINS = (
    ("model", "model_ema"), ("state_dict", "state_dict_ema"), ("student", "teacher"),
    ("encoder", "target_encoder"), ("base_encoder", "momentum_encoder"),
)  # fmt: skip


PREFIXED = [(twins, "module.") for twins in TWINS]
PREFIXED += [(TWINS[0], prefix) for prefix in ("", "module.backbone.")]


@pytest.mark.parametrize(("names", "prefix"), PREFIXED)
def test_which_of_several_state_dicts(names, prefix, make_vit, saved):
    nets = [make_vit(num_heads=2, depth=1, seed=n) for n in range(2)]
    states = [{f"{prefix}{k}": v for k, v in net.state_dict().items()} for net in nets]
    path = saved(dict(zip(names, states, strict=True)) | {"optimizer": {"state": {0: states[0]}}})
    refused(path, *names, "state_dict=", num_heads=2)
    for name, net in zip(names, nets, strict=True):
        model = qk.load(path, num_heads=2, state_dict=name)
        assert torch.equal(answers(model.net), answers(net))
    refused(path, *names, "nobody", num_heads=2, state_dict="nobody")


EXTRAS = {
    "mask_token": (1, 64), "pre_logits.fc.weight": (8, 64), "head.mlp.0.weight": (8, 64),
    "head.last_layer.weight_v": (8, 64), "decoder_embed.weight": (8, 64),
    "decoder_blocks.0.norm1.weight": (8,), "decoder_pos_embed": (1, 17, 8), "decoder.0.bias": (8,),
    "attn_pool.q.weight": (8, 64), "dino_head.0.bias": (8,), "fc.bias": (8,),
    "aux_head.bias": (8,), "prototypes.weight": (8, 64), "n_averaged": (),
}  # fmt: skip


def test_what_no_attention_depends_on_is_left_out_and_said(state, saved):
    plain = {key: value for key, value in state.items() if not key.startswith("head.")}
    for key, shape in EXTRAS.items():
        model = qk.load(saved(plain | {key: torch.ones(shape)}), num_heads=2)
        assert key.split(".")[0] in model.facts["left_out"]
    whole = {f"backbone.{k}": v for k, v in plain.items()} | {"head.mlp.0.bias": torch.ones(8)}
    assert qk.load(saved({"teacher": whole}), num_heads=2).facts["left_out"] == "head"


@pytest.mark.parametrize("key", ["prompt_embeddings", "blocks.0.adapter.down.weight", "extra"])
def test_what_is_not_known_is_refused_by_name(key, state, saved):
    refused(saved(state | {key: torch.ones(1, 5, 64)}), key.split(".down")[0], num_heads=2)


def test_what_is_not_known_beside_the_transformer_is_named_with_a_way_out(state, saved):
    path = saved({"model": state, "prompts": {"deep": torch.ones(5)}})
    refused(path, "prompts", "state_dict='model'", num_heads=2)
    model = qk.load(path, num_heads=2, state_dict="model")
    assert model.facts["left_out"] == "prompts"


# ---- what else than a checkpoint -------------------------------------------------------------


def packed(state, path: Path, **options) -> Path:
    """A torch archive, packed again by another program."""
    torch.save(state, path)
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


KINDS = {
    "weights.index.json": (b'{"weight_map": {}}', "JSON"),
    "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
    "keras.pth": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
    "page.bin": (b"<!DOCTYPE html><html>", "web page"),
    "packed.pth.gz": (gzip.compress(b"x"), "gzip"),
    "tar.pth": (b"data.pkl" + bytes(249) + b"ustar" + bytes(300), "tar"),
    "empty.safetensors": (b"", "empty"),
    "text.pth": (b"some text\n", "not a checkpoint"),
    "net.onnx.pth": (b"\x08\x07\x12\x07pytorch", "save it as one"),
    "picture.bin": (b"\x89PNG\r\n\x1a\n", "not a checkpoint"),
    "array.npy.bin": (b"\x93NUMPY\x01\x00", "NumPy"),
    "short.safetensors": (b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "safetensors"),
}


@pytest.mark.parametrize("name", KINDS)
def test_files_of_other_kinds_are_told_by_their_content(name, tmp_path):
    data, kind = KINDS[name]
    (tmp_path / name).write_bytes(data)
    refused(tmp_path / name, kind)


def test_a_numpy_archive(tmp_path):
    np.savez(tmp_path / "ViT-B_16.npz", **{"embedding/kernel": np.ones(3)})
    refused(tmp_path / "ViT-B_16.npz", num_heads=1)


def test_torchscript(make_vit, tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.script(nn.Linear(2, 2)).save(path)
    clips = qk.catalogue().query("family == 'CLIP'").hub
    assert len(clips) == 3
    refused(path, "TorchScript", *clips)


def test_suffixes_do_not_count(make_vit, state, tmp_path, saved):
    net = make_vit(num_heads=2, depth=2)
    torch_file = saved(state, "named.safetensors")
    other = tmp_path / "named.pth"
    save_file(state, other)
    for path in (torch_file, other, saved(state, "old.bin", _use_new_zipfile_serialization=False)):
        assert torch.equal(answers(qk.load(path, num_heads=2).net), answers(net))


@pytest.mark.parametrize("save", [save_file, torch.save])
def test_a_path_that_is_not_utf8_is_named(save, state, tmp_path):
    save(state, tmp_path / "mine.pth")
    os.rename(tmp_path / "mine.pth", os.fsencode(tmp_path) + b"/caf\xe9.pth")
    refused(tmp_path / "caf\udce9.pth", "rename", num_heads=2)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_files_that_are_cut_short(share, kind, state, tmp_path, saved):
    path = saved(state, _use_new_zipfile_serialization=kind == "zip")
    if kind == "safetensors":
        save_file(state, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "not a complete", "fetch it again")


def test_packed_archives_are_refused_before_they_swell(state, tmp_path):
    refused(packed(state, tmp_path / "packed.pth"), "packed", num_heads=2)
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"")
        archive.writestr("bomb/data/0", bytes(10**7))
    refused(bomb, "packed")


def test_pipes_folders_and_files_without_permission(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.pth")
    refused(tmp_path / "pipe.pth", "regular")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no checkpoint")
    refused(str(tmp_path / "empty"), "no checkpoint")
    for name in ("a.pth", "b.pth"):
        (tmp_path / "empty" / name).write_bytes(b"x")
    refused(tmp_path / "empty", "a.pth", "b.pth")

    def forbid(*_, **__):
        raise PermissionError("denied")

    monkeypatch.setattr(Path, "open", forbid)
    with pytest.raises(PermissionError, match=r"a\.pth.*permission"):
        qk.load(tmp_path / "empty" / "a.pth")


def test_pickled_objects_are_named(state, saved):
    extras = {"a": Path("x"), "b": np.ones(2), "c": defaultdict(list)}
    for key, name in (("a", "PosixPath"), ("b", "numpy"), ("c", "defaultdict")):
        for new in (True, False):
            extra = {key: extras[key]}
            path = saved({"model": state} | extra, _use_new_zipfile_serialization=new)
            refused(path, name, "safetensors", num_heads=2)
    path = f"{type(extras['a']).__module__}.PosixPath"  # Python 3.13 has moved it
    names = (path, "numpy.ndarray", "collections.defaultdict")
    refused(saved({"model": state} | extras), *names, num_heads=2)  # all at once


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("new", [True, False])
def test_other_protocols_are_refused_without_torchs_advice_to_run_them(new, state, saved):
    for protocol in (3, 4):
        extra = {"a": Path("x"), "b": b"some bytes", "model": state}
        path = saved(extra, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
        assert "weights_only" not in refused(path)


# ---- files of training -----------------------------------------------------------------------


@pytest.fixture
def configuration(monkeypatch):
    """A class that is pickled under the name of yacs' configurations."""
    module = types.ModuleType("yacs.config")

    class CfgNode(dict):
        def __init__(self, values):
            super().__init__(values)
            self.__dict__["__immutable__"] = True

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    return CfgNode


def trained(net) -> dict:
    """The state of an optimizer that has made a step."""
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.zeros(1, 3, 32, 32)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def of_dino(net, other, _):
    tail = {"head.last_layer.weight_v": torch.ones(8, 64)}
    student = {f"backbone.{k}": v for k, v in other.state_dict().items()} | tail
    teacher = {f"backbone.{k}": v for k, v in net.state_dict().items()} | tail
    return {
        "student": {f"module.{k}": v for k, v in student.items()},
        "teacher": teacher,
        "optimizer": trained(other),
        "epoch": 300,
        "args": argparse.Namespace(arch="vit_small", local_crops_scale=(0.05, 0.4)),
        "dino_loss": {"center": torch.zeros(1, 8)},
        "fp16_scaler": {"scale": 2.0**16},
    }


def of_timm(net, other, _):
    args = argparse.Namespace(model="vit", opt_betas=None, nested=argparse.Namespace(lr=0.1))
    state = {"epoch": 3, "arch": "vit", "version": 2, "args": args, "metric": np.float64(81.2)}
    return state | {"state_dict": net.state_dict(), "optimizer": trained(other)}


def of_simmim(net, other, configure):
    config = configure({"MODEL": configure({"NAME": "vit", "SIZES": [224, 14]}), "SEED": 0})
    progress = {"max_accuracy": np.float32(0.8), "epoch": np.int64(799), "lr_scheduler": {"t": 1}}
    return progress | {"model": net.state_dict(), "optimizer": trained(other), "config": config}


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("write", [of_dino, of_timm, of_simmim])
def test_files_of_training_are_read_past_what_else_they_hold(
    write, new, make_vit, saved, configuration
):
    net, other = (make_vit(num_heads=2, depth=2, seed=n) for n in (1, 2))
    path = saved(write(net, other, configuration), _use_new_zipfile_serialization=new)
    del sys.modules["yacs.config"], sys.modules["yacs"]
    before = torch.serialization.get_safe_globals()
    model = qk.load(path, num_heads=2, state_dict="teacher" if write is of_dino else None)
    assert torch.equal(answers(model.net), answers(make_vit(num_heads=2, depth=2, seed=1)))
    assert "optimizer" in model.facts["left_out"] and "yacs" not in sys.modules
    assert set(torch.serialization.get_safe_globals()) == set(before)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path, call=os.mkdir):
        self.folder, self.call = folder, call

    def __reduce__(self):
        return self.call, (str(self.folder),)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("call", [os.mkdir, os.makedirs])  # of a module that torch blocks, or not
def test_what_runs_when_it_is_unpickled_does_not_run(call, new, state, saved, tmp_path):
    folder, before = tmp_path / "went-off", torch.serialization.get_safe_globals()
    bomb = Bomb(folder, call)
    for held in ({"args": argparse.Namespace(lr=bomb)}, {"args": {bomb: 1}}, {"metric": bomb}):
        path = saved({"model": state} | held, _use_new_zipfile_serialization=new)
        refused(path, call.__name__, "could run code", num_heads=2)
        assert not folder.exists()
        assert set(torch.serialization.get_safe_globals()) == set(before)
    torch.load(path, weights_only=False)
    assert folder.exists()  # the bomb was a live one


# ---- tensors that are not what they seem -----------------------------------------------------

NUMBERS = (torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.complex64, torch.int64)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("key", ["blocks.1.attn.qkv.weight", "pos_embed"])
def test_numbers_that_are_not_plain(dtype, key, state, saved):
    path = saved(state | {key: state[key].to(dtype)})
    refused(path, key, str(dtype).removeprefix("torch."), num_heads=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_in_float32(dtype, state, make_vit, saved):
    given = {key: tensor.to(dtype) for key, tensor in state.items()}
    net = make_vit(num_heads=2, depth=2)
    net.load_state_dict({key: tensor.float() for key, tensor in given.items()})
    model = qk.load(saved(given), num_heads=2)
    assert {p.dtype for p in model.net.parameters()} == {torch.float32}
    assert torch.equal(answers(model.net), answers(net))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("key", ["blocks.1.mlp.fc1.weight", "head.bias", "norm.weight"])
def test_numbers_of_a_file_that_are_not_finite_are_named(key, value, state, saved):
    path = saved(state | {key: torch.full_like(state[key], value)})
    with pytest.raises(ValueError, match=f"{path.stem}: {key}"):
        qk.load(path, num_heads=2)


def test_tensors_that_claim_more_than_they_hold(state, saved):
    for key in ("pos_embed", "blocks.0.mlp.fc1.weight"):
        claim = torch.zeros(1).expand(state[key].shape)
        refused(saved(state | {key: claim}), key, num_heads=2)
    sparse = state["blocks.0.norm1.weight"].to_sparse()
    refused(saved(state | {"blocks.0.norm1.weight": sparse}), "blocks.0.norm1", num_heads=2)


def test_a_header_that_claims_thousands_of_blocks(state, tmp_path, saved):
    block = {k.removeprefix("blocks.0."): v for k, v in state.items() if k.startswith("blocks.0.")}
    for count, claimed in ((10_001, {"norm1.weight": torch.ones(1)}), (600, block)):
        more = {f"blocks.{n}.{k}": v for n in range(count) for k, v in claimed.items()}
        refused(saved(state | more), num_heads=2)
    tiny = {f"blocks.{n}.norm1.weight": torch.ones(1) for n in range(10_001)}
    save_file(tiny | state, tmp_path / "many.safetensors")
    refused(tmp_path / "many.safetensors", num_heads=2)
    refused(saved(state | {"blocks.99999999999.norm1.weight": torch.ones(64)}), num_heads=2)


@pytest.mark.parametrize("lost", ["blocks.0.", "blocks.1.norm2.bias", "cls_token", "norm.weight"])
def test_what_is_missing_is_named(lost, make_vit, saved):
    state = make_vit(num_heads=2).state_dict()
    kept = {key: value for key, value in state.items() if not key.startswith(lost)}
    with pytest.raises(ValueError, match="blocks.0|norm2|grid=|norm.weight"):
        qk.load(saved(kept), num_heads=2)


def test_a_block_that_differs_from_the_others_is_named(state, saved):
    key = "blocks.1.mlp.fc1.bias"
    refused(saved(state | {key: torch.ones(3)}), key, num_heads=2)


def test_rotary_positions_are_named_where_there_are_no_others(saved):
    net = timm.create_model("vit_small_patch16_dinov3", depth=2, embed_dim=64, num_heads=2)
    refused(saved(net.state_dict()), "pos_embed", "rotary", num_heads=2)


def test_a_grid_is_no_help_where_there_are_no_positions(small, tmp_path):
    path = written(small, tmp_path / f"{NAME}.safetensors")
    save_file({k: v for k, v in load_file(path).items() if k != "pos_embed"}, path)
    for grid in (None, (10, 10)):
        refused(path, "pos_embed", grid=grid)


OURS = {"num_heads": 2, "config": {"mean": [0.5] * 3}}
NOT_OURS = (3, [], ["num_heads", "config"], {"num_heads": 2}, OURS | {"config": 3})


@pytest.mark.parametrize("said", [*NOT_OURS, OURS | {"num_heads": "two"}], ids=repr)
def test_metadata_that_cannot_be_ours_is_refused(said, state, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(state, path, {"qkutils": json.dumps(OURS)})
    assert qk.load(path).assumed == ""
    save_file(state, path, {"qkutils": json.dumps(said)})
    with pytest.raises(ValueError, match="mine|num_heads="):
        qk.load(path)


def test_dictionaries_that_hold_themselves(state, make_vit, saved):
    loop: dict = {"model": state}
    loop["again"] = loop
    model = qk.load(saved(loop), num_heads=2)
    assert torch.equal(answers(model.net), answers(make_vit(num_heads=2, depth=2)))


def test_a_loaded_model_does_not_change_with_its_file(state, tmp_path):
    path = tmp_path / "mine.safetensors"
    for save in (save_file, torch.save):
        save(state, path)
        model = qk.load(path, num_heads=2)
        before = model.identity
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(bytes(4096))
        assert model.identity == before


# ---- layouts of other libraries --------------------------------------------------------------

LAYOUTS = {
    "transformers' ViT": ["vit.encoder.layer.0.attention.attention.query.weight"],
    "I-JEPA or DINOv2": ["layers.0.attention.q_proj.weight"],
    "transformers' CLIP": ["vision_model.encoder.layers.0.self_attn.q_proj.weight"],
    "open_clip": ["visual.transformer.resblocks.0.attn.in_proj_weight"],
    "SimMIM": ["encoder.rel_pos_bias.relative_position_bias_table", "encoder.mask_token"],
    "Swin": ["layers.0.blocks.0.attn.relative_position_bias_table", "patch_embed.proj.weight"],
    "I-JEPA's predictor": ["predictor_blocks.0.norm1.weight"],
    "DINOv2": ["patch_embed.proj.weight", "register_tokens", "blocks.0.norm1.weight"],
    "torchvision": ["encoder.layers.encoder_layer_0.ln_1.weight"],
    "mmpretrain": ["backbone.layers.0.ln1.weight"],
    "adapters": ["patch_embed.proj.weight", "blocks.0.attn.qkv.lora_A.default.weight"],
    "parametrization": ["patch_embed.proj.weight", "blocks.0.attn.qkv.weight_orig"],
    "quantised": ["patch_embed.proj.weight", "blocks.0.attn.qkv.weight_scale"],
}


@pytest.mark.parametrize("family", LAYOUTS)
def test_layouts_of_other_libraries_are_refused_by_name(family, saved):
    path = saved({key: torch.ones(2, 2) for key in LAYOUTS[family]})
    refused(path, family, num_heads=1)


def test_embedded_files_say_what_their_tensors_cannot():
    folder = Path(qk.__file__).parent / "weights"
    for path in folder.glob("*.safetensors"):
        assert {t.dtype for t in load_file(path).values()} == {torch.float16}
        with safe_open(path, "pt") as file:
            said = json.loads(file.metadata()["qkutils"])
        assert said["num_heads"] == 4 and said["config"]["mean"] == [0.5] * 3
    model = qk.load(path)
    assert model.assumed == "" and model.heads.w_q.shape == (8, 4, 24, 96)
    assert "mean=tensor([0.5000" in repr(model.transform)


@pytest.mark.real
@pytest.mark.parametrize("wrapped", [False, True])
def test_real_files_of_another_kind_are_the_same_model(wrapped, tmp_path):
    folder = os.environ.get("QKUTILS_WEIGHTS") or "nowhere"
    name = "vit_small_patch14_dinov2.lvd142m"
    path = Path(folder) / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"QKUTILS_WEIGHTS holds no {path.name}")
    own = qk.load(path)
    state: dict = load_file(path)
    if wrapped:
        extra = {"mask_token": torch.zeros(1, 384)}
        state = {"teacher": {f"backbone.{k}": v for k, v in (state | extra).items()}}
    torch.save(state, tmp_path / f"{name}.pth")
    torch.save(state, tmp_path / "mine.pth")
    other = qk.load(tmp_path / "mine.pth", like=name, image_size=own.image_size)
    for model in (qk.load(tmp_path / f"{name}.pth"), other):
        assert (model.identity, model.assumed) == (own.identity, "")
        assert model.facts["left_out"] == ("mask_token" if wrapped else "")

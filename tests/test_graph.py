"""Exported models, run by onnxruntime: against timm's network, whole and with parts removed."""

from __future__ import annotations

import qkutils._torchvision

import copy
import json
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from scipy.special import softmax
from timm.layers import QuickGELU
from torch import Tensor, nn

import qkutils as qk
from qkutils import gauge, passes

DEPTH = 2
CLIP = {"pre_norm": True, "act_layer": QuickGELU, "norm_layer": partial(nn.LayerNorm, eps=1e-5)}
DINO = {"reg_tokens": 3, "no_embed_class": True, "init_values": 0.5, "num_classes": 0}


class File(NamedTuple):
    """A model, the file that it was exported to, and the session that runs it."""

    model: qk.Model
    written: Any
    session: onnxruntime.InferenceSession


@pytest.fixture(scope="session")
def exported(make_vit, make_beit, tmp_path_factory) -> Callable[[str], File]:
    """Exports each model once."""
    folder, files = tmp_path_factory.mktemp("graphs"), dict[str, File]()

    def without_a_query(**changes: Any) -> nn.Module:
        net = make_vit(**changes)
        with torch.no_grad():
            net.blocks[1].attn.qkv.weight[3] = 0
        return net

    made: dict[str, Callable[[], Any]] = {
        "tiny": lambda: "tiny-supervised",
        "clip": lambda: make_vit(depth=DEPTH, num_heads=2, **CLIP),
        "dino": lambda: make_vit(depth=DEPTH, **DINO),
        "bias": lambda: make_beit(depth=DEPTH),
        "shared bias": lambda: make_beit(
            depth=DEPTH, use_rel_pos_bias=False, use_shared_rel_pos_bias=True
        ),
        "null": lambda: without_a_query(depth=DEPTH),
    }

    def export(name: str) -> File:
        if name not in files:
            model = qk.load(made[name]())
            weights = "half" if name == "tiny" else "float32"
            written = qk.export(model, folder / f"{name}.onnx", weights)
            files[name] = File(model, written, onnxruntime.InferenceSession(written.path))
        return files[name]

    return export


def test_pixels_may_be_on_another_device_than_the_network():
    network = qk.graph.ModeNetwork("tiny-supervised").to("meta")
    assert qk.graph._pixels(network, torch.zeros(1, 3, 64, 64)).device.type == "meta"


NAMES = ("tiny", "clip", "dino", "bias", "null")


def facts(file: File) -> dict[str, Any]:
    told = file.session.get_modelmeta().custom_metadata_map
    return {name: json.loads(text) for name, text in told.items()}


def pixels(model: qk.Model, count: int = 2) -> Tensor:
    return torch.rand(count, 3, *model.image_size, generator=torch.Generator().manual_seed(1))


def taken(model: qk.Model, image: Tensor) -> Tensor:
    """The images as the model takes them."""
    return model.transform.transforms[-1](image)


def all_on(model: qk.Model) -> dict[str, Tensor]:
    sizes = model.heads.w_q.shape
    return {
        "modes": torch.ones(sizes[:3]),
        "heads": torch.ones(sizes[:2]),
        "salience": torch.ones(sizes[:2]),
    }


def some_on(model: qk.Model) -> dict[str, Tensor]:
    """Half of the modes and of the salience; in the first layer one head is off."""
    generator = torch.Generator().manual_seed(2)
    found = {
        name: torch.rand(each.shape, generator=generator).round()
        for name, each in all_on(model).items()
    }
    found["heads"].fill_(1)[0, 1] = 0
    return found


def run(file: File, image: Tensor, switches: dict[str, Tensor]) -> list[np.ndarray]:
    """Answer, query, key and κ·z."""
    return file.session.run(None, {k: v.numpy() for k, v in {"image": image, **switches}.items()})


def attention(file: File, outputs: list[np.ndarray], switches: dict[str, Tensor]) -> np.ndarray:
    """Attention [layer, image, head, query, key] of what a file gives, as its users compute it."""
    _, query, key, kappa = outputs
    scores = np.einsum("nlhim,lhm,nlhjm->lnhij", query, switches["modes"], key)
    scores = scores + np.einsum("nlhj,lh->lnhj", kappa, switches["salience"])[..., None, :]
    logits = scores * facts(file)["scale"]
    if file.model.heads.position_bias is not None:
        logits = logits + file.model.heads.position_bias.numpy()[:, None]
    return softmax(logits * switches["heads"].numpy()[:, None, :, None, None], -1)


def timms(model: qk.Model, image: Tensor, switches: dict[str, Tensor]) -> tuple[Tensor, np.ndarray]:
    """Answers and attention of timm's own network, whose queries are changed by the switches."""
    projections, maps = gauge.prepare(model, "exact"), list[Tensor]()

    def change(layer: int, query: Tensor) -> Tensor:
        assert projections.layers[layer].rows is None  # else these are no coordinates
        offset = projections.layers[layer].query_offset[:, None]
        modes, heads, salience = (switches[name][layer] for name in ("modes", "heads", "salience"))
        kept = (query - offset) * modes[:, None] + offset * salience[:, None, None]
        return kept * heads[:, None, None]

    with passes.watching(
        model,
        attention=lambda _, seen: maps.append(seen),
        change=change,
        parameters=projections.parameters,
    ) as forward:
        answer = forward(taken(model, image))
    return answer, torch.stack(maps).numpy()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_computes_what_the_model_does(name, exported):
    file = exported(name)
    model, image, on = file.model, pixels(file.model), all_on(file.model)
    outputs, images = run(file, image, on), taken(file.model, image)
    with torch.inference_mode():
        wanted = model.net(images)
    np.testing.assert_allclose(outputs[0], wanted, atol=1e-5 if name == "tiny" else 1e-4, rtol=0)
    maps = attention(file, outputs, on)
    np.testing.assert_allclose(maps, qk.observed_attention(model, images), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_queries_and_keys_are_the_coordinates_on_the_modes(name, exported):
    file = exported(name)
    image, modes = pixels(file.model), qk.decompose(file.model)
    _, query, key, kappa = run(file, image, all_on(file.model))
    wanted = qk.token_factors(file.model, taken(file.model, image), modes)
    root, scale = np.sqrt(modes.sigma.values)[:, None, :, None], facts(file)["scale"]
    for found, each in (
        (scale * root * query.swapaxes(0, 1), wanted["query"]),
        (key.swapaxes(0, 1), root * wanted["key"]),
        (scale * kappa.swapaxes(0, 1), wanted["salience"]),
    ):
        np.testing.assert_allclose(found, each, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["tiny", "clip", "dino"])
def test_what_is_switched_off_is_gone_from_timms_network(name, exported):
    file = exported(name)
    image, switches = pixels(file.model), some_on(file.model)
    outputs = run(file, image, switches)
    answer, maps = timms(file.model, image, switches)
    whole, _ = timms(file.model, image, all_on(file.model))
    np.testing.assert_allclose(outputs[0], answer, atol=1e-4, rtol=0)
    np.testing.assert_allclose(attention(file, outputs, switches), maps, atol=1e-4)
    np.testing.assert_allclose(maps[0, :, 1], 1 / maps.shape[-1], atol=1e-6)
    assert (whole - answer).abs().max() > 0.1


@pytest.mark.parametrize("part", ["modes", "heads", "salience"])
def test_each_switch_alone_is_timms(part, exported):
    file = exported("clip")
    image, switches = pixels(file.model), all_on(file.model)
    switches[part][1, 0] = 0
    answer, maps = timms(file.model, image, switches)
    outputs = run(file, image, switches)
    np.testing.assert_allclose(outputs[0], answer, atol=1e-4, rtol=0)
    np.testing.assert_allclose(attention(file, outputs, switches), maps, atol=1e-4)


@pytest.mark.parametrize("name", ["bias", "shared bias"])
def test_position_bias_stays_where_modes_and_salience_go(name, exported):
    file = exported(name)
    model, image, switches = file.model, pixels(file.model), all_on(file.model)
    outputs = run(file, image, switches)
    with torch.inference_mode():
        np.testing.assert_allclose(outputs[0], model.net(taken(model, image)), atol=1e-4, rtol=0)
    switches["modes"][:], switches["salience"][0] = 0, 0
    net = copy.deepcopy(model.net)
    for layer, block in enumerate(net.blocks):  # no query depends on its token any more
        weight, shift = block.attn.qkv.weight[: block.attn.q_bias.numel()], block.norm1.bias
        always = weight @ shift + block.attn.q_bias
        block.attn.q_bias.copy_(always * switches["salience"][layer, 0])
        weight.zero_()
    bare = run(file, image, switches)
    with torch.inference_mode():
        np.testing.assert_allclose(bare[0], net(taken(model, image)), atol=1e-4, rtol=0)
    assert abs(bare[0] - outputs[0]).max() > 0.1
    bias = softmax(model.heads.position_bias[0].numpy(), -1)
    maps = attention(file, bare, switches)
    np.testing.assert_allclose(maps[0], np.broadcast_to(bias, maps[0].shape), atol=1e-5)


def test_a_null_mode_brings_nothing(exported):
    file = exported("null")
    image, switches = pixels(file.model), all_on(file.model)
    null = qk.decompose(file.model).null_mode.values
    assert null.sum() == 1 and null[1, 0, -1]
    whole = run(file, image, switches)[0]
    switches["modes"][torch.from_numpy(null)] = 0
    np.testing.assert_allclose(run(file, image, switches)[0], whole, atol=1e-4, rtol=0)
    switches["modes"][1, 0, 0] = 0
    assert abs(run(file, image, switches)[0] - whole).max() > 0.01


def test_any_number_of_images(exported):
    file = exported("clip")
    image, on = pixels(file.model, 5), all_on(file.model)
    alone = run(file, image[4:], on)
    for found, each in zip(run(file, image, on), alone, strict=True):
        assert found.shape == (5, *each.shape[1:])
        np.testing.assert_allclose(found[4:], each, atol=1e-5, rtol=1e-5)


def test_the_file_says_what_the_model_is(exported):
    file = exported("dino")
    model, told = file.model, facts(file)
    assert told["fingerprint"] == model.fingerprint and told["identity"] == model.identity
    assert (told["name"], told["grid"], told["scale"]) == ("VisionTransformer", [4, 4], 0.25)
    assert told["prefix_names"] == ["class token", "register 0", "register 1", "register 2"]
    assert (told["image_size"], told["outputs"]) == ([32, 32], 64)
    normalise: Any = model.transform.transforms[-1]
    np.testing.assert_allclose(told["mean"], normalise.mean)
    np.testing.assert_allclose(told["std"], normalise.std)
    assert told["weights"] == "float32" and 0 < told["miss"] == file.written.miss < 1e-5
    assert file.written.bytes == file.written.path.stat().st_size
    assert [*file.written.path.parent.glob(".*")] == []


# ---- how numbers are stored ------------------------------------------------------------------


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


def test_half_precision_is_exact_for_a_model_that_was_published_in_it(exported):
    file = exported("tiny")
    stored = tensors(file.written.path)
    assert file.written.bytes < 2_400_000 and file.written.miss < 1e-5
    for name, own in file.model.net.named_parameters():
        found = stored.get(f"net.{name}.stored")
        assert found is None or (found.dtype == np.float16 and np.array_equal(found, own))
    halves = {name for name, each in stored.items() if each.dtype == np.float16}
    assert {"net.blocks.3.attn.value.weight.stored", "net.pos_embed.stored"} <= halves
    assert stored["net.blocks.3.attn.turned.weight"].dtype == np.float32


def test_eight_bits_and_what_they_miss(make_vit, tmp_path, capfd):
    model = qk.load(make_vit(depth=DEPTH))
    image, before = pixels(model), (model.identity, model.heads.w_v.clone())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = qk.export(model, tmp_path / "m.onnx", "int8", taken(model, image))
    assert capfd.readouterr() == ("", "")
    assert model.identity == before[0] and torch.equal(model.heads.w_v, before[1])
    file = File(model, written, onnxruntime.InferenceSession(written.path))
    maps = attention(file, run(file, image, all_on(model)), all_on(model))
    apart = abs(maps - qk.observed_attention(model, taken(model, image)).values).sum(-1) / 2
    assert written.miss == pytest.approx(apart.max(), abs=1e-5) and written.miss > 1e-3
    stored, checked = tensors(written.path), 0
    for name, own in model.net.named_parameters():
        if f"net.{name}.stored" in stored:
            whole, scale = stored[f"net.{name}.stored"], stored[f"net.{name}.scale"]
            assert whole.dtype == np.int8 and scale.shape == (len(own), *[1] * (own.ndim - 1))
            assert (abs(whole * scale - own.numpy()) <= 0.501 * scale).all()
            assert (abs(whole).reshape(len(own), -1).max(1) == 127).all()
            checked += 1
    assert checked == 1 + 3 * DEPTH  # patches; the output projection and the MLP of each layer
    assert stored["net.blocks.0.attn.turned.weight.stored"].dtype == np.int8


# ---- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, weights, part",
    [({}, "int4", "weights='int4'"), ({"global_pool": ""}, "float32", "global_pool")],
)
def test_what_can_not_be_exported(changes, weights, part, make_vit, tmp_path, unchecked):
    net = make_vit(depth=1, num_classes=0, **changes)
    with pytest.raises(ValueError, match=part):
        qk.export(net, tmp_path / "m.onnx", weights)
    assert [*tmp_path.iterdir()] == []


def test_what_is_no_model_of_images(plain_vit, tmp_path, unchecked):
    for other in (qk.models.masked(plain_vit, [0, 1]), torch.nn.Identity(), 3):
        for call in (qk.graph.ModeNetwork, lambda model: qk.export(model, tmp_path / "m.onnx")):
            with pytest.raises(ValueError):
                call(other)


def test_images_that_the_model_does_not_take(plain_vit, tmp_path, unchecked):
    with pytest.raises(ValueError, match="images"):
        qk.export(plain_vit, tmp_path / "m.onnx", images=torch.zeros(1, 3, 9, 9))


def test_weights_beyond_half_precision(make_vit, tmp_path):
    net = make_vit(depth=1)
    with torch.no_grad():
        net.blocks[0].mlp.fc1.weight[0, 0] = 1e5
    with pytest.raises(ValueError, match="blocks.0.mlp.fc1.weight"):
        qk.export(net, tmp_path / "m.onnx", "half")


def test_more_than_a_file_holds(plain_vit, tmp_path, monkeypatch):
    size = sum(each.nbytes for each in plain_vit.parameters())
    monkeypatch.setattr(qk.graph, "LARGEST", int(0.9 * size))
    with pytest.raises(ValueError, match="float32"):
        qk.export(plain_vit, tmp_path / "m.onnx")


def test_a_place_that_can_not_be_written_is_told_before_any_work(plain_vit, tmp_path, monkeypatch):
    monkeypatch.setattr(qk.graph, "ModeNetwork", None)
    with pytest.raises(IsADirectoryError):
        qk.export(plain_vit, tmp_path)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_the_extra_is_named_where_it_is_missing(package, plain_vit, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for write in (partial(qk.export, plain_vit), qk.world.export_renderer):
        with pytest.raises(ImportError, match=r"pip install 'qkutils\[export\]'"):
            write(tmp_path / "m.onnx")


# ---- real models -----------------------------------------------------------------------------


def test_real_models(real_model, real_images, tmp_path):
    written = qk.export(real_model, tmp_path / "m.onnx", images=real_images)
    file = File(real_model, written, onnxruntime.InferenceSession(written.path))
    normalise: Any = real_model.transform.transforms[-1]
    mean, std = (torch.as_tensor(getattr(normalise, n)).view(3, 1, 1) for n in ("mean", "std"))
    outputs = run(file, real_images * std + mean, all_on(real_model))
    with torch.inference_mode():
        wanted = real_model.net(real_images)
    np.testing.assert_allclose(outputs[0], wanted, atol=1e-4, rtol=1e-4)
    maps = attention(file, outputs, all_on(real_model))
    np.testing.assert_allclose(maps, qk.observed_attention(real_model, real_images), atol=1e-4)
    assert written.miss < 1e-3

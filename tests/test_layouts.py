"""Files of other libraries, against these libraries' own attention; no head is 64 wide."""

from __future__ import annotations

import qkutils._torchvision

import json
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import qkutils as qk

SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "attn_implementation": "eager",
}
WIDE = SIZES | {"intermediate_size": 96}
MADE = {
    "vit": lambda: hf.ViTModel(hf.ViTConfig(**WIDE)),
    "vit without biases": lambda: hf.ViTModel(hf.ViTConfig(**WIDE, qkv_bias=False)),
    "vit that classifies": lambda: hf.ViTForImageClassification(hf.ViTConfig(**WIDE)),
    "deit": lambda: hf.DeiTModel(hf.DeiTConfig(**WIDE, hidden_act="gelu_new")),
    "ijepa": lambda: hf.IJepaModel(hf.IJepaConfig(**WIDE, layer_norm_eps=1e-3)),
    "mae": lambda: hf.ViTMAEModel(hf.ViTMAEConfig(**WIDE, mask_ratio=0.0)),
    "mae with its decoder": lambda: hf.ViTMAEForPreTraining(
        hf.ViTMAEConfig(
            **WIDE,
            mask_ratio=0.0,
            decoder_hidden_size=16,
            decoder_intermediate_size=32,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
        )
    ),
    "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**SIZES, mlp_ratio=2)),
    "dinov2 with registers": lambda: hf.Dinov2WithRegistersModel(
        hf.Dinov2WithRegistersConfig(**SIZES, mlp_ratio=2, num_register_tokens=3)
    ),
    "clip": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**WIDE)),
    "clip with text": lambda: hf.CLIPModel(
        hf.CLIPConfig(
            vision_config=WIDE,
            text_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            attn_implementation="eager",
        )
    ),
}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module", params=MADE)
def theirs(request, fill) -> nn.Module:
    """A small random model of transformers."""
    return fill(MADE[request.param](), 1)


def tower(model: nn.Module) -> nn.Module:
    """The vision transformer of a model."""
    for name in ("vit", "vision_model"):
        model = getattr(model, name, model)
    return model


def attention_and_tokens(model: nn.Module) -> tuple[np.ndarray, Tensor]:
    """Their attention of every layer, and their last tokens after the last norm."""
    # An MAE shuffles its patches by noise, and keeps them all in place where that rises.
    masked = model.config.model_type == "vit_mae"
    order = {"noise": torch.arange(16.0).expand(2, -1)} if masked else {}
    with torch.inference_mode():
        out = tower(model)(IMAGES, output_attentions=True, **order)
        last = out.last_hidden_state
        if hasattr(tower(model), "post_layernorm"):  # which timm's features have passed
            last = tower(model).post_layernorm(last)
    return torch.stack(out.attentions).numpy(), last


def agrees(model: qk.Model, theirs: nn.Module) -> None:
    """Holds our attention, observed and rebuilt, and our last tokens against theirs."""
    wanted, last = attention_and_tokens(theirs)
    np.testing.assert_allclose(qk.observed_attention(model, IMAGES), wanted, atol=1e-5)
    np.testing.assert_allclose(qk.rebuild_attention(model, IMAGES), wanted, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(model.net.forward_features(IMAGES), last, atol=1e-5, rtol=1e-5)


def test_a_folder_of_transformers(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    model = qk.load(tmp_path)
    assert model.heads.w_q.shape == (3, 4, 12, 48) and model.grid == (4, 4)
    assert model.name == tmp_path.name and "preprocessing" in model.assumed
    agrees(model, theirs)


def test_a_folder_may_be_called_as_a_model_of_timms(fill, tmp_path):
    theirs = fill(MADE["vit"](), 1)
    theirs.save_pretrained(tmp_path / "test_vit")
    agrees(qk.load(tmp_path / "test_vit"), theirs)


def test_the_decoder_of_an_mae_is_left_out_and_said(fill, tmp_path):
    fill(MADE["mae with its decoder"](), 1).save_pretrained(tmp_path)
    assert qk.load(tmp_path).facts["left_out"] == "decoder"


def test_a_folder_in_parts(theirs, tmp_path):
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    agrees(qk.load(tmp_path), theirs)


def test_tensors_as_they_are_in_memory(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(theirs.config.to_json_string())
    agrees(qk.load(tmp_path), theirs)


@pytest.mark.parametrize("name", ["vit", "clip"])
def test_without_its_configuration_it_is_asked_for(name, fill, tmp_path):
    fill(MADE[name](), 1).save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    for options in ({}, {"num_heads": 4}):
        with pytest.raises(ValueError, match="config.json.*like="):
            qk.load(tmp_path, **options)


FACTS = {
    "another kind": ({"model_type": "swin"}, "swin"),
    "no kind that is known": ({"model_type": None}, "None"),
    "another activation": ({"hidden_act": "relu"}, "relu"),
    "heads that do not divide": ({"num_attention_heads": 7}, "7"),
    "another patch grid": ({"image_size": 64}, "8, 8"),
    "heads that are no number": ({"num_attention_heads": "four"}, "num_attention_heads"),
    "no heads": ({"num_attention_heads": 0}, "num_attention_heads"),
    "fewer than no heads": ({"num_attention_heads": -2}, "num_attention_heads"),
    "patches of no size": ({"patch_size": 0}, "size=0"),
    "eps of NaN": ({"layer_norm_eps": float("nan")}, "layer_norm_eps"),
    "eps below zero": ({"layer_norm_eps": -1.0}, "layer_norm_eps"),
}


@pytest.mark.parametrize("slip", FACTS)
def test_a_configuration_that_does_not_fit_is_refused(slip, fill, tmp_path):
    change, named = FACTS[slip]
    fill(MADE["vit"](), 1).save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=named):
        qk.load(tmp_path)


@pytest.mark.parametrize("change", [{"layer_norm_eps": 1e-2}, {"hidden_act": "quick_gelu"}])
def test_what_only_the_configuration_tells_counts(change, fill, tmp_path):
    theirs = fill(MADE["vit"](), 1)
    theirs.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(said))
    wanted, _ = attention_and_tokens(theirs)
    assert abs(qk.observed_attention(qk.load(tmp_path), IMAGES).values - wanted).max() > 1e-4


PREPROCESSORS = {
    "ViT": (hf.ViTImageProcessor(size={"height": 32, "width": 32}), "squash"),
    "CLIP": (
        hf.CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}),
        "center",
    ),
}


@pytest.mark.parametrize("kind", PREPROCESSORS)
def test_pictures_are_prepared_as_theirs(kind, fill, tmp_path):
    processor, _ = PREPROCESSORS[kind]
    fill(MADE["vit"](), 1).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = qk.load(tmp_path)
    assert model.assumed == ""
    picture = qk.datasets.photographs()[2].image
    wanted = processor(picture, return_tensors="pt")["pixel_values"][0]
    assert float((model.transform(picture) - wanted).abs().mean()) < 0.02


OLD = {"do_resize": True, "do_normalize": True, "resample": 3, "image_mean": [0.5] * 3}
OLD |= {"size": 32, "crop_size": 32, "do_center_crop": True, "image_std": [0.5] * 3}
KINDS = {
    "ViTFeatureExtractor": hf.ViTImageProcessor,
    "DeiTFeatureExtractor": hf.DeiTImageProcessor,
    "CLIPFeatureExtractor": hf.CLIPImageProcessor,
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_preprocessor_gives_its_size_as_one_number(kind, fill, tmp_path):
    fill(MADE["vit"](), 1).save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(OLD | {"feature_extractor_type": kind}))
    picture = qk.datasets.photographs()[2].image
    processor = KINDS[kind].from_pretrained(tmp_path)
    wanted = processor(picture, return_tensors="pt")["pixel_values"][0]
    assert float((qk.load(tmp_path).transform(picture) - wanted).abs().mean()) < 0.02


def test_an_index_that_names_other_folders_is_refused(fill, tmp_path):
    fill(MADE["vit"](), 1).save_pretrained(tmp_path / "a", max_shard_size="20KB")
    index = tmp_path / "a" / "model.safetensors.index.json"
    said = json.loads(index.read_text())
    for name in ("../model.safetensors", "/etc/hosts", "model.safetensors.index.json"):
        said["weight_map"]["pooler.dense.bias"] = name
        index.write_text(json.dumps(said))
        with pytest.raises(ValueError, match="index"):
            qk.load(tmp_path / "a")
    index.write_text("[]")
    with pytest.raises(ValueError, match="index"):
        qk.load(tmp_path / "a")


# ---- other layouts, against timm's own readers ---------------------------------------------------


def google_arrays(net: VisionTransformer, heads: int) -> dict[str, np.ndarray]:
    """A network's weights as Google's JAX files have them."""
    own = {key: value.detach().numpy() for key, value in net.state_dict().items()}
    width = own["norm.weight"].shape[0]
    found = {
        "cls": own["cls_token"],
        "Transformer/posembed_input/pos_embedding": own["pos_embed"],
        "embedding/kernel": own["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": own["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": own["norm.weight"],
        "Transformer/encoder_norm/bias": own["norm.bias"],
        "head/kernel": own["head.weight"].T,
        "head/bias": own["head.bias"],
    }
    for n in range(len(net.blocks)):
        there, here = f"Transformer/encoderblock_{n}", f"blocks.{n}"
        for theirs, ours in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            found[f"{there}/{theirs}/scale"] = own[f"{here}.{ours}.weight"]
            found[f"{there}/{theirs}/bias"] = own[f"{here}.{ours}.bias"]
        attention = f"{there}/MultiHeadDotProductAttention_1"
        parts = (
            np.split(own[f"{here}.attn.qkv.weight"], 3),
            np.split(own[f"{here}.attn.qkv.bias"], 3),
        )
        for name, weight, bias in zip(("query", "key", "value"), *parts, strict=True):
            found[f"{attention}/{name}/kernel"] = weight.T.reshape(width, heads, -1)
            found[f"{attention}/{name}/bias"] = bias.reshape(heads, -1)
        projection = own[f"{here}.attn.proj.weight"].T
        found[f"{attention}/out/kernel"] = projection.reshape(heads, -1, width)
        found[f"{attention}/out/bias"] = own[f"{here}.attn.proj.bias"]
        for at in (0, 1):
            dense = f"{there}/MlpBlock_3/Dense_{at}"
            found[f"{dense}/kernel"] = own[f"{here}.mlp.fc{at + 1}.weight"].T
            found[f"{dense}/bias"] = own[f"{here}.mlp.fc{at + 1}.bias"]
    return found


def test_googles_arrays_as_timm_reads_them(make_vit, tmp_path):
    small = {"embed_dim": 48, "num_heads": 4}
    path = tmp_path / "mine.npz"
    np.savez(path, **google_arrays(make_vit(seed=4, **small), 4))
    wanted = make_vit(seed=5, **small)
    wanted.load_pretrained(str(path))
    model = qk.load(path)
    assert model.heads.w_q.shape[1] == 4 and "mean = std = 0.5" in model.assumed
    for key, tensor in wanted.state_dict().items():
        assert torch.equal(model.net.state_dict()[key], tensor), key
    with pytest.raises(ValueError, match="num_heads=3"):
        qk.load(path, num_heads=3)


@pytest.mark.parametrize("slip", ["half", "one more block", "cut short", "of objects", "swelling"])
def test_other_arrays_are_refused(slip, make_vit, tmp_path):
    path = tmp_path / "mine.npz"
    arrays = google_arrays(make_vit(seed=4, embed_dim=48, num_heads=4), 4)
    if slip == "half":
        arrays = dict(list(arrays.items())[::2])
    if slip == "one more block":
        arrays |= {k.replace("block_0", "block_9"): v for k, v in arrays.items()}
    if slip == "of objects":
        arrays["cls"] = np.array([print], dtype=object)
    if slip == "swelling":
        np.savez_compressed(path, zeros=np.zeros((2000, 2000)), **arrays)
    else:
        np.savez(path, **arrays)
    if slip == "cut short":
        path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ValueError, match="mine.npz"):
        qk.load(path)


def test_dinov2s_own_files(fill, make_vit, tmp_path):
    theirs = fill(MADE["dinov2 with registers"](), 1)
    theirs.save_pretrained(tmp_path / "theirs")
    own = qk.load(tmp_path / "theirs").net.state_dict()
    own["register_tokens"] = own.pop("reg_token")
    plain = theirs.state_dict()
    own["cls_token"] = plain["embeddings.cls_token"]
    own["pos_embed"] = plain["embeddings.position_embeddings"]
    own["mask_token"] = torch.zeros(1, 48)
    save_file(own, tmp_path / "mine.safetensors")
    model = qk.load(tmp_path / "mine.safetensors", num_heads=4)
    assert model.facts["left_out"] == "mask_token" and model.prefix_tokens == 4
    agrees(model, theirs)
    grouped = {k.replace("blocks.", "blocks.0."): v for k, v in own.items()}
    save_file(grouped, tmp_path / "groups.safetensors")
    agrees(qk.load(tmp_path / "groups.safetensors", num_heads=4), theirs)


def test_open_clips_names(fill, tmp_path):
    theirs = fill(MADE["clip"](), 1)
    theirs.save_pretrained(tmp_path / "clip")
    own = qk.load(tmp_path / "clip").net.state_dict()
    state = {
        "visual.class_embedding": own["cls_token"].flatten(),
        "visual.positional_embedding": own["pos_embed"][0],
        "visual.conv1.weight": own["patch_embed.proj.weight"],
        "visual.proj": torch.zeros(48, 8),
        "logit_scale": torch.tensor(1.0),
        "positional_embedding": torch.zeros(4, 8),
        "token_embedding.weight": torch.zeros(4, 8),
        "transformer.resblocks.0.ln_1.weight": torch.zeros(8),
    }
    for kind in ("weight", "bias"):
        state |= {f"visual.ln_pre.{kind}": own[f"norm_pre.{kind}"]}
        state |= {f"visual.ln_post.{kind}": own[f"norm.{kind}"]}
        for n in range(3):
            there = f"visual.transformer.resblocks.{n}"
            for theirs_, ours in {
                "ln_1.": "norm1.", "ln_2.": "norm2.", "attn.in_proj_": "attn.qkv.",
                "attn.out_proj.": "attn.proj.", "mlp.c_fc.": "mlp.fc1.", "mlp.c_proj.": "mlp.fc2.",
            }.items():  # fmt: skip
                state[f"{there}.{theirs_}{kind}"] = own[f"blocks.{n}.{ours}{kind}"]
    torch.save(state, tmp_path / "mine.pt")
    with pytest.raises(ValueError, match="like="):
        qk.load(tmp_path / "mine.pt", num_heads=4)
    like = "vit_base_patch32_clip_quickgelu_224.openai"
    agrees(qk.load(tmp_path / "mine.pt", like=like, num_heads=4), theirs)

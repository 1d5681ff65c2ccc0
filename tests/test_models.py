"""Loading: what is found where, what shapes tell, and what is said about bad input."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer

import qkutils as qk
from qkutils import models
from qkutils.models import Model

NAME = "test_vit.r160_in1k"  # timm's smallest: 160 × 160 pixels, 64 wide, two heads
SMALL = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 64, "num_classes": 7}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No test of this module asks the network, and no folder of weights is set."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("QKUTILS_WEIGHTS", raising=False)


def outputs(net, size: int = 32) -> torch.Tensor:
    """What a module answers to two fixed random images."""
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        return net(torch.randn(2, 3, size, size, generator=generator))


def written(net, path: Path) -> Path:
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, path)
    return path


@pytest.fixture
def named(fill, tmp_path):
    """A folder with random weights of a timm model, and the module they belong to."""
    net = fill(timm.create_model(NAME), seed=3)
    return written(net, tmp_path / f"{NAME}.safetensors"), net


def test_embedded_model_loads_by_name():
    model = qk.load("tiny-supervised")
    assert model.name == "tiny-supervised" and model.facts["objective"] == "classification"
    assert model.grid == (8, 8) and model.prefix_tokens == 1
    assert not model.net.training
    assert all(p.dtype == torch.float32 for p in model.net.parameters())


def test_model_of_the_weights_folder_loads_by_name(named, monkeypatch):
    path, net = named
    monkeypatch.setenv("QKUTILS_WEIGHTS", str(path.parent))
    model = qk.load(NAME)
    assert model.name == NAME and model.grid == (10, 10)
    assert torch.equal(outputs(model.net, 160), outputs(net, 160))


def test_file_named_as_a_timm_model_loads(named):
    path, net = named
    for given in (path, str(path)):
        assert torch.equal(outputs(qk.load(given).net, 160), outputs(net, 160))


def test_timm_module_is_used_as_it_is(make_vit):
    net = make_vit().train()
    model = qk.load(net)
    assert model.net is net and not net.training
    assert model.name == "VisionTransformer" and model.device == torch.device("cpu")


def test_model_passes_through(plain_vit):
    model = qk.load(plain_vit)
    assert qk.load(model) is model
    again = qk.load(model, device="cpu")
    assert isinstance(again, Model) and again.net is model.net
    assert qk.load(model, device="cpu:0").device.type == "cpu"


def distilled() -> VisionTransformerDistilled:
    return VisionTransformerDistilled(**SMALL, num_heads=1)


FILES = {
    "plain": ({"num_heads": 1}, 1),
    "no-bias": ({"num_heads": 1, "qkv_bias": False}, 1),
    "no-class-token": ({"num_heads": 1, "class_token": False, "global_pool": "avg"}, 0),
    "registers": ({"num_heads": 1, "reg_tokens": 4}, 5),
    "registers-without-position": (
        {"num_heads": 1, "reg_tokens": 4, "no_embed_class": True},
        5,
    ),
    "average-pool": ({"num_heads": 1, "global_pool": "avg"}, 1),
    "layer-scale": ({"num_heads": 1, "init_values": 0.1}, 1),
    "headless": ({"num_heads": 1, "num_classes": 0}, 1),
    "narrow-mlp": ({"num_heads": 1, "mlp_ratio": 2.5}, 1),
    "wide": ({"embed_dim": 128, "num_heads": 2}, 1),
}


@pytest.mark.parametrize("shape", [*FILES, "distilled"])
def test_shapes_of_a_file_tell_its_architecture(shape, make_vit, fill, tmp_path):
    changes, prefix_tokens = FILES.get(shape, ({}, 2))
    net = fill(distilled(), 4) if shape == "distilled" else make_vit(**changes)
    heads = net.blocks[0].attn.num_heads
    model = qk.load(written(net, tmp_path / "mine.safetensors"), num_heads=heads)
    assert model.name == "mine" and type(model.net) is type(net)
    assert model.prefix_tokens == prefix_tokens and model.grid == (4, 4)
    assert torch.equal(outputs(model.net), outputs(net))


def test_number_of_heads_is_taken_as_given(make_vit, tmp_path):
    net = make_vit(embed_dim=60, num_heads=5)
    model = qk.load(written(net, tmp_path / "mine.safetensors"), num_heads=5)
    assert torch.equal(outputs(model.net), outputs(net))


@pytest.mark.parametrize("channels", ["RGB", "L"])
def test_transform_makes_what_the_model_takes(plain_vit, channels):
    model = qk.load(plain_vit)
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    ).convert(channels)
    image = model.transform(picture.convert("RGB"))
    assert image.shape == (3, 32, 32) and image.dtype == torch.float32
    assert qk.observed_attention(model, image[None]).sizes["image"] == 1


def test_catalogue_has_the_papers_sixteen_models():
    table = qk.catalogue()
    assert (table.paper != "").sum() == 16 + 1  # I-JEPA's predictor is a part of one of them
    assert table.index.is_unique and (table.objective != "").all()


def test_at_hand_is_what_load_reads(monkeypatch, tmp_path):
    for file in set(qk.catalogue().file) - {""}:
        (tmp_path / file).touch()
    monkeypatch.setenv("QKUTILS_WEIGHTS", str(tmp_path))
    found = qk.catalogue().loc[models.at_hand()].query("source != 'embedded'")
    assert len(found) == 3 and set(found.loader) == {"load"}


def test_what_is_said_of_a_paper_model_is_whole():
    table = qk.catalogue().query("paper != ''")
    for column in ("family", "data", "licence", "heads", "eps", "activation", "block", "reading"):
        assert table[column].astype(bool).all(), column
    places = table[["timm", "hub", "file"]].astype(bool).sum(axis=1)
    assert (places > 0).all()
    assert (table.page != "")[table.source == "person"].all()


def test_the_family_names_every_seed_of_every_objective():
    family, catalogue = models.family(), qk.catalogue()
    named = family.stack().dropna().tolist()
    assert sorted(named) == sorted(catalogue.index[catalogue.source == "embedded"])
    assert family.loc["supervised", 0] == "tiny-supervised"
    for trained_for, row in family.iterrows():
        for seed, name in row.dropna().items():
            assert name == f"tiny-{trained_for}" + (f"-s{seed}" if seed else "")
            assert catalogue.seed[name] == seed


def test_timm_says_the_same_of_its_models_as_the_catalogue():
    table = qk.catalogue()
    for name, row in table[table.timm != ""].iterrows():
        assert row.timm in timm.list_pretrained("*" + row.timm.split(".")[-1])
        with torch.device("meta"):
            block = timm.create_model(row.timm).blocks[0]
        own = (block.attn.num_heads, block.norm1.eps, type(block.mlp.act).__name__)
        assert own == (row.heads, row.eps, row.activation), name


# What goes wrong, and what is said about it


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("by_torch", [True, False])
def test_code_in_a_pickle_file_is_refused_and_does_not_run(tmp_path, by_torch):
    path, folder = tmp_path / "bomb.pkl", tmp_path / "went-off"
    if by_torch:
        torch.save({"model": Bomb(folder)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(folder)))
    with pytest.raises(ValueError, match=r"bomb\.pkl: .*could run code.*safetensors"):
        qk.load(path)
    assert not folder.exists()
    if not by_torch:
        pickle.loads(path.read_bytes())
        assert folder.exists()  # the bomb was a live one


def test_foreign_checkpoint(tmp_path):
    path = tmp_path / "bert.safetensors"
    save_file({"encoder.layer.0.attention.self.query.weight": torch.ones(4, 4)}, path)
    with pytest.raises(ValueError, match=r"bert.*patch.*first keys are \['encoder"):
        qk.load(path)


def test_file_without_tensors(tmp_path):
    path = tmp_path / "list.pt"
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match=r"list\.pt: holds no named tensors; save"):
        qk.load(path)


WRONG_SHAPES = {
    "patch_embed.proj.weight": (64, 192),
    "pos_embed": (64,),
    "blocks.0.attn.qkv.weight": (190, 64),
    "blocks.0.mlp.fc1.weight": (),
    "blocks.1.norm1.weight": (63,),
}


@pytest.mark.parametrize("key", WRONG_SHAPES)
def test_wrong_shapes_in_a_file_are_named(key, make_vit, tmp_path):
    state = make_vit(num_heads=1).state_dict() | {key: torch.ones(WRONG_SHAPES[key])}
    path = tmp_path / "mine.pt"
    torch.save(state, path)
    with pytest.raises(ValueError, match=rf"mine\.pt: .*{key}"):
        qk.load(path, num_heads=1)


def test_file_with_the_tensors_of_another_architecture(make_vit, tmp_path):
    path = written(make_vit(), tmp_path / f"{NAME}.safetensors")
    with pytest.raises(ValueError, match="missing.*of another shape"):
        qk.load(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors: there is no such file"):
        qk.load(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("vit_base_patch16_242.dino", "vit_base_patch16_224.dino"),
        ("tiny-superwised", "tiny-supervised"),
        ("zzzzzz", r"qkutils\.catalogue"),
    ],
)
def test_unknown_name_gets_a_suggestion(name, meant):
    with pytest.raises(ValueError, match=f"{name}.*{meant}"):
        qk.load(name)


def test_paper_names_point_to_loadable_ones():
    with pytest.raises(ValueError, match=r"load it as 'vit_base_patch16_224\.dino'"):
        qk.load("DINO B/16")
    with pytest.raises(ValueError, match="load it as 'google/vit-base-patch32-384'"):
        qk.load("ViT-B/32-384")


@pytest.mark.parametrize("name", [NAME, "google/vit-base-patch32-384"])
def test_offline_and_not_found_says_what_fetches_it(name, monkeypatch, tmp_path):
    for folder in ("", str(tmp_path)):
        monkeypatch.setenv("QKUTILS_WEIGHTS", folder)
        with pytest.raises(FileNotFoundError, match=f"qkutils models fetch {name}") as caught:
            qk.load(name)
        assert "\n" not in str(caught.value)


def test_fetched_model_loads_by_name(monkeypatch, fill, tmp_path):
    net = fill(timm.create_model(NAME), seed=6)
    with monkeypatch.context() as hub:
        hub.setattr(timm, "create_model", lambda *_, **__: net)
        path = qk.models.fetch(NAME, tmp_path / "new")
    assert [p.name for p in path.parent.iterdir()] == [f"{NAME}.safetensors"]
    monkeypatch.setenv("QKUTILS_WEIGHTS", str(path.parent))
    assert torch.equal(outputs(qk.load(NAME).net, 160), outputs(net, 160))


def test_other_architectures_are_refused_by_name_without_fetching_them():
    for name, kind in (("resnet18", "ResNet"), ("swin_tiny_patch4_window7_224", "Swin")):
        with pytest.raises(ValueError, match=rf"{name} \({kind}.*plain timm vision transformer"):
            qk.load(name)


def test_other_modules_are_refused_by_name():
    swin = SwinTransformer(img_size=32, patch_size=4, embed_dim=12, depths=(1,), num_heads=(2,))
    for net in (timm.create_model("resnet10t"), swin, torch.nn.Linear(2, 2)):
        with pytest.raises(ValueError, match=rf"{type(net).__name__}.*is not a vision transf"):
            qk.load(net)


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (2, 3, 32, 40), (2, 3, 16, 16), (2, 1, 32, 32)])
@pytest.mark.parametrize("function", [qk.rebuild_attention, qk.observed_attention])
def test_images_that_the_model_does_not_take(plain_vit, function, shape):
    with pytest.raises(ValueError, match="images"):
        function(plain_vit, torch.zeros(shape))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_images_that_are_not_finite(plain_vit, images, value):
    spoiled = images.clone()
    spoiled[1, 2, 3, 4] = value
    with pytest.raises(ValueError, match="images hold NaN or infinity"):
        qk.rebuild_attention(plain_vit, spoiled)


def test_an_embedded_model_is_not_fetched(tmp_path):
    with pytest.raises(ValueError, match="'tiny-dino'.*embedded"):
        models.fetch("tiny-dino", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_path_that_leads_nowhere_is_called_one():
    with pytest.raises(ValueError, match="'no/such/model': no file or folder"):
        qk.load("no/such/model")

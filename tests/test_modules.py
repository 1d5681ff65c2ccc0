"""Modules as people have them: which are let in, and which compute something else."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys
import types
from functools import partial

import numpy as np
import pytest
import timm
import torch
from timm.layers import Attention, PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import qkutils as qk

load = inspect.unwrap(qk.load)  # without the type checks that only tests have
SMALL = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}


class LowRank(nn.Module):
    """An adapter: the base layer's weights, and more in its forward pass."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base_layer, self.more = base, nn.Linear(base.in_features, base.out_features)
        self.weight, self.bias = base.weight, base.bias

    def forward(self, x):
        return self.base_layer(x) + self.more(x)


class Bare(nn.Module):
    """A wrapper without a weight of its own."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.inner = base

    def forward(self, x):
        return self.inner(x)


class Transparent(Bare):
    """A wrapper that hands on every attribute."""

    forward = nn.Module.forward

    def __getattr__(self, name):
        return super().__getattr__(name) if name == "inner" else getattr(self.inner, name)


class Apply(nn.Module):
    """A module with a function as its attribute."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Mine(nn.Linear):
    """A Linear with a forward pass of its own."""

    def forward(self, x):
        return super().forward(x) * 2


def mine(layer: nn.Linear) -> Mine:
    made = Mine(layer.in_features, layer.out_features)
    made.load_state_dict(layer.state_dict())
    return made


PARTS = ("qkv", "proj")
WRAPPERS = {"adapter": LowRank, "bare wrapper": Bare, "own Linear": mine}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_projections_that_are_wrapped_are_refused(part, wrapper, make_vit):
    net = make_vit()
    setattr(net.blocks[1].attn, part, WRAPPERS[wrapper](getattr(net.blocks[1].attn, part)))
    with pytest.raises(ValueError, match=f"layer 1: attn.{part} is "):
        qk.load(net)


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj"])
def test_separate_projections_that_are_wrapped_are_refused(part, fill):
    net = fill(timm.models.eva.Eva(**SMALL, qkv_fused=False, num_classes=5), 1)
    assert qk.load(net).heads.w_q.shape == (2, 3, 16, 48)
    attn = net.blocks[0].attn
    setattr(attn, part, LowRank(getattr(attn, part)))
    with pytest.raises(ValueError, match=f"attn.{part}"):
        qk.load(net)


def test_an_adapter_put_in_after_loading_is_seen(make_vit):
    model = qk.load(make_vit())
    assert model.heads
    attn = model.net.blocks[0].attn
    attn.qkv = LowRank(attn.qkv)
    with pytest.raises(ValueError, match="attn.qkv"):
        _ = model.heads


PLACES = ("", "blocks.1", "blocks.1.attn", "blocks.0.mlp", "norm", "patch_embed", "blocks.2.norm1")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bound", [True, False])
def test_a_forward_put_on_an_instance_is_refused(place, bound, make_vit):
    net = make_vit()
    module = net.get_submodule(place)
    own = module.forward
    module.forward = types.MethodType(lambda self, x: own(x), module) if bound else own
    for given in (net, qk.load(make_vit())):
        if given is not net:
            given.net.get_submodule(place).forward = lambda x: x
        with pytest.raises(ValueError, match="`forward`.*instance"):
            qk.load(given)


@pytest.mark.parametrize("method", ["_pos_embed", "forward_features"])
def test_another_method_on_the_instance_is_refused(method, make_vit):
    net = make_vit()
    setattr(net, method, getattr(net, method))
    with pytest.raises(ValueError, match=method):
        qk.load(net)


@pytest.mark.parametrize("kind", [Attention, timm.models.vision_transformer.Block])
def test_a_forward_put_on_a_class_of_timms_is_refused(kind, make_vit, monkeypatch):
    net, own = make_vit(), kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x, *args, **more: own(self, x, *args, **more))
    with pytest.raises(ValueError, match=f"{kind.__name__}.*forward"):
        qk.load(net)


class Prompted(VisionTransformer):
    def _pos_embed(self, x):
        x = super()._pos_embed(x)
        return torch.cat([x[:, :1], torch.zeros_like(x[:, :5]), x[:, 1:]], 1)


class Masked(VisionTransformer):
    def forward_features(self, x):
        return super().forward_features(x)


class Called(VisionTransformer):
    def __call__(self, x):
        return super().__call__(x)


class Renamed(VisionTransformer):
    """The same as timm's."""


class Other(nn.Module):
    """Timm's parts in a class of one's own."""

    def __init__(self):
        super().__init__()
        net = VisionTransformer(**SMALL)
        self.patch_embed, self.blocks, self.cls_token = net.patch_embed, net.blocks, net.cls_token

    def forward(self, x):
        return self.blocks(torch.cat([self.cls_token, self.patch_embed(x)], 1))


@pytest.mark.parametrize("kind", [Prompted, Masked, Called])
def test_classes_that_may_have_other_tokens_are_refused(kind):
    with pytest.raises(ValueError, match=kind.__name__):
        qk.load(kind(**SMALL))
    for net in (Other(), Transparent(VisionTransformer(**SMALL))):
        with pytest.raises(ValueError, match=type(net).__name__):
            qk.load(net)


def test_a_subclass_that_changes_nothing_is_let_in(images):
    net = Renamed(**SMALL)
    attention = qk.observed_attention(qk.load(net), images)
    assert attention.sizes["key"] == 17


def test_compiled_modules_are_refused(make_vit):
    net = make_vit()
    with pytest.raises(ValueError, match="compiled"):
        qk.load(torch.compile(net))
    part = make_vit()
    part.blocks[0].mlp.compile()
    net.compile()
    for given in (net, part):
        with pytest.raises(ValueError, match="compiled"):
            qk.load(given)
    block = make_vit()
    block.blocks[1] = torch.compile(block.blocks[1])
    with pytest.raises(ValueError, match="OptimizedModule|compiled"):
        qk.load(block)


def test_parallel_modules_are_refused(make_vit):
    with pytest.raises(ValueError, match=r"\.module"):
        qk.load(nn.DataParallel(make_vit()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_refused_with_what_mends_them(dtype, make_vit):
    net = make_vit().to(dtype)
    with pytest.raises(ValueError, match=r"\.float\(\)"):
        qk.load(net)
    assert qk.load(net.float()).heads
    partly = make_vit()
    partly.blocks[1].mlp.to(dtype)
    with pytest.raises(ValueError, match=r"blocks\.1\.mlp"):
        qk.load(partly)


def test_meta_and_quantised_modules_are_refused(make_vit):
    with pytest.raises(ValueError, match="meta"):
        qk.load(make_vit().to("meta"))
    partly = make_vit()
    partly.norm.to("meta")
    with pytest.raises(ValueError, match="norm.*meta"):
        qk.load(partly)
    for kinds in ({nn.Linear}, {"blocks.0.mlp.fc1"}):
        quantised = torch.ao.quantization.quantize_dynamic(make_vit(), kinds, dtype=torch.qint8)
        with pytest.raises(ValueError, match="quantis|attn.qkv"):
            qk.load(quantised)


@pytest.mark.parametrize("change", [nn.Module.half, nn.Module.bfloat16, nn.Module.double, "meta"])
def test_a_loaded_model_that_was_changed_is_refused(change, make_vit, images):
    model = qk.load(make_vit())
    model.net.to("meta") if change == "meta" else change(model.net)
    for run in (qk.decompose, lambda model: qk.observed_attention(model, images)):
        with pytest.raises(ValueError, match=r"cls_token.*(float\(\)|meta)"):
            run(model)


def test_tensors_that_are_not_plain_are_refused(make_vit):
    net = make_vit()
    net.head.weight = nn.Parameter(net.head.weight.to_sparse())
    with pytest.raises(ValueError, match=r"head\.weight.*sparse"):
        qk.load(net)
    net.head = nn.LazyLinear(7)
    with pytest.raises(ValueError, match=r"head\.weight.*Uninitialized"):
        qk.load(net)


def test_the_default_number_format_changes_nothing(make_vit, images):
    net = make_vit()
    expected = qk.observed_attention(net, images)
    torch.set_default_dtype(torch.float64)
    try:
        again, rebuilt = qk.observed_attention(net, images), qk.rebuild_attention(net, images)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (again == expected).all() and float(abs(rebuilt - expected).max()) < 1e-5


@pytest.mark.parametrize("device", ["meta", "cuda"])
def test_the_default_device_changes_nothing_in_loading(device, make_vit, make_beit, tmp_path):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    net, beit = make_vit(), make_beit()
    torch.save(beit.state_dict(), tmp_path / "beit.pth")
    given = (net, beit, tmp_path / "beit.pth", "tiny-supervised")
    expected = [qk.load(each) for each in given]
    torch.set_default_device(device)
    try:
        again = [qk.load(each) for each in given]
        resized = qk.load(net, image_size=64)
    finally:
        torch.set_default_device(None)
    assert [each.identity for each in again] == [each.identity for each in expected]
    assert [each.device.type for each in (*again, resized)] == ["cpu"] * 5
    assert resized.identity == qk.load(net, image_size=64).identity


@pytest.fixture(scope="module")
def given() -> types.SimpleNamespace:
    """A model, and what the functions below take beside it."""
    model = qk.load("tiny-untrained")
    return types.SimpleNamespace(
        net=model,
        images=torch.zeros(2, 3, 64, 64),
        direction=torch.eye(24)[:1],
        labelled=qk.world.labelled(model, 4),
        samples=qk.world.samples(0, 0, 3),
        segmented=qk.world.segmentations(0, 0, 2),
    )


COMPUTE = {
    "modes": lambda of: qk.decompose(of.net),
    "a trend": lambda of: qk.trend(of.net),
    "random heads": lambda of: qk.null_weighted_cosine(of.net, draws=2),
    "attention": lambda of: qk.observed_attention(of.net, of.images),
    "attention from modes": lambda of: qk.rebuild_attention(of.net, of.images),
    "factors": lambda of: qk.token_factors(of.net, of.images),
    "a scan": lambda of: qk.scan(of.net, of.images, k=1, progress=False),
    "maps": lambda of: qk.mode_maps(of.net, of.images, layer=0, head=0),
    "one image": lambda of: qk.studies.one_image(of.net, of.images[0], layer=0, head=0),
    "few modes": lambda of: qk.studies.few_modes(of.net, of.images, [1]),
    "removal": lambda of: qk.studies.removal(of.net, of.images, 0, 0, of.direction),
    "names": lambda of: qk.studies.names(of.net, *of.labelled, permutations=1, directions=2),
    "odd one out": lambda of: qk.studies.odd_one_out(of.net, of.samples),
    "same object": lambda of: qk.studies.same_object(of.net, of.segmented),
    "grouping": lambda of: qk.studies.grouping(of.net, of.segmented),
    "references": lambda of: qk.studies.grouping_references(of.net, of.segmented),
    "a view": lambda of: qk.views.one_image(of.net, of.images[0]),
}


@pytest.mark.parametrize("device", ["meta", "cuda"])
@pytest.mark.parametrize("what", COMPUTE)
def test_under_another_default_device_nothing_is_computed(device, what, given):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    with torch.device(device), pytest.raises(ValueError, match=f"default device is {device}"):
        COMPUTE[what](given)


def test_what_is_computed_within_the_cpu_is_the_same(given):
    expected = qk.decompose(given.net)
    with torch.device("meta"):
        assert qk.store.digest(np.arange(3)) == qk.store.digest(torch.arange(3, device="cpu"))
        with torch.device("cpu"):
            assert qk.decompose(given.net).identical(expected)


def test_scenes_are_drawn_alike_under_another_default_device():
    """In a process of its own, in which the drawing's constants are made there, too."""
    code = "import torch; torch.set_default_device('meta'); import qkutils as qk; "
    code += "print(qk.store.digest(qk.world.make(0, 0, 3).image), "
    code += "*map(qk.store.digest, qk.world.pictures(0, 0, 2)))"
    made = qk.world.make(0, 0, 3).image, *qk.world.pictures(0, 0, 2)
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.split() == list(map(qk.store.digest, made))


BAD = ("cls_token", "blocks.1.mlp.fc2.bias", "head.weight", "blocks.0.attn.qkv.weight")


@pytest.mark.parametrize("key", BAD)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_not_finite_are_named_wherever_they_are(key, value, make_vit):
    net = make_vit()
    with torch.no_grad():
        net.get_parameter(key).view(-1)[-1] = value
    with pytest.raises(ValueError, match=key):
        qk.load(net)
    net = make_vit()
    net.register_buffer("more", torch.tensor([1.0, value]))
    with pytest.raises(ValueError, match="more"):
        qk.load(net)


def test_numbers_that_are_spoiled_after_loading_are_named(make_vit):
    model = qk.load(make_vit())
    model.net.blocks[0].norm1.weight.data[3] = torch.nan
    with pytest.raises(ValueError, match=r"blocks\.0\.norm1\.weight|0\.norm1\.weight"):
        _ = model.heads


STEMS = ("vit_tiny_r_s16_p8_224", "vitamin_small_224", "vit_base_mci_224")


@pytest.mark.parametrize("name", STEMS)
def test_stems_that_are_not_one_convolution_are_refused(name):
    with torch.device("meta"):
        net = timm.create_model(name)
    with pytest.raises(ValueError, match="not"):
        qk.load(net)


@pytest.mark.parametrize("part", ["pos_drop", "patch_drop", "norm_pre", "blocks"])
def test_a_part_that_hands_patches_on_and_may_move_them_is_refused(part, make_vit):
    net = make_vit()
    own = type(getattr(net, part))
    forward = {"forward": lambda self, x: own.forward(self, x).flip(1)}
    getattr(net, part).__class__ = type("Moving", (own,), forward)
    with pytest.raises(ValueError, match=f"{part}.*Moving"):
        qk.load(net)


def test_patches_that_overlap_are_refused(make_vit):
    net = make_vit()
    net.patch_embed.proj.stride = (4, 4)
    with pytest.raises(ValueError, match="stride"):
        qk.load(net)

    class Stem(PatchEmbed):
        pass

    net = VisionTransformer(**SMALL, embed_layer=Stem)
    with pytest.raises(ValueError, match="Stem"):
        qk.load(net)


@pytest.mark.parametrize("thing", [None, 3, 1.5, [], {}, b"x", torch.zeros(3), object(), True])
def test_what_is_no_model_at_all(thing):
    with pytest.raises(ValueError, match="model"):
        load(thing)


@pytest.mark.parametrize("name", ["", ".", "x" * 5000, "a\0b", "vit\nx", "/", "~"])
def test_names_that_are_none(name):
    with pytest.raises((ValueError, FileNotFoundError)):
        qk.load(name)


def test_layers_with_another_scale_or_eps_are_refused(make_vit):
    for change in (lambda b: setattr(b.attn, "scale", 0.5), lambda b: setattr(b.norm1, "eps", 0.1)):
        net = make_vit()
        change(net.blocks[1])
        with pytest.raises(ValueError, match="eps or scale"):
            qk.load(net)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -1.0])
def test_an_eps_or_scale_that_is_no_number_is_refused(number, make_vit):
    for part, fact in (("norm1", "eps"), ("attn", "scale")):
        net = make_vit()
        for block in net.blocks:
            setattr(getattr(block, part), fact, number)
        with pytest.raises(ValueError, match=r"VisionTransformer.*(eps|scale)=(nan|inf|-1)"):
            qk.load(net)


def test_heads_wider_than_the_model_are_refused():
    net = VisionTransformer(**SMALL)
    for block in net.blocks:
        block.attn = Attention(48, num_heads=3, attn_head_dim=64)
    with pytest.raises(ValueError, match="64.*48"):
        qk.load(net)


# ---- devices ---------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["meta", "gpu", "mps", "", True, 1.5, [], "cpu:x", -1])
def test_devices_that_are_none(device, plain_vit):
    with pytest.raises((ValueError, RuntimeError), match="device="):
        load(plain_vit, device=device)


def test_a_gpu_that_is_not_there(plain_vit, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in (7, "cuda", "cuda:1", torch.device("cuda")):
        with pytest.raises(RuntimeError, match="device='cuda.*no GPU.*device='cpu'"):
            load(plain_vit, device=device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RuntimeError, match="device="):
        load(plain_vit, device=7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_network_of_the_caller_is_not_moved(make_vit):
    model = qk.load(make_vit())
    there = qk.load(model, device="cuda")
    assert model.device.type == "cpu" and there.device.type == "cuda"
    assert there.identity == model.identity
    net = make_vit()
    assert qk.load(net, device="cuda").device.type == "cuda"
    assert net.head.weight.device.type == "cpu"


def test_options_of_files_are_for_files_only(plain_vit):
    options = {"num_heads": 4, "grid": (4, 4), "like": "test_vit", "state_dict": "model"}
    for given in (plain_vit, "tiny-supervised", qk.load(plain_vit)):
        for name, value in options.items():
            with pytest.raises(ValueError, match=f"{name}="):
                qk.load(given, **{name: value})


# ---- what is right ---------------------------------------------------------------------------


def pruned(net):
    for block in net.blocks:
        prune.l1_unstructured(block.attn.qkv, "weight", 0.5)
    return net


def normed(net, norm):
    for block in net.blocks:
        norm(block.attn.qkv)
    for _ in range(3):  # a spectral norm estimates in training how large a weight is
        net.train()(torch.ones(1, 3, 32, 32))
    return net


class PlusLowRank(nn.Module):
    """An adapter as a parametrization, which torch adds to the weight before each pass."""

    def __init__(self, weight):
        super().__init__()
        self.more = nn.Parameter(torch.ones(len(weight), 1) @ weight[:1].detach())

    def forward(self, weight):
        return weight + self.more


def adapted(net):
    for block in net.blocks:
        qkv = block.attn.qkv
        parametrize.register_parametrization(qkv, "weight", PlusLowRank(qkv.weight))
    return net


HOOKED = {
    "adapter": adapted,
    "weight norm": lambda net: normed(net, parametrizations.weight_norm),
    "older weight norm": lambda net: normed(net, torch.nn.utils.weight_norm),
    "spectral norm": lambda net: normed(net, parametrizations.spectral_norm),
    "older spectral norm": lambda net: normed(net, torch.nn.utils.spectral_norm),
    "pruning": pruned,
    "train mode": lambda net: net.train(),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("change", HOOKED)
def test_weights_that_are_computed_are_read_as_they_are_used(change, make_vit, images):
    net = HOOKED[change](make_vit(depth=1))
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            if "weight_g" in name or "original0" in name:
                tensor.mul_(1.5)
    model = qk.load(net)
    rebuilt = qk.rebuild_attention(model, images)
    assert float(abs(rebuilt - qk.observed_attention(model, images)).max()) < 1e-5


KEPT = {
    "dropout": {"attn_drop_rate": 0.5, "proj_drop_rate": 0.5, "drop_path_rate": 0.5},
    "patch dropout": {"patch_drop_rate": 0.5},
    "dynamic size": {"dynamic_img_size": True},
    "layer scale": {"init_values": 0.1},
    "registers": {"reg_tokens": 4},
}


@pytest.mark.parametrize("case", KEPT)
def test_modules_that_are_plain_in_eval_mode(case, make_vit, images):
    model = qk.load(make_vit(**KEPT[case]).train())
    observed = qk.observed_attention(model, images)
    difference = observed - qk.rebuild_attention(model, images)
    assert float(abs(difference).max()) < 1e-5


def test_a_hook_and_another_input_size_are_let_in(make_vit, images):
    net = make_vit()
    net.blocks[1].register_forward_hook(lambda *_: None)
    net.set_input_size((32, 48))
    model = qk.load(net)
    assert model.grid == (4, 6) and model.image_size == (32, 48)
    distilled = qk.load(VisionTransformerDistilled(**SMALL))
    assert distilled.prefix_names == ["class token", "distillation token"]


# ---- what a model holds ----------------------------------------------------------------------


def test_heads_are_read_once_and_again_after_any_change(make_vit):
    model = qk.load(make_vit())
    first = model.heads
    assert model.heads is first
    weight = model.net.blocks[1].attn.qkv.weight
    changes = (
        lambda: weight.data.mul_(-1),  # autograd is told of none of these
        lambda: weight.data.copy_(weight.data.flip(0)),
        lambda: weight.data.view(-1)[5].add_(1e-4),
        lambda: setattr(model.net.blocks[1].norm1, "bias", nn.Parameter(torch.ones(64))),
    )
    seen = {first.fingerprint}
    for change in changes:
        change()
        seen.add(model.fingerprint)
    assert len(seen) == len(changes) + 1
    assert not torch.equal(first.w_q, model.heads.w_q)


def larger(by, module, args, out):
    return out * by


def times(by):
    return lambda module, args, out: out * by


HOOKS = {
    "a constant": [lambda m, a, out: out * 2, lambda m, a, out: out * 3],
    "a closure": [times(2), times(3)],
    "a tensor": [times(torch.full((1,), by)) for by in (2.0, 3.0)],
    "a partial": [partial(larger, 2), partial(larger, 3)],
    "a method": [lambda m, a, out: out.abs(), lambda m, a, out: out.neg()],
}


@pytest.mark.parametrize("kind", HOOKS)
def test_the_identity_knows_hooks_by_what_they_compute(make_vit, kind):
    found = []
    for hook in (*HOOKS[kind], HOOKS[kind][0]):
        model = qk.load(make_vit())
        model.net.patch_embed.register_forward_hook(hook)
        found.append(model.identity)
    assert found[0] == found[2] != found[1]


def test_the_identity_depends_on_all_that_outputs_depend_on(make_vit):
    net = make_vit()
    own = qk.load(copy.deepcopy(net))
    assert qk.load(copy.deepcopy(net)).identity == own.identity != ""
    assert len(own.identity) == 16 and int(own.identity, 16) >= 0
    seen = {own.identity}
    for key in ("cls_token", "pos_embed", "patch_embed.proj.bias", "blocks.0.mlp.fc1.weight"):
        other = copy.deepcopy(net)
        other.get_parameter(key).data.view(-1)[0] += 1
        assert qk.load(other).fingerprint == own.fingerprint
        seen.add(qk.load(other).identity)
    changes = (
        lambda net: setattr(net.blocks[0].norm2, "eps", 1e-3),
        lambda net: setattr(net.blocks[0].mlp, "act", nn.ReLU()),
        lambda net: setattr(net.blocks[0].mlp, "act", Apply(torch.relu)),
        lambda net: setattr(net.blocks[0].mlp, "act", Apply(torch.tanh)),
        lambda net: setattr(net, "pretrained_cfg", {"mean": (0.5,) * 3}),
        lambda net: setattr(net, "pretrained_cfg", {"mean": (0.485, 0.456, 0.406), "crop_pct": 1}),
        lambda net: net.blocks[0].register_forward_hook(lambda *_: None),
        lambda net: net.register_buffer("more", torch.ones(1)),
    )
    for change in changes:
        other = copy.deepcopy(net)
        change(other)
        seen.add(qk.load(other).identity)
    assert len(seen) == 1 + 4 + len(changes)


def test_a_bare_module_says_that_its_preprocessing_is_assumed(make_vit):
    assert "ImageNet" in qk.load(make_vit()).assumed
    assert qk.load(timm.create_model("test_vit")).assumed == ""


def test_loading_a_model_again_puts_it_into_eval_mode(make_vit):
    model = qk.load(make_vit())
    model.net.train()
    assert qk.load(model) is model and not model.net.training

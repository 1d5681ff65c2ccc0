"""What is read off a model: projections, biases, LayerNorm, and what folding makes of them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from timm.layers import DiffAttention, RmsNorm
from timm.models.beit import Beit, Block
from timm.models.eva import Eva
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import nn

import qkutils as qk
from qkutils import heads as heads_module

SMALL = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}


def eva(**changes) -> Eva:
    return Eva(**(SMALL | {"num_classes": 5} | changes))


def beit(**changes) -> Beit:
    return Beit(**(SMALL | {"num_classes": 5} | changes))


LAYOUTS = {
    "fused": lambda make: make(),
    "fused-no-bias": lambda make: make(qkv_bias=False),
    "registers": lambda make: make(reg_tokens=2),
    "eva-fused": lambda make: eva(qkv_fused=True),
    "eva-fused-no-bias": lambda make: eva(qkv_fused=True, qkv_bias=False),
    "eva-separate": lambda make: eva(qkv_fused=False),
    "eva-separate-no-bias": lambda make: eva(qkv_fused=False, qkv_bias=False),
    "eva-registers": lambda make: eva(class_token=True, num_reg_tokens=3),
    "beit": lambda make: beit(),
    "beit-no-bias": lambda make: beit(qkv_bias=False),
}
PREFIX_TOKENS = {"registers": 3, "eva-registers": 4}


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request, make_vit, fill):
    """A random model of each way in which timm keeps queries, keys and values."""
    net = fill(LAYOUTS[request.param](make_vit), seed=8)
    return request.param, net, qk.load(net)


def input_and_output(net, images, layer: int):
    """What the attention of one layer takes and gives in timm's own forward pass."""
    kept = []
    hook = net.blocks[layer].attn.register_forward_hook(
        lambda _, args, out: kept.extend([args[0].double(), out.double()])
    )
    with torch.inference_mode():
        net(images)
    hook.remove()
    return kept


def test_attention_output_is_rebuilt_from_the_parts_that_were_read(layout, images):
    _, net, model = layout
    heads = model.heads
    observed = torch.from_numpy(qk.observed_attention(model, images).values).double()
    for layer, block in enumerate(net.blocks):
        x, wanted = input_and_output(net, images, layer)
        q, k, v = (
            torch.einsum("itd,hed->ihte", x, getattr(heads, f"w_{p}")[layer].double())
            + getattr(heads, f"b_{p}")[layer].double()[:, None]
            for p in "qkv"
        )
        attention = (q @ k.mT * heads.scale).softmax(-1)
        torch.testing.assert_close(attention, observed[layer], atol=1e-5, rtol=0)
        through = torch.einsum("ihqk,ihke,hde->iqd", attention, v, heads.w_o[layer].double())
        torch.testing.assert_close(through + block.attn.proj.bias, wanted, atol=1e-4, rtol=0)


def test_rebuilt_attention_is_the_models_own_in_every_layout(layout, images):
    name, _, model = layout
    observed, rebuilt = (f(model, images) for f in (qk.observed_attention, qk.rebuild_attention))
    assert model.prefix_tokens == PREFIX_TOKENS.get(name, 1)
    assert observed.sizes["key"] == 16 + model.prefix_tokens
    np.testing.assert_allclose(rebuilt, observed, atol=1e-5)


def test_biases_are_read_where_they_are_and_zero_elsewhere(layout):
    name, _, model = layout
    heads = model.heads
    assert bool(heads.b_q.any()) != name.endswith("no-bias")
    assert bool(heads.b_v.any()) != name.endswith("no-bias")
    has_key_bias = name in ("fused", "registers")
    assert bool(heads.b_k.any()) == has_key_bias


def test_folding_equals_explicit_matrices(vit):
    heads = qk.load(vit).heads
    d_model = heads.w_q.shape[-1]
    centring = np.eye(d_model) - 1 / d_model
    for layer, block in enumerate(vit.blocks):
        through = np.diag(block.norm1.weight.detach().double().numpy()) @ centring
        exact = heads_module.fold(heads, layer, "exact")
        paper = heads_module.fold(heads, layer, "paper")
        for w, folded, raw in zip((heads.w_q, heads.w_k), exact, paper, strict=True):
            w = w[layer].double().numpy()
            np.testing.assert_allclose(folded, w @ through, atol=1e-13)
            np.testing.assert_array_equal(raw, w)


def test_unknown_convention_is_refused(plain_vit):
    fold = inspect.unwrap(heads_module.fold)  # without the type checks that only tests have
    with pytest.raises(ValueError, match="convention='folded': .*paper.*exact"):
        fold(qk.load(plain_vit).heads, 0, "folded")


def test_key_salience_equals_explicit_matrices(vit):
    heads = qk.load(vit).heads
    from_bias, from_shift = heads_module.key_salience(heads)
    d_model = heads.w_q.shape[-1]
    for layer, block in enumerate(vit.blocks):
        gain, shift = (p.detach().double().numpy() for p in (block.norm1.weight, block.norm1.bias))
        through = np.diag(gain) @ (np.eye(d_model) - 1 / d_model)
        for head in range(heads.w_q.shape[1]):
            w_q, w_k, b_q = (
                t[layer, head].double().numpy() for t in (heads.w_q, heads.w_k, heads.b_q)
            )
            for found, vector in ((from_bias, b_q), (from_shift, w_q @ shift)):
                wanted = through.T @ w_k.T @ vector
                np.testing.assert_allclose(found[layer, head], wanted, atol=1e-13)


def test_a_layer_norm_without_shift_counts_as_shift_zero(make_vit, images):
    net = make_vit()
    for block in net.blocks:
        block.norm1.bias = None
    heads = qk.load(net).heads
    assert not heads.ln_shift.any()
    observed, rebuilt = (f(net, images) for f in (qk.observed_attention, qk.rebuild_attention))
    np.testing.assert_allclose(rebuilt, observed, atol=1e-5)


def with_blocks_of_beit(net):
    net.blocks = nn.Sequential(*(Block(64, 4, window_size=(4, 4)) for _ in net.blocks))
    return net


REFUSED = [
    ("rotary", lambda make: eva(use_rot_pos_emb=True)),
    ("RelPosBlock", lambda make: VisionTransformerRelPos(**SMALL)),
    ("relative position bias", lambda make: with_blocks_of_beit(make())),
    ("qk-norm", lambda make: make(qk_norm=True)),
    ("qk-norm", lambda make: eva(qk_norm=True)),
    ("ResPostBlock", lambda make: make(block_fn=ResPostBlock)),
    ("ParallelScalingBlock", lambda make: make(block_fn=ParallelScalingBlock)),
    ("EvaBlockPostNorm", lambda make: eva(use_post_norm=True)),
    ("DiffAttention", lambda make: make(attn_layer=DiffAttention)),
    ("RmsNorm", lambda make: make(norm_layer=RmsNorm)),
]


@pytest.mark.parametrize(("reason", "build"), REFUSED)
def test_attention_that_the_algebra_does_not_cover_is_refused_by_name(reason, build, make_vit):
    net = build(make_vit)
    for function in (qk.decompose, qk.weighted_cosine):
        with pytest.raises(ValueError, match=f"{type(net).__name__}, layer 0: .*{reason}"):
            function(net)


def test_one_odd_layer_is_named(make_vit):
    net, other = make_vit(), make_vit(block_fn=ResPostBlock)
    net.blocks[2] = other.blocks[2]
    with pytest.raises(ValueError, match="layer 2: ResPostBlock"):
        qk.decompose(net)


def test_layers_with_different_heads_are_refused(make_vit):
    net, other = make_vit(), make_vit(num_heads=2)
    net.blocks[1] = other.blocks[1]
    with pytest.raises(ValueError, match="layers differ"):
        qk.decompose(net)

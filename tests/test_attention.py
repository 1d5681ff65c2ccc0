"""Rebuilt attention against timm's own queries and keys, and against brute force in float64."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr

import qkutils as qk
from qkutils.attention import token_factors, total_variation
from qkutils.passes import visit_layers

LIMIT = 1e-5


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def outputs_of(net, find, images: torch.Tensor, inputs: bool = False) -> list[np.ndarray]:
    """What one module of each block gives (or takes) in timm's own forward pass, in float64."""
    kept = []
    hooks = [
        find(block).register_forward_hook(
            lambda _, args, out: kept.append((args[0] if inputs else out).double().numpy())
        )
        for block in net.blocks
    ]
    with torch.inference_mode():
        net(images)
    for hook in hooks:
        hook.remove()
    return kept


def attention_of(net, images: torch.Tensor) -> np.ndarray:
    """Attention [layer, image, head, query, key] by hand, from the output of timm's qkv layers."""
    layers = []
    for qkv in outputs_of(net, lambda block: block.attn.qkv, images):
        count, tokens, _ = qkv.shape
        heads = net.blocks[0].attn.num_heads
        q, k, _ = qkv.reshape(count, tokens, 3, heads, -1).transpose(2, 0, 3, 1, 4)
        layers.append(softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5))
    return np.stack(layers)


def brute_force(net, images, keep=lambda n: True, bias: float = 1, shift: float = 1) -> np.ndarray:
    """Attention from numpy's modes of C diag(g) W_qᵀW_k diag(g) C and κ, all written out."""
    layers = []
    for block, x in zip(
        net.blocks, outputs_of(net, lambda block: block.norm1, images, inputs=True), strict=True
    ):
        z = x - x.mean(-1, keepdims=True)
        z = z / np.sqrt((z**2).mean(-1, keepdims=True) + block.norm1.eps)
        gain, beta = (p.detach().double().numpy() for p in (block.norm1.weight, block.norm1.bias))
        heads, d_model = block.attn.num_heads, len(gain)
        weight = block.attn.qkv.weight.detach().double().numpy().reshape(3, heads, -1, d_model)
        b_q = block.attn.qkv.bias.detach().double().numpy().reshape(3, heads, -1)[0]
        through = np.diag(gain) @ (np.eye(d_model) - 1 / d_model)
        maps = []
        for w_q, w_k, b in zip(weight[0], weight[1], b_q, strict=True):
            u, sigma, vt = np.linalg.svd(through.T @ w_q.T @ w_k @ through)
            kept = [n for n in range(len(w_q)) if keep(n)]
            logits = (z @ u[:, kept] * sigma[kept]) @ (z @ vt[kept].T).swapaxes(-1, -2)
            kappa = through.T @ w_k.T @ (bias * b + shift * w_q @ beta)
            maps.append(softmax((logits + (z @ kappa)[:, None]) / len(w_q) ** 0.5))
        layers.append(np.stack(maps, 1))
    return np.stack(layers)


def test_rebuilt_attention_is_timms_own(vit, images):
    rebuilt = qk.rebuild_attention(vit, images)
    wanted = attention_of(vit, images)
    assert rebuilt.dims == ("layer", "image", "head", "query", "key")
    assert wanted.max() > 0.3 and wanted.min() < 0.01
    np.testing.assert_allclose(rebuilt, wanted, atol=LIMIT)


def test_observed_attention_is_timms_own(vit, images):
    np.testing.assert_allclose(
        qk.observed_attention(vit, images), attention_of(vit, images), atol=1e-6
    )


def test_embedded_model_is_rebuilt():
    model = qk.load("tiny-supervised")
    pictures = (qk.world.make(0, 0, 4).image - 0.5) / 0.5
    rebuilt = qk.rebuild_attention(model, pictures)
    np.testing.assert_allclose(rebuilt, attention_of(model.net, pictures), atol=LIMIT)


def test_real_models_are_rebuilt_and_need_key_salience(real_model, real_images):
    wanted = attention_of(real_model.net, real_images)
    rebuilt = qk.rebuild_attention(real_model, real_images)
    np.testing.assert_allclose(rebuilt, wanted, atol=2 * LIMIT)  # 1.3e-5 for DINOv2's large tokens
    without = qk.rebuild_attention(real_model, real_images, salience=())
    moved = float(total_variation(without, rebuilt).mean())
    assert 0.3 < moved < 0.45  # 0.33 to 0.39 over 48 images


@pytest.mark.parametrize(
    ("salience", "bias", "shift"),
    [(("bias", "shift"), 1, 1), (("bias",), 1, 0), (("shift",), 0, 1), ((), 0, 0)],
)
def test_each_part_of_key_salience_is_its_own(plain_vit, images, salience, bias, shift):
    rebuilt = qk.rebuild_attention(plain_vit, images, salience=salience)
    wanted = brute_force(plain_vit, images, bias=bias, shift=shift)
    np.testing.assert_allclose(rebuilt, wanted, atol=LIMIT)
    assert rebuilt.attrs["salience"] == ("+".join(salience) or "none")
    if len(salience) < 2:
        whole = qk.rebuild_attention(plain_vit, images)
        assert total_variation(rebuilt, whole).mean() > 0.05


def test_key_bias_drops_out(make_vit, images):
    net = make_vit(seed=4)
    before = qk.rebuild_attention(net, images).isel(layer=0)
    own = qk.observed_attention(net, images).isel(layer=0)
    with torch.no_grad():
        net.blocks[0].attn.qkv.bias[64:128] += 3
    assert (qk.rebuild_attention(net, images).isel(layer=0) == before).all()
    np.testing.assert_allclose(qk.observed_attention(net, images).isel(layer=0), own, atol=LIMIT)
    with torch.no_grad():
        net.blocks[0].attn.qkv.bias[:64] += 3
    assert total_variation(qk.observed_attention(net, images).isel(layer=0), own).max() > 0.1


@pytest.mark.parametrize("chosen", [[], [0], [0, 1, 2, 3, 4], [2], [7, 0, 3]])
def test_a_choice_of_modes_equals_brute_force(plain_vit, images, chosen):
    some = qk.decompose(plain_vit, convention="exact").isel(mode=chosen)
    rebuilt = qk.rebuild_attention(plain_vit, images, some)
    wanted = brute_force(plain_vit, images, keep=lambda n: n in chosen)
    np.testing.assert_allclose(rebuilt, wanted, atol=LIMIT)


def test_all_modes_are_the_heads_own_projections(vit, images):
    modes = qk.decompose(vit, convention="exact")
    from_modes = qk.rebuild_attention(vit, images, modes)
    np.testing.assert_allclose(from_modes, qk.rebuild_attention(vit, images), atol=LIMIT)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda modes, other, paper: other,
        lambda modes, other, paper: paper,
        lambda modes, other, paper: modes[["sigma", "cosine"]],
        lambda modes, other, paper: modes.isel(layer=[0, 1]),
        lambda modes, other, paper: modes.isel(head=0),
        lambda modes, other, paper: modes.isel(mode=[0, 0]),
        lambda modes, other, paper: modes.isel(mode=0),
        lambda modes, other, paper: modes.drop_vars("fingerprint"),
        lambda modes, other, paper: modes.assign(u=modes.u.where(modes.mode > 0)),
    ],
)
@pytest.mark.parametrize("function", [qk.rebuild_attention, qk.compare_attention, token_factors])
def test_modes_that_are_not_the_models_are_refused(make_vit, images, spoil, function):
    net = make_vit(seed=1)
    exact, paper = (qk.decompose(net, convention=name) for name in ("exact", "paper"))
    other = qk.decompose(make_vit(seed=2), convention="exact")
    with pytest.raises(ValueError, match="modes"):
        function(net, images, spoil(exact, other, paper))


@pytest.mark.parametrize("salience", ["bias", ("kappa",), ("bias", "value"), ("bias", "bias")])
def test_unknown_parts_of_key_salience_are_refused(plain_vit, images, salience):
    with pytest.raises(ValueError, match="salience="):
        qk.rebuild_attention(plain_vit, images, salience=salience)


def test_results_say_where_they_come_from_after_selection_and_arithmetic(plain_vit, images):
    modes = qk.decompose(plain_vit, convention="exact")
    rebuilt = qk.rebuild_attention(plain_vit, images, modes.isel(mode=[0, 2]))
    changed = (2 * rebuilt.isel(layer=1)).mean("image")
    for result in (rebuilt, changed, modes.sigma, modes.cosine.weighted(modes.sigma).mean("mode")):
        assert result.convention == "exact" and result.model == "VisionTransformer"
        assert result.fingerprint == qk.load(plain_vit).fingerprint
    assert rebuilt.attrs["modes"] == "0 2" and rebuilt.attrs["salience"] == "bias+shift"


def state_of(net) -> list[tuple[bool, int, int]]:
    """What observing could leave behind in each block."""
    return [
        (b.attn.fused_attn, len(b.attn.attn_drop._forward_pre_hooks), len(b._forward_pre_hooks))
        for b in net.blocks
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_observing_leaves_the_model_as_it_was(make_vit, images, fails):
    net = make_vit(seed=3)
    net.blocks[1].attn.fused_attn = False
    net.blocks[2].attn.fused_attn = True
    before = state_of(net)

    def fail(*_):
        raise RuntimeError("planted")

    if fails:
        net.blocks[1].mlp.register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="planted"):
            qk.observed_attention(net, images)
    else:
        qk.observed_attention(net, images)
    assert state_of(net) == before


def test_order_of_images_is_the_order_of_results(plain_vit, images):
    order = [2, 0, 1]
    for function in (qk.rebuild_attention, qk.observed_attention):
        straight, permuted = function(plain_vit, images), function(plain_vit, images[order])
        np.testing.assert_allclose(permuted, straight.values[:, order], atol=1e-6)


def test_batch_size_changes_nothing(plain_vit):
    pictures = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model, results = qk.load(plain_vit), []
    for batch_size in (1, 2, 5, 32):
        x = torch.full((3, 5, 17, 64), torch.nan)

        def keep(layer, which, tokens, x=x):
            x[layer, which] = tokens

        visit_layers(model, pictures, keep, batch_size)
        results.append(x)
    for x in results[1:]:
        torch.testing.assert_close(x, results[0], atol=1e-5, rtol=1e-5)
    wanted = outputs_of(plain_vit, lambda block: block.norm1, pictures, inputs=True)
    np.testing.assert_allclose(results[0], np.stack(wanted), atol=1e-5)


def test_more_images_than_a_batch_are_all_done(plain_vit):
    pictures = torch.randn(35, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    rebuilt = qk.rebuild_attention(plain_vit, pictures)
    np.testing.assert_allclose(rebuilt, attention_of(plain_vit, pictures), atol=LIMIT)


def test_total_variation_is_zero_for_equal_and_one_for_disjoint_maps(plain_vit, images):
    own = qk.observed_attention(plain_vit, images)
    first, second = own.copy(data=np.zeros_like(own)), own.copy(data=np.zeros_like(own))
    first[..., 0], second[..., 1] = 1, 1
    assert (total_variation(first, first) == 0).all()
    assert (total_variation(first, second) == 1).all()
    assert np.isnan(total_variation(first * np.nan, second)).all()


@pytest.mark.parametrize("count", [None, 3])
def test_token_factors_give_attention(vit, images, count):
    modes = None if count is None else qk.decompose(vit, convention="exact").isel(mode=slice(count))
    parts = token_factors(vit, images, modes)
    sides = (parts["query"].rename(token="query"), parts["key"].rename(token="key"))
    logits = xr.dot(*sides, dim="rank") + parts.salience.rename(token="key")
    made = np.exp(logits - logits.max("key"))
    made = (made / made.sum("key")).transpose("layer", "image", "head", "query", "key")
    if modes is None:
        expected = qk.observed_attention(vit, images)
    else:
        expected = qk.rebuild_attention(vit, images, modes)
    assert np.abs(made.values - expected.values).max() < 1e-5
    row = qk.attention.attention_of_token(parts, 2)
    assert np.abs(row.values - expected.isel(query=2).values).max() < 1e-5


@pytest.mark.parametrize(
    ("chosen", "salience"),
    [(None, ("bias", "shift")), (None, ()), ([0, 3], ("shift",)), ([], ("bias",))],
)
@pytest.mark.parametrize("at_once", [1, 2**26])
def test_a_comparison_is_that_of_the_two_maps(
    plain_vit, images, chosen, salience, at_once, monkeypatch
):
    monkeypatch.setattr(qk.attention, "MAP_BYTES", at_once)
    modes = None if chosen is None else qk.decompose(plain_vit).isel(mode=chosen)
    compared = qk.compare_attention(plain_vit, images, modes, salience=salience)
    rebuilt = brute_force(
        plain_vit,
        images,
        keep=lambda n: chosen is None or n in chosen,
        bias="bias" in salience,
        shift="shift" in salience,
    )
    miss = np.abs(rebuilt - attention_of(plain_vit, images))
    assert compared.total_variation.dims == ("layer", "image", "head", "query")
    np.testing.assert_allclose(compared.total_variation, miss.sum(-1) / 2, atol=LIMIT)
    np.testing.assert_allclose(compared.largest, miss.max(-1), atol=LIMIT)
    assert (miss.max() < LIMIT) == (chosen is None and len(salience) == 2)
    assert compared.attrs["salience"] == ("+".join(salience) or "none")


def test_a_comparison_leaves_the_model_as_it_was_and_refuses_what_it_does_not_take(
    make_vit, images
):
    net = make_vit(seed=3)
    before = state_of(net)
    qk.compare_attention(net, images)
    assert state_of(net) == before
    for wrong in (images[:0], images[:, :, :16], images / 0):
        with pytest.raises(ValueError, match="images"):
            qk.compare_attention(net, wrong)
    assert state_of(net) == before


MEASURE = """
import qkutils._torchvision
import resource, torch, timm, qkutils as qk
torch.set_num_threads(1)
net = timm.create_model("test_vit", img_size=512, depth=2, num_heads=4)
model, images, peaks = qk.load(net), torch.rand(15, 3, 512, 512), []
for count in (6, 6, 15):  # the first one warms up
    qk.compare_attention(model, images[:count])
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print((peaks[2] - peaks[1]) * 1024)
"""


@pytest.mark.slow
def test_a_comparison_keeps_no_map():
    """Maps of 9 more images would take 2 layers × 4 heads × 1025² keys × 4 bytes each, 303 MB."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True)
    assert float(done.stdout) < 50e6, done.stderr

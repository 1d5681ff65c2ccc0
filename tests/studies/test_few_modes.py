"""Attention with a head's first modes alone, against numpy's SVD of the head's full matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import qkutils as qk
from qkutils.book import stored

COUNTS = [0, 3, 12]


@pytest.fixture(scope="module")
def small(make_vit) -> qk.models.Model:
    return qk.load(make_vit(seed=3, embed_dim=24, num_heads=2, reg_tokens=1))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def by_hand(net, images: torch.Tensor, layer: int, head: int, keep: int) -> np.ndarray:
    """Share of attention that lies elsewhere, [image, query], with some modes of timm's own head.

    What timm's logits hold beyond the whole of the modes, the biases' part, stays as it is.
    """
    block, seen = net.blocks[layer], {}
    hooks = [
        block.register_forward_pre_hook(lambda _, args: seen.update(x=args[0].double().numpy())),
        block.attn.qkv.register_forward_hook(
            lambda _, __, out: seen.update(qkv=out.double().numpy())
        ),
    ]
    with torch.inference_mode():
        net(images)
    for hook in hooks:
        hook.remove()
    x = seen["x"] - seen["x"].mean(-1, keepdims=True)
    z = x / np.sqrt((x**2).mean(-1, keepdims=True) + block.norm1.eps)
    width, d_head = z.shape[-1], z.shape[-1] // block.attn.num_heads
    q, k, _ = np.split(seen["qkv"], 3, -1)
    part = slice(head * d_head, (head + 1) * d_head)
    own = q[..., part] @ k[..., part].swapaxes(-1, -2)
    weight = block.attn.qkv.weight.detach().double().numpy()
    w_q, w_k = weight[:width][part], weight[width : 2 * width][part]
    turn = np.diag(block.norm1.weight.detach().double().numpy()) @ (np.eye(width) - 1 / width)
    u, sigma, vh = np.linalg.svd(turn.T @ w_q.T @ w_k @ turn)
    whole, few = ((u[:, :n] * sigma[:n]) @ vh[:n] for n in (d_head, keep))
    rebuilt = own + z @ (few - whole) @ z.swapaxes(-1, -2)
    root = np.sqrt(d_head)
    return abs(softmax(rebuilt / root) - softmax(own / root)).sum(-1) / 2


def test_first_modes_are_those_of_the_full_matrix(small, images):
    found = qk.studies.few_modes(small, images, COUNTS).sel(basis="modes")
    for keep in COUNTS:
        for layer, head in ((0, 0), (2, 1)):
            wanted = by_hand(small.net, images, layer, head, keep)[:, small.prefix_tokens :].mean(1)
            got = found.sel(count=keep, layer=layer, head=head)
            np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_each_image_passes_once_whatever_the_counts(small, images):
    passed = []
    hook = small.net.blocks[-1].register_forward_hook(lambda *seen: passed.append(len(seen[-1])))
    found = [qk.studies.few_modes(small, images, counts) for counts in ([3], COUNTS)]
    hook.remove()
    assert sum(passed) == 2 * len(images)
    np.testing.assert_allclose(found[0].sel(count=3), found[1].sel(count=3), atol=1e-6)


def test_nothing_is_attention_on_all_tokens_alike(small, images):
    found = qk.studies.few_modes(small, images, COUNTS)
    own = qk.observed_attention(small, images).isel(query=slice(small.prefix_tokens, None))
    even = abs(own - 1 / own.sizes["key"]).sum("key").mean("query") / 2
    got = found.sel(basis="modes, no key salience", count=0)
    np.testing.assert_allclose(got, even.transpose(*got.dims), atol=1e-6)
    alone = found.sel(count=0, basis=["modes", "random basis"])
    np.testing.assert_allclose(*alone, atol=1e-6)  # key salience and nothing else
    assert (found.sel(count=12, basis=["modes", "random basis"]) < 1e-5).all()
    assert (found.sel(count=12, basis="modes, no key salience") > 1e-3).all()


def test_a_random_basis_makes_the_same_head_of_other_parts(small):
    modes = qk.decompose(small)
    turned = qk.studies.random_basis(modes, 1)
    assert turned.u.dims == modes.u.dims and (turned.sigma == 1).all()
    for head in (0, 1):
        one, other = (m.isel(layer=1, head=head) for m in (modes, turned))
        whole, same = ((m.u * m.sigma).values.T @ m.v.values for m in (one, other))
        np.testing.assert_allclose(same, whole, atol=1e-5)
        part, mode = (np.outer(m.u[0] * m.sigma[0], m.v[0]) for m in (other, one))
        assert np.linalg.norm(whole - mode) < np.linalg.norm(whole - part)
    again, new = (qk.studies.random_basis(modes, seed) for seed in (1, 2))
    xr.testing.assert_equal(turned, again)
    assert abs(turned.u - new.u).max() > 1e-3


def test_bad_counts_and_what_are_no_modes_are_refused(small, images):
    for bad in (13, -1):
        with pytest.raises(ValueError, match="counts"):
            qk.studies.few_modes(small, images, [bad])
    with pytest.raises(ValueError, match="modes"):
        qk.studies.random_basis(xr.Dataset())


@pytest.mark.parametrize("name", stored.names("few_modes"))
def test_stored_tables_end_in_the_models_own_attention(name):
    table = stored.read("few_modes", name)
    assert table.attrs["fingerprint"] == stored.read("modes", name).attrs["fingerprint"]
    most = int(table["count"].max())
    both = table.sel(basis=["modes", "random basis"])
    assert (both.high.sel(count=most) < 1e-4).all()
    alone = both.estimate.sel(count=0)
    np.testing.assert_allclose(alone[0], alone[1], atol=1e-6)
    fewer = both.sel(layer="all").sortby("count").estimate.diff("count")
    assert (fewer < 0).all()
    assert ((table.low <= table.estimate) & (table.estimate <= table.high)).all()


def test_few_modes_are_stored_and_read_again(tmp_path, monkeypatch, small):
    stored.store_few_modes(small, tmp_path)
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    read = stored.read("few_modes", small.name)
    assert dict(read.sizes) == {"basis": 3, "count": 4, "layer": 4}
    photographs = qk.datasets.photographs()
    given = qk.pictures.images(photographs, small, len(photographs))
    fresh = qk.studies.few_modes(small, given, [3]).sel(count=3, layer=1)
    got = read.estimate.sel(count=3, layer="1", basis=fresh.basis)
    np.testing.assert_allclose(got, fresh.mean(["image", "head"]), atol=1e-6)

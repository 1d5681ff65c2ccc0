"""Modes against numpy's float64 SVD of the full matrix, which the package itself never forms."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
import xarray as xr
from scipy import stats
from timm.layers import Attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import qkutils as qk
from qkutils import modes as modes_module
from qkutils import svd

CONVENTIONS = ("paper", "exact")
REFERENCE = {
    "deit_tiny_patch16_224.fb_in1k": (
        [0.872, 0.560, 0.329, 0.064, 0.161, 0.010, 0.221, 0.268, 0.073, 0.145, 0.216, 0.466]
    ),
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k": (
        [0.855, 0.451, 0.453, 0.102, 0.183, 0.184, 0.149, 0.304, 0.256, 0.151, -0.010, -0.061]
    ),
    "vit_small_patch14_dinov2.lvd142m": (
        [0.617, 0.657, 0.451, 0.140, 0.195, 0.149, 0.230, 0.163, 0.198, 0.124, 0.191, 0.367]
    ),
}


def full_matrix(net, layer: int, head: int, convention: str) -> np.ndarray:
    """W_qᵀW_k, or C diag(g) W_qᵀW_k diag(g) C, written out from timm's own parameters."""
    attn, norm = net.blocks[layer].attn, net.blocks[layer].norm1
    weight = attn.qkv.weight.detach().double().numpy()
    w_q, w_k, _ = weight.reshape(3, attn.num_heads, -1, weight.shape[1])[:, head]
    product = w_q.T @ w_k
    if convention == "paper":
        return product
    gain = np.diag(norm.weight.detach().double().numpy())
    centring = np.eye(len(gain)) - 1 / len(gain)
    return centring @ gain @ product @ gain @ centring


def every_head(modes):
    """All (layer, head) of a result."""
    return list(np.ndindex(modes.sizes["layer"], modes.sizes["head"]))


def set_head(model, layer: int, head: int, w_q: torch.Tensor, w_k: torch.Tensor) -> None:
    """Writes one head's query and key projections into the heads that `own_vit` gave a model."""
    heads = model.heads
    heads.w_q[layer, head], heads.w_k[layer, head] = w_q, w_k
    vars(heads).pop("fingerprint", None)


def head_with(sigma: torch.Tensor, d_model: int, seed: int = 0):
    """W_q and W_k of a head with these singular values and random directions."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(2, d_model, len(sigma), generator=generator, dtype=torch.float64)
    u, v = torch.linalg.qr(frames).Q
    return sigma[:, None].double() * u.T, v.T


@pytest.fixture
def own_vit(make_vit, monkeypatch):
    """A model with heads in float64 that a test may overwrite: 64 wide, four heads of 16."""
    model = qk.load(make_vit(seed=2, embed_dim=64, num_heads=4))
    tensors = {k: v.double() for k, v in vars(model.heads).items() if isinstance(v, torch.Tensor)}
    heads = replace(model.heads, **tensors)
    monkeypatch.setattr(qk.Model, "heads", property(lambda _: heads))
    return model


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_sigma_and_cosine_equal_numpys(vit, convention):
    modes = qk.decompose(vit, convention=convention)
    for layer, head in every_head(modes):
        ours = modes.sel(layer=layer, head=head)
        u, sigma, vt = np.linalg.svd(full_matrix(vit, layer, head, convention))
        count = modes.sizes["mode"]
        assert abs(ours.sigma.values - sigma[:count]).max() < 1e-12 * sigma[0]
        assert (sigma[count:] < 1e-12 * sigma[0]).all()
        sound = ~ours.null_mode.values
        cosine = (u.T[:count] * vt[:count]).sum(-1)
        np.testing.assert_allclose(ours.cosine.values[sound], cosine[sound], atol=1e-7)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_directions_span_numpys_subspaces(vit, convention):
    modes = qk.decompose(vit, convention=convention)
    for layer, head in every_head(modes):
        ours = modes.sel(layer=layer, head=head)
        u, _, vt = np.linalg.svd(full_matrix(vit, layer, head, convention))
        for n in np.flatnonzero(~ours.null_mode.values):
            for found, wanted in ((ours.u.values[n], u[:, n]), (ours.v.values[n], vt[n])):
                miss = np.outer(found, found) - np.outer(wanted, wanted)
                assert abs(miss).max() < 2e-6


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_modes_rebuild_the_matrix(vit, convention):
    modes = qk.decompose(vit, convention=convention)
    for layer, head in every_head(modes):
        ours = modes.sel(layer=layer, head=head)
        rebuilt = (ours.u.values.T * ours.sigma.values) @ ours.v.values
        wanted = full_matrix(vit, layer, head, convention)
        assert abs(rebuilt - wanted).max() < 1e-6 * ours.sigma.values[0]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_another_basis_of_a_head_leaves_its_modes(own_vit, convention):
    before = qk.decompose(own_vit, convention=convention).copy(deep=True)
    generator = torch.Generator().manual_seed(3)
    basis = torch.randn(16, 16, generator=generator, dtype=torch.float64) + 3 * torch.eye(16)
    w_q, w_k = own_vit.heads.w_q[1, 2], own_vit.heads.w_k[1, 2]
    set_head(own_vit, 1, 2, basis.T @ w_q, torch.linalg.inv(basis) @ w_k)
    after = qk.decompose(own_vit, convention=convention)
    assert after.fingerprint != before.fingerprint
    for name, tolerance in (("sigma", 1e-12), ("cosine", 1e-10), ("u", 1e-6), ("v", 1e-6)):
        np.testing.assert_allclose(after[name], before[name], atol=tolerance * 16)


def test_largest_component_of_u_is_positive_and_runs_agree(vit):
    first, second = qk.decompose(vit), qk.decompose(vit)
    largest = np.take_along_axis(
        first.u.values, abs(first.u.values).argmax(-1, keepdims=True), axis=-1
    )
    assert (largest > 0).all()
    assert first.identical(second)


def test_missing_rank_is_reported_as_null_modes(own_vit):
    sigma = torch.linspace(4, 1, 16)
    sigma[11:] = 0
    set_head(own_vit, 0, 1, *head_with(sigma, 64))
    modes = qk.decompose(own_vit, convention="paper").sel(layer=0)
    assert modes.null_mode.sel(head=1).values.tolist() == [False] * 11 + [True] * 5
    assert not modes.null_mode.sel(head=[0, 2, 3]).any()
    np.testing.assert_allclose(modes.sigma.sel(head=1), sigma, atol=1e-12)


def test_equal_singular_values_are_reported_and_their_span_is_right(own_vit):
    sigma = torch.tensor([9.0, 8, 8, 7, 6, 5, 5, 5, 4, 3.5, 3, 2.5, 2, 1.5, 1, 0.5])
    w_q, w_k = head_with(sigma, 64)
    set_head(own_vit, 2, 0, w_q, w_k)
    modes = qk.decompose(own_vit, convention="paper").sel(layer=2, head=0)
    assert np.flatnonzero(modes.degenerate.values).tolist() == [1, 2, 5, 6, 7]
    for first, last in ((1, 3), (5, 8)):
        for found, planted in ((modes.u, w_q / sigma[:, None]), (modes.v, w_k)):
            span, wanted = found.values[first:last], planted[first:last].numpy()
            np.testing.assert_allclose(span.T @ span, wanted.T @ wanted, atol=1e-6)


def test_a_head_of_zeros_has_null_modes_and_cosine_zero(own_vit):
    set_head(own_vit, 1, 3, torch.zeros(16, 64), torch.zeros(16, 64))
    modes = qk.decompose(own_vit, convention="paper").sel(layer=1, head=3)
    assert (modes.sigma == 0).all() and modes.null_mode.all() and modes.degenerate.all()
    assert np.isfinite(modes.u).all()
    weighted = qk.weighted_cosine(own_vit, convention="paper").sel(layer=1)
    assert weighted.sel(head=3) == 0 and (weighted.sel(head=[0, 1, 2]) != 0).all()


def nearly_dependent(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A head whose last query row is its first but for one part in ten million."""
    generator = torch.Generator().manual_seed(seed)
    w_q, w_k = torch.randn(2, 16, 64, generator=generator, dtype=torch.float64)
    w_q[-1] = w_q[0] + 1e-7 * w_q[-1]
    return w_q, w_k


def test_nearly_dependent_rows_take_the_safe_route_and_come_out_right(own_vit, monkeypatch):
    set_head(own_vit, 1, 2, *nearly_dependent())
    calls, safe = [], svd.safe_svd
    monkeypatch.setattr(svd, "safe_svd", lambda *w: calls.append(w) or safe(*w))
    modes = qk.decompose(own_vit, convention="paper")
    assert len(calls) == 1
    w_q, w_k = nearly_dependent()
    sigma = np.linalg.svd(w_q.mT @ w_k, compute_uv=False)
    ours = modes.sigma.sel(layer=1, head=2).values
    assert abs(ours - sigma[:16]).max() < 1e-12 * sigma[0]
    assert modes.attrs["residual"] < 1e-12


def spoil(factor: torch.Tensor) -> torch.Tensor:
    """Turns the sign of one column: still orthonormal, no longer a factor of the matrix."""
    spoiled = factor.clone() if isinstance(factor, torch.Tensor) else factor.copy()
    spoiled[..., 1] *= -1
    return spoiled


@pytest.fixture
def lying_svd(monkeypatch):
    """torch's batched SVD returns a wrong left factor, as LAPACK's has been known to."""
    honest = torch.linalg.svd

    def svd(matrix, *rest):
        a, sigma, b = honest(matrix, *rest)
        return spoil(a), sigma, b

    monkeypatch.setattr(torch.linalg, "svd", svd)


def test_a_wrong_factor_from_lapack_is_noticed_and_repaired(plain_vit, monkeypatch, request):
    wanted = qk.decompose(plain_vit)
    request.getfixturevalue("lying_svd")
    found = qk.decompose(plain_vit)
    assert found.attrs["residual"] < 1e-12
    for name in ("sigma", "cosine", "u", "v"):
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)


def test_when_no_route_is_right_the_error_names_model_layer_and_heads(
    plain_vit, lying_svd, monkeypatch
):
    honest, calls = scipy.linalg.svd, []

    def lies_from_the_seventh_head(matrix, **how):
        calls.append(None)
        a, sigma, b = honest(matrix, **how)
        return (spoil(a) if len(calls) > 6 else a), sigma, b

    monkeypatch.setattr(scipy.linalg, "svd", lies_from_the_seventh_head)
    message = re.escape("VisionTransformer, layer 1, heads [2, 3]")
    with pytest.raises(ArithmeticError, match=message):
        qk.decompose(plain_vit)


class Sides(TorchDispatchMode):
    """Remembers the shape of every tensor that torch makes."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen |= {tuple(t.shape) for t in tree_leaves(out) if isinstance(t, torch.Tensor)}
        return out


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_no_matrix_of_model_width_squared_is_ever_made(make_vit, convention):
    net = make_vit(embed_dim=66, num_heads=3)
    for block in net.blocks:  # heads that together are narrower than the model
        block.attn = Attention(66, num_heads=3, attn_head_dim=16)
    with Sides() as sides:
        qk.decompose(net, convention=convention)
        qk.weighted_cosine(net, convention=convention)
    assert (3, 16, 66) in sides.seen
    assert not [shape for shape in sides.seen if shape.count(66) > 1]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_closed_form_equals_the_mean_over_modes_and_brute_force(vit, convention):
    closed = qk.weighted_cosine(vit, convention=convention)
    modes = qk.decompose(vit, convention=convention)
    np.testing.assert_allclose(closed, modes.cosine.weighted(modes.sigma).mean("mode"), atol=1e-12)
    for layer, head in every_head(modes):
        matrix = full_matrix(vit, layer, head, convention)
        wanted = np.trace(matrix) / np.linalg.norm(matrix, "nuc")
        assert abs(closed.sel(layer=layer, head=head) - wanted) < 1e-12


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_null_band_holds_its_share_of_random_directions(make_vit, convention):
    net = make_vit(embed_dim=96, num_heads=2)
    generator = np.random.default_rng(0)
    for level in (0.95, 0.5):
        band = qk.null_band(net, convention=convention, level=level)
        for layer, block in enumerate(net.blocks):
            u, v = generator.standard_normal((2, 20_000, 96))
            if convention == "exact":
                gain = block.norm1.weight.detach().double().numpy()
                u, v = ((w * gain) - (w * gain).mean(1, keepdims=True) for w in (u, v))
            cosine = (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
            assert abs((abs(cosine) <= band.values[layer]).mean() - level) < 0.015


def test_exact_band_follows_the_gain_and_not_the_width_alone(make_vit):
    net = make_vit(embed_dim=96, num_heads=2)
    with torch.no_grad():
        net.blocks[1].norm1.weight[:90] = 0.01
    paper, exact = qk.null_band(net, convention="paper"), qk.null_band(net, convention="exact")
    np.testing.assert_allclose(paper, 1.959964 / 96**0.5, rtol=1e-6)
    assert exact.sel(layer=1) > 3 * paper.sel(layer=1)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_null_of_the_weighted_cosine_equals_brute_force(make_vit, convention):
    net = make_vit(embed_dim=48, num_heads=3, depth=1)
    null = qk.null_weighted_cosine(net, convention=convention, draws=800)
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(800):
        w_q, w_k = generator.standard_normal((2, 16, 48))
        matrix = w_q.T @ w_k
        if convention == "exact":
            matrix = matrix * np.outer(*[net.blocks[0].norm1.weight.detach().double().numpy()] * 2)
            matrix = matrix - matrix.mean(0)
            matrix = matrix - matrix.mean(1, keepdims=True)
        drawn.append(np.trace(matrix) / np.linalg.norm(matrix, "nuc"))
    assert abs(null.values[0] / np.std(drawn) - 1) < 0.1


def test_null_of_the_weighted_cosine_depends_on_its_seed_alone(plain_vit):
    one, same, other = (qk.null_weighted_cosine(plain_vit, seed=s, draws=20) for s in (0, 0, 1))
    assert (one == same).all() and (one != other).all()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_result_says_where_it_comes_from(plain_vit, convention):
    results = (
        qk.decompose(plain_vit, convention=convention),
        qk.weighted_cosine(plain_vit, convention=convention),
        qk.null_band(plain_vit, convention=convention),
        qk.null_weighted_cosine(plain_vit, convention=convention, draws=2),
    )
    for result in results:
        assert result.convention == convention and result.isel(layer=0).convention == convention
        assert result.attrs["dtype"] == "float64"
        assert result.attrs["code_version"]
        assert re.fullmatch("[0-9a-f]{12}", str(result.fingerprint.values))


def fingerprint(net) -> str:
    return str(qk.weighted_cosine(net).fingerprint.values)


def test_fingerprint_tells_checkpoints_apart(make_vit):
    first, same, other = make_vit(seed=5), make_vit(seed=5), make_vit(seed=6)
    assert fingerprint(first) == fingerprint(same) != fingerprint(other)


@pytest.mark.parametrize("part", ["attn.qkv.weight", "attn.qkv.bias", "norm1.weight", "norm1.bias"])
@pytest.mark.parametrize("place", [0, 63])
def test_fingerprint_changes_with_each_thing_that_scores_depend_on(make_vit, part, place):
    net = make_vit(seed=5)
    with torch.no_grad():
        net.blocks[2].get_parameter(part).view(-1)[place] += 1e-6
    assert fingerprint(net) != fingerprint(make_vit(seed=5))


def test_real_models_have_the_reference_weighted_cosines(real_model):
    found = qk.weighted_cosine(real_model, convention="paper").mean("head")
    np.testing.assert_allclose(found, REFERENCE[real_model.name], atol=1e-3)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_real_models_have_numpys_singular_values(real_model, convention):
    modes = qk.decompose(real_model, convention=convention)
    for layer in (0, 6, 11):
        sigma = np.linalg.svd(full_matrix(real_model.net, layer, 1, convention))[1]
        ours = modes.sigma.sel(layer=layer, head=1).values
        assert abs(ours - sigma[:64]).max() < 1e-10 * sigma[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_gpu_gives_what_the_cpu_gives(plain_vit, make_vit):
    on_gpu = qk.decompose(qk.load(make_vit(seed=1, embed_dim=64, num_heads=4), device="cuda"))
    on_cpu = qk.decompose(plain_vit)
    np.testing.assert_allclose(on_gpu.sigma, on_cpu.sigma, atol=1e-10)
    np.testing.assert_allclose(on_gpu.cosine, on_cpu.cosine, atol=1e-8)


def test_null_from_strengths_is_that_of_random_directions():
    generator = np.random.default_rng(0)
    sigma = 0.8 ** np.arange(12.0)
    pairs = generator.normal(size=(2, 4000, 12, 80))
    u, v = pairs / np.linalg.norm(pairs, axis=-1, keepdims=True)
    spread = ((u * v).sum(-1) @ sigma / sigma.sum()).std()
    table = xr.DataArray(sigma[None, None], dims=("layer", "head", "mode"))
    for level in (0.5, 0.95, 0.99):
        width = stats.norm.ppf(0.5 + level / 2) / 80**0.5
        band = xr.DataArray([width], {"level": level}, dims="layer")
        found = float(modes_module.null_from_strengths(table, band)[0, 0])
        assert found == pytest.approx(spread, rel=0.05)
        layers = modes_module.null_of_layers(table, band)
        inside = abs((u * v).sum(-1) @ sigma / sigma.sum()) <= float(layers[0])
        assert inside.mean() == pytest.approx(level, abs=0.03)


def test_a_bands_level_goes_with_it(plain_vit):
    wide = qk.null_band(plain_vit, level=0.99)
    narrow = qk.null_band(plain_vit, level=0.5)
    sigma = qk.decompose(plain_vit).sigma
    spread = modes_module.null_from_strengths(sigma, narrow)
    xr.testing.assert_allclose(modes_module.null_from_strengths(sigma, 1.0 * wide), spread)
    assert "level" not in spread.coords
    with pytest.raises(ValueError, match="null_band"):
        modes_module.null_from_strengths(sigma, wide.drop_vars("level"))


def test_a_trend_holds_both_conventions_and_their_nulls(plain_vit):
    found = modes_module.trend(plain_vit)
    for convention in CONVENTIONS:
        own = found.sel(convention=convention)
        xr.testing.assert_allclose(
            own.weighted_cosine.reset_coords(drop=True),
            qk.weighted_cosine(plain_vit, convention=convention).reset_coords(drop=True),
        )
        sigma = qk.decompose(plain_vit, convention=convention).sigma
        band = qk.null_band(plain_vit, convention=convention)
        heads = modes_module.null_from_strengths(sigma, band).values
        wanted = stats.norm.ppf(0.975) * np.sqrt((heads**2).sum(1)) / heads.shape[1]
        np.testing.assert_allclose(own.null, wanted)

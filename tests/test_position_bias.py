"""Position bias: files of SimMIM and BEiT, and attention, against the authors' formulas."""

from __future__ import annotations

import qkutils._torchvision

import copy
from math import prod
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.beit import RelativePositionBias
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm, linear

import qkutils as qk
from qkutils.attention import attention_of_token, token_factors

WIDTH, HEADS, DEPTH, PATCH = 40, 5, 3, 8  # heads are 8 wide
TABLE, INDEX = "relative_position_bias_table", "relative_position_index"
LIKE = "beit_base_patch16_224.in22k_ft_in22k_in1k"

State = dict[str, Tensor]
Grid = tuple[int, int]


# ---- the authors' model, written out ---------------------------------------------------------


def index_of(grid: Grid) -> Tensor:
    """Which row of a table belongs to query i and key j; token 0 is the class token."""
    rows, columns = grid
    last = (2 * rows - 1) * (2 * columns - 1) + 2
    tokens = 1 + rows * columns
    index = torch.empty(tokens, tokens, dtype=torch.int64)
    for i in range(tokens):
        for j in range(tokens):
            down = (i - 1) // columns - (j - 1) // columns + rows - 1
            right = (i - 1) % columns - (j - 1) % columns + columns - 1
            index[i, j] = down * (2 * columns - 1) + right
    index[0, :], index[:, 0] = last - 2, last - 1
    index[0, 0] = last
    return index


def written_state(grid: Grid, shared: bool, tuned: bool, seed: int = 0) -> State:
    """Random tensors under the authors' names: tables for all layers, or for each; with a head."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0, around: float = 0.0) -> Tensor:
        return around + scale * torch.randn(*shape, generator=generator)

    def norm(name: str) -> State:
        return {
            f"{name}.weight": draw(WIDTH, scale=0.3, around=1),
            f"{name}.bias": draw(WIDTH, scale=0.5),
        }

    def table(name: str) -> State:
        values = draw((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3, HEADS, scale=3)
        values[-3:] += torch.tensor([[4.0], [-5.0], [7.0]])
        return {f"{name}.{TABLE}": values, f"{name}.{INDEX}": index_of(grid)}

    state = {
        "cls_token": draw(1, 1, WIDTH),
        "patch_embed.proj.weight": draw(WIDTH, 3, PATCH, PATCH, scale=0.1),
        "patch_embed.proj.bias": draw(WIDTH),
    }
    state |= table("rel_pos_bias") if shared else {}
    for n in range(DEPTH):
        at = f"blocks.{n}"
        state |= {f"{at}.gamma_1": draw(WIDTH), f"{at}.gamma_2": draw(WIDTH)}
        state |= norm(f"{at}.norm1") | norm(f"{at}.norm2")
        state |= {} if shared else table(f"{at}.attn")
        state |= {f"{at}.attn.{part}_bias": draw(WIDTH) for part in "qv"}
        for part, out, into in (
            *(("attn.qkv", 3 * WIDTH, WIDTH), ("attn.proj", WIDTH, WIDTH)),
            *(("mlp.fc1", 2 * WIDTH, WIDTH), ("mlp.fc2", WIDTH, 2 * WIDTH)),
        ):
            state[f"{at}.{part}.weight"] = draw(out, into, scale=into**-0.5)
            state[f"{at}.{part}.bias"] = draw(out, scale=0.5)
        del state[f"{at}.attn.qkv.bias"]
    head = {"head.weight": draw(7, WIDTH), "head.bias": draw(7)}
    return state | norm("fc_norm" if tuned else "norm") | (head if tuned else {})


def authors(state: State, images: Tensor) -> tuple[Tensor, Tensor]:
    """Attention [layer, image, head, query, key] and the last tokens, by the authors' formulas."""

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def dense(name: str, x: Tensor) -> Tensor:
        return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    kernel, shift = (state[f"patch_embed.proj.{kind}"] for kind in ("weight", "bias"))
    x = conv2d(images, kernel, shift, stride=PATCH).flatten(2).mT
    x = torch.cat([state["cls_token"].expand(len(images), -1, -1), x], 1)
    maps = []
    for n in range(DEPTH):
        at = f"blocks.{n}"
        biases = torch.cat(
            [state[f"{at}.attn.q_bias"], torch.zeros(WIDTH), state[f"{at}.attn.v_bias"]]
        )
        each = linear(norm(f"{at}.norm1", x), state[f"{at}.attn.qkv.weight"], biases).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in each)
        logits = (WIDTH / HEADS) ** -0.5 * q @ k.mT
        for name in ("rel_pos_bias", f"{at}.attn"):
            if f"{name}.{TABLE}" in state:
                index = state[f"{name}.{INDEX}"]
                logits = logits + state[f"{name}.{TABLE}"][index].permute(2, 0, 1)
        maps.append(logits.softmax(-1))
        read = (maps[-1] @ v).transpose(1, 2).flatten(2)
        x = x + state[f"{at}.gamma_1"] * dense(f"{at}.attn.proj", read)
        inner = gelu(dense(f"{at}.mlp.fc1", norm(f"{at}.norm2", x)))
        x = x + state[f"{at}.gamma_2"] * dense(f"{at}.mlp.fc2", inner)
    return torch.stack(maps), norm("norm", x) if "norm.weight" in state else x


def pictures(grid: Grid) -> Tensor:
    size = tuple(PATCH * side for side in grid)
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3))


def agrees(model: qk.Model, state: State) -> None:
    """Holds our attention, observed and rebuilt, and our last tokens against the authors'."""
    images = pictures(model.grid)
    wanted, last = authors(state, images)
    np.testing.assert_allclose(qk.observed_attention(model, images), wanted, atol=1e-5)
    np.testing.assert_allclose(qk.rebuild_attention(model, images), wanted, atol=1e-5)
    modes = qk.decompose(model)
    np.testing.assert_allclose(qk.rebuild_attention(model, images, modes), wanted, atol=1e-5)
    assert float(qk.compare_attention(model, images, modes).largest.max()) < 1e-5
    factors = token_factors(model, images)
    for token in (0, 1, prod(model.grid)):
        row = attention_of_token(factors, token)
        np.testing.assert_allclose(row, wanted[:, :, :, token], atol=1e-5)
    with torch.inference_mode():
        found = model.net.forward_features(images)
    torch.testing.assert_close(found, last, atol=1e-5, rtol=1e-5)


# ---- files -----------------------------------------------------------------------------------


def pretrained(state: State) -> dict[str, Any]:
    """A file as SimMIM's pre-training leaves it."""
    inside = {f"encoder.{key}": tensor for key, tensor in state.items()}
    inside["encoder.mask_token"] = torch.ones(1, 1, WIDTH)
    inside["decoder.0.weight"] = torch.ones(3 * PATCH**2, WIDTH, 1, 1)
    inside["decoder.0.bias"] = torch.ones(3 * PATCH**2)
    return {"model": inside, **trained()}


def trained() -> dict[str, Any]:
    moments = {"state": {0: {"step": 3, "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    return {
        **{"optimizer": moments, "lr_scheduler": {"last_epoch": 3}, "config": {"a": [1, "b"]}},
        **{"max_accuracy": 0.0, "epoch": 799},
    }


GRIDS = {"square": (4, 4), "not square": (3, 5)}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_simmim_pretrained(grid, tmp_path):
    state = written_state(grid, shared=True, tuned=False)
    torch.save(pretrained(state), tmp_path / "mine.pth")
    torch.save(pretrained(state)["model"], tmp_path / "stripped.pth")
    for name in ("mine", "stripped"):
        model = qk.load(tmp_path / f"{name}.pth", grid=None if grid == (4, 4) else grid)
        assert model.heads.w_q.shape == (DEPTH, HEADS, 8, WIDTH) and model.grid == grid
        assert {"mask_token", "decoder"} <= set(model.facts["left_out"].split(", "))
        assert INDEX not in model.facts["left_out"] and "GELU, eps 1e-6" in model.assumed
        agrees(model, state)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_simmim_finetuned(grid, tmp_path):
    state = written_state(grid, shared=False, tuned=True)
    torch.save({"model": state, **trained()}, tmp_path / "mine.pth")
    model = qk.load(tmp_path / "mine.pth", grid=None if grid == (4, 4) else grid)
    assert ("a square patch grid" in model.assumed) == (grid == (4, 4))
    agrees(model, state)
    images = pictures(grid)
    _, last = authors(state, images)
    mean = last[:, 1:].mean(1)
    pooled = layer_norm(mean, (WIDTH,), state["fc_norm.weight"], state["fc_norm.bias"], 1e-6)
    with torch.inference_mode():
        answers = model.net(images)
    wanted = linear(pooled, state["head.weight"], state["head.bias"])
    torch.testing.assert_close(answers, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tuned", [False, True], ids=["pre-trained", "fine-tuned"])
def test_the_authors_name_of_a_file_tells_what_its_tensors_can_not(tuned, tmp_path, monkeypatch):
    kind = "finetune" if tuned else "pretrain"
    path = tmp_path / f"simmim_{kind}__vit_base__img224__800ep.pth"
    state = written_state((4, 4), shared=not tuned, tuned=tuned)
    torch.save({"model": state} if tuned else pretrained(state), path)
    with pytest.raises(ValueError, match=f"{path.stem}.*12"):  # the authors' has twelve heads
        qk.load(path)
    for size, value in {"HEADS": 12, "WIDTH": 96}.items():
        monkeypatch.setitem(globals(), size, value)
    state = written_state((4, 4), shared=not tuned, tuned=tuned)
    torch.save({"model": state} if tuned else pretrained(state), path)
    model = qk.load(path)
    assert model.assumed == "a square patch grid" and model.name == path.stem
    assert model.facts["preprocessing"] == "authors"
    agrees(model, state)


def test_a_name_of_beit_tells_the_preprocessing(tmp_path):
    state = written_state((4, 4), shared=False, tuned=True)
    save_file(
        {key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / "a.safetensors"
    )
    model = qk.load(tmp_path / "a.safetensors", like=LIKE)
    assert "GELU" not in model.assumed and "mean=tensor([0.5000" in repr(model.transform)
    agrees(model, state)
    with pytest.raises(ValueError, match="vit_base"):
        qk.load(tmp_path / "a.safetensors", like="vit_base_patch16_224.dino", num_heads=HEADS)


def test_a_file_is_the_module_that_it_was_saved_from(make_beit, tmp_path):
    net = make_beit()
    save_file(net.state_dict(), tmp_path / "mine.safetensors")
    model = qk.load(tmp_path / "mine.safetensors")
    assert model.fingerprint == qk.load(net).fingerprint
    for key, tensor in net.state_dict().items():
        assert torch.equal(model.net.state_dict()[key], tensor), key


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_without_layer_scale(shared, make_beit, tmp_path):
    """As pre-training without it leaves it, against timm's own module without."""
    net = make_beit(init_values=None, use_rel_pos_bias=not shared, use_shared_rel_pos_bias=shared)
    assert not any("gamma" in key for key in net.state_dict())
    save_file(net.state_dict(), tmp_path / "mine.safetensors")
    images = pictures((4, 4))
    for options in ({}, {"like": LIKE}):
        model = qk.load(tmp_path / "mine.safetensors", **options)
        assert {block.gamma_1 for block in model.net.blocks} == {None}
        rebuilt = qk.rebuild_attention(model, images)
        np.testing.assert_allclose(rebuilt, qk.observed_attention(net, images), atol=1e-5)
        with torch.inference_mode():
            torch.testing.assert_close(model.net(images), net(images))


def changed(state: State, key: str, change: Any) -> State:
    return state | {key: change(state[key].clone())}


def swapped(index: Tensor) -> Tensor:
    index[0, 1:], index[1:, 0] = index[1, 0].clone(), index[0, 1].clone()
    return index


LAST = f"blocks.2.attn.{TABLE}"
SLIPS = {
    "another index": (lambda s: changed(s, f"blocks.1.attn.{INDEX}", lambda t: t.T), INDEX),
    "class row for class column": (lambda s: changed(s, f"blocks.0.attn.{INDEX}", swapped), INDEX),
    "an index of floats": (
        lambda s: changed(s, f"blocks.0.attn.{INDEX}", lambda t: t + 0.5),
        INDEX,
    ),
    "a sparse index": (
        lambda s: changed(s, f"blocks.0.attn.{INDEX}", lambda t: t.to_sparse()),
        INDEX,
    ),
    "half of the keys": (lambda s: dict([*s.items()][::2]), "SimMIM or BEiT"),
    "no norms": (lambda s: {k: v for k, v in s.items() if "norm1" not in k}, "norm1.* missing"),
    "one more block": (
        lambda s: s | {"blocks.5.norm1.weight": s["blocks.0.norm1.weight"]},
        "blocks.3.* missing",
    ),
    "other heads in one layer": (lambda s: changed(s, LAST, lambda t: t[:, :4]), "another shape"),
    "another grid in one layer": (lambda s: changed(s, LAST, lambda t: t[:-8]), "another shape"),
    "heads that do not divide": (
        lambda s: {k: v[:, :3] if k.endswith(TABLE) else v for k, v in s.items()},
        "another shape",
    ),
    "one table missing": (lambda s: {k: v for k, v in s.items() if k != LAST}, "missing"),
    "a table for all besides": (
        lambda s: s | {f"rel_pos_bias.{TABLE}": s[LAST][:, :4]},
        "another shape",
    ),
    "one more tensor": (lambda s: s | {"blocks.0.attn.temperature": s[LAST]}, "unknown"),
    "more than it holds": (
        lambda s: changed(s, "patch_embed.proj.weight", lambda t: t[:1].expand(10**6, 3, 8, 8)),
        "another shape|more numbers",
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_files_with_a_slip_are_refused(slip, tmp_path):
    change, named = SLIPS[slip]
    torch.save(change(written_state((4, 4), shared=False, tuned=True)), tmp_path / "mine.pth")
    for options in ({}, {"like": LIKE}):
        with pytest.raises(ValueError, match=f"mine.pth: .*(?:{named})"):
            qk.load(tmp_path / "mine.pth", **options)


def test_heads_and_grids_that_are_not_the_files_are_refused(tmp_path):
    for grid, other in (((4, 4), (3, 5)), ((3, 5), None)):
        torch.save(written_state(grid, shared=False, tuned=True), tmp_path / "mine.pth")
        with pytest.raises(ValueError, match="displacements.*grid="):
            qk.load(tmp_path / "mine.pth", grid=other)
    with pytest.raises(ValueError, match="num_heads=4.*5"):
        qk.load(tmp_path / "mine.pth", grid=(3, 5), num_heads=4)


# ---- modules ---------------------------------------------------------------------------------

BOTH = {"use_rel_pos_bias": True, "use_shared_rel_pos_bias": True}
KINDS: dict[str, dict[str, Any]] = {
    "for each layer": {},
    "for all layers": {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
    "both": BOTH,
    "both, not square": BOTH | {"img_size": (24, 40)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_position_bias_of_timms_own_module(kind, make_beit):
    net = make_beit(**KINDS[kind])
    model = qk.load(net)
    index = index_of(model.grid)
    wanted = torch.zeros(3, 4, *index.shape)
    for layer, block in enumerate(net.blocks):
        for part in (net.rel_pos_bias, block.attn):
            if part is not None and part.relative_position_bias_table is not None:
                wanted[layer] += part.relative_position_bias_table[index].permute(2, 0, 1)
    torch.testing.assert_close(model.heads.position_bias, wanted)
    observed, rebuilt = (
        f(model, pictures(model.grid)) for f in (qk.observed_attention, qk.rebuild_attention)
    )
    np.testing.assert_allclose(rebuilt, observed, atol=1e-5)


def test_what_timm_creates_by_name_is_taken(fill):
    small = {"img_size": 64, "depth": 2, "embed_dim": 36, "num_heads": 3, "num_classes": 5}
    net = fill(timm.create_model("beit_base_patch16_224", **small), 1)
    model = qk.load(net)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    observed, rebuilt = (f(model, images) for f in (qk.observed_attention, qk.rebuild_attention))
    np.testing.assert_allclose(rebuilt, observed, atol=1e-5)
    assert model.heads.position_bias.shape == (2, 3, 17, 17)


def test_models_without_have_none(make_beit, plain_vit, images):
    for net in (plain_vit, make_beit(use_rel_pos_bias=False, use_abs_pos_emb=True)):
        assert qk.load(net).heads.position_bias is None
        assert "position_bias" not in token_factors(net, images)


def test_modes_do_not_know_the_position_bias(make_beit):
    net, plain = make_beit(**BOTH), make_beit(use_rel_pos_bias=False)
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if TABLE not in k})
    for name in ("sigma", "u", "v"):
        np.testing.assert_array_equal(qk.decompose(net)[name], qk.decompose(plain)[name])
    assert qk.load(net).fingerprint != qk.load(plain).fingerprint


def test_heads_are_read_again_when_a_table_changes(make_beit, images):
    model = qk.load(make_beit(**BOTH))
    shared, own = model.net.rel_pos_bias, model.net.blocks[1].attn
    seen = {model.fingerprint}
    for table in (shared.relative_position_bias_table, own.relative_position_bias_table):
        table.data[5, 2] += 1
        seen.add(model.fingerprint)
    model.net.rel_pos_bias = None
    seen.add(model.fingerprint)
    assert len(seen) == 4
    observed, rebuilt = (f(model, images) for f in (qk.observed_attention, qk.rebuild_attention))
    np.testing.assert_allclose(rebuilt, observed, atol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_another_index_is_refused(shared, make_beit):
    net = make_beit(**BOTH)
    model = qk.load(copy.deepcopy(net))
    for one in (net, model.net):
        part = one.rel_pos_bias if shared else one.blocks[2].attn
        part.relative_position_index.copy_(swapped(part.relative_position_index.clone()))
    with pytest.raises(ValueError, match=f"Beit, layer {0 if shared else 2}: {INDEX}"):
        qk.load(net)
    with pytest.raises(ValueError, match=INDEX):
        qk.rebuild_attention(model, torch.zeros(1, 3, 32, 32))


class Doubled(RelativePositionBias):
    """A table that is used otherwise."""

    def forward(self) -> Tensor:
        return 2 * super().forward()


def test_a_bias_of_another_class_is_refused(make_beit, make_vit):
    net = make_beit(**BOTH)
    net.rel_pos_bias = Doubled((4, 4), 4)
    with pytest.raises(ValueError, match="Doubled: its forward"):
        qk.load(net)
    vit = make_vit()
    vit.rel_pos_bias = RelativePositionBias((4, 4), 4)
    with pytest.raises(ValueError, match="relative position bias"):
        qk.load(vit)


def test_attention_that_leaves_the_bias_out_is_seen_in_the_first_pass(make_beit, images):
    net = make_beit()
    model = qk.load(net)
    table = net.blocks[1].attn.relative_position_bias_table
    net.blocks[1].register_forward_pre_hook(lambda *_: setattr(table, "data", 0 * table))
    with pytest.raises(ValueError, match="layer 1: it attends otherwise"):
        qk.observed_attention(model, images)


# ---- studies ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["for each layer", "for all layers"])
def model(request, make_beit) -> qk.Model:
    return qk.load(make_beit(seed=2, **KINDS[request.param]))


@pytest.mark.parametrize("patch", [0, 6])
def test_one_image_adds_up_to_the_models_own_attention(model, images, patch):
    found = qk.studies.one_image(model, images[0], layer=1, head=2, query_patch=patch)
    own = qk.observed_attention(model, images[:1]).values[1, 0, 2, 1 + patch].astype(float)
    built = qk.studies.build_up(found)
    np.testing.assert_allclose(built[-1], own, atol=1e-5)
    terms = [*found.logit.values, found.salience.values, found.position_bias.values]
    logit = np.log(own) - np.log(own).mean()
    wanted = [(term * logit).sum() / (logit**2).sum() for term in terms]
    got = [*found.share.values, found.salience_share, found.position_share]
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert abs(got[-1]) > 0.05 and sum(map(float, got)) == pytest.approx(1)
    bare = np.exp(found.salience + found.position_bias)
    np.testing.assert_allclose(built[0], bare / bare.sum(), atol=1e-5)


def test_one_image_pools_the_logits_of_all_patches(model, images):
    found = qk.studies.one_image(model, images[0], layer=1, head=2)
    own = np.log(qk.observed_attention(model, images[:1]).values[1, 0, 2, 1:].astype(float))
    own -= own.mean(1, keepdims=True)
    bias = model.heads.position_bias[1, 2, 1:].double().numpy()
    wanted = (own * bias).sum() / (own**2).sum()
    assert float(found.position_share) == pytest.approx(wanted, abs=1e-4)
    np.testing.assert_allclose(found.position_bias, bias.mean(0))
    whole = found.share.sum() + found.salience_share + found.position_share
    assert float(whole) == pytest.approx(1)


def test_the_papers_convention_knows_no_position_bias(model, images):
    found = qk.studies.one_image(model, images[0], layer=1, head=2, convention="paper")
    assert not found.position_bias.any() and float(found.position_share) == 0


def test_sinks_are_those_of_the_models_own_attention(model):
    net = copy.deepcopy(model.net)
    for part in (net.rel_pos_bias, *(block.attn for block in net.blocks)):
        if part is not None and part.relative_position_bias_table is not None:
            part.relative_position_bias_table.data[-2:] += 20  # from all tokens to the class token
    images = pictures((4, 4))
    atlas = qk.scan(net, images, k=1, statistics=["sinks"], progress=False)
    assert (atlas.sink == 1).all() and (atlas.sink_on_prefix == 1).all()
    own = qk.observed_attention(net, images)
    assert ((own.isel(key=0) >= 0.5).mean("query") >= 0.9).all()


def test_queries_that_are_hidden_cannot_be_removed(model, images):
    with pytest.raises(ValueError, match="layer=1: .*hides its queries"):
        qk.studies.removal(model, images, 1, 0, torch.eye(12)[:1])


def test_a_view_that_cannot_show_it_says_so(model, images):
    with pytest.raises(ValueError, match="position bias.*studies.one_image"):
        qk.views.one_image(model, images[0])

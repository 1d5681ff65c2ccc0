"""I-JEPA's own file: two encoders and a predictor, against the authors' formulas in plain torch."""

from __future__ import annotations

import qkutils._torchvision

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import qkutils as qk
from qkutils.models import masked, predicting, predictor
from qkutils.views.figures import trends_apart

GRID, PATCH, DEPTH, HEADS = 4, 8, 3, 4
WIDE, NARROW = 48, 24  # heads are 12 and 6 wide
CONTEXT = [7, 0, 2, 3, 10, 12, 15]
TARGETS = [5, 6, 9], [1, 14, 4]
IMAGES = torch.randn(2, 3, GRID * PATCH, GRID * PATCH, generator=torch.Generator().manual_seed(3))
LIKE = "vit_huge_patch14_gap_224.in1k_ijepa"


# ---- a small file with the authors' names --------------------------------------------------------


def sines(width: int) -> Tensor:
    """The authors' table of positions: the first half tells the column, the second the row."""
    frequency = 10000 ** (-2 * torch.arange(width // 4) / (width / 2))
    patch = torch.arange(GRID**2)
    halves = [at[:, None] * frequency for at in (patch % GRID, patch // GRID)]
    return torch.cat([half for at in halves for half in (at.sin(), at.cos())], 1)[None]


def of_blocks(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of all blocks."""
    sizes = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    sizes |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    sizes |= {"norm1": (width,), "norm2": (width,)}
    return {
        f"{name}.{n}.{part}.{kind}": shape if kind == "weight" else shape[:1]
        for n in range(DEPTH)
        for part, shape in sizes.items()
        for kind in ("weight", "bias")
    }


ENCODER = of_blocks("blocks", WIDE) | {
    "pos_embed": (1, GRID**2, WIDE),
    "patch_embed.proj.weight": (WIDE, 3, PATCH, PATCH),
    "patch_embed.proj.bias": (WIDE,),
    "norm.weight": (WIDE,),
    "norm.bias": (WIDE,),
}
PREDICTOR = of_blocks("predictor_blocks", NARROW) | {
    "mask_token": (1, 1, NARROW),
    "predictor_pos_embed": (1, GRID**2, NARROW),
    "predictor_embed.weight": (NARROW, WIDE),
    "predictor_embed.bias": (NARROW,),
    "predictor_norm.weight": (NARROW,),
    "predictor_norm.bias": (NARROW,),
    "predictor_proj.weight": (WIDE, NARROW),
    "predictor_proj.bias": (WIDE,),
}


def random_state(shapes: dict[str, tuple[int, ...]], seed: int, table: str) -> dict[str, Tensor]:
    """Strong random numbers under the authors' names; positions as they make them, if asked."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            noise = 1 + 0.4 * noise
        elif name.endswith("weight"):
            noise *= 1.2 / (noise[0].numel()) ** 0.5
        state[f"module.{name}"] = noise
        if "pos_embed" in name and table == "sines":
            state[f"module.{name}"] = sines(shape[-1])
    return state


def whole(table: str = "random") -> dict[str, Any]:
    """All that the authors' file holds."""
    encoder, target = (random_state(ENCODER, seed, table) for seed in (0, 1))
    moments = {n: {"step": 3, "exp_avg": each.clone()} for n, each in enumerate(encoder.values())}
    return {
        "encoder": encoder,
        "predictor": random_state(PREDICTOR, 2, table),
        "target_encoder": target,
        "opt": {"state": moments, "param_groups": [{"lr": 0.1, "params": [*moments]}]},
        "scaler": {"scale": 65536.0, "_growth_tracker": 3},
        **{"epoch": 300, "loss": 0.1, "batch_size": 128, "world_size": 16, "lr": 0.001},
    }


@pytest.fixture(params=["random", "sines"])
def file(request, tmp_path) -> tuple[Path, dict[str, Any]]:
    """A file, and what it holds."""
    path, held = tmp_path / "tiny-ijepa.pth.tar", whole(request.param)
    torch.save(held, path)
    return path, held


@pytest.fixture
def saved(tmp_path):
    """A function that saves a file with changes in the predictor's tensors."""

    def save(change=lambda state: state) -> Path:
        held = whole()
        torch.save(held | {"predictor": change(held["predictor"])}, tmp_path / "mine.pth.tar")
        return tmp_path / "mine.pth.tar"

    return save


# ---- the authors' formulas -----------------------------------------------------------------------


class ByHand:
    """One state dict of the file, in float64."""

    def __init__(self, state: dict[str, Tensor], prefix: str = "") -> None:
        self.state = {key.removeprefix("module."): each.double() for key, each in state.items()}
        self.prefix, self.maps = prefix, []

    def __getitem__(self, name: str) -> Tensor:
        return self.state[name]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self[f"{name}.weight"].flatten(1).T + self[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return x * self[f"{name}.weight"] + self[f"{name}.bias"]

    def blocks(self, x: Tensor) -> Tensor:
        """All tokens attend to all tokens; keeps each layer's attention."""
        for n in range(DEPTH):
            at = f"{self.prefix}blocks.{n}"
            qkv = self.linear(f"{at}.attn.qkv", self.norm(f"{at}.norm1", x))
            q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
            logits = q @ k.mT / q.shape[-1] ** 0.5
            self.maps.append(logits.softmax(-1))
            read = (self.maps[-1] @ v).transpose(1, 2).flatten(2)
            x = x + self.linear(f"{at}.attn.proj", read)
            h = self.linear(f"{at}.mlp.fc1", self.norm(f"{at}.norm2", x))
            x = x + self.linear(f"{at}.mlp.fc2", h * (1 + torch.erf(h / 2**0.5)) / 2)
        return self.norm(f"{self.prefix}norm", x)


def encode(state: dict[str, Tensor], patches: list[int]) -> tuple[Tensor, Tensor]:
    """An encoder's last tokens and attention [layer, image, head, query, key] on some patches."""
    by_hand = ByHand(state)
    cut = IMAGES.double().unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
    x = by_hand.linear("patch_embed.proj", cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2))
    last = by_hand.blocks((x + by_hand["pos_embed"])[:, patches])
    return last, torch.stack(by_hand.maps)


def predict(held: dict[str, Any], context: list[int], targets) -> tuple[Tensor, Tensor]:
    """What is predicted, and attention, for all targets at once, targets before images."""
    seen, _ = encode(held["encoder"], context)
    by_hand = ByHand(held["predictor"], "predictor_")
    places = by_hand["predictor_pos_embed"]
    known = by_hand.linear("predictor_embed", seen) + places[:, context]
    wanted = torch.cat([places[:, target].expand(len(IMAGES), -1, -1) for target in targets])
    x = torch.cat([known.repeat(len(targets), 1, 1), by_hand["mask_token"] + wanted], 1)
    out = by_hand.linear("predictor_proj", by_hand.blocks(x)[:, len(context) :])
    return out, torch.stack(by_hand.maps)


def last_tokens(network: qk.models.Network) -> Tensor:
    """What a network gives in the library's one forward pass."""
    with qk.passes.watching(network) as run:
        return run(IMAGES)


def agrees(network: qk.models.Network, last: Tensor, attention: Tensor) -> None:
    """Holds tokens and attention, observed and rebuilt, against those by hand."""
    assert attention.amax() > 0.3 and attention.amin() < 0.01
    torch.testing.assert_close(last_tokens(network).double(), last, atol=1e-5, rtol=1e-5)
    modes = qk.decompose(network)
    for found in (
        qk.observed_attention(network, IMAGES),
        qk.rebuild_attention(network, IMAGES),
        qk.rebuild_attention(network, IMAGES, modes),
    ):
        np.testing.assert_allclose(found, attention, atol=1e-5)
    assert float(qk.compare_attention(network, IMAGES, modes).largest.max()) < 1e-5
    row = qk.attention_of_token(qk.token_factors(network, IMAGES, modes), 1)
    np.testing.assert_allclose(row, attention[:, :, :, 1], atol=1e-5)


# ---- tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoder", "target_encoder"])
def test_both_encoders(name, file):
    path, held = file
    model = qk.load(path, state_dict=name, num_heads=HEADS, like=LIKE)
    assert (model.grid, model.prefix_tokens) == ((GRID, GRID), 0)
    assert model.heads.w_q.shape == (DEPTH, HEADS, WIDE // HEADS, WIDE)
    agrees(masked(model, range(GRID**2)), *encode(held[name], list(range(GRID**2))))
    attention = qk.observed_attention(model, IMAGES)
    np.testing.assert_allclose(attention, encode(held[name], list(range(GRID**2)))[1], atol=1e-5)
    agrees(masked(model, CONTEXT), *encode(held[name], CONTEXT))


def test_who_asks_load_for_the_predictor_is_told_what_reads_it(file):
    with pytest.raises(ValueError, match=r"tiny-ijepa.*'predictor'.*qk\.models\.predictor"):
        qk.load(file[0], state_dict="predictor", num_heads=HEADS)


def test_the_predictor_and_two_targets(file):
    path, held = file
    encoder = qk.load(path, state_dict="encoder", num_heads=HEADS)
    own = predictor(path, num_heads=HEADS)
    outs, maps = predict(held, CONTEXT, TARGETS)
    for target, out, of_target in zip(TARGETS, outs.chunk(2), maps.chunk(2, 1), strict=True):
        joined = predicting(own, encoder, CONTEXT, target)
        agrees(joined, out, of_target)
        said = qk.observed_attention(joined, IMAGES)
        assert said.key_patch.values.tolist() == CONTEXT + target
        kinds = ["context"] * len(CONTEXT) + ["target"] * len(target)
        assert said.query_kind.values.tolist() == kinds
        assert said.fingerprint == own.fingerprint and said.model == own.name
    assert abs(maps.chunk(2, 1)[0] - maps.chunk(2, 1)[1]).max() > 0.1


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_predictor_alone(prefix, tmp_path):
    held = whole()
    state = {key.replace("module.", prefix): each for key, each in held["predictor"].items()}
    torch.save(held, tmp_path / "mine.pth.tar")
    torch.save(state, tmp_path / "mine.pth")
    own, alone = (predictor(tmp_path / f"mine{end}", num_heads=4) for end in (".pth.tar", ".pth"))
    assert own.fingerprint == alone.fingerprint
    assert own.facts["left_out"] == "encoder, opt, target_encoder"
    assert alone.facts["left_out"] == "" and "1e-6" in alone.assumed


def test_what_needs_weights_alone(saved):
    own = predictor(saved(), num_heads=HEADS)
    weight = whole()["predictor"]["module.predictor_blocks.1.attn.qkv.weight"].double().numpy()
    w_q, w_k, _ = weight.reshape(3, HEADS, -1, NARROW)
    u, sigma, vt = np.linalg.svd(w_q[2].T @ w_k[2])
    kept = slice(NARROW // HEADS)
    cosine = (u[:, kept] * vt[kept].T).sum(0)
    modes = qk.decompose(own, convention="paper").sel(layer=1, head=2)
    np.testing.assert_allclose(modes.sigma, sigma[kept], rtol=1e-9)
    np.testing.assert_allclose(modes.cosine, cosine, atol=1e-6)
    weighted = qk.weighted_cosine(own, convention="paper").sel(layer=1, head=2)
    assert float(weighted) == pytest.approx((sigma[kept] * cosine).sum() / sigma[kept].sum())
    assert qk.null_band(own, convention="paper").values == pytest.approx([1.96 / 24**0.5] * 3, 1e-4)
    assert (qk.null_weighted_cosine(own, draws=50) < 0.2).all()
    assert dict(qk.trend(own).sizes) == {"convention": 2, "layer": DEPTH, "head": HEADS}


def mean_cosines(state: dict[str, Tensor], blocks: str) -> list[float]:
    """Mean over heads of the weighted cosine of each layer, from whole matrices."""
    means = []
    for layer in range(DEPTH):
        weight = state[f"module.{blocks}.{layer}.attn.qkv.weight"].double().numpy()
        queries, keys, _ = weight.reshape(3, HEADS, -1, weight.shape[1])
        products = queries.swapaxes(1, 2) @ keys
        strengths = np.linalg.svd(products, compute_uv=False).sum(1)
        means.append((np.trace(products, axis1=1, axis2=2) / strengths).mean())
    return means


def test_figure_s3_shows_the_encoder_beside_its_predictor(file):
    path, held = file
    encoder = qk.load(path, state_dict="target_encoder", num_heads=HEADS)
    networks = encoder, predictor(path, num_heads=HEADS)
    curves = [qk.trend(network).sel(convention="paper") for network in networks]
    axes = trends_apart(curves).axes
    assert [ax.get_title() for ax in axes] == ["tiny-ijepa", "predictor of tiny-ijepa"]
    wanted = (
        mean_cosines(held["target_encoder"], "blocks"),
        mean_cosines(held["predictor"], "predictor_blocks"),
    )
    for ax, means in zip(axes, wanted, strict=True):
        np.testing.assert_allclose(ax.lines[-1].get_ydata(), means, atol=1e-6)
    bands = [ax.collections[0].get_paths()[0].vertices[:, 1].max() for ax in axes]
    assert bands[1] > 1.3 * bands[0]  # half as wide: random directions reach √2 as far


def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: each for n, (key, each) in enumerate(state.items()) if n % 2 or "embed" in key}


def without(key: str):
    return lambda state: {k: each for k, each in state.items() if k != f"module.{key}"}


def changed(key: str, value: Tensor):
    return lambda state: state | {f"module.{key}": value}


SPOILED = {
    "half": (half, "blocks.0.attn.qkv.bias"),
    "no positions": (without("predictor_pos_embed"), "pos_embed"),
    "no mask token": (without("mask_token"), "mask_token"),
    "no embedding": (without("predictor_embed.weight"), "I-JEPA's predictor"),
    "one more block": (changed("predictor_blocks.7.norm1.bias", torch.ones(24)), "blocks.3"),
    "a scale": (changed("predictor_blocks.0.ls1.gamma", torch.ones(24)), "blocks.0.ls1.gamma"),
    "another width": (changed("predictor_norm.weight", torch.ones(25)), "norm.weight"),
    "a flat embedding": (changed("predictor_embed.weight", torch.ones(24)), "embed.weight"),
    "integers": (changed("mask_token", torch.ones(1, 1, 24).int()), "int32"),
    "NaN": (changed("predictor_proj.bias", torch.full((48,), torch.nan)), "proj.bias"),
}


@pytest.mark.parametrize("slip", SPOILED)
def test_a_predictor_that_is_not_whole_is_refused(slip, saved):
    change, named = SPOILED[slip]
    with pytest.raises(ValueError, match=f"mine.*{named}"):
        predictor(saved(change), num_heads=HEADS)


@pytest.mark.parametrize("heads", [0, 5, 1.5, True, "4"])
def test_a_number_of_heads_that_can_not_be(heads, saved, unchecked):
    with pytest.raises(ValueError, match=f"num_heads={heads!r}"):
        predictor(saved(), num_heads=heads)
    with pytest.raises(ValueError, match=f"num_heads={heads!r}"):
        qk.load(saved(), state_dict="encoder", num_heads=heads)


OTHERS = {
    "heads": {"num_heads": 3},
    "patches": {"img_size": 40},
    "channels": {"embed_dim": 64},
    "prefix tokens": {"class_token": True},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_encoder_is_refused(what, saved, make_vit):
    plain = {"embed_dim": WIDE, "num_heads": HEADS, "class_token": False, "global_pool": "avg"}
    own = predictor(saved(), num_heads=HEADS)
    predicting(own, make_vit(**plain), CONTEXT, TARGETS[0])
    with pytest.raises(ValueError, match=f"encoder.* {what}"):
        predicting(own, make_vit(**(plain | OTHERS[what])), CONTEXT, TARGETS[0])


WRONG = {
    "outside": ([0, 16], [1], "context=16"),
    "negative": ([0], [-1], "target=-1"),
    "twice": ([3, 0, 3], [1], r"context=\[3, 0, 3\]"),
    "twice in the target": ([0], [2, 2], r"target=\[2, 2\]"),
    "in both": ([0, 1, 2], [3, 2, 1], r"target.*\[1, 2\]"),
    "no context": ([], [1], r"context=\[\]"),
    "no target": ([1], [], r"target=\[\]"),
    "no number": ([0.5], [1], "context=0.5"),
}


@pytest.mark.parametrize("slip", WRONG)
def test_patches_that_can_not_be(slip, saved, unchecked):
    context, target, named = WRONG[slip]
    path = saved()
    encoder = qk.load(path, state_dict="encoder", num_heads=HEADS)
    with pytest.raises(ValueError, match=named):
        predicting(predictor(path, num_heads=HEADS), encoder, context, target)


def test_a_predictor_takes_no_images_and_an_encoder_is_none(saved):
    path = saved()
    own = predictor(path, num_heads=HEADS)
    runs = (qk.observed_attention, qk.rebuild_attention, qk.compare_attention, qk.token_factors)
    for run in runs:
        with pytest.raises(ValueError, match="predictor of mine.*predicting"):
            run(own, IMAGES)
    for run in (qk.load, lambda model: qk.scan(model, IMAGES)):
        with pytest.raises(ValueError, match="Predictor"):
            run(own)
    with pytest.raises(ValueError, match=r"models\.predictor"):
        torch.save(whole()["predictor"], path)
        qk.load(path, num_heads=HEADS)
    torch.save(whole()["encoder"], path)
    with pytest.raises(ValueError, match="predictor_embed.weight"):
        predictor(path, num_heads=HEADS)


def test_no_tensor_is_read_before_it_is_used(saved):
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("the system does not tell what is mapped")
    path = saved()
    tensors = qk.checkpoints.read(path, "encoder").tensors
    lines = [line.split()[0] for line in maps.read_text().splitlines() if line.endswith(str(path))]
    mapped = [[int(end, 16) for end in line.split("-")] for line in lines]
    for key, tensor in tensors.items():
        assert any(low <= tensor.data_ptr() < high for low, high in mapped), key


# ---- some patches of any model -------------------------------------------------------------------


def test_all_patches_in_any_order_are_the_model_itself(vit: VisionTransformer, images):
    model, order = qk.load(vit), torch.randperm(16, generator=torch.Generator().manual_seed(0))
    seen = masked(model, order.tolist())
    prefix = model.prefix_tokens
    place = [*range(prefix), *(order + prefix).tolist()]
    with torch.inference_mode():
        last = vit.forward_features(images)
    with qk.passes.watching(seen) as run:
        torch.testing.assert_close(run(images), last[:, place], atol=1e-5, rtol=1e-5)
    wanted = qk.observed_attention(model, images).values[:, :, :, place][..., place]
    found = qk.observed_attention(seen, images)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert found.key_patch.values.tolist() == [-1] * prefix + order.tolist()
    assert found.key_kind.values.tolist() == model.prefix_names + ["context"] * 16


def test_a_masked_model_that_does_not_do_what_its_weights_say_is_refused(make_vit, images):
    net = make_vit(seed=3)
    seen = masked(net, [0, 5])
    qk.observed_attention(seen, images)
    net.blocks[1].attn.qkv.register_forward_hook(lambda _, __, out: 1.1 * out)
    with pytest.raises(ValueError, match="layer 1"):
        qk.observed_attention(seen, images)

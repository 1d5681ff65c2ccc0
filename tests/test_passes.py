"""Tests of the forward pass: what it hands on, what it leaves as it was, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

import qkutils as qk
from qkutils.passes import check_images, visit_layers, watching

PLAIN = [
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_base_patch32_clip_quickgelu_224",
    "beit3_base_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "deit3_small_patch16_224",
]


def attention_of_timm(net: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """Attention of every layer as timm's own code computes it without the fused kernel."""
    found: list[torch.Tensor] = []
    hooks = []
    for block in net.blocks:
        block.attn.fused_attn = False
        hook = block.attn.attn_drop.register_forward_hook(lambda _, __, out: found.append(out))
        hooks.append(hook)
    with torch.no_grad():
        net(images)
    for hook in hooks:
        hook.remove()
    return found


def test_what_a_pass_hands_on_is_what_timm_computes(vit: Any, images: torch.Tensor) -> None:
    model = qk.load(vit)
    tokens: dict[int, torch.Tensor] = {}
    attention: dict[int, torch.Tensor] = {}
    with watching(
        model, tokens=tokens.__setitem__, attention=lambda n, a: attention.__setitem__(n, a.clone())
    ) as forward:
        out = forward(images)
    expected = attention_of_timm(vit, images)
    with torch.no_grad():
        torch.testing.assert_close(out, vit(images))
    assert sorted(tokens) == sorted(attention) == list(range(len(expected)))
    for layer, wanted in enumerate(expected):
        torch.testing.assert_close(attention[layer], wanted, rtol=1e-5, atol=1e-6)


def test_a_pass_leaves_no_trace(plain_vit: Any, images: torch.Tensor) -> None:
    def traces() -> list:
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in plain_vit.modules()]
        return [*hooks, *(block.attn.fused_attn for block in plain_vit.blocks)]

    before = traces()
    with watching(qk.load(plain_vit), attention=lambda *_: None) as forward:
        forward(images)
    with pytest.raises(RuntimeError, match="stop"), watching(qk.load(plain_vit), tokens=stop):
        stop()
    with pytest.raises(RuntimeError, match="stop"):
        visit_layers(qk.load(plain_vit), images, lambda *_: stop())
    assert traces() == before


def stop(*_: Any) -> None:
    raise RuntimeError("stop")


class LowRank(nn.Linear):
    """An adapter that looks like the layer it adapts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 0.5 * x.roll(1, -1) @ self.weight.mT


def adapt(net: Any) -> None:
    """A forward hook that adds to the queries and keys of one layer."""
    net.blocks[1].attn.qkv.register_forward_hook(lambda _, args, out: out + 0.1 * out.roll(1, 1))


def mask(net: Any) -> None:
    """Attention that can't see the last token, by a hook on the arguments."""

    def hide(_: nn.Module, args: tuple, kwargs: dict) -> tuple:
        count = args[0].shape[1]
        return args, {"attn_mask": torch.ones(count, count).tril().bool()}

    net.blocks[0].attn.register_forward_pre_hook(hide, with_kwargs=True)


def other_scale(net: Any) -> None:
    """Queries that are rescaled on their way to the softmax."""
    net.blocks[2].attn.q_norm.register_forward_hook(lambda _, __, out: 1.1 * out)


def prompts(net: Any) -> None:
    """Five prompt tokens behind the class token."""
    net.patch_embed.register_forward_hook(lambda _, __, out: torch.cat([out[:, :5], out], 1))
    net.pos_embed = nn.Parameter(torch.zeros(1, net.pos_embed.shape[1] + 5, net.embed_dim))


def masked(net: Any) -> None:
    """Three quarters of the tokens dropped before the blocks."""
    net.norm_pre.register_forward_hook(lambda _, __, out: out[:, : out.shape[1] // 4])


def shuffle(net: Any) -> None:
    """Patches in another order, before they get their positions."""
    net.patch_embed.register_forward_hook(lambda _, __, out: out.flip(1))


def shuffle_behind_positions(net: Any) -> None:
    """Two patches that change places where the first block would get them."""
    order = [0, 2, 1, *range(3, 17)]
    net.blocks[0].register_forward_pre_hook(lambda _, args: (args[0][:, order],))


def shuffle_between_blocks(net: Any) -> None:
    """Patches in another order behind the second block."""
    net.blocks[1].register_forward_hook(lambda _, __, out: out[:, [0, *range(16, 0, -1)]])


SPOILT = [adapt, mask, other_scale, prompts, masked]
SPOILT += [shuffle, shuffle_behind_positions, shuffle_between_blocks]


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("study", ["observed", "rebuilt", "tokens", "scan"])
def test_a_network_that_does_not_do_what_its_weights_say_is_refused(
    make_vit: Callable, images: torch.Tensor, spoil: Callable[[Any], None], study: str
) -> None:
    net = make_vit(seed=3)
    run = {
        "observed": lambda m: qk.observed_attention(m, images),
        "rebuilt": lambda m: qk.rebuild_attention(m, images),
        "tokens": lambda m: visit_layers(m, images, lambda *_: None),
        "scan": lambda m: qk.scan(m, images, k=1, progress=False),
    }[study]
    run(qk.load(net))
    spoil(net)
    with pytest.raises(ValueError, match="layer"):
        run(qk.load(net))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_hooks_that_only_look_change_nothing(make_vit: Callable, images: torch.Tensor) -> None:
    net = make_vit(seed=3)
    weight_norm(net.blocks[1].attn.qkv, "weight")
    wanted = qk.compare_attention(net, images)
    seen: list[int] = []
    handles = [net.patch_embed.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))]
    handles += [net.blocks[1].register_forward_pre_hook(lambda _, args: (args[0].clone(),))]
    model = qk.load(net)
    visited: list[int] = []
    visit_layers(model, images, lambda layer, *_: visited.append(layer), batch_size=2)
    assert qk.compare_attention(model, images).equals(wanted) and visited == [0, 1, 2] * 2
    assert seen == [2, 1, 3]  # and not in the run without hooks
    for handle in handles:
        handle.remove()
    assert not net.patch_embed._forward_hooks and not net.blocks[1]._forward_pre_hooks


def test_a_change_of_timms_own_code_is_seen(
    make_vit: Callable, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = qk.load(make_vit(seed=3))
    attention = type(model.net.blocks[0].attn)
    monkeypatch.setattr(attention, "forward", lambda self, x, **_: self.proj(x))
    with pytest.raises(ValueError, match="layer 0"):
        visit_layers(model, images, lambda *_: None)
    with pytest.raises(ValueError, match="layer"):
        qk.observed_attention(model, images)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("renew", [parametrizations.weight_norm, weight_norm, prune.identity])
def test_weights_that_are_computed_from_others_are_scanned_as_plain_ones(
    make_vit: Callable, images: torch.Tensor, renew: Callable, bias: bool
) -> None:
    net = make_vit(seed=3, qkv_bias=bias)
    wanted = qk.scan(net, images, k=1, progress=False)
    for block in net.blocks:
        renew(block.attn.qkv, "weight")
    found = qk.scan(net, images, k=1, progress=False)
    np.testing.assert_allclose(found.score, wanted.score, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_networks_of_timm_pass(name: str, fill: Callable) -> None:
    small = {"depth": 2} | ({} if "beit3" in name else {"img_size": 56 if "dino" in name else 64})
    net = fill(timm.create_model(name, **small), 0)
    model = qk.load(net)
    seen: list[int] = []
    pictures = torch.randn(2, 3, *model.image_size, generator=torch.Generator().manual_seed(0))
    visit_layers(model, pictures, lambda layer, *_: seen.append(layer))
    assert seen == [0, 1]


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda x: x.half(),
        lambda x: x.double(),
        lambda x: x[0],
        lambda x: x[:0],
        lambda x: x[:, :, :-1],
        lambda x: x[:, :2],
        lambda x: x.numpy(),
        lambda x: [*x],
        lambda x: x.masked_fill(x > 1, torch.nan),
    ],
)
def test_images_of_another_kind_are_refused(
    plain_vit: Any, images: torch.Tensor, spoiled: Callable
) -> None:
    with pytest.raises(ValueError, match="images"):
        check_images(qk.load(plain_vit), spoiled(images))

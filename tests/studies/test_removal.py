"""Removal of modes against attention rebuilt without them, in the last layer's own output."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import qkutils as qk
from qkutils import passes
from qkutils.attention import total_variation
from qkutils.studies import _removal


def unit(count: int, at: int) -> torch.Tensor:
    return torch.eye(count)[[at]]


def without(net, images, layer: int, head: int, mode: int, part: float = 1.0):
    """Attention with part of a mode's query put at its mean, from u, σ, v and full scores."""
    model = qk.load(net)
    parts = qk.decompose(model, convention="exact").isel(layer=layer, head=head)
    z = []
    qk.passes.visit_layers(
        model, images, lambda n, _, x: z.append(qk.passes.normalise(x.double(), 1e-6))
    )
    at = z[layer].numpy()
    own = qk.observed_attention(model, images).sel(layer=layer, head=head).values
    query = at @ parts.u.values[mode]
    taken = part * parts.sigma.values[mode] * (query - query.mean())
    logits = np.log(own) - taken[..., None] * (at @ parts.v.values[mode])[:, None] / np.sqrt(
        parts.sizes["mode"]
    )
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    missed = np.log(own) - logits
    about = missed - (own * missed).sum(-1, keepdims=True)
    taken = missed.var(-1).mean(), (own * about**2).sum(-1).mean()
    return own, weights / weights.sum(-1, keepdims=True), taken


@pytest.mark.parametrize(("layer", "head", "mode"), [(0, 0, 0), (1, 3, 2), (2, 1, 15)])
def test_removing_a_mode_moves_attention_as_scores_without_it_do(
    plain_vit, images, layer, head, mode
):
    gone = qk.studies.removal(plain_vit, images, layer=layer, head=head, directions=unit(16, mode))
    own, left, taken = without(plain_vit, images, layer, head, mode)
    wanted = (abs(own - left).sum(-1) / 2).mean()
    assert wanted > 1e-3
    np.testing.assert_allclose(float(gone.moved[0]), wanted, rtol=1e-3)
    np.testing.assert_allclose([gone.taken[0], gone.attended[0]], taken, rtol=1e-3)


def test_a_shorter_direction_removes_a_part(plain_vit, images):
    gone = qk.studies.removal(plain_vit, images, layer=1, head=3, directions=0.7 * unit(16, 2))
    own, left, taken = without(plain_vit, images, 1, 3, 2, part=0.49)
    np.testing.assert_allclose(
        float(gone.moved[0]), (abs(own - left).sum(-1) / 2).mean(), rtol=1e-3
    )
    np.testing.assert_allclose([gone.taken[0], gone.attended[0]], taken, rtol=1e-3)
    whole = qk.studies.removal(plain_vit, images, layer=1, head=3, directions=unit(16, 2))
    np.testing.assert_allclose(float(gone.taken[0]), 0.7**4 * float(whole.taken[0]), rtol=1e-4)


def test_the_answer_is_that_of_a_model_whose_weights_lack_the_mode(plain_vit, images):
    """In the last layer: answers from values mixed by the attention that is left."""
    layer, head, mode = 2, 1, 0
    gone = qk.studies.removal(plain_vit, images, layer=layer, head=head, directions=unit(16, mode))
    _, left, _ = without(plain_vit, images, layer, head, mode)
    attn, mixed = plain_vit.blocks[layer].attn, []

    def replace(_, args):
        return (torch.cat([torch.from_numpy(left)[:, None].float() if h == head else args[0][:, [h]]
                           for h in range(4)], 1),)  # fmt: skip

    hook = attn.attn_drop.register_forward_pre_hook(replace)
    attn.fused_attn = False
    mixed = plain_vit(images)
    hook.remove()
    attn.fused_attn = True
    np.testing.assert_allclose(gone.output[0], mixed.numpy(), atol=1e-4)
    np.testing.assert_allclose(gone.intact, plain_vit(images).numpy(), atol=1e-4)
    assert abs(gone.output[0] - gone.intact).max() > 1e-3


def test_a_direction_and_its_reverse_are_one_and_the_model_stays(plain_vit, images):
    before = {name: tensor.clone() for name, tensor in plain_vit.state_dict().items()}
    one = torch.nn.functional.normalize(torch.randn(1, 16), dim=-1)
    gone = qk.studies.removal(plain_vit, images, layer=1, head=2, directions=torch.cat([one, -one]))
    np.testing.assert_allclose(gone.moved[0], gone.moved[1], rtol=1e-5)
    assert all((before[n] == t).all() for n, t in plain_vit.state_dict().items())
    assert not any(b.attn.q_norm._forward_hooks for b in plain_vit.blocks)


def test_removing_what_no_query_has_changes_nothing(make_vit, images):
    """A direction along which all queries are alike: their mean stays."""
    net = make_vit(seed=3, depth=1)
    with torch.no_grad():
        net.patch_embed.proj.weight.zero_()
        net.pos_embed.zero_()
        net.cls_token.copy_(net.patch_embed.proj.bias)
    gone = qk.studies.removal(net, images, layer=0, head=0, directions=unit(16, 0))
    assert float(gone.moved[0]) < 1e-6


def test_the_relative_change_is_one_where_answers_are_all_the_mean(plain_vit, images):
    gone = qk.studies.removal(plain_vit, images, layer=0, head=0, directions=unit(16, 0))
    gone["output"] = gone.intact.mean("image").expand_dims(direction=1, image=3).transpose(
        *gone.output.dims
    )  # fmt: skip
    assert float(qk.studies.relative_change(gone)[0]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("layer", "head", "directions", "message"),
    [
        (3, 0, unit(16, 0), "layer=3"),
        (0, 4, unit(16, 0), "head=4"),
        (0, 0, unit(15, 0), "directions: .* 16 modes"),
        (0, 0, 2 * unit(16, 0), "lengths above 0, up to 1"),
        (0, 0, 0 * unit(16, 0), "lengths above 0, up to 1"),
    ],
)
def test_what_does_not_fit_is_refused(plain_vit, images, layer, head, directions, message):
    with pytest.raises(ValueError, match=message):
        qk.studies.removal(plain_vit, images, layer=layer, head=head, directions=directions)


def test_a_layer_with_null_modes_is_refused(make_vit, images):
    net = make_vit(seed=5)
    with torch.no_grad():
        net.blocks[1].attn.qkv.weight[0] = net.blocks[1].attn.qkv.weight[1]
    with pytest.raises(ValueError, match="null modes"):
        qk.studies.removal(net, images, layer=1, head=0, directions=unit(16, 0))


def test_total_variation_is_zero_only_for_the_same_map(plain_vit, images):
    attention = qk.observed_attention(plain_vit, images)
    assert float(total_variation(attention, attention).max()) == 0


def edited(net, images, layer: int, head: int, mode: int):
    """The network with weights that no longer read a mode's query, and its mean in the bias."""
    net = copy.deepcopy(net)
    model = qk.load(net)
    z = []
    qk.passes.visit_layers(
        model, images, lambda n, _, x: z.append(qk.passes.normalise(x.double(), 1e-6))
    )
    u = qk.decompose(model, convention="exact").u.values[layer, head, mode]
    u = torch.from_numpy(u).double()
    block, d_head = net.blocks[layer], 16
    gain, shift = block.norm1.weight.double(), block.norm1.bias.double()
    rows = slice(head * d_head, (head + 1) * d_head)
    weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
    along = weight[rows].double() @ (gain * u)
    with torch.no_grad():
        weight[rows] -= torch.outer(along, u / gain).float()
        bias[rows] += (along * ((u / gain) @ shift + (z[layer] @ u).mean())).float()
    return net


@pytest.mark.parametrize(("layer", "head", "mode"), [(0, 0, 0), (1, 3, 2), (2, 1, 15)])
def test_every_removal_is_that_of_edited_weights(plain_vit, images, layer, head, mode):
    gone = qk.studies.every_removal(plain_vit, images, random=1)
    one = gone.isel(layer=layer, head=head, direction=mode)
    with torch.no_grad():
        wanted = edited(plain_vit, images, layer, head, mode)(images)
    np.testing.assert_allclose(one.output, wanted, atol=1e-4)
    assert abs(one.output - gone.intact).max() > 1e-3
    alone = qk.studies.removal(plain_vit, images, layer, head, unit(16, mode))
    for size in ("moved", "taken", "attended"):
        np.testing.assert_allclose(float(one[size]), float(alone[size][0]), rtol=1e-4)


def test_every_removal_in_batches_is_the_same(plain_vit, images, monkeypatch):
    whole = qk.studies.every_removal(plain_vit, images)
    monkeypatch.setattr(_removal, "BATCH", 2)
    for name, values in qk.studies.every_removal(plain_vit, images).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-3, atol=1e-5)


def test_random_directions_follow_the_modes_and_are_told_by_their_number(plain_vit, images):
    gone = qk.studies.every_removal(plain_vit, images[:1], random=2, seed=1)
    assert gone.mode.values.tolist() == [*range(16), -1, -1]
    other = qk.studies.every_removal(plain_vit, images[:1], random=2, seed=2)
    assert not np.allclose(gone.moved[..., 16:], other.moved[..., 16:])
    np.testing.assert_allclose(gone.moved[..., :16], other.moved[..., :16], rtol=1e-4)


def test_a_model_that_computes_more_than_its_blocks_is_refused(plain_vit, images, monkeypatch):
    rest = passes._Rest.forward
    monkeypatch.setattr(passes._Rest, "forward", lambda self, x: 1.01 * rest(self, x))
    with pytest.raises(ValueError, match="more than its blocks"):
        qk.studies.every_removal(plain_vit, images)

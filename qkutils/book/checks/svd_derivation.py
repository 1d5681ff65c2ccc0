"""Checks of chapter 1, the SVD of a head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from timm.layers import Attention

from qkutils.book.checks import Rule, array, checked, near, predicted

HEADS, D_HEAD, D_MODEL, TOKENS = 3, 4, 12, 9


def _timm_attention() -> tuple[Attention, torch.Tensor, dict[str, torch.Tensor]]:
    """A random attention of timm, tokens, and the queries, keys and attention that it computes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module: Any = Attention(D_MODEL, num_heads=HEADS, qkv_bias=False).double().eval()
        tokens = 3 * torch.randn(1, TOKENS, D_MODEL, dtype=torch.float64)
    module.fused_attn = False
    seen: dict[str, torch.Tensor] = {}
    parts = {"queries": module.q_norm, "keys": module.k_norm, "attention": module.attn_drop}
    for name, part in parts.items():
        part.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out[0]}))
    with torch.no_grad():
        module(tokens)
    return module, tokens[0], seen


@checked
def split(split: Any) -> Iterator[Rule]:
    """Every head has its own queries and keys, as timm computes them."""
    module, tokens, seen = _timm_attention()
    found = split(module.qkv.weight.detach(), HEADS)
    of = dict(zip(("queries", "keys"), found, strict=True))
    for name, symbol in (("queries", "w_q"), ("keys", "w_k")):
        own = np.einsum("td,hkd->htk", tokens, array(of[name], HEADS, D_HEAD, D_MODEL, name=symbol))
        theirs = seen[name].numpy()
        shuffled = near(np.sort(own, axis=None), np.sort(theirs, axis=None))
        told = "The numbers are right, but stand in other heads." if shuffled else "They differ."
        hint = "In `qkv`, rows go head by head: the first d_head rows of W_q are those of head 0."
        other = "All rows of W_q come first, then all of W_k, then all of W_v."
        rule = f"`{symbol}` gives every head the {name} that timm computes."
        yield Rule(near(own, theirs), rule, told, hint if shuffled else other)


@checked
def modes(modes: Any) -> Iterator[Rule]:
    """Two orthonormal families, ordered strengths, and a sum that is M."""
    w_q, w_k = torch.randn(2, D_HEAD, D_MODEL, generator=_seeded(), dtype=torch.float64)
    found = modes(w_q, w_k)
    names = ("u", "sigma", "v")
    shapes = ((D_HEAD, D_MODEL), (D_HEAD,), (D_HEAD, D_MODEL))
    parts = zip(found, shapes, names, strict=True)
    u, sigma, v = (array(part, *shape, name=f"`{name}`") for part, shape, name in parts)
    yield _orthonormal(u, "Query")
    yield _orthonormal(v, "Key")
    ordered = bool((np.diff(sigma) <= 0).all() and (sigma >= 0).all())
    told = f"They are {np.round(sigma, 2).tolist()}."
    hint = "`eigh` puts the smallest eigenvalue first, and strengths are roots of eigenvalues."
    yield Rule(ordered, "Strengths fall, and none is negative.", told, hint)
    yield _rebuilt(u, sigma, v, (w_q.T @ w_k).numpy())


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _orthonormal(rows: np.ndarray, which: str) -> Rule:
    products = rows @ rows.T
    lengths, crossed = np.diag(products) ** 0.5, products - np.diag(np.diag(products))
    told = f"Lengths go up to {lengths.max():.3g}, dot products up to {abs(crossed).max():.1g}."
    hint = "Each row is one direction. Divide M v by the strength, not by its square."
    return Rule(
        near(products, np.eye(len(rows))), f"{which} directions are orthonormal.", told, hint
    )


def _rebuilt(u: np.ndarray, sigma: np.ndarray, v: np.ndarray, exact: np.ndarray) -> Rule:
    """The sum of the modes is M; if not, what it is instead."""
    total, along = (u.T * sigma) @ v, np.einsum("md,de,me->m", u, exact, v)
    told, hint = "It is another matrix.", "For each mode, M v = σ u and Mᵀ u = σ v."
    if near(total, exact.T):
        told, hint = "It is Mᵀ.", "u asks: in M = W_qᵀ W_k, the query's side comes first."
    elif near(abs(along), sigma):
        told = f"In mode {int(along.argmin())}, u and v have opposite signs."
        hint = "Signs come in pairs. Take v, and compute its u from it: u = M v / σ."
    elif near(along, along[0] / sigma[0] * sigma):
        told = f"It is M times {sigma[0] / along[0]:.3g}."
        hint = "Strengths are those of M: no 1/√d_head, and the root of the eigenvalues of MᵀM."
    return Rule(near(total, exact), "The modes add up to M.", told, hint)


@checked
def attention(attention: Any, prediction: Any) -> Iterator[Rule]:
    """Attention from modes is that of the model, of all tokens, at its temperature."""
    yield predicted(prediction, "sharper", "flatter")
    module, tokens, seen = _timm_attention()
    w_q, w_k, _ = module.qkv.weight.detach().unflatten(0, (3, HEADS, D_HEAD))
    u, sigma, vt = torch.linalg.svd(w_q[0].T @ w_k[0])
    of_head = u.T[:D_HEAD], sigma[:D_HEAD], vt[:D_HEAD]
    own = array(attention(tokens, *of_head), TOKENS, TOKENS, name="The attention of 9 tokens")
    sums = own.sum(1)
    told = f"A row sums to {sums[abs(sums - 1).argmax()]:.3g}."
    hint = "A row is a query: the softmax goes over the keys, the last dimension."
    yield Rule(near(sums, np.ones(TOKENS)), "Each query gives attention of 1 in all.", told, hint)
    yield _as_the_model(own, seen["attention"][0].numpy())


def _as_the_model(own: np.ndarray, theirs: np.ndarray) -> Rule:
    """Attention is the model's; if not, how its logits differ."""
    mine, wanted = (np.log(np.clip(each, 1e-300, None)) for each in (own, theirs))
    mine, wanted = mine - mine.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True)
    ratio = float((mine * wanted).sum() / (wanted**2).sum())
    told, hint = "Other tokens are attended to.", "Queries project on u, keys on v."
    if near(mine, ratio * wanted):
        told = f"Its logits are {ratio:.3g} times the model's."
        hint = "Scores are divided by √d_head before the softmax. How many modes has the head?"
    return Rule(near(own, theirs), "It is the attention that timm computes.", told, hint)


@checked
def same_head(same_head: Any) -> Iterator[Rule]:
    """Two pairs of matrices are one head exactly where their products are equal."""
    random = _seeded()
    one = torch.randn(2, D_HEAD, D_MODEL, generator=random, dtype=torch.float64)
    turn = torch.randn(D_HEAD, D_HEAD, generator=random, dtype=torch.float64)
    moved = torch.stack([turn.T @ one[0], torch.linalg.solve(turn, one[1])])
    alike = {
        "with itself": (one, True, "A head is itself: mind rounding."),
        "after a change of coordinates": (moved, True, "Which matrix stays under A?"),
        "with queries twice and keys half as long": (
            one * torch.tensor([2.0, 0.5]).double()[:, None, None],
            True,
            "Lengths of queries and keys alone mean nothing.",
        ),
        "with queries and keys exchanged": (one.flip(0), False, "Mᵀ is another head than M."),
        "with another sign of the queries": (
            one * torch.tensor([-1.0, 1.0]).double()[:, None, None],
            False,
            "Singular values alone don't tell a head from its opposite.",
        ),
        "with turned tokens": (one.roll(1, -1), False, "Equal singular values are not enough."),
    }
    for name, (other, wanted, hint) in alike.items():
        answer = same_head(tuple(one), tuple(other))
        rule = f"A head {name} is {'the same' if wanted else 'another'}."
        yield Rule(bool(answer) == wanted, rule, f"Your function says {bool(answer)}.", hint)


@checked
def itself(angle: Any) -> Iterator[Rule]:
    """With v₀ at this angle and the second pair mirrored, token z₂ likes itself best."""
    degrees = float(angle)
    told = f"You wrote {degrees:g}."
    radians = degrees % 1 != 0 and abs(degrees) <= 2 * np.pi
    hint = "The view shows v₀ in degrees, not in radians: a whole number from −180 to 180."
    known = abs(degrees) <= 360 and not radians
    yield Rule(known, "The angle is given in degrees.", told, hint)
    around = np.arange(16) * np.pi / 8
    tokens = np.stack([np.cos(around), np.sin(around)], 1)
    turned = np.deg2rad(degrees) + np.array([0, np.pi / 2])
    v = np.stack([np.cos(turned), np.sin(turned)], 1) * [[1], [-1]]  # M = u₀v₀ᵀ − u₁v₁ᵀ
    favourite = (tokens @ v @ tokens.T).argmax(1)
    told = f"It attends most to z{favourite[2]}."
    hint = (
        "When v₀ turns by an angle, favourites turn by the same angle. Is the second pair mirrored?"
    )
    yield Rule(favourite[2] == 2, "Token z₂ attends most to itself.", told, hint)

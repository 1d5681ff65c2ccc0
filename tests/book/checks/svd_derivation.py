"""Answers to the exercises of chapter 1: some right in another way, some with a planted fault."""

import numpy as np
import torch

from qkutils.book.checks import svd_derivation as check


def split_by_rows(qkv, heads):
    size = len(qkv) // 3
    parts = [torch.stack(qkv[n * size : (n + 1) * size].chunk(heads)) for n in range(2)]
    return tuple(part.numpy() for part in parts)


def modes_by_svd(w_q, w_k):
    u, sigma, vt = torch.linalg.svd(w_q.T @ w_k)
    d_head = len(w_q)
    return u.T[:d_head], sigma[:d_head], vt[:d_head]


def attention_by_loop(tokens, u, sigma, v):
    tokens, u, sigma, v = (np.asarray(each) for each in (tokens, u, sigma, v))
    made = []
    for query in tokens:
        scores = sum(sigma[n] * (query @ u[n]) * (tokens @ v[n]) for n in range(len(u)))
        weights = np.exp((scores - scores.max()) / 2)
        made.append(weights / weights.sum())
    return np.array(made)


def same_by_scores(one, other):
    tokens = torch.randn(50, one[0].shape[1], dtype=torch.float64)
    first, second = ((tokens @ q.T) @ (tokens @ k.T).T for q, k in (one, other))
    return torch.allclose(first, second)


RIGHT = [
    (check.split, split_by_rows),
    (check.modes, modes_by_svd),
    (check.attention, attention_by_loop, "Flatter."),
    (check.same_head, same_by_scores),
    (check.itself, 95.0),
]


def heads_in_the_wrong_order(qkv, heads):
    w_q, w_k, _ = qkv.unflatten(0, (3, -1, heads))
    return w_q.transpose(0, 1), w_k.transpose(0, 1)


def values_for_keys(qkv, heads):
    w_q, _, w_v = qkv.unflatten(0, (3, heads, -1))
    return w_q, w_v


def transposed(w_q, w_k):
    return modes_by_svd(w_k, w_q)


def wrong_signs(w_q, w_k):
    u, sigma, v = modes_by_svd(w_q, w_k)
    return u * torch.tensor([1.0, -1, 1, -1]).double()[:, None], sigma, v


def squared(w_q, w_k):
    u, sigma, v = modes_by_svd(w_q, w_k)
    return u, sigma**2, v


def divided(w_q, w_k):
    u, sigma, v = modes_by_svd(w_q, w_k)
    return u, sigma / 2, v


def weakest_first(w_q, w_k):
    return tuple(part.flip(0) for part in modes_by_svd(w_q, w_k))


def columns(w_q, w_k):
    u, sigma, v = modes_by_svd(w_q, w_k)
    return u.T, sigma, v.T


def too_long(w_q, w_k):
    u, sigma, v = modes_by_svd(w_q, w_k)
    return u * sigma[:, None], sigma, v


def not_divided(tokens, u, sigma, v):
    return ((tokens @ u.T * sigma) @ (tokens @ v.T).T).softmax(-1)


def over_queries(tokens, u, sigma, v):
    return ((tokens @ u.T * sigma) @ (tokens @ v.T).T / 2).softmax(0)


def exchanged(tokens, u, sigma, v):
    return ((tokens @ v.T * sigma) @ (tokens @ u.T).T / 2).softmax(-1)


def without_prefix(tokens, u, sigma, v):
    return attention_by_loop(tokens[1:], u, sigma, v)


def by_strengths(one, other):
    first, second = (torch.linalg.svdvals(q.T @ k) for q, k in (one, other))
    return torch.allclose(first, second)


def by_small_product(one, other):
    return torch.allclose(one[0] @ one[1].T, other[0] @ other[1].T)


WRONG = [
    (check.split, heads_in_the_wrong_order, "stand in other heads"),
    (check.split, values_for_keys, "W_v"),
    (check.modes, transposed, "It is Mᵀ"),
    (check.modes, wrong_signs, "opposite signs"),
    (check.modes, squared, "another matrix"),
    (check.modes, divided, "times 0.5"),
    (check.modes, weakest_first, "eigh"),
    (check.modes, columns, "[12, 4]"),
    (check.modes, too_long, "Lengths"),
    (check.attention, not_divided, "sharper", "Its logits are 2 times"),
    (check.attention, over_queries, "sharper", "A row sums to"),
    (check.attention, exchanged, "sharper", "keys on v"),
    (check.attention, without_prefix, "sharper", "[8, 8]"),
    (check.attention, attention_by_loop, "warmer", '"sharper" or "flatter"'),
    (check.same_head, by_strengths, "Mᵀ"),
    (check.same_head, by_small_product, "Which matrix"),
    (check.itself, 180, "z6"),
    (check.itself, 900, "900"),
    (check.itself, 1.57, "radians"),
]

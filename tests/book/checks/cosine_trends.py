"""Answers to the exercises of chapter 3: some right in another way, some with a planted fault."""

import numpy as np
import torch
import xarray as xr

from qkutils.book.checks import cosine_trends as check


def curve_by_loop(cosine, sigma):
    layers, heads, _ = cosine.shape
    of = np.zeros((layers, heads))
    for at in np.ndindex(layers, heads):
        of[at] = np.average(cosine[at], weights=sigma[at])
    return torch.tensor(of).mean(1)


def by_trace(sigma, width, count):
    """From the trace of M and its strengths, with numpy."""
    random, strengths = np.random.default_rng(), np.asarray(sigma)
    made = []
    for _ in range(count):
        u, v = random.normal(size=(2, len(strengths), width))
        lengths = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
        made.append(np.trace((u.T * strengths / lengths) @ v) / strengths.sum())
    return made


def sides_by_eigenvectors(w_q, w_k):
    product = (w_q.T @ w_k).numpy()
    squares, v = np.linalg.eigh(product.T @ product)
    sigma, v = squares[-4:] ** 0.5, v[:, -4:]
    return np.average(abs((product @ v * v).sum(0) / sigma), weights=sigma)


heads = np.array([[[0.1, 0.2], [0.6, 0.1], [0.3, 0.2]], [[0.1, 0.2], [0.3, 0.2], [0.5, -0.4]]])
TREND = xr.Dataset({"weighted_cosine": (("convention", "layer", "head"), heads)})
TREND = TREND.assign_coords(convention=["paper", "exact"])
RIGHT = [
    (check.curve, curve_by_loop),
    (check.by_chance, by_trace, "2.5"),
    (check.furthest, 2, "0.51", -0.39, TREND),
    (check.sides, sides_by_eigenvectors),
]


def over_layers(cosine, sigma):
    return ((cosine * sigma).sum(-1) / sigma.sum(-1)).mean(0)


def over_heads_alone(cosine, sigma):
    return ((cosine * sigma).sum(1) / sigma.sum(1)).mean(0)


def weighted_over_heads(cosine, sigma):
    return ((cosine * sigma).sum(1) / sigma.sum(1)).mean(1)


def each_head(cosine, sigma):
    return (cosine * sigma).sum(-1) / sigma.sum(-1)


def not_divided(cosine, sigma):
    return (cosine * sigma).sum(-1).mean(1)


def without_strengths(cosine, sigma):
    return cosine.mean((1, 2))


def pooled(cosine, sigma):
    return (cosine * sigma).sum((1, 2)) / sigma.sum((1, 2))


def weighted(cosine, sigma):
    return cosine @ sigma / sigma.sum()


def pairs(draw, sigma, width, count):
    return torch.cosine_similarity(*(draw(count, len(sigma), width).double() for _ in "uv"), dim=-1)


def uniform(sigma, width, count):
    return weighted(pairs(torch.rand, sigma, width, count), sigma)


def second_from_the_first(sigma, width, count):
    u = torch.randn(count, len(sigma), width).double()
    return weighted(torch.cosine_similarity(u, u + torch.randn(u.shape), dim=-1), sigma)


def one_pair_for_all(sigma, width, count):
    return weighted(pairs(torch.randn, sigma[:1], width, count).expand(-1, len(sigma)), sigma)


def plain(sigma, width, count):
    return pairs(torch.randn, sigma, width, count).mean(1)


def summed(sigma, width, count):
    return pairs(torch.randn, sigma, width, count) @ sigma


def dot_products(sigma, width, count):
    u, v = torch.randn(2, count, len(sigma), width).double()
    return weighted((u * v).sum(-1), sigma)


def over_draws(sigma, width, count):
    return pairs(torch.randn, sigma, width, count).mean(0)


def twice(sigma, width, count):
    return 2 * weighted(pairs(torch.randn, sigma, width, count), sigma)


def without_sign(sigma, width, count):
    return weighted(abs(pairs(torch.randn, sigma, width, count)), sigma)


def without_directions(sigma, width, count):
    return torch.randn(count) * (sigma**2).sum() ** 0.5 / sigma.sum() / width**0.5


def signed(w_q, w_k):
    return (w_q * w_k).sum() / torch.linalg.matrix_norm(w_q.T @ w_k, "nuc")


def sign_taken_last(w_q, w_k):
    return abs(signed(w_q, w_k))


def one_minus_the_trace(w_q, w_k):
    return 1 - sign_taken_last(w_q, w_k)


def by_eigenvalues(w_q, w_k):
    product = w_q.T @ w_k
    return abs(torch.linalg.eigvals(product)).sum() / torch.linalg.matrix_norm(product, "nuc")


def of_modes(w_q, w_k):
    u, sigma, vt = torch.linalg.svd(w_q.T @ w_k)
    return abs((u.T[:4] * vt[:4]).sum(1)), sigma[:4]


def every_mode_alike(w_q, w_k):
    return of_modes(w_q, w_k)[0].mean()


def squares(w_q, w_k):
    cosine, sigma = of_modes(w_q, w_k)
    return cosine**2 @ sigma / sigma.sum()


def sides_summed(w_q, w_k):
    return of_modes(w_q, w_k)[0] @ of_modes(w_q, w_k)[1]


def of_rows(w_q, w_k):
    lengths = w_q.norm(dim=1) * w_k.norm(dim=1)
    return abs((w_q * w_k).sum(1)).sum() / lengths.sum()


def wrong_axis(w_q, w_k):
    u, sigma, vt = torch.linalg.svd(w_q.T @ w_k)
    return abs((u[:4] * vt.T[:4]).sum(1)) @ sigma[:4] / sigma.sum()


WRONG = [
    (check.curve, over_layers, "one for each head."),
    (check.curve, over_heads_alone, "one for each mode."),
    (check.curve, each_head, "one for each head of each layer"),
    (check.curve, not_divided, "Where all are -0.5"),
    (check.curve, without_strengths, "weighted by the strength"),
    (check.curve, weighted_over_heads, "moves it by"),
    (check.curve, pooled, "ten times the strengths"),
    (check.by_chance, by_trace, "wider", "a plain number"),
    (check.by_chance, uniform, 2, "`rand` does not"),
    (check.by_chance, second_from_the_first, 2, "a new draw"),
    (check.by_chance, one_pair_for_all, 2, "as a single cosine"),
    (check.by_chance, plain, 2, "as the plain mean"),
    (check.by_chance, summed, 2, "as a sum"),
    (check.by_chance, dot_products, 2, "as dot products"),
    (check.by_chance, over_draws, 2, "it should be [4000]"),
    (check.by_chance, twice, 2, "2 times as wide"),
    (check.by_chance, without_sign, 2, "Keep the sign"),
    (check.by_chance, without_directions, 2, "Draw two directions"),
    (check.furthest, 3, 0.5, -0.4, TREND, "Layers go from 0 to 2"),
    (check.furthest, 1, 0.6, 0.1, TREND, "elsewhere up to 0.90"),
    (check.furthest, 2, 0.3, -0.4, TREND, "convention paper"),
    (check.furthest, 2, -0.4, 0.5, TREND, "exchanged"),
    (check.furthest, 2, 0.5, -0.1, TREND, "You read -0.10"),
    (check.sides, signed, "its sign"),
    (check.sides, sign_taken_last, "before the mean"),
    (check.sides, every_mode_alike, "by its strength"),
    (check.sides, one_minus_the_trace, "A trace can't tell"),
    (check.sides, by_eigenvalues, "mixes modes"),
    (check.sides, squares, "not its square"),
    (check.sides, sides_summed, "You get 10"),
    (check.sides, of_rows, "other coordinates"),
    (check.sides, wrong_axis, "columns of u"),
]

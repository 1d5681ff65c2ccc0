"""Answers to the exercises of chapter 8: some right in another way, some with a planted fault."""

import numpy as np
import xarray as xr

from qkutils.book.checks import mode_gallery as check


def optimal_by_loop(query, key, sign, prefix):
    scores = {}
    for image, (asks, answers) in enumerate(zip(query, key, strict=True)):
        asks, answers = (max(sign * value for value in side[prefix:]) for side in (asks, answers))
        if asks > 0 and answers > 0:
            scores[image] = asks * answers
    return max(scores, key=scores.get, default=-1)


def variance_by_logits(z, u, sigma, v, d_head):
    logits = sigma * (z @ u)[:, None] * (z @ v)[None] / np.sqrt(d_head)
    return np.mean([((row - row.mean()) ** 2).mean() for row in logits])


def giant_beside_the_tokens(z, modes):
    """Strong modes lie where tokens vary least, by the eigenvectors of the covariance."""
    axes = np.linalg.eigh(np.cov(z.T))[1].T
    rows = np.concatenate([axes[1:modes], axes[-1:]])
    return rows, np.linspace(modes, 1, modes), rows


def along_the_mean(z, modes):
    """Queries that ask loudly, for all tokens have much of u, carry a mode, too."""
    axes = np.linalg.svd(z)[2]
    rows = np.concatenate([axes[-modes + 1 :], axes[:1]])
    return rows, 0.5 ** np.arange(modes), rows


def gallery():
    """A view's modes: maps apart, maps together, one that carries little, one with no picture."""
    row = np.eye(2)[None, None]  # [sign, rank, row, column]
    query = np.stack([row, row, row, row]).reshape(1, 1, 4, 1, 1, 2, 2)
    key = np.stack([1 - row, row, row, row]).reshape(query.shape)
    image = np.array([0, 0, 0, -1]).reshape(query.shape[:5])
    shown = ("shown_layer", "shown_head", "shown_mode", "sign", "rank")
    of_mode, maps = ("layer", "head", "mode"), (*shown, "row", "column")
    fields = {"query": (maps, query), "key": (maps, key)}
    fields |= {"image": (shown, image)}
    fields |= {"carried": (of_mode, [[[0.3, 0.4, 0.01, 0.1, 0.1]]])}
    fields |= {"cosine": (of_mode, [[[-0.5, 0.9, 0.1, 0, 0]]])}
    places = {"layer": [0], "head": [0], "mode": range(5)}
    places |= {"shown_layer": [0], "shown_head": [0], "shown_mode": range(4)}
    return xr.Dataset(fields, places)


SEEN = gallery()
APART, WHITE, IDLE, EMPTY, UNSEEN = ((0, 0, mode) for mode in range(5))
RIGHT = [
    (check.optimal, optimal_by_loop),
    (check.variance, variance_by_logits, "grows"),
    (check.variance, variance_by_logits, " Stay."),
    (check.idle_giant, giant_beside_the_tokens),
    (check.idle_giant, along_the_mean),
    (check.colours, APART, list(WHITE), np.array([-0.504, 0.9]), SEEN),
]


def with_prefix(query, key, sign, prefix):
    return optimal_by_loop(query, key, sign, 0)


def always_one_prefix(query, key, sign, prefix):
    return optimal_by_loop(query, key, sign, 1)


def same_patch(query, key, sign, prefix):
    return int((query * key)[:, prefix:].max(1).argmax())


def sign_of_the_query_alone(query, key, sign, prefix):
    return optimal_by_loop(query * sign, key, 1, prefix)


def no_sign(query, key, sign, prefix):
    return optimal_by_loop(query, key, 1, prefix)


def by_size(query, key, sign, prefix):
    return optimal_by_loop(abs(query), abs(key), 1, prefix)


def summed(query, key, sign, prefix):
    return int((query[:, prefix:].max(1) + key[:, prefix:].max(1)).argmax())


def two_negatives(query, key, sign, prefix):
    asks, answers = ((sign * side[:, prefix:]).max(1) for side in (query, key))
    return int((asks * answers).argmax())


def sign_after_the_maximum(query, key, sign, prefix):
    asks, answers = (sign * side[:, prefix:].max(1).clip(0) for side in (query, key))
    score = asks.clip(0) * answers.clip(0)
    return int(score.argmax()) if score.max() > 0 else -1


def pictures_cut_off(query, key, sign, prefix):
    return optimal_by_loop(query[prefix:], key[prefix:], sign, 0)


def the_score(query, key, sign, prefix):
    asks, answers = ((sign * side[:, prefix:]).max(1) for side in (query, key))
    return (asks * answers).max()


def not_divided(z, u, sigma, v, d_head):
    return d_head * variance_by_logits(z, u, sigma, v, d_head)


def divided_by_the_root(z, u, sigma, v, d_head):
    return d_head**0.5 * variance_by_logits(z, u, sigma, v, d_head)


def over_queries(z, u, sigma, v, d_head):
    return variance_by_logits(z, v, sigma, u, d_head)


def all_at_once(z, u, sigma, v, d_head):
    return (sigma * np.outer(z @ u, z @ v)).var() / d_head


def one_less(z, u, sigma, v, d_head):
    return sigma**2 * ((z @ u) ** 2).mean() * (z @ v).var(ddof=1) / d_head


def sigma_once(z, u, sigma, v, d_head):
    return variance_by_logits(z, u, sigma, v, d_head) / sigma


def mean_first(z, u, sigma, v, d_head):
    return sigma**2 * (z @ u).mean() ** 2 * (z @ v).var() / d_head


def queries_centred(z, u, sigma, v, d_head):
    return variance_by_logits(z - z.mean(0), u, sigma, v, d_head)


def no_variance(z, u, sigma, v, d_head):
    return sigma**2 * ((z @ u) ** 2).mean() * ((z @ v) ** 2).mean() / d_head


def strongest_first(z, modes):
    axes = np.linalg.eigh(np.cov(z.T))[1].T[::-1][:modes]
    return axes, 0.5 ** np.arange(modes), axes


def as_columns(z, modes):
    u, sigma, v = giant_beside_the_tokens(z, modes)
    return u.T, sigma, v.T


def tokens_as_directions(z, modes):
    return z[:modes], np.linspace(modes, 1, modes), z[:modes]


def weakest_written_first(z, modes):
    return tuple(part[::-1] for part in giant_beside_the_tokens(z, modes))


def too_steep(z, modes):
    u, _, v = along_the_mean(z - z.mean(0), modes)
    return u, 0.2 ** np.arange(modes), v


def still_varying(z, modes):
    axes = np.linalg.svd(z - z.mean(0))[2][:modes][::-1]
    return axes, 0.5 ** np.arange(modes), axes


def rows_of_eigenvectors(z, modes):
    axes = np.linalg.eigh(np.cov(z.T))[1]
    rows = np.concatenate([axes[1:modes], axes[-1:]])
    return rows, 0.9 ** np.arange(modes), rows


WRONG = [
    (check.optimal, with_prefix, "prefix token is no patch"),
    (check.optimal, always_one_prefix, "there may be none"),
    (check.optimal, same_patch, "same patch asks and answers"),
    (check.optimal, sign_of_the_query_alone, "turns both sides"),
    (check.optimal, no_sign, "end of the sign +"),
    (check.optimal, by_size, "end of the sign −"),
    (check.optimal, summed, "multiply"),
    (check.optimal, two_negatives, "product above zero"),
    (check.optimal, sign_after_the_maximum, "before you take the maximum"),
    (check.optimal, pictures_cut_off, "not pictures"),
    (check.optimal, the_score, "not its score"),
    (check.variance, variance_by_logits, "rises", '"stays"'),
    (check.variance, not_divided, "stays", "that of the scores"),
    (check.variance, divided_by_the_root, "stays", "divided by √d_head"),
    (check.variance, all_at_once, "stays", "mean over queries"),
    (check.variance, over_queries, "stays", "mean over queries"),
    (check.variance, no_variance, "stays", "mean over queries"),
    (check.variance, queries_centred, "stays", "mean of the squares"),
    (check.variance, mean_first, "stays", "square of the mean query"),
    (check.variance, one_less, "stays", "one key less"),
    (check.variance, sigma_once, "stays", "σ once"),
    (check.idle_giant, strongest_first, "Along which direction"),
    (check.idle_giant, rows_of_eigenvectors, "Along which direction"),
    (check.idle_giant, too_steep, "near 0.9"),
    (check.idle_giant, still_varying, "still vary"),
    (check.idle_giant, as_columns, "[12, 4]"),
    (check.idle_giant, tokens_as_directions, "of length 1"),
    (check.idle_giant, weakest_written_first, "M0 is the strongest"),
    (check.colours, WHITE, WHITE, [0.9, 0.9], SEEN, "agree by 1.00"),
    (check.colours, APART, APART, [-0.5, -0.5], SEEN, "agree by 0.00"),
    (check.colours, IDLE, WHITE, [0.1, 0.9], SEEN, "carries 1.0%"),
    (check.colours, UNSEEN, WHITE, [0, 0.9], SEEN, "mode 0 to 3"),
    (check.colours, EMPTY, WHITE, [0, 0.9], SEEN, "no pictures"),
    (check.colours, APART, WHITE, [0.5, 0.9], SEEN, "Mind the sign"),
    (check.colours, APART, WHITE, [-0.5, 0.8], SEEN, "You read +0.80"),
]

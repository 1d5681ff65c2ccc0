"""Answers to the exercises of chapter 10: some right in another way, some with a planted fault."""

from itertools import combinations

import numpy as np
from scipy.stats import ortho_group

from qkutils.book.checks import one_image as check


def shares_by_numpy(parts):
    whole = parts.sum(0)
    return [np.cov(part, whole)[0, 1] / np.var(whole, ddof=1) for part in parts]


def basis_of_scipy(u, sigma, v, rng):
    turn = ortho_group.rvs(len(sigma), random_state=rng)
    return turn @ np.diag(sigma**0.5) @ u, turn @ np.diag(sigma**0.5) @ v


def basis_by_svd(u, sigma, v, rng):
    left, _, right = np.linalg.svd(rng.normal(size=(len(sigma), len(sigma))))
    turn = (left @ right) * np.sqrt(sigma)
    return turn @ u, turn @ v


def nearest_three(logit, salience):
    whole = (logit.sum(0) + salience).softmax(-1)

    def far(modes):
        return float(((logit[list(modes)].sum(0) + salience).softmax(-1) - whole).abs().sum())

    best = min(combinations(range(len(logit)), 3), key=far)
    return [*best, *(n for n in range(len(logit)) if n not in best)]


def greedy(distance, sign=1, own=True):
    def order(logit, salience):
        salience = salience if own else 0 * salience
        whole, built, chosen = (logit.sum(0) + salience).softmax(-1), salience, []
        while len(chosen) < len(logit):
            left = [n for n in range(len(logit)) if n not in chosen]
            chosen.append(
                min(left, key=lambda n: sign * distance((built + logit[n]).softmax(-1), whole))
            )
            built = built + logit[chosen[-1]]
        return np.array(chosen)

    return order


def divergence(one, other):
    return float((other * (other / one).log()).sum())


RIGHT = [
    (check.shares, shares_by_numpy, "Same."),
    (check.random_basis, basis_of_scipy),
    (check.random_basis, basis_by_svd),
    (check.crossing, [4, 64], (14, 15)),
    (check.order, nearest_three),
    (check.order, greedy(divergence)),
]


def variances(parts):
    return parts.var(1) / parts.sum(0).var()


def over_parts(parts):
    centred = parts - parts.mean(0)
    whole = parts.sum(0) - parts.sum(0).mean()
    return centred @ whole / (whole @ whole)


def not_centred(parts):
    whole = parts.sum(0)
    return parts @ whole / (whole @ whole)


def without_sign(parts):
    found = abs(np.array(shares_by_numpy(parts)))
    return found / found.sum()


def of_keys(parts):
    return shares_by_numpy(parts.T)


def turned(rotation, root=0.5, flip=False):
    def basis(u, sigma, v, rng):
        turn = rotation(len(sigma), rng)
        sides = [turn @ (sigma[:, None] ** root * side) for side in (u, v)]
        return tuple(sides[::-1] if flip else sides)

    return basis


def of_normal(size, rng):
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


def two_rotations(u, sigma, v, rng):
    return basis_of_scipy(u, sigma, v, rng)[0], basis_of_scipy(u, sigma, v, rng)[1]


def inverses(u, sigma, v, rng):
    turn = rng.normal(size=(len(sigma), len(sigma)))
    root = np.sqrt(sigma)[:, None]
    return turn.T @ (root * u), np.linalg.solve(turn, root * v)


def columns(u, sigma, v, rng):
    return tuple(side.T for side in basis_of_scipy(u, sigma, v, rng))


def by_contribution(logit, salience):
    return logit.amax(1).argsort(descending=True)


def by_share(logit, salience):
    found = shares_by_numpy(np.vstack([logit, salience]))
    return np.argsort(found[:-1])[::-1]


def by_attention(logit, salience):
    whole, alone = (logit.sum(0) + salience).softmax(-1), logit.softmax(-1)
    return (alone - whole).abs().sum(1).argsort()


WRONG = [
    (check.shares, variances, "same", "variance of its part alone"),
    (check.shares, over_parts, "same", "own mean over keys"),
    (check.shares, not_centred, "same", "With more for all keys"),
    (check.shares, without_sign, "another", "may be negative"),
    (check.shares, of_keys, "another", "[40]"),
    (check.shares, shares_by_numpy, "more", '"same" or "another"'),
    (check.random_basis, turned(of_normal, flip=True), "its transpose"),
    (check.random_basis, turned(of_normal, root=1), "counts twice"),
    (check.random_basis, turned(of_normal, root=0), "another matrix"),
    (check.random_basis, two_rotations, "one and the same rotation"),
    (check.random_basis, inverses, "a rotation keeps lengths"),
    (check.random_basis, columns, "[15, 6]"),
    (check.random_basis, turned(lambda n, rng: rng.permutation(np.eye(n))), "is one mode"),
    (
        check.random_basis,
        turned(lambda n, rng: of_normal(n, np.random.default_rng(0))),
        "the same parts",
    ),
    (
        check.random_basis,
        turned(lambda n, rng: np.linalg.qr(rng.uniform(size=(n, n)))[0]),
        "go together",
    ),
    (
        check.random_basis,
        turned(lambda n, rng: np.linalg.qr(rng.uniform(size=(n, n)))[0].T),
        "go together",
    ),
    (check.crossing, [64, 4], [14, 15], "for the mean over all patches"),
    (check.crossing, [14, 15], [4, 64], "the number by σ"),
    (check.crossing, [4, 64], [14, 30], "step by step"),
    (check.crossing, [4, 64], [0.1, 15], "0 to 64"),
    (check.crossing, [4], [14, 15], "should be [2]"),
    (check.order, by_contribution, "three by contribution"),
    (check.order, by_share, "three by share"),
    (check.order, by_attention, "Add up scores, not attention"),
    (check.order, greedy(lambda a, b: float((a - b).abs().sum()), sign=-1), "turned around"),
    (check.order, greedy(divergence, own=False), "contain key salience"),
    (check.order, lambda logit, salience: logit.amax(1), "each of them once"),
    (check.order, lambda logit, salience: [0] * len(logit), "names 1 modes"),
]

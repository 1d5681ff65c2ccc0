"""Answers to the exercises of chapter 9: some right in another way, some with a planted fault."""

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import false_discovery_control

from qkutils.book.checks import names_and_causes as check


def explained_by_group(y, label, fit):
    frame = pd.DataFrame({"y": y - y.mean(), "label": label})
    level = frame[fit].groupby("label").y.mean()
    frame["guess"] = frame.label.map(level)
    tried = frame[~fit]
    gone = (tried.y**2).sum() - ((tried.y - tried.guess) ** 2).sum()
    return gone / (tried.y**2).sum()


def discoveries_by_hand(share, random, rate):
    p = np.array([1 + (random >= each).sum() for each in share]) / (1 + len(random))
    order = p.argsort()
    below = np.flatnonzero(p[order] <= rate * np.arange(1, len(p) + 1) / len(p))
    return np.isin(np.arange(len(p)), order[: below.max(initial=-1) + 1])


def one_key(place, keys, size):
    change = np.zeros(keys)
    change[place] = size
    return change / change.std()


def quiet_among_the_last(logits):
    """Two keys that have no attention lose more."""
    change = np.zeros(len(logits))
    change[logits.argsort()[:2]] = -1
    return change / change.std()


def loud_for_another(logits):
    return one_key(logits.argsort()[-2], len(logits), 1)


def attended_by_moments(logits, change):
    weights = np.exp(logits) / np.exp(logits).sum()
    return (weights * change**2).sum() - (weights * change).sum() ** 2


def measured():
    """Shares of families of three modes: place leads, none helps, and one that carries little."""
    shares = [[0.4, 0.1, 0.3], [0.01, 0.0, -0.1], [0.5, 0.1, 0.1]]
    known = ["place", "colour", "part"]
    dims = ("layer", "side", "head", "mode", "family_name")
    places = {"layer": [0], "side": ["query"], "head": [0], "mode": range(3)}
    share_of = (dims, np.array(shares)[None, None, None])
    carried = xr.DataArray([[[0.3, 0.3, 0.01]]], {n: places[n] for n in ("layer", "head", "mode")})
    return xr.Dataset({"share_of": share_of}, places | {"family_name": known}), carried


NAMES = measured()
RIGHT = [
    (check.explained, explained_by_group, "Above."),
    (check.discoveries, discoveries_by_hand),
    (check.loud_and_quiet, quiet_among_the_last, loud_for_another, attended_by_moments),
    (check.by_eye, [0, 0, 0], "place", *NAMES),
    (check.by_eye, (0, 0, 0), "part", *NAMES),
]


def in_sample(y, label, fit):
    return explained_by_group(np.r_[y[~fit], y[~fit]], np.r_[label[~fit], label[~fit]], fit)


def exchanged(y, label, fit):
    return explained_by_group(y, label, ~fit)


def not_centred(y, label, fit):
    level = pd.Series(y[fit]).groupby(label[fit]).mean()
    left = y[~fit] - level[label[~fit]].values
    return 1 - (left**2).sum() / (y[~fit] ** 2).sum()


def not_divided(y, label, fit):
    return explained_by_group(y, label, fit) * ((y - y.mean())[~fit] ** 2).sum()


def left_over(y, label, fit):
    return 1 - explained_by_group(y, label, fit)


def root(y, label, fit):
    share = explained_by_group(y, label, fit)
    return np.sign(share) * abs(share) ** 0.5


def p_of(share, random, one=1):
    return (one + (random >= share[:, None]).sum(1)) / (one + len(random))


def uncorrected(share, random, rate):
    return p_of(share, random) <= rate


def bonferroni(share, random, rate):
    return p_of(share, random) * len(share) <= rate


def p_of_zero(share, random, rate):
    return false_discovery_control(p_of(share, random, 0)) <= rate


def other_tail(share, random, rate):
    return discoveries_by_hand(-share, -random, rate)


def q_values(share, random, rate):
    return false_discovery_control(p_of(share, random))[:5]


def quiet(logits):
    return one_key(logits.argmin(), len(logits), -1)


def loud(logits):
    return one_key(logits.argmax(), len(logits), -1)


def wins(logits):
    return one_key(logits.argsort()[-3], len(logits), 1)


def constant(logits):
    return np.ones(len(logits))


def plain(logits, change):
    return change.var()


def plain_mean(logits, change):
    weights = np.exp(logits) / np.exp(logits).sum()
    return weights @ (change - change.mean()) ** 2


def over_logits(logits, change):
    return attended_by_moments(logits + change, change)


def not_normalised(logits, change):
    return np.exp(logits) @ (change - change.mean()) ** 2


WRONG = [
    (check.explained, explained_by_group, "negative", '"below"'),
    (check.explained, in_sample, "below", "come from patches in `fit`"),
    (check.explained, exchanged, "below", "halves are exchanged"),
    (check.explained, not_centred, "below", "mean of y first"),
    (check.explained, not_divided, "below", "Labels that tell everything"),
    (check.explained, left_over, "below", "They explain 0%"),
    (check.explained, root, "below", "least-squares"),
    (check.discoveries, uncorrected, "need a correction"),
    (check.discoveries, bonferroni, "allows none"),
    (check.discoveries, p_of_zero, "(1 + reached)"),
    (check.discoveries, other_tail, "at or above"),
    (check.discoveries, q_values, "[5]"),
    (check.loud_and_quiet, constant, loud, attended_by_moments, "variance of `quiet`"),
    (check.loud_and_quiet, wins, loud, attended_by_moments, "Mind the sign"),
    (check.loud_and_quiet, quiet, quiet, attended_by_moments, "key that has most"),
    (check.loud_and_quiet, quiet, loud, plain, "plain variance"),
    (check.loud_and_quiet, quiet, loud, plain_mean, "weighted by attention, too"),
    (check.loud_and_quiet, quiet, loud, over_logits, "Equal attention gives"),
    (check.loud_and_quiet, quiet, loud, not_normalised, "sum to 1"),
    (check.by_eye, [0, 0, 0], "colour", *NAMES, "colour explains 10%, place 40%"),
    (check.by_eye, [0, 0, 0], "red", *NAMES, "There are place"),
    (check.by_eye, [0, 0, 1], "place", *NAMES, "Choose another"),
    (check.by_eye, [0, 0, 2], "place", *NAMES, "carries 1.0%"),
    (check.by_eye, [0, 0, 7], "place", *NAMES, "can't use"),
]

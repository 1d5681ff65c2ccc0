"""The mathematics of the views' scripts, run by node against numbers that numpy computed."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qkutils.views._arrays import packed

FRONT = Path(__file__).parents[1] / "front"


@pytest.fixture
def check(node, tmp_path):
    """A function that runs one file of node's tests on cases that Python made."""

    def run(name: str, **cases: Any) -> None:
        path = tmp_path / "cases.json"
        path.write_text(json.dumps(cases, default=_plain))
        command = [node, "--test", str(FRONT / f"{name}.test.mjs")]
        done = subprocess.run(
            command, env={"QKUTILS_CASES": str(path)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "# pass 0" not in done.stdout

    return run


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    return value.tolist()


def softmax(logits):
    made = np.exp(logits - logits.max(-1, keepdims=True))
    return made / made.sum(-1, keepdims=True)


# ---- numbers that Python packed -----------------------------------------------------------


def test_arrays(check):
    values = np.random.default_rng(0).normal(size=(3, 4, 5))
    values[0, 0, :3] = (0, 1e-7, -2)  # the middle one is less than float16's smallest normal number
    step = np.ptp(values) / 255
    near = {"uint8": step / 2 + 1e-6, "float16": 1e-3, "float32": 1e-7}
    exact = packed(values, "float32")
    bits = np.arange(2**16, dtype=np.uint16)
    halves = {"shape": [2**16], "form": "float16", "low": 0, "high": 0, "bytes": bits.tobytes()}
    check(
        "arrays",
        packed=[
            {"sent": packed(values, form), "values": values, "tolerance": tolerance}
            for form, tolerance in near.items()
        ],
        halves={"sent": halves, "values": [_said(n) for n in bits.view(np.float16).astype(float)]},
        parts=[
            {"sent": exact, "at": at, "values": values[tuple(at)].ravel()}
            for at in ([], [2], [1, 3], [0, 2, 4])
        ],
    )


def _said(value: float) -> str:
    """A number as JavaScript reads it from a text."""
    return str(value).replace("inf", "Infinity").replace("nan", "NaN")


# ---- attention ------------------------------------------------------------------------------


def head_of(rng, tokens=7, width=5):
    return {
        "query": rng.normal(size=(tokens, width)),
        "key": rng.normal(size=(tokens, width)),
        "salience": rng.normal(size=tokens),
    }


def rows_of(head, ranks=slice(None)):
    """Attention of every token, [asking, answering]."""
    content = head["query"][:, ranks] @ head["key"][:, ranks].T + head["salience"]
    return softmax(content + head.get("bias", 0))


def test_attention(check):
    rng = np.random.default_rng(1)
    head, prefix, asking = head_of(rng), 2, 3
    rows = [
        {"head": one, "asking": asked, "ranks": ranks, "row": rows_of(one, used)[asked]}
        for one in (head, head | {"bias": rng.normal(size=(7, 7))})
        for asked in (0, 6)
        for ranks, used in ((None, slice(None)), ([3, 0], [3, 0]), ([], []))
    ]
    logits = [np.array([800.0, 801, 0]), np.array([-800.0, -801]), rng.normal(size=9), np.zeros(1)]
    heads = [[head_of(rng) for _ in range(2)] for _ in range(3)]
    every = np.array([[rows_of(one)[asking] for one in layer] for layer in heads])
    means = every.mean(1)
    member = rng.random((5, 3))
    row = softmax(rng.normal(size=prefix + 5))
    shares = [*(row[prefix:] @ member), *row[:prefix]]
    check(
        "attention",
        softmax=[{"logits": each, "row": softmax(each)} for each in logits],
        rows=rows,
        all={
            "heads": heads,
            "asking": asking,
            "prefix": prefix,
            "rows": every,
            "means": means,
            "top": every[..., prefix:].max(),
            "topOfMeans": means[..., prefix:].max(),
        },
        shares=[
            {"row": row, "member": member, "prefix": prefix, "shares": shares},
            {"row": row[:5], "member": member, "prefix": 0, "shares": row[:5] @ member},
        ],
    )


# ---- a head taken apart and built up ----------------------------------------------------------

PREFIX, GRID, MODES, SCALE = ["class token", "register 0"], (3, 4), 6, 0.35


def explained(asked, askers, change=lambda ask, key, sigma: None):
    """A head of an image as a page carries it, and all that numpy says of it."""
    rng = np.random.default_rng(2)
    first, tokens = len(PREFIX), len(PREFIX) + GRID[0] * GRID[1]
    ask, key = rng.normal(size=(2, tokens, MODES)).astype(np.float32)
    sigma = np.sort(rng.random(MODES).astype(np.float32) * 9)[::-1].copy()
    salience = rng.normal(size=tokens).astype(np.float32)
    change(ask, key, sigma)
    sent = {"query": ask, "key": key, "salience": salience, "sigma": sigma, "cosine": sigma}
    head = {name: packed(values, "float32") for name, values in sent.items()}
    data = {"heads": [head | {"layer": 0, "head": 1}], "scale": SCALE}
    data |= {"grid": GRID, "prefix": PREFIX}
    asked_by, answered = ask[askers].astype(float), key[first:].astype(float)
    ends = [
        np.maximum((s * asked_by).max(0), 0) * np.maximum((s * answered).max(0), 0) for s in (1, -1)
    ]
    contribution = sigma * np.maximum(*ends)
    each = (
        SCALE * sigma * ask.astype(float)[:, None] * key.astype(float)
    )  # [asking, answering, mode]
    return data, {
        "askers": askers,
        "contribution": contribution,
        **shares_of(each[askers], salience),
        "by_sigma": np.argsort(-sigma, kind="stable"),
        "by_contribution": (order := np.argsort(-contribution, kind="stable")),
        "own": softmax(each.sum(-1) + salience)[askers].mean(0),
        "of_two": softmax(each[..., order[:2]].sum(-1) + salience)[askers].mean(0),
        "far": far_from_own(each, salience, salience, order, askers[0]),
        "far_without_salience": far_from_own(each, salience, 0 * salience, order, askers[0]),
    }


def shares_of(each, salience):
    """Covariance over keys of each mode, and of salience, with the whole logit; askers pooled."""
    parts = np.concatenate([each, np.broadcast_to(salience[:, None], (*each.shape[:2], 1))], -1)
    centred = parts - parts.mean(1, keepdims=True)
    whole = centred.sum(-1)
    shares = np.einsum("akm,ak->m", centred, whole) / (whole**2).sum()
    return {"share": shares[:-1], "salience_share": shares[-1]}


def far_from_own(each, salience, kept, order, asker):
    """Total variation from the head's own rows with the first 0, 1, … modes."""
    own = softmax(each.sum(-1) + salience)
    steps = [softmax(each[..., order[:n]].sum(-1) + kept) for n in range(len(order) + 1)]
    far = np.abs(np.array(steps) - own).sum(-1) / 2
    return {"one": far[:, asker], "mean": far[:, len(PREFIX) :].mean(1)}


def without_answers(ask, key, sigma):
    """A mode to whose positive askers no patch answers, and one with no strength."""
    ask[:, 2] = np.abs(ask[:, 2])
    key[:, 2] = -np.abs(key[:, 2])
    sigma[-1] = 0


def test_explaining(check):
    named = {
        "a patch": ({"asks": "patch", "patch": 7}, [9]),
        "all patches": ({"asks": "all", "patch": 0}, list(range(2, 14))),
        "the class token": ({"asks": "class token", "patch": 3}, [0]),
        "a register": ({"asks": "register 0", "patch": 3}, [1]),
    }
    heads = [(name, *given, explained(*given)) for name, given in named.items()]
    given = ({"asks": "patch", "patch": 0}, [2])
    heads.append(("no answer", *given, explained(*given, without_answers)))
    cases = [
        {"name": name, "asked": asked, "data": data, "expected": expected}
        for name, asked, _, (data, expected) in heads
    ]
    assert cases[-1]["expected"]["contribution"][[2, -1]].tolist() == [0, 0]
    check("explain", heads=cases)


# ---- overlays -------------------------------------------------------------------------------


def overlay(pixels, query, key, grid):
    """Red where a picture asks, cyan where it answers, over its dimmed grey."""
    rows, columns = (np.arange(n) * g // n for n, g in zip(pixels.shape, grid, strict=False))
    red, cyan = (each.reshape(grid)[np.ix_(rows, columns)] for each in (query, key))
    dim = 0.5 * pixels[..., :3].mean(-1) * (1 - np.maximum(red, cyan))
    return np.stack([dim + 255 * red, dim + 255 * cyan, dim + 255 * cyan], -1)


def test_overlays(check):
    rng = np.random.default_rng(3)
    overlays, pixels = [], []
    for size, grid in (((8, 8), (4, 4)), ((6, 9), (2, 3)), ((7, 5), (2, 2))):
        rows, columns = (np.arange(n) * g // n for n, g in zip(size, grid, strict=True))
        patches = (rows[:, None] * grid[1] + columns).ravel()
        pixels.append({"size": size, "grid": grid, "patches": patches})
        picture = rng.integers(0, 256, (*size, 4))
        query, key = rng.normal(size=(2, grid[0] * grid[1]))
        limits = query.max() * 0.8, key.max()
        maps = [np.clip(m / limit, 0, 1) for m, limit in zip((query, key), limits, strict=True)]
        none = np.zeros_like(query)
        shown = {
            "both": overlay(picture, *maps, grid),
            "query": overlay(picture, maps[0], none, grid),
            "key": overlay(picture, none, maps[1], grid),
        }
        case = {"size": size, "grid": grid, "pixels": picture, "query": query, "key": key}
        overlays.append(case | {"limits": limits, "overlays": shown})
    check("overlay", pixels=pixels, overlays=overlays)


# ---- a head with two dimensions ---------------------------------------------------------------


def matrix_of(u0, v0, sigma0, sigma1, mirrored):
    """M by its definition, from rotations that numpy multiplies."""

    def turn(degrees):
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        return np.array([[c, -s], [s, c]])

    mirror = np.diag([1, -1 if mirrored else 1])
    return turn(u0) @ np.diag([sigma0, sigma1]) @ mirror @ turn(v0).T


STATES = [
    (20, 60, 1.5, 0.4, False),
    (-150, 75, 2.0, 1.0, True),
    (10, 100, 1.0, 0.0, False),
    (0, 180, 0.8, 0.75, True),
    (5, 35, 0.0, 0.0, False),
]


def head_case(state):
    matrix = matrix_of(*state.values())
    u, sigma, vh = np.linalg.svd(matrix)
    cosines = (u * vh.T).sum(0)
    return {
        "state": state,
        "matrix": matrix,
        "sigma": sigma.round(12),
        "cosines": cosines,
        "weighted": sigma @ cosines / max(sigma.sum(), 1e-30),
        "trace": np.trace(matrix),
        "determinant": np.linalg.det(matrix),
        "nuclear": np.linalg.norm(matrix, "nuc"),
    }


def tokens_case(state, tokens):
    matrix = matrix_of(*state.values())
    scores = tokens @ matrix @ tokens.T
    attention = softmax(scores / np.sqrt(2))
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    alike = unit @ unit.T
    likeness = [(attention * alike).sum(1).mean(), alike.mean()]
    best = np.flatnonzero(scores[0] > scores[0].max() - 1e-6)
    return {
        "state": state,
        "tokens": tokens,
        "attention": attention,
        "best": best,
        "likeness": likeness,
    }


def test_the_plane(check):
    names = ("u0", "v0", "sigma0", "sigma1", "mirrored")
    states = [dict(zip(names, state, strict=True)) for state in STATES]
    points = np.array([[1.2, 0.1], [-0.4, 0.9], [0.3, -1.1], [0.2, 0.2], [-1.4, -0.3]])
    angle = np.arange(16) * np.pi / 8
    circle = np.sqrt(2) * np.column_stack([np.cos(angle), np.sin(angle)])
    twins = np.array([[1, 0], [0.7, 0.7], [1, 0.3]])
    alone = dict(zip(names, (0, 0, 1, 0, False), strict=True))
    given = [(states[0], points), (states[1], circle), (states[3], points), (alone, twins)]
    tokens = [tokens_case(state, some) for state, some in given]
    assert tokens[-1]["best"].tolist() == [0, 2]
    check("plane", heads=[head_case(state) for state in states], tokens=tokens)


# ---- curves and words -------------------------------------------------------------------------


def curve_case(rng, name, conventions, layers, heads, chance):
    values = rng.uniform(-1, 1, (len(conventions), layers, heads))
    widths = rng.random((len(conventions), layers)) if chance else None
    sent = {
        "name": name,
        "conventions": conventions,
        "heads": packed(values, "float32"),
        "null": packed(widths, "float32") if chance else None,
    }
    return {"sent": sent, "heads": values, "means": values.mean(-1), "chance": widths}


def test_curves(check):
    rng = np.random.default_rng(4)
    curves = [
        curve_case(rng, "one", ["paper", "exact"], 5, 3, True),
        curve_case(rng, "other", ["exact"], 1, 2, False),
    ]
    check("trends", curves=curves)


def test_words(check):
    check("words")

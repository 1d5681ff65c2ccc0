"""The mathematics of the views' scripts, run by node against numbers that numpy computed."""

from __future__ import annotations

import base64
import io
import json
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from timm.data import create_transform

from qkutils import models, world
from qkutils.models._catalogue import recipes
from qkutils.views import _playground
from qkutils.views._arrays import packed
from qkutils.views._recipe import recipe
from qkutils.world._drawing import _centres
from qkutils.world._rendering import _pixel_frame

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


# ---- a picture as a model takes it --------------------------------------------------------------


def resized_case(model, transform, width, height):
    """A random picture, the script's recipe, and what torchvision and Pillow make of it."""
    rng = np.random.default_rng(width * height)
    pixels = rng.integers(0, 256, (height, width, 4), np.uint8)  # transparency is left out
    pixels[: height // 2, : width // 2, :3] = 255 * (pixels[: height // 2, : width // 2, :3] > 99)
    image = PIL.Image.fromarray(pixels).convert("RGB")
    for step in transform.transforms[:-1]:  # to pixels from 0 to 1
        image = step(image)
    sent = {"pixels": pixels.tobytes(), "image": image.numpy().tobytes()}
    made = recipe(replace(model, transform=transform))
    return {"width": width, "height": height, "recipe": made} | sent


def test_pictures_as_models_take_them(check, plain_vit):
    """Odd sizes, smaller and larger than what is made of them, and thinner than what is cut out."""
    model = models.load(plain_vit)
    sizes = [(33, 47), (47, 33), (201, 77), (77, 201), (31, 31), (32, 32), (7, 5), (1, 9), (640, 3)]
    made = []
    for interpolation in ("bilinear", "bicubic"):
        for mode, share in (("center", 0.875), ("center", 1.0), ("squash", 1.0), ("center", 1.35)):
            given = {"interpolation": interpolation, "crop_mode": mode, "crop_pct": share}
            transform = create_transform((3, 32, 32), **given)
            made += [resized_case(model, transform, *size) for size in sizes]
    squashed = create_transform((3, 24, 36), crop_mode="squash", crop_pct=1.0)
    made.append(resized_case(model, squashed, 50, 41))
    del squashed.transforms[1]  # without a crop
    made.append(resized_case(model, squashed, 50, 41))
    check("resample", pictures=made)


def test_pictures_by_every_recipe_of_the_catalogue(check, plain_vit):
    model, made = models.load(plain_vit), {}
    for row in models.catalogue().reset_index().to_dict("records"):
        for config in recipes(row).values():
            side = int(row["image_size"]) or (config.get("input_size") or (3, 224, 224))[1]
            names = ("interpolation", "crop_pct", "crop_mode", "mean", "std")
            given = {name: config[name] for name in names}
            transform = create_transform((3, side, side), **given)
            made.setdefault(str(recipe(replace(model, transform=transform))), transform)
    own = models.load("tiny-supervised").transform
    pictures = [resized_case(model, own, 90, 61)]
    for number, transform in enumerate(made.values()):
        pictures += [
            resized_case(model, transform, *size[:: 1 - 2 * (number % 2)])
            for size in ((613, 401), (150, 211))
        ]
    assert len(pictures) > 12
    check("resample", pictures=pictures)


# ---- what a file says before it is decoded ------------------------------------------------------


def file_of(picture, form, **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def drawn(width, height):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return PIL.Image.fromarray(pixels)


def turned(orientation):
    exif = PIL.Image.Exif()
    exif[0x010F] = "a maker"  # which stands before it
    exif[0x0112] = orientation
    return exif


def test_sizes_of_files(check):
    """Of every kind of file that is read: Pillow wrote them."""
    seen = drawn(301, 200)
    options = {
        "PNG": [{}, {"exif": turned(6)}],
        "JPEG": [{}, {"progressive": True}, {"exif": turned(8), "comment": b"a comment"}],
        "WebP": [
            {},
            {"lossless": True},
            {"exif": turned(1)},
            {"exif": turned(1), "lossless": True},
        ],
    }
    files = [
        {"kind": kind, "bytes": file_of(seen, kind, **given), "size": {"width": 301, "height": 200}}
        for kind, some in options.items()
        for given in some
    ]
    for form in ("PNG", "JPEG"):
        grey = file_of(drawn(7, 2999).convert("L"), form)
        files.append({"kind": form, "bytes": grey, "size": {"width": 7, "height": 2999}})
    wide = file_of(drawn(16383, 1), "WebP")  # the widest that there is
    files.append({"kind": "WebP", "bytes": wide, "size": {"width": 16383, "height": 1}})
    whole = [each["bytes"] for each in files]
    # A JPEG picture says its size early on: that the rest is missing, the decoder finds.
    cut = [each[: round(part * len(each))] for each in whole for part in (0.99, 0.5)]
    cut = [each for each in cut if not each.startswith(b"\xff\xd8")]
    cut += [each[:length] for each in whole for length in (12, 15)]
    several = {"save_all": True, "append_images": [drawn(301, 200).rotate(180)]}
    png, webp = file_of(seen, "PNG"), file_of(seen, "WebP")
    refused = [(bytes_, "breaks off") for bytes_ in cut]
    refused += [(file_of(seen, form, **several), "animation") for form in ("PNG", "WebP")]
    refused += [(file_of(seen, "WebP", exif=turned(n)), "turned") for n in range(2, 9)]
    refused += [
        (b"\xff\xd8" + png[2:], "no kind"),
        (b"", "empty"),
        (bytes(range(99)), "no kind"),
        ("héllo,\r\n\tyou".encode(), "text"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- mine -->\n<svg width="3"/>', "SVG"),
        *[(file_of(seen, form), name) for form, name in OTHERS.items()],
        (resized_png(png, 60_000, 60_000), "60000 × 60000 pixels, 3600 million"),
        (resized_png(png, 8_000, 5_001), "8000 × 5001"),
        (resized_png(png, 0, 7), "0 × 7"),
        (b"\xff\xd8\xff\xda" + bytes(99), "broken"),
        (png[:-12], "breaks off"),  # between two of its parts
        (png[:12] + b"tEXt" + png[16:], "broken"),
        (webp[:12] + b"VP8?" + webp[16:], "broken"),
    ]
    files.append({"kind": "PNG", "bytes": resized_png(png, 8_000, 5_000)})
    files[-1]["size"] = {"width": 8_000, "height": 5_000}
    bad = [{"bytes": content, "told": told} for content, told in refused]
    check("photo_header", files=files, refused=bad)


OTHERS = {"GIF": "GIF", "BMP": "BMP", "TIFF": "TIFF", "PDF": "PDF", "AVIF": "AVIF"}


def resized_png(png, width, height):
    """The same file, saying another size, with the right checksum."""
    head = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + head + struct.pack(">I", zlib.crc32(head)) + png[33:]


# ---- a drawn scene, and what a model makes of it -----------------------------------------------


def test_scenes(check):
    told, drawn, count = _playground._world(), world.draw(7, 0, 20), 20
    fields = [*told["scenes"]]
    told["scenes"] = {n: packed(getattr(drawn, n).numpy(), "float32") for n in fields}
    painted, slot = world.render(drawn).slot, _pixel_frame(drawn, 64)[0]
    assert (slot == painted)[painted >= 0].all()
    of_scene = drawn.pitch[:, None], drawn.tilt[:, None], drawn.shift
    asked = [name in ("kind", "colour", "texture") for name in world.ODD_FACTORS]
    alike = (drawn.mixed == 0).numpy() & np.array(asked)[drawn.odd.numpy()]
    assert 3 < alike.sum() < count
    check(
        "scene",
        seed=11,
        world=told,
        factors=told["scenes"],
        centres=_centres(*of_scene, drawn.offset),
        slots=slot.flatten(1),
        paintedSlots=painted.flatten(1),
        odd=[[world.ODD_FACTORS[n]] if a else [] for n, a in zip(drawn.odd, alike, strict=True)],
    )


def test_a_run_of_a_model(check):
    rng = np.random.default_rng(5)
    size, prefix, patches, scale = [2, 3, 4], ["class token"], 6, 0.7
    tokens, (layers, heads, modes) = len(prefix) + patches, size
    off = {"modes": [[0, 1, 3], [1, 2, 0], [1, 2, 1]], "heads": [[1, 0]], "salience": [[0, 2]]}
    masks = {"modes": np.ones(size), "heads": np.ones(size[:2]), "salience": np.ones(size[:2])}
    for name, places in off.items():
        masks[name][tuple(np.transpose(places))] = 0
    query, key = rng.normal(size=(2, layers, heads, tokens, modes))
    kappa = rng.normal(size=(layers, heads, tokens))
    each = scale * query[..., :, None, :] * key[..., None, :, :] * masks["modes"][:, :, None, None]
    each *= masks["heads"][..., None, None, None]
    salience = scale * kappa * (masks["salience"] * masks["heads"])[..., None]
    rows = [
        {"layer": n, "head": h, "asking": a, "row": softmax(each[n, h, a].sum(-1) + salience[n, h])}
        | {"share": np.zeros(modes), "salience": 0.0}
        | ({} if [n, h] in off["heads"] else _shares(each[n, h, a], salience[n, h]))
        for n, h, a in np.ndindex(layers, heads, tokens)
    ]
    questions = [{"name": "kind", "choices": ["a", "b", "c"]}, {"name": "x", "choices": ["d", "e"]}]
    logits = 9 * rng.normal(size=5)
    parts = [logits[:3], logits[3:]]
    check(
        "run",
        **{"size": size, "prefix": prefix, "patches": patches, "scale": scale, "off": off},
        masks={n: {"shape": list(mask.shape), "values": mask} for n, mask in masks.items()},
        run={"query": query.ravel(), "key": key.ravel(), "kappa": kappa.ravel()},
        rows=rows,
        questions=questions,
        answers={
            "all": logits,
            "rows": [softmax(part) for part in parts],
            "orders": [np.argsort(-part) for part in parts],
        },
        tasks=[*misses(), *eyes(), *twins()],
    )


def _shares(each, salience):
    """Shares of one token's scores: of every mode, and of key salience."""
    found = shares_of(each[None], salience)
    return {"share": found["share"], "salience": found["salience_share"]}


NOTHING = {"modes": [], "heads": [], "salience": []}


def misses():
    """Scenes with five objects in the picture, of which the third is marked as odd."""
    plain = {"kind": 1, "colour": 2, "texture": 0, "radius": 0.4, "angle": 0, "x": 0, "y": 0}
    row = [plain | {"slot": slot, "odd": slot == 24} for slot in (16, 17, 24, 18, 23)]
    rest = {"pitch": 20, "tilt": 0, "shift": [0.5, 0.5], "background": [0.5] * 20}

    def case(done, said, off=NOTHING, others=(), **odd):
        objects = [one | (odd if one["odd"] else {}) for one in row]
        for number, change in others:
            objects[number] = objects[number] | change
        now = {"scene": {"objects": objects} | rest, "lattice": 7, "off": off, "said": said}
        return {"key": "miss", "now": now, "done": done}

    return [
        case(True, "none", kind=3),
        case(True, "colour", kind=3),
        case(True, "size", texture=1),
        case(False, "kind", kind=3),
        case(False, "none"),  # nothing is odd
        case(False, "none", kind=3, colour=4),  # in two ways
        case(False, "none", kind=3, others=[(1, {"kind": 3})]),  # another is like it
        case(False, "none", kind=3, others=[(1, {"kind": 2})]),  # the others differ, too
        case(True, "none", kind=3, others=[(1, {"colour": 4})]),  # but in what is not odd
        case(False, "none", kind=3, others=[(2, {"odd": False})]),
        *[
            case(False, "none", NOTHING | {n: [[0, 0, 0][:c]]}, kind=3)
            for n, c in _playground.OFF.items()
        ],
        # too few are left in the picture
        case(False, "none", kind=3, others=[(n, {"slot": n}) for n in (0, 1, 3)]),
    ]


def eyes():
    """Modes that are off, of which one or none answers to eyes."""
    known = [[3, 1, 2], [0, 0, 0]]
    return [
        {"key": "eyes", "now": {"off": NOTHING | {"modes": modes}, "eyes": known}, "done": done}
        for modes, done in (
            ([], False),
            ([[3, 1, 1]], False),
            ([[3, 1, 1], [3, 1, 2]], True),
            ([[0, 0, 0]], True),
        )
    ] + [
        {"key": "eyes", "now": {"off": NOTHING | {"heads": [[3, 1]]}, "eyes": known}, "done": False}
    ]


def twins():
    """A picture that was kept, and the one that is here."""
    kept = {"layer": 1, "head": 2, "asking": 5, "row": [0.5, 0.3, 0.2], "share": [0.6, 0.2, -0.2]}

    def case(done, kept=kept, **change):
        return {
            "key": "twins",
            "now": now | {"kept": kept, "current": current | change},
            "done": done,
        }

    now = {"limits": {"alike": 0.1, "unlike": 0.3}}
    current = kept | {"row": [0.45, 0.35, 0.2], "share": [0.2, 0.6, 0.2]}
    return [
        case(True),
        case(False, kept=None),
        case(False, layer=0),
        case(False, head=0),
        case(False, asking=6),
        case(False, row=[0.3, 0.5, 0.2]),  # attention differs by 0.2
        case(False, share=[0.6, 0.2, 0.2]),  # the same modes; a share's sign is not counted
        case(False, share=[0.45, 0.35, 0.2]),
        case(False, share=[0, 0, 0], row=[0.3, 0.5, 0.2]),
        case(False, share=kept["share"], row=kept["row"]),  # the same picture
    ]


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

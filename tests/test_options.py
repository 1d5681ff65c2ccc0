"""Misspelt and senseless options are refused at the door, by their name, before any work."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import PIL.Image
import pytest
import torch
import xarray as xr

import qkutils as qk
from qkutils import modes, options
from qkutils.book import stored
from qkutils.records import Sample, Segmented
from qkutils.studies import _regions
from qkutils.world import _drawing, _rendering

NAN, INF = float("nan"), float("inf")


# ---- the checks themselves -----------------------------------------------------------------------


def test_what_is_allowed_comes_back_in_its_plain_type():
    assert options.choice("x", np.str_("b"), ("a", "b")) == "b"
    assert type(options.choice("x", np.str_("b"), ("a", "b"))) is str
    assert options.choices("x", ["b", "a"], ("a", "b")) == ("b", "a")
    assert options.choices("x", (), ("a", "b")) == ()
    assert type(options.count("x", np.int64(3))) is int
    assert options.count("x", 0, 0, 0) == 0 and options.index("x", 4, 5) == 4
    assert options.indices("x", np.array([2, 0]), 3) == [2, 0]
    assert options.indices("x", range(3), 3) == [0, 1, 2]
    assert options.number("x", Fraction(1, 2), 0, 1) == 0.5
    assert options.number("x", 1, 0, 1, closed=True) == 1.0
    assert options.flag("x", np.True_) is True and options.seed(0) == 0
    assert options.finite("x", [1, 2], ndim=1).dtype == np.float64


REFUSED = {
    "another case": lambda: options.choice("x", "A", ("a",)),
    "a space": lambda: options.choice("x", "a ", ("a",)),
    "None for a word": lambda: options.choice("x", None, ("a",)),
    "a list for a word": lambda: options.choice("x", ["a"], ("a",)),
    "True for 1": lambda: options.choice("x", True, (1, -1)),
    "1.0 for 1": lambda: options.choice("x", 1.0, (1, -1)),
    "a word for words": lambda: options.choices("x", "a", ("a",)),
    "words as a set": lambda: options.choices("x", {"a"}, ("a",)),
    "a word twice": lambda: options.choices("x", ["a", "a"], ("a", "b")),
    "no words": lambda: options.choices("x", [], ("a",), least=1),
    "None for words": lambda: options.choices("x", None, ("a",)),
    "a count of 0": lambda: options.count("x", 0),
    "a count too high": lambda: options.count("x", 3, 1, 2),
    "a count of 1.0": lambda: options.count("x", 1.0),
    "a count of True": lambda: options.count("x", True),
    "a count of np.True_": lambda: options.count("x", np.True_),
    "a count as text": lambda: options.count("x", "3"),
    "a count of None": lambda: options.count("x", None),
    "a count of two": lambda: options.count("x", [1, 2]),
    "an index below 0": lambda: options.index("x", -1, 3),
    "an index at the end": lambda: options.index("x", 3, 3),
    "an index of NaN": lambda: options.index("x", NAN, 3),
    "a negative seed": lambda: options.seed(-1),
    "a seed beyond torch": lambda: options.seed(2**63),
    "no indices": lambda: options.indices("x", [], 3),
    "indices twice": lambda: options.indices("x", [1, 1], 3),
    "indices as text": lambda: options.indices("x", "01", 3),
    "indices as a number": lambda: options.indices("x", 1, 3),
    "indices of True": lambda: options.indices("x", [True], 3),
    "indices of 1.5": lambda: options.indices("x", [1.5], 3),
    "NaN": lambda: options.number("x", NAN),
    "infinity": lambda: options.number("x", INF),
    "an end": lambda: options.number("x", 1, 0, 1),
    "a number as text": lambda: options.number("x", "0.5", 0, 1),
    "a number of True": lambda: options.number("x", True, 0, 2),
    "a number of None": lambda: options.number("x", None),
    "a huge number": lambda: options.number("x", 10**400),
    "a flag of 1": lambda: options.flag("x", 1),
    "a flag as text": lambda: options.flag("x", "False"),
    "a flag of None": lambda: options.flag("x", None),
    "nothing finite": lambda: options.finite("x", []),
    "NaN among numbers": lambda: options.finite("x", [1, NAN]),
    "words for numbers": lambda: options.finite("x", ["a"]),
    "numbers in two dimensions": lambda: options.finite("x", [[1.0]], ndim=1),
    "an iterator": lambda: options.sequence("x", iter([1])),
    "a text": lambda: options.sequence("x", "ab"),
    "a dictionary": lambda: options.sequence("x", {0: 1}),
    "an array without names": lambda: options.with_dims("x", np.zeros(3), "layer"),
    "another dimension": lambda: options.with_dims("x", xr.DataArray([1.0], dims="a"), "layer"),
    "a field that is missing": lambda: options.with_fields("x", xr.Dataset(), "score"),
    "None for a result": lambda: options.with_fields("x", None, "score"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_allowed_is_refused_by_name(case, unchecked):
    with pytest.raises(ValueError, match="^(x|seed)\\b"):
        REFUSED[case]()


# ---- the doors -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net(make_vit):
    return qk.load(make_vit(seed=2, embed_dim=24, num_heads=2))


def samples(count=2, mask=None):
    made = []
    for n in range(count):
        noise = np.random.default_rng(n).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        target = np.zeros((32, 32), bool)
        target[:16, :16] = True
        masks = {"target": target if mask is None else mask, "distractor": ~target}
        made.append(Sample(f"s{n}", PIL.Image.fromarray(noise), masks))
    return made


def segmented(labels=None, count=2):
    halves = np.repeat([0, 1], 16)[None].repeat(32, 0) if labels is None else labels
    return [Segmented(s.key, s.image, (halves,)) for s in samples(count)]


def picture():
    return samples(1)[0].image


def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def nan_mask():
    mask = np.zeros((32, 32))
    mask[0, 0] = NAN
    return mask


UNREAD = [None, None]  # pictures that would raise something else as soon as they were read
BAD_COUNTS = (0, -1, 1.5, True, "2", None, NAN)

DOORS = {
    **{
        f"{call.__name__}, convention={bad!r}": (
            "convention",
            lambda net, call=call, bad=bad: call(net, convention=bad),
        )
        for call in (modes.decompose, modes.weighted_cosine, modes.null_band)
        for bad in ("Paper", "EXACT", "", None, 1)
    },
    "null_weighted_cosine, convention": (
        "convention",
        lambda net: modes.null_weighted_cosine(net, convention="Paper"),
    ),
    **{
        f"null_band, level={bad!r}": ("level", lambda net, b=bad: modes.null_band(net, level=b))
        for bad in (NAN, 0, 1, 95, -0.5, "0.95", None, True)
    },
    **{
        f"null_weighted_cosine, draws={bad!r}": (
            "draws",
            lambda net, b=bad: modes.null_weighted_cosine(net, draws=b),
        )
        for bad in (*BAD_COUNTS, 1)
    },
    **{
        f"null_weighted_cosine, seed={bad!r}": (
            "seed",
            lambda net, b=bad: modes.null_weighted_cosine(net, seed=b),
        )
        for bad in (-1, 0.5, None, 2**64)
    },
    **{
        f"study, {name}={bad!r}": (
            name,
            lambda net, n=name, b=bad: qk.studies.odd_one_out(net, UNREAD, **{n: b}),
        )
        for name, bads in {
            "query": ("Largest", None, 1),
            "patches": ("halves", None),
            "prefix": ("left_out", True),
            "batch_size": BAD_COUNTS,
            "modes": (3, [0], "all", True, np.zeros(3), xr.Dataset()),
            "salience": ("bias", ["Bias"], ["bias", "bias"], 1, None),
            "null_images": ("ab", [np.zeros((3, 3))], 3, {1: 2}),
        }.items()
        for bad in bads
    },
    "study, samples as an iterator": ("samples", lambda net: qk.studies.odd_one_out(net, iter([]))),
    "study, a picture for a sample": (
        "Sample",
        lambda net: qk.studies.odd_one_out(net, [s.image for s in samples()]),
    ),
    **{
        f"study, a mask of {name}": (
            "target mask",
            lambda net, m=mask: qk.studies.odd_one_out(net, samples(mask=m)),
        )
        for name, mask in {
            "three dimensions": np.ones((32, 32, 3), bool),
            "NaN": nan_mask(),
            "a list": [[True]],
            "one value": np.array(True),
        }.items()
    },
    **{
        f"grouping, {name}={bad!r}": (
            name,
            lambda net, n=name, b=bad: qk.studies.grouping(net, UNREAD, **{n: b}),
        )
        for name, bads in {
            "nulls": (*BAD_COUNTS, 2),
            "batch_size": BAD_COUNTS,
            "modes": (3, [0], "all", True),
            "salience": ("shift", ["value"], None),
        }.items()
        for bad in bads
    },
    **{
        f"same_object, {name}={bad!r}": (
            name,
            lambda net, n=name, b=bad: qk.studies.same_object(net, UNREAD, **{n: b}),
        )
        for name, bads in {
            "k": BAD_COUNTS,
            "convention": ("Paper", None),
            "instances": (1, "yes", None),
            "cover": (0, 1.1, NAN, -1, "0.5", True, None),
            "patches": ("Fraction", None),
            "seed": (-1, 0.5),
            "batch_size": BAD_COUNTS,
        }.items()
        for bad in bads
    },
    **{
        f"a label map of {name}": (
            "label map",
            lambda net, x=labels, call=call: call(net, segmented(x)),
        )
        for name, labels in {
            "NaN": nan_mask(),
            "three dimensions": np.zeros((32, 32, 1), int),
        }.items()
        for call in (qk.studies.grouping, qk.studies.same_object)
    },
    "samples for segments": ("Segmented", lambda net: qk.studies.grouping(net, samples())),
    "one picture": ("segmentations", lambda net: qk.studies.grouping(net, "ab")),
    **{
        f"name_modes, {name}={bad!r}": (
            name,
            lambda net, n=name, b=bad: qk.studies.names(
                net, torch.zeros(4, 3, 32, 32), {}, **{n: b}
            ),
        )
        for name, bads in {
            "permutations": BAD_COUNTS,
            "directions": BAD_COUNTS,
            "seed": (-1, None),
        }.items()
        for bad in bads
    },
    **{
        f"draw, {name}={bad!r}": (
            name,
            lambda net, n=name, b=bad: _drawing.draw(
                **({"seed": 0, "start": 0, "stop": 3} | {n: b})
            ),
        )
        for name, bads in {
            "seed": (-1, 0.5, None, True),
            "start": (-1, 0.0, None),
            "stop": (0, 3.0, "3", None),
            "odd": ([], "kind", ["shape"], ["kind", "kind"], None),
        }.items()
        for bad in bads
    },
    **{
        f"make, size={bad!r}": ("size", lambda net, b=bad: _rendering.make(0, 0, 1, size=b))
        for bad in (*BAD_COUNTS, 10**6)
    },
    "a role": ("role", lambda net: qk.world.make(0, 0, 1).mask(7)),
    "a kind of table": ("kind", lambda net: stored.names("Modes")),
    "memberships": ("patches", lambda net: _regions.memberships(np.zeros((1, 2, 4)), "all")),
    "relations without regions": (
        "query",
        lambda net: qk.studies.relations(xr.DataArray(np.zeros(3), dims="layer")),
    ),
    "excess of nothing": ("null_share", lambda net: qk.studies.share_excess(xr.Dataset())),
    "excess of others=1": ("others", lambda net: qk.studies.share_excess(xr.Dataset(), others=1)),
    "a relation": (
        "relation",
        lambda net: qk.studies.late_minus_early(xr.Dataset(), "Same"),
    ),
    "grouping's excess of nothing": ("same", lambda net: qk.studies.grouping_excess(xr.Dataset())),
    "optimal of nothing": ("score", lambda net: qk.studies.optimal_objects(xr.Dataset())),
    "probability of nothing": ("score", lambda net: qk.studies.probability(xr.Dataset())),
    **{
        f"scan, {name}={bad!r}": (
            name,
            lambda net, n=name, b=bad: qk.scan(net, images(), **({"progress": False} | {n: b})),
        )
        for name, bads in {
            **dict.fromkeys(("k", "batch_size", "workers", "overfetch"), (*BAD_COUNTS, 2**70)),
            "save_every": (NAN, INF, -1, "60", None),
            "progress": ("no", 2, None),
            "convention": ("Paper", None),
            "statistics": (["Sinks"], "sinks", 3, None),
            "precision": ("bf16", "float16", torch.bfloat16),
            "keys": ({"a": 0, "b": 1, "c": 2}, 3, [None] * 3, "ab"),
        }.items()
        for bad in bads
    },
    **{
        f"scan of {type(bad).__name__}": (
            "images",
            lambda net, b=bad: qk.scan(net, b, progress=False),
        )
        for bad in ("", b"pictures", {0: 1}, 3, None, iter([1]), [])
    },
    **{
        f"{call.__name__} of {kind} images": ("images", lambda net, c=call, s=spoil: c(net, s()))
        for call in (
            qk.observed_attention,
            qk.rebuild_attention,
            qk.token_factors,
            lambda net, x: qk.mode_maps(net, x, 0, 0),
            lambda net, x: qk.studies.removal(net, x, 0, 0, torch.eye(12)[:1]),
            lambda net, x: qk.pictures.visible(net, x),
        )
        for kind, spoil in {
            "half": lambda: images().half(),
            "float64": lambda: images().double(),
            "NumPy": lambda: images().numpy(),
            "no": lambda: None,
        }.items()
    },
    **{
        f"{call.__name__}, {name}={bad!r}": (
            name,
            lambda net, c=call, n=name, b=bad: c(
                net, images()[:1], **(dict(layer=0, head=0) | {n: b})
            ),
        )
        for call, more in ((qk.mode_maps, ()), (qk.studies.one_image, ("query_patch",)))
        for name in ("layer", "head", *more)
        for bad in (1.5, -1, 99, "0", True, NAN)
    },
    **{
        f"attention of token {bad!r}": (
            "token",
            lambda net, b=bad: qk.attention_of_token(qk.token_factors(net, images()), b),
        )
        for bad in (1.5, -1, 99, "0", True, None)
    },
    "attention of no factors": ("query", lambda net: qk.attention_of_token(None, 0)),
    "maps without keys": ("key", lambda net: qk.total_variation(xr.DataArray(1.0), None)),
    "maps of other tokens": (
        "key",
        lambda net: qk.total_variation(*(xr.DataArray(np.ones(n), dims="key") for n in (2, 3))),
    ),
    **{
        f"building up, salience={bad!r}": (
            "salience",
            lambda net, b=bad: qk.studies.build_up(
                qk.studies.one_image(net, images()[0], 0, 0, query_patch=1), b
            ),
        )
        for bad in ("no", 2, NAN, None)
    },
    "building up nothing": ("logit", lambda net: qk.studies.build_up(None)),
    "a change of nothing": ("intact", lambda net: qk.studies.relative_change(None)),
    "whole numbers as directions": (
        "directions",
        lambda net: qk.studies.removal(net, images(), 0, 0, torch.eye(12)[:1].long()),
    ),
    **{
        f"drawing, device={bad!r}": (
            "device",
            lambda net, b=bad: _rendering.make(0, 0, 1, device=b),
        )
        for bad in ("gpu", "meta", "mps", "cuda:x", -1, None, [])
    },
    **{
        f"align, {name}": ("masks", lambda net, i=image, m=mask: qk.alignment.align(net, i(), m))
        for name, image, mask in (
            ("a list", picture, [[True]]),
            ("None", picture, None),
            ("two dimensions", picture, np.ones((32, 32), bool)),
            ("numbers", picture, np.full((1, 32, 32), NAN)),
            ("no picture", lambda: None, np.ones((1, 32, 32), bool)),
        )
    },
    **{
        f"align labels of {name}": (
            "labels",
            lambda net, i=image, x=labels: qk.alignment.align_labels(net, i(), x),
        )
        for name, image, labels in (
            ("NaN", picture, nan_mask()),
            ("halves", picture, np.full((32, 32), 0.5)),
            ("more than 32 bits", picture, np.full((32, 32), 2**40)),
            ("words", picture, np.full((32, 32), "1")),
            ("three dimensions", picture, np.zeros((1, 32, 32), int)),
            ("None", picture, None),
            ("no picture", lambda: None, np.zeros((32, 32), int)),
        )
    },
    "relations of a Dataset": (
        "query",
        lambda net: qk.studies.relations(xr.Dataset({"a": (("query", "region"), [[1.0]])})),
    ),
    "strengths of another model": (
        "band.*model",
        lambda net: modes.null_from_strengths(
            modes.decompose(net).sigma, modes.null_band("tiny-supervised").isel(layer=slice(3))
        ),
    ),
    "strengths in another convention": (
        "band.*convention",
        lambda net: modes.null_of_layers(
            modes.decompose(net).sigma, modes.null_band(net, convention="paper")
        ),
    ),
    **{
        f"rebuilt from modes {kind}": (
            "modes",
            lambda net, c=change: qk.rebuild_attention(net, images(), c(modes.decompose(net))),
        )
        for kind, change in {
            "whose layers are in another order": lambda found: found.isel(layer=[2, 1, 0]),
            "of one layer": lambda found: found.isel(layer=[0]),
            "that come twice": lambda found: found.isel(mode=[0, 0]),
        }.items()
    },
    "strengths without modes": (
        "mode",
        lambda net: modes.null_from_strengths(
            xr.DataArray([1.0], dims="layer"), modes.null_band(net)
        ),
    ),
}


@pytest.mark.parametrize("case", DOORS)
def test_every_door_refuses_it_before_any_work(case, net, unchecked):
    names, call = DOORS[case]
    with pytest.raises(ValueError, match=names):
        call(net)


@pytest.mark.parametrize(
    "change", [{"over": "head"}, {"over": ["image"]}, {"draws": 1}, {"draws": 0}, {"seed": -1}]
)
def test_probability_refuses_what_it_does_not_know(net, change, unchecked):
    found = qk.studies.same_object(net, segmented(count=3))
    with pytest.raises(ValueError, match=[*change][0]):
        qk.studies.probability(found, **change)

"""States, requests and records that a view cannot show are refused in Python, without a browser."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import traitlets
import xarray as xr
from matplotlib.figure import Figure

import qkutils as qk
from qkutils import modes, views
from qkutils.views import _mode_browser

NAN = float("nan")
NAME = "small"


@pytest.fixture(scope="module")
def model(make_vit):
    """Three layers with two heads of eight modes, for 4 × 4 patches."""
    return replace(qk.load(make_vit(embed_dim=16, num_heads=2)), name=NAME)


@pytest.fixture(scope="module")
def images(model):
    return qk.pictures.images(qk.world.pictures(0, 0, 6), model, 6)


@pytest.fixture(scope="module")
def atlas(model, images):
    return qk.scan(model, images, k=2, progress=False)


@pytest.fixture(scope="module")
def samples():
    return qk.world.samples(5_000_000, 0, 3)


class Every(dict):
    """One view of each kind, made when it is first asked for."""

    def __init__(self, makers):
        self.makers = makers

    def __missing__(self, kind):
        self[kind] = self.makers[kind]()
        return self[kind]


@pytest.fixture(scope="module")
def every(request):
    of = request.getfixturevalue
    letters = ["a", "b"], ["A", "B"], "letters"
    carried = {"layers": [0], "heads": [0]}
    return Every(
        {
            "attention": lambda: views.attention_stepper(
                of("model"), of("samples"), images=[0], **carried
            ),
            "browser": lambda: views.mode_browser(
                of("model"), of("atlas"), of("images"), modes=[0], **carried
            ),
            "building": lambda: views.one_image(of("model"), of("images")[0], **carried),
            "plane": views.two_dimensional,
            "stepper": lambda: views.stepper([Figure((1, 1)), Figure((1, 1))], *letters),
            "trends": lambda: views.trends([modes.trend(of("model"))]),
        }
    )


NUMBERS = (-1, 99, 900, 1.5, NAN, "1", None, True, [0])
WORDS = ("Query", "", None, 1)
STATES = {
    "attention": {
        "image": NUMBERS,
        "layer": NUMBERS,
        "head": (-1, 99, 1.5, "Mean", None, NAN),
        "patch": NUMBERS,
        "query": WORDS,
        "outlines": (1, "yes", None),
        "own": (0, None),
        "model": (None, 3),
    },
    "browser": {
        "layer": NUMBERS,
        "head": NUMBERS,
        "mode": NUMBERS,
        "sign": (0, 2, "+", True),
        "show": WORDS,
        "colour": (*WORDS, "carried"),
        "named": (1, None),
        "picture": (6, -1, 1.5, "0", True),
    },
    "building": {
        "layer": NUMBERS,
        "head": NUMBERS,
        "patch": NUMBERS,
        "asks": WORDS,
        "salience": (1, None),
        "kept": (-1, 99, 1.5, None, True),
        "order": WORDS,
        "mode": (-1, 99, 1.5, "0", True),
    },
    "plane": {
        "u0": (NAN, 181, "1", None, True),
        "v0": (-181, [1]),
        "sigma0": (NAN, -1, 99, None),
        "sigma1": (NAN, -1, 1.6, True),
        "mirrored": (1, None),
        "token": NUMBERS,
    },
    "stepper": {"step": (*NUMBERS, 2)},
    "trends": {
        "model": ("tiny-dino", None),
        "convention": ("Paper", None),
        "layer": NUMBERS,
        "hidden": (NAME, ["tiny-dino"], [NAME, NAME], None, [1]),
    },
}
CASES = [(view, name) for view, of in STATES.items() for name in of]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_state_that_there_is_not_is_refused_and_the_old_one_stays(every, kind, name):
    view = every[kind]
    before = dict(view.state)
    for bad in STATES[kind][name]:
        with pytest.raises(ValueError, match=name) as refused:
            view.state = before | {name: bad}
        assert isinstance(refused.value, traitlets.TraitError) and view.state == before


@pytest.mark.parametrize("view", STATES)
def test_entries_that_are_unknown_or_missing_are_refused(every, view):
    view = every[view]
    first = next(iter(view.state))
    for state in (view.state | {"layre": 0}, {k: v for k, v in view.state.items() if k != first}):
        with pytest.raises(ValueError, match="it needs"):
            view.state = state


def test_numpys_numbers_become_plain_ones(every):
    view = every["browser"]
    before = view.state
    view.state = before | {"layer": np.int64(2), "named": np.True_}
    assert type(view.state["layer"]) is int and view.state["named"] is True
    view.state = before


def test_what_a_further_model_has_may_then_be_chosen(every, make_vit, samples, monkeypatch):
    """A model that a reader asks for may be deeper than the view's own."""
    shown = [every["attention"], every["building"]]  # made with the view's own model
    deep = qk.load(make_vit(depth=5, num_heads=4, embed_dim=16, reg_tokens=2))
    monkeypatch.setattr(qk.models, "load", lambda name: deep)
    for view, asks in zip(shown, ("query", "asks"), strict=True):
        before = view.state
        change = {"layer": 4, "head": 3, asks: deep.prefix_names[-1]}
        with pytest.raises(ValueError):
            view.state = before | change
        view.respond({"model": "deep", "image": 0})
        view.state = before | change
        view.state = before


REQUESTS = {
    "attention": [
        {"model": NAME, "image": 3},
        {"model": NAME, "image": "0"},
        {"image": 0},
        {},
        {"model": NAME, "image": 0, "more": 1},
    ],
    "browser": [
        {"layer": 99, "head": 0, "mode": 0},
        {"layer": 0, "head": True, "mode": 0},
        {"layer": 0, "head": 0, "mode": 0, "picture": 6},
        {"layer": 0, "head": 0, "mode": 0, "picture": NAN},
        {"layer": 0},
    ],
    "building": [
        {"model": NAME, "image": 9},
        {"model": NAME, "image": "0"},
        {"model": NAME, "image": 0, "layer": 8, "head": 0},
        {"model": NAME, "image": 0, "layer": 0, "head": 1.5},
        {"model": NAME, "upload": 3, "name": "x.png"},
        {"model": NAME, "upload": "", "name": None},
    ],
    "stepper": [{"step": 0}],
    "trends": [{}, {"model": "no such model"}],
}


@pytest.mark.parametrize(("view", "request_"), [(v, r) for v, of in REQUESTS.items() for r in of])
def test_requests_that_make_no_sense_are_refused(every, view, request_, unchecked):
    with pytest.raises((ValueError, FileNotFoundError)):
        every[view].respond(request_)


@pytest.mark.parametrize("content", [None, [], "hello", 3])
def test_what_is_no_request_is_answered_with_an_error(every, content):
    answers = []
    every["trends"].observe(lambda change: answers.append(change["new"]), "answer")
    with pytest.raises(ValueError, match="no request"):
        every["trends"]._asked(None, {"id": 1, "request": content}, [])
    assert "error" in answers[0]


LISTS = [[], [0, 0], [8], [-1], [1.5], [True], ["0"], "0", 3]


@pytest.mark.parametrize("bad", LISTS)
@pytest.mark.parametrize("name", ["layers", "heads"])
def test_lists_of_layers_and_heads_follow_one_rule(
    model, images, atlas, samples, name, bad, unchecked
):
    makers = (
        lambda **chosen: views.attention_stepper(model, samples, **chosen),
        lambda **chosen: views.mode_browser(model, atlas, images, **chosen),
        lambda **chosen: views.one_image(model, images[0], **chosen),
    )
    for make in makers:
        with pytest.raises(ValueError, match=name):
            make(**{name: bad})


@pytest.mark.parametrize("bad", [[], [0, 0], [3], [True], "0"])
def test_lists_of_images_and_modes_follow_it_too(model, images, atlas, samples, bad, unchecked):
    with pytest.raises(ValueError, match="images"):
        views.attention_stepper(model, samples, images=bad)
    more = [24] if bad == [3] else bad
    with pytest.raises(ValueError, match="modes"):
        views.mode_browser(model, atlas, images, modes=more)


def damaged(atlas, **change):
    made = atlas.copy(deep=True)
    for name, value in change.items():
        made[name][{dim: 0 for dim in made[name].dims}] = value
    return made


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"score": NAN}, "score"),
        ({"image": 999}, "image"),
        ({"query_patch": 10**6}, "query_patch"),
        ({"key_patch": 64}, "key_patch"),
        ({"key_patch": -1}, "key_patch"),
    ],
)
def test_a_damaged_atlas_is_refused(model, images, atlas, change, names):
    with pytest.raises(ValueError, match=names):
        views.mode_browser(model, damaged(atlas, **change), images)


def test_what_is_no_atlas_of_this_model_is_refused(model, images, atlas, unchecked):
    for bad, names in {
        "no fields": (xr.Dataset(), "atlas"),
        "a path": ("atlas.nc", "atlas"),
        "no scores": (atlas.drop_vars("score"), "score"),
        "no convention": (atlas.assign_coords(convention="Exact"), "convention"),
        "another grid": (atlas.assign_attrs(grid=[4, 16]), "grid"),
        "fewer modes": (atlas.isel(mode=slice(3)), "mode"),
        "fewer layers": (atlas.isel(layer=slice(2)), "layer"),
    }.values():
        with pytest.raises(ValueError, match=names):
            views.mode_browser(model, bad, images)
    for top in (0, 1.5, True):
        with pytest.raises(ValueError, match="top"):
            views.mode_browser(model, atlas, images, top=top)


def test_names_of_modes_that_there_are_not(model, images, atlas, unchecked):
    for names in ({(0, 0, 99): "x"}, {(0, 0): "x"}, {("a", 0, 0): "x"}):
        with pytest.raises(ValueError, match="names"):
            views.mode_browser(model, atlas, images, modes=[0], names=names)
    of_model = {"fingerprint": model.fingerprint, "model": NAME}
    measured = xr.Dataset(dict.fromkeys(_mode_browser.NAMED, 0.0), of_model)
    for bad in (measured.drop_vars("q"), measured.drop_vars("fingerprint")):
        with pytest.raises(ValueError, match="names"):
            views.mode_browser(model, atlas, images, modes=[0], names=bad)


def test_curves_that_are_none(model, unchecked):
    good = modes.trend(model)
    for bad in (
        good.drop_vars("weighted_cosine"),
        good.isel(layer=0),
        good.where(good.layer > 0),
        good.assign_coords(convention=["Paper", "exact"]),
        good.drop_vars("model"),
        "a name",
    ):
        with pytest.raises(ValueError):
            views.trends([bad])
    with pytest.raises(ValueError, match="curves"):
        views.trends(good)


@pytest.mark.parametrize(
    "bad",
    [
        {"u0": NAN},
        {"v0": "60"},
        {"sigma": (1.0,)},
        {"sigma": (0.4, 1.5)},
        {"sigma": (NAN, 0.0)},
        {"mirrored": "no"},
    ],
)
def test_a_head_in_the_plane_that_is_none(bad, unchecked):
    with pytest.raises(ValueError):
        views.two_dimensional(**bad)

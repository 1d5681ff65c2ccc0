"""The playground: a model that runs in Python or in the page, against the library's own numbers."""

from __future__ import annotations

import qkutils._torchvision

import base64
import json
import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import PIL.Image
import pytest
import torch

import qkutils as qk
from qkutils import gauge, models, passes, views, world
from qkutils.graph import ModeNetwork
from qkutils.views import _engine, _page, _playground
from qkutils.views._base import StateError

NAME, SCENES = "tiny-supervised", 50
TASKS = [*_playground.TASKS]
NOTHING: dict[str, list] = {"modes": [], "heads": [], "salience": []}
NAN = float("nan")


@pytest.fixture(scope="module")
def model():
    return qk.load(NAME)


@pytest.fixture(scope="module")
def view(model):
    return views.playground(model, tasks=TASKS, layer=3, head=1)


@pytest.fixture(scope="module")
def small(make_vit):
    """A random model of photographs: three layers, two heads, eight modes, 4 × 4 patches."""
    return replace(models.load(make_vit(3, embed_dim=16, num_heads=2)), name="small")


@pytest.fixture(scope="module")
def small_view(small):
    return views.playground(small)


class Oracle:
    """A model's own network, whose queries change as something is switched off."""

    def __init__(self, model: qk.Model) -> None:
        self.model, self.projections = model, gauge.prepare(model, "exact")

    def see(self, image: torch.Tensor, off: dict[str, list]) -> dict[str, np.ndarray]:
        """Answer, picture, attention [layer, head, query, key] and coordinates of one picture."""
        sizes = self.model.heads.w_q.shape
        on = {name: torch.ones(sizes[:count]) for name, count in _playground.OFF.items()}
        for name, places in off.items():
            for place in places:
                on[name][tuple(place)] = 0
        seen: dict[str, list[torch.Tensor]] = {"attention": [], "query": [], "key": [], "kappa": []}

        def change(layer: int, given: torch.Tensor) -> torch.Tensor:
            offset = self.projections.layers[layer].query_offset[:, None]
            seen["query"].append(given - offset)
            modes, salience = on["modes"][layer][:, None], on["salience"][layer][:, None, None]
            return ((given - offset) * modes + offset * salience) * on["heads"][layer][
                :, None, None
            ]

        def keys(layer: int, given: torch.Tensor) -> None:
            of = self.projections.layers[layer]
            assert of.rows is None  # else these are no coordinates
            seen["key"].append(given - of.key_offset[:, None])
            seen["kappa"].append((seen["key"][-1] * of.salience[:, None]).sum(-1))

        with passes.watching(
            self.model,
            attention=lambda _, each: seen["attention"].append(each),
            keys=keys,
            change=change,
            parameters=self.projections.parameters,
        ) as run:
            answer = run(taken(self.model, image))
        found = {name: torch.cat(each).numpy() for name, each in seen.items()}
        return found | {"answer": answer[0].numpy(), "image": image[0].numpy()}


def taken(model: qk.Model, image: torch.Tensor) -> torch.Tensor:
    """Pictures from 0 to 1 as the model takes them."""
    return model.transform.transforms[-1](image)


@pytest.fixture(scope="module")
def oracle(model):
    return Oracle(model)


def unpacked(sent: dict[str, Any]) -> dict[str, np.ndarray]:
    """What a view sends, as arrays."""
    return {n: np.frombuffer(v["bytes"], v["form"]).reshape(v["shape"]) for n, v in sent.items()}


def attention(found: dict[str, np.ndarray], scale: float) -> np.ndarray:
    """Attention [layer, head, query, key] from coordinates, with nothing off."""
    scores = np.einsum("lhim,lhjm->lhij", found["query"], found["key"])
    return torch.tensor(scale * (scores + found["kappa"][..., None, :])).softmax(-1).numpy()


def some_off(seed: int, sizes: tuple[int, ...], chance: float = 0.1) -> dict[str, list]:
    """Places that are off by chance."""
    some = np.random.default_rng(seed)
    return {
        name: np.argwhere(some.random(sizes[:count]) < chance).tolist()
        for name, count in _playground.OFF.items()
    }


def scene(number: int, seed: int = 3) -> dict[str, Any]:
    """A scene of the world as the browser has it."""
    return json.loads(json.dumps(_playground._scene(world.draw(seed, number, number + 1))))


def close(found, wanted, tolerance=1e-4):
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


# ---- what Python computes, and refuses ---------------------------------------------------------


def test_every_scene_that_is_drawn_comes_back_as_it_was():
    for number in range(40):
        drawn = world.draw(3, number, number + 1)
        again = _playground._factors(scene(number))
        assert torch.equal(drawn.target, again.target)
        there = drawn.role != world.ABSENT
        for each in fields(drawn):
            given, read = getattr(drawn, each.name), getattr(again, each.name)
            assert given.dtype == read.dtype
            if each.name not in ("odd", "mixed"):
                in_slots = each.name in _playground._OF_SLOT and each.name != "role"
                same = (given == read)[there] if in_slots else given == read
                assert same.all(), each.name
        one, other = (world.render(each) for each in (drawn, again))
        assert torch.equal(one.image, other.image) and torch.equal(one.slot, other.slot)


def test_python_answers_with_what_the_model_computes(view, model):
    given = scene(4)
    found = unpacked(view.respond({"photo": None, "scene": given, "off": NOTHING}))
    image = world.make(3, 4, 5).image
    assert np.array_equal(found["image"], image[0])
    own = qk.observed_attention(model, taken(model, image)).isel(image=0)
    close(attention(found, view.data["scale"]), own.transpose("layer", "head", "query", "key"))
    with torch.inference_mode():
        close(found["answer"], model.net(taken(model, image))[0])
    assert len(found["answer"]) == sum(len(each["choices"]) for each in view.data["questions"])


@pytest.mark.parametrize("part", ["modes", "heads", "salience", "all"])
def test_what_is_off_is_gone_from_the_models_own_network(part, view, oracle):
    some = some_off(8, oracle.model.heads.w_q.shape[:3], 0.3)
    off = some if part == "all" else NOTHING | {part: some[part]}
    found = unpacked(view.respond({"photo": None, "scene": scene(9), "off": off}))
    image = world.make(3, 9, 10).image
    wanted, whole = oracle.see(image, off), oracle.see(image, NOTHING)
    for name in ("answer", "query", "key", "kappa"):
        close(found[name], wanted[name])
    assert abs(wanted["answer"] - whole["answer"]).max() > 0.01


def grey_noise(size, seed=0):
    """A photograph without colours, as bytes [height, width, 3]."""
    return np.repeat(np.random.default_rng(seed).integers(0, 256, (*size, 1), np.uint8), 3, -1)


def test_a_photograph_is_what_its_bytes_say(small, small_view):
    pixels = grey_noise(small.image_size)
    sent = {"pixels": base64.b64encode(pixels.tobytes()).decode()}
    found = unpacked(small_view.respond({"photo": sent, "scene": None, "off": NOTHING}))
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    close(found["image"], image[0], 1e-7)
    own = qk.observed_attention(small, taken(small, image)).isel(image=0)
    wanted = own.transpose("layer", "head", "query", "key")
    close(attention(found, small_view.data["scale"]), wanted)


def test_what_a_page_begins_with_is_its_first_scene(view, oracle):
    sent = view.data["first"]
    image = world.render(_playground._factors(view.state["scene"])).image
    found, wanted = unpacked(sent), oracle.see(image, NOTHING)
    for name in ("answer", "kappa", "image"):
        close(found[name], wanted[name])
    for name in ("query", "key"):
        close(found[name], wanted[name], 2e-3)  # in half precision


@pytest.mark.parametrize("kind", ["view", "small_view"])
def test_trials_are_answered(kind, request):
    shown = request.getfixturevalue(kind)
    trials = shown.trials()
    assert trials
    for each in trials:
        found = unpacked(shown.respond(json.loads(json.dumps(each))))
        assert np.isfinite(found["answer"]).all()


def with_object(**change):
    """A scene with one object."""
    first = scene(0)
    return first | {"objects": [first["objects"][0] | change]}


def without(values, name):
    return {each: value for each, value in values.items() if each != name}


OFFS = [
    None,
    {},
    [],
    NOTHING | {"more": []},
    without(NOTHING, "heads"),
    *[NOTHING | {name: places} for name in NOTHING for places in (5, [5], [[]], ["00"], None)],
    *[NOTHING | {"modes": [place]} for place in ([0, 0], [8, 0, 0], [0, 4, 0], [0, 0, 24])],
    *[NOTHING | {"modes": [[0, 0, each]]} for each in (-1, 0.5, "0", None, True)],
    *[NOTHING | {"heads": [place]} for place in ([0], [0, 0, 0], [8, 0], [0, -1])],
    NOTHING | {"salience": [[0, 4]]},
]
PLACES = [("slot", 49), ("kind", 6), ("colour", 99), ("texture", 3)]
LOOK = [*scene(0)["objects"][0]]
SCENES_THAT_ARE_NONE = [
    *[None, {}, [], "scene", 5],
    *[without(scene(0), name) for name in scene(0)],
    *[scene(0) | {"objects": each} for each in (None, 5, [None], [[]], ["slot"], {"slot": 1})],
    scene(0) | {"objects": 2 * scene(0)["objects"][:1]},
    *[scene(0) | {"objects": [without(scene(0)["objects"][0], each)]} for each in LOOK],
    *[
        with_object(**{name: value})
        for name, high in PLACES
        for value in (high, -1, 0.5, "1", None)
    ],
    *[with_object(radius=value) for value in (0, -1, NAN, "1", None)],
    *[
        with_object(**{name: value})
        for name in ("angle", "x", "y")
        for value in (NAN, "a", None, [])
    ],
    *[scene(0) | {name: value} for name in ("pitch", "tilt") for value in (NAN, "a", None, [1, 2])],
    *[scene(0) | {"pitch": value} for value in (0, -20, float("inf"))],
    *[scene(0) | {"shift": value} for value in ([0], [0, NAN], 5, [[0, 0], [0]], None)],
    *[scene(0) | {"background": value} for value in ([0] * 19, [None] * 20, "a")],
]


@pytest.mark.parametrize("off", OFFS, ids=str)
def test_what_the_model_does_not_have_is_not_off(off, view):
    before = view.state
    with pytest.raises(StateError):
        view.state = before | {"off": off}
    assert view.state == before
    with pytest.raises(ValueError):
        view.respond({"photo": None, "scene": scene(0), "off": off})


@pytest.mark.parametrize("number", range(len(SCENES_THAT_ARE_NONE)))
def test_what_is_no_scene_is_refused(number, view):
    given, before = SCENES_THAT_ARE_NONE[number], view.state
    with pytest.raises(StateError):
        view.state = before | {"scene": given}
    assert view.state == before
    with pytest.raises(ValueError):
        view.respond({"photo": None, "scene": given, "off": NOTHING})


WRONG = {
    "layer": (8, -1, "3", 0.5, None),
    "head": (4, -1, "1", None),
    "mode": (24, -1, "0"),
    "patch": (64, -1, None),
    "asks": ("all", "register 0", "", None, 1),
    "sign": (0, 2, True, None),
    "kept": (25, -1, None),
    "chosen": (49, -1, "a", 0.5),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, many in WRONG.items() for v in many])
def test_a_state_that_can_not_be_shown_is_refused(name, value, view):
    before = view.state
    with pytest.raises(StateError, match=name):
        view.state = before | {name: value}
    assert view.state == before


def test_every_entry_takes_what_the_model_has(view):
    before = view.state
    more = {"layer": 7, "head": 3, "mode": 23, "patch": 63, "asks": "class token", "kept": 24}
    view.state = before | more | {"sign": -1, "scene": scene(1), "chosen": 48}
    assert view.layer == 7 and view.mode == 23
    view.state = before


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"photo": None},
        {"photo": {"pixels": "AAAA"}, "off": NOTHING},
        {"photo": {"pixels": "%%%"}, "off": NOTHING},
        {"photo": {}, "off": NOTHING},
        {"photo": 5, "scene": None, "off": NOTHING},
        {"photo": None, "scene": None, "off": NOTHING},
    ],
)
def test_a_request_that_is_none_is_refused(request_, small_view):
    with pytest.raises(ValueError):
        small_view.respond(request_)


@pytest.mark.parametrize("task", TASKS)
def test_tasks_need_drawn_scenes(task, small):
    with pytest.raises(ValueError, match="tasks"):
        views.playground(small, tasks=[task])


@pytest.mark.parametrize(
    "options", [{"layer": 8}, {"head": 4}, {"tasks": ["see"]}, {"tasks": ["miss", "miss"]}]
)
def test_options_that_there_are_not_are_refused(options, model):
    with pytest.raises(ValueError, match=next(iter(options))):
        views.playground(model, **options)


def test_models_that_the_view_can_not_show_are_refused(make_beit, make_vit):
    with pytest.raises(ValueError, match="position bias"):
        views.playground(make_beit())
    with pytest.raises(ValueError, match="square"):
        views.playground(make_vit(img_size=(32, 48)))


@pytest.mark.parametrize("outputs", [1000, len(world.KINDS + world.COLOURS + world.ODD_FACTORS)])
def test_outputs_have_names_only_where_the_training_is_known(outputs, make_vit):
    (question,) = views.playground(make_vit(num_classes=outputs)).data["questions"]
    assert question["choices"] == [str(number) for number in range(outputs)]


@pytest.mark.parametrize("img_size", [56, (40, 40)])
def test_it_begins_with_the_patch_in_the_middle(img_size, make_vit):
    net = make_vit(img_size=img_size)
    rows, columns = qk.load(net).grid
    middle = (rows // 2) * (columns + 1)
    assert rows % 2 == 1 and views.playground(net).state["patch"] == middle
    picture = torch.zeros(3, *qk.load(net).image_size)
    assert views.one_image(net, picture).state["patch"] == middle


def test_scenes_are_as_large_as_the_model_takes_them(monkeypatch):
    large = qk.load(NAME, image_size=128)
    shown = views.playground(large, tasks=TASKS)
    image = world.render(world.draw(3, 4, 5), 128).image
    found = unpacked(shown.respond({"photo": None, "scene": scene(4), "off": NOTHING}))
    assert np.array_equal(found["image"], image[0])
    with torch.inference_mode():
        close(found["answer"], large.net(taken(large, image))[0])
    monkeypatch.setattr(_engine, "_MADE", {})
    monkeypatch.setattr(_engine, "export", lambda _, path, **__: path.write_bytes(b""))
    _, renderer = _engine.exported(large)
    session = onnxruntime.InferenceSession(renderer, providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].shape == [1, 3, 128, 128]


def test_a_network_may_be_on_another_device(small):
    network = ModeNetwork(small).to("meta")
    found = _playground.run(network, torch.zeros(1, 3, *small.image_size), NOTHING)
    assert {each.device.type for each in found.values()} == {"meta"}


def test_a_page_runs_the_model_that_the_view_shows(make_vit, tmp_path, parts):
    net = make_vit(2, embed_dim=16, num_heads=2)
    shown = views.playground(net)
    text = shown.to_html(tmp_path / "page.html").read_text()
    (written,) = re.findall(r"revived\((.*)\)\);\n", text)
    content = base64.b64decode(json.loads(json.loads(written))["files"]["graph"]["text"])
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    given = {"image": image} | shown.network.all_on()
    answer = session.run(["answer"], {name: each.numpy() for name, each in given.items()})[0]
    with torch.inference_mode():
        close(answer, net(taken(shown.model, image)), 1e-2)
        net.head.bias[0] += 1
    with pytest.raises(ValueError, match="VisionTransformer"):
        shown.to_html(tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


def test_a_name_that_gives_another_model_is_refused(parts):
    changed = qk.load(NAME)
    with torch.no_grad():
        changed.net.head.bias[0] += 1
    with pytest.raises(ValueError, match=NAME):
        _engine.files(**views.playground(changed).data["engine"])


def test_modes_that_answer_to_eyes_do(view, model):
    """Counted pair by pair, of a part of the patches."""
    assert view.data["eyes"] and set(map(len, view.data["eyes"])) == {3}
    images, families = world.labelled(model, 24)
    part = families["part"]
    eyes = [n for n, name in enumerate(part.names) if name.startswith("eye ")]
    has = np.isin(part.fine.numpy().reshape(24, -1), eyes)
    modes = qk.decompose(model)
    keys = qk.token_factors(model, images, modes).key.isel(token=slice(model.prefix_tokens, None))
    for layer, head, mode in view.data["eyes"]:
        of_mode = keys.isel(layer=layer, head=head, rank=mode).transpose("image", "token").values
        share = (of_mode[has][:, None] > of_mode[~has][None]).mean()
        assert max(share, 1 - share) > 0.9


# ---- the page ----------------------------------------------------------------------------------

# Keeps what the view works with, and says when it has a new run.
HOOK = """
let lastRun = null;
const waiting = [];
let looked;
const own = chosen;
chosen = (view, shown, state) => {
  const now = own(view, shown, state);
  looked = window.seen = { view, shown, now };
  if (shown.run !== lastRun) for (const go of waiting.splice(0)) go();
  lastRun = shown.run;
  return now;
};
// What is shown is what was asked for. The policy forbids Playwright's own way to wait.
window.settled = async () => {
  for (;;) {
    if (!looked) return;
    const { shown: { seen: asked, engine, photo, run }, view: { state } } = looked;
    const idle = engine && !engine.current && !engine.waiting.size;
    const wanted = JSON.stringify([state.scene, state.off, photo?.number]);
    if (idle && asked === wanted && run === lastRun) return;
    await new Promise((go) => setTimeout(go, 5));
  }
};
window.change = (values) => new Promise((go) => (waiting.push(go), seen.view.set(values)));
// All numbers of a picture, as text, and every head's attention of the token that asks.
window.numbers = (asking) => {
  const { shown: { run }, view: { data, state } } = seen;
  const rows = [];
  for (let layer = 0; layer < data.size[0]; layer++)
    for (let head = 0; head < data.size[1]; head++)
      rows.push(...attentionRow(headOf(run, data, state.off, layer, head), asking));
  const all = { ...run, rows: Float32Array.from(rows), row: Float32Array.from(seen.now.row) };
  delete all.pixels;
  const bytes = (a) => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
  return Object.fromEntries(Object.entries(all).map(([n, a]) => [n, inText(bytes(a))]));
};
const model = standIn("""


def put(folder: Path, view: Any, parts: dict[str, tuple[str, bytes]]) -> None:
    """Write a view as `to_html` does, but with its scripts and its engine in files of their own."""
    files = {}
    for part, (name, content) in parts.items():
        (folder / name).write_bytes(content)
        files[part] = {"name": name, "size": len(content), "address": name}
    values = {"data": view.data, "state": view.state, "look": view.look, "code": ""}
    values |= {"files": files} | {name: getattr(view, name) for name in view.linked}
    text = _page.page(view.look["title"], view._css, view.still, view._esm, values)
    head, script, tail = re.split(r'<script type="module">|</script>', text)
    (folder / "page.js").write_text(script.replace("const model = standIn(", HOOK))
    link = '<script type="module" src="page.js"></script>'
    icon = '<link rel="icon" href="data:,">\n<title>'  # else the browser asks for one
    (folder / "index.html").write_text(f"{head.replace('<title>', icon, 1)}{link}{tail}")


@pytest.fixture(scope="module")
def parts(view, skip_or_fail):
    """All files of an engine with the embedded model."""
    try:
        return _engine.files(**view.data["engine"])
    except FileNotFoundError as error:
        return skip_or_fail(str(error))


@pytest.fixture(scope="module")
def site(view, parts, serve, tmp_path_factory):
    """The view's page, served under the policy."""
    folder = tmp_path_factory.mktemp("playground")
    put(folder, view, parts)
    with serve(folder) as shared:
        yield shared


class Reader:
    """A reader at the page, and what went wrong there."""

    def __init__(self, browser: Any, site: Any, hash_: str = "", **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        self.page.goto(f"{site.address}index.html{hash_}")
        assert not self.faults, self.faults
        self.page.wait_for_selector(".qk-starter")

    def start(self) -> Reader:
        """Start the model, as a reader does."""
        self.page.get_by_role("button", name="Start the model").click()
        self.page.wait_for_selector(".qk-live")
        self.settle()
        return self

    def settle(self) -> None:
        """Wait until what is shown is what was asked for."""
        self.page.evaluate("settled()")

    def kill(self) -> None:
        """End the worker by an error."""
        (worker,) = self.page.workers
        worker.evaluate("void setTimeout(() => { throw new Error('gone'); })")
        self.page.wait_for_selector(".qk-starter:not([hidden])")

    def state(self) -> dict[str, Any]:
        return self.page.evaluate("seen.view.state")

    def numbers(self, asking: int, sizes: tuple[int, int, int]) -> dict[str, np.ndarray]:
        """Numbers of the picture that is shown, as `Oracle.see` gives them, and `rows`."""
        found = {
            name: np.frombuffer(base64.b64decode(text), "i4" if name == "slot" else "f4")
            for name, text in self.page.evaluate("numbers", asking).items()
        }
        for name in ("query", "key"):
            found[name] = found[name].reshape(*sizes[:2], -1, sizes[2])
        for name in ("rows", "kappa"):
            found[name] = found[name].reshape(*sizes[:2], -1)
        return found


@pytest.fixture
def reader(browser, site):
    """A function that opens the page, and closes it in the end."""
    opened = []

    def open_page(**options):
        opened.append(Reader(browser, options.pop("site", site), **options))
        return opened[-1]

    yield open_page
    for each in opened:
        each.context.close()


def agrees(found, wanted, asking, tolerance=1e-4):
    """All numbers of a page are those of the oracle."""
    assert found["rows"].shape == wanted["attention"][:, :, asking].shape
    np.testing.assert_allclose(found["rows"], wanted["attention"][:, :, asking], 0, tolerance)
    for name in ("answer", "query", "key", "kappa"):
        assert found[name].shape == wanted[name].shape
        np.testing.assert_allclose(found[name], wanted[name], tolerance, tolerance)


def test_fifty_scenes_in_the_page_are_those_of_the_library(reader, oracle):
    page, sizes, some = reader().start(), oracle.model.heads.w_q.shape[:3], np.random.default_rng(0)
    for number in range(SCENES):
        drawn = world.make(21, number, number + 1)
        off = some_off(number, sizes) if number % 4 else NOTHING
        asks = {n: int(some.integers(s)) for n, s in zip(("layer", "head"), sizes, strict=False)}
        patch = int(some.integers(64))
        page.page.evaluate(
            "(v) => change(v)", asks | {"scene": scene(number, 21), "off": off, "patch": patch}
        )
        asking = oracle.model.prefix_tokens + patch
        found, wanted = page.numbers(asking, sizes), oracle.see(drawn.image, off)
        image = found["image"].reshape(3, 64, 64)
        assert abs(image - wanted["image"]).max() <= 1 / 255
        assert np.array_equal(found["slot"].reshape(64, 64), drawn.slot[0])
        agrees(found, wanted, asking)
        np.testing.assert_array_equal(found["row"], found["rows"][asks["layer"], asks["head"]])
        painted = page.page.locator(".qk-scene canvas").evaluate(
            "c => [...c.getContext('2d').getImageData(0, 0, 64, 64).data]"
        )
        painted = np.reshape(painted, (64, 64, 4))[..., :3].transpose(2, 0, 1)
        assert abs(painted - 255 * wanted["image"]).max() <= 1.001
    assert not page.faults


def test_a_photograph_in_the_page_is_that_of_the_library(
    reader, small, small_view, parts, serve, tmp_path
):
    qk.export(small, tmp_path / "small.onnx")
    graph = ("small.onnx", (tmp_path / "small.onnx").read_bytes())
    put(tmp_path, small_view, parts | {"graph": graph})
    picture = PIL.Image.fromarray(grey_noise((47, 61), 1))
    picture.save(tmp_path / "noise.png")
    (tmp_path / "script.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg"><script>x=1</script></svg>'
    )
    (tmp_path / "text.png").write_text("no picture")
    with serve(tmp_path) as own:
        page = reader(site=own).start()
        chooser = page.page.get_by_label("a photograph of your own", exact=True)
        fault = page.page.locator(".qk-error")
        for name in ("script.svg", "text.png"):
            chooser.set_input_files(tmp_path / name)
            fault.get_by_text(name).wait_for()
        assert page.page.evaluate("window.x === undefined && !window.seen")
        chooser.set_input_files(tmp_path / "noise.png")
        page.page.get_by_role("img", name="noise.png").wait_for()
        sizes = small.heads.w_q.shape[:3]
        found = page.numbers(6, sizes)
        image = torch.from_numpy(found["image"].reshape(1, 3, 32, 32).copy())
        close(taken(small, image)[0], small.transform(picture), 1e-6)
        agrees(found, Oracle(small).see(image, NOTHING), 6)
        assert fault.is_hidden() and not page.faults
        assert all(url.startswith((own.address, "blob:")) for url in page.asked)
        page.kill()
        page.start()
        assert chooser.count() == 1


# ---- what a reader does ------------------------------------------------------------------------

AXE = Path(__file__).parents[2] / "_build" / "axe" / "axe.min.js"


@pytest.fixture
def started(reader):
    return reader().start()


def test_before_the_start_there_is_a_picture_and_nothing_was_asked_for(reader, site, parts):
    before = len(site.sent)
    page = reader()
    names = [name for name, _ in site.sent[before:]]
    assert sorted(names) == ["index.html", "page.js"]
    assert page.page.locator(".qk-handle").count() > 3
    assert page.page.locator(".qk-shares").first.is_visible()  # an answer
    assert page.page.get_by_role("button", name="undo").is_disabled()
    state = page.state()
    page.page.locator(".qk-handle").first.click(force=True)
    for key in ("ArrowDown", "Delete"):
        page.page.keyboard.press(key)
    page.page.get_by_label("layer", exact=True).press("Home")
    assert page.state() == state | {"layer": 0}  # what is there can be looked at; no object moves
    page.start()
    names = [name for name, _ in site.sent[before:]]
    assert sorted(names[2:]) == sorted(name for name, _ in parts.values())
    assert sum(size for name, size in site.sent[before:] if name != "index.html") <= 8e6
    assert all(url.startswith((site.address, "data:")) for url in page.asked) and not page.faults


def handle(page, slot):
    return page.page.locator(f'.qk-handle[data-slot="{slot}"]')


def middle(locator):
    box = locator.bounding_box()
    return np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])


def objects(page):
    return {each["slot"]: each for each in page.state()["scene"]["objects"]}


def drag(page, locator, by):
    """Drag an object by so many pixels of the screen, in steps."""
    start = middle(locator)
    page.page.mouse.move(*start)
    page.page.mouse.down()
    for step in np.linspace(0, 1, 7)[1:]:
        page.page.mouse.move(*(start + step * np.array(by)))
    page.page.mouse.up()
    page.settle()


def painted(page):
    """The picture that is shown."""
    script = "c => [...c.getContext('2d').getImageData(0, 0, 64, 64).data]"
    pixels = page.page.locator(".qk-scene canvas").evaluate(script)
    return np.reshape(pixels, (64, 64, 4))[..., :3]


def is_shown(page):
    """Whether the picture is that of the state's scene."""
    image = world.render(_playground._factors(page.state()["scene"])).image[0]
    return abs(painted(page) - 255 * image.movedim(0, -1).numpy()).max() <= 1.001


def test_objects_are_dragged_and_moved_by_keys_and_all_is_undone(started, view):
    page, first = started, started.state()["scene"]
    button = page.page.get_by_role
    [odd] = [one for one in first["objects"] if one["odd"]]
    slot = odd["slot"]
    zoom = page.page.locator(".qk-scene svg").bounding_box()["width"] / 64
    drag(page, handle(page, slot), (2 * zoom, -1 * zoom))
    there = objects(page)[slot]
    room = 0.5 - odd["radius"]
    turn = np.exp(-1j * first["tilt"]) * complex(2, -1) / first["pitch"]  # by what, in its cell
    assert there["x"] == pytest.approx(min(room, odd["x"] + turn.real), abs=2e-3)
    assert there["y"] == pytest.approx(max(-room, odd["y"] + turn.imag), abs=2e-3)
    assert page.state()["chosen"] == slot and is_shown(page)
    button("button", name="undo").click()
    page.settle()
    assert page.state()["scene"] == first

    button("button", name="remove", exact=True).is_disabled()
    neighbour = slot + 1 if slot + 1 in objects(page) else slot - 1
    handle(page, neighbour).focus()
    page.page.keyboard.press("Delete")
    page.settle()
    assert neighbour not in objects(page)
    drag(page, handle(page, slot), ((neighbour - slot) * first["pitch"] * zoom, 0))
    assert {slot, neighbour} & set(objects(page)) == {neighbour} and objects(page)[neighbour]["odd"]
    assert is_shown(page)

    handle(page, neighbour).focus()
    before = objects(page)[neighbour]
    page.page.keyboard.press("ArrowDown")
    page.settle()
    assert objects(page)[neighbour]["y"] != before["y"]
    page.page.keyboard.press("Shift+ArrowRight" if neighbour < slot else "Shift+ArrowLeft")
    page.settle()
    assert slot in objects(page) and neighbour not in objects(page)
    focused = page.page.evaluate("document.activeElement.dataset.slot")
    assert int(focused) == slot  # the object that moved still has the keyboard
    for _ in range(4):
        page.page.keyboard.press("Control+z")
    page.settle()
    assert page.state()["scene"] == first and is_shown(page)
    assert button("button", name="undo").is_disabled() and not page.faults


def test_an_object_changes_and_others_come(started):
    page, first = started, started.state()["scene"]
    button, label = page.page.get_by_role, page.page.get_by_label
    slot = next(one["slot"] for one in first["objects"] if one["odd"])
    handle(page, slot).focus()
    for name, names in (
        ("kind", world.KINDS),
        ("colour", world.COLOURS),
        ("texture", world.TEXTURES),
    ):
        label(name, exact=True).select_option(names[-1])
        assert objects(page)[slot][name] == len(names) - 1
    label("size", exact=True).press("Home")
    label("turn", exact=True).press("End")
    label("the odd one", exact=True).uncheck()
    page.settle()
    one = objects(page)[slot]
    assert one["radius"] == 0.2 and one["angle"] == pytest.approx(3.14) and not one["odd"]
    assert is_shown(page)
    button("button", name="add an object").click()
    page.settle()
    added = page.state()["scene"]["objects"][-1]
    assert added["kind"] == one["kind"] and page.state()["chosen"] == added["slot"]
    button("button", name="remove", exact=True).click()
    button("button", name="new background").click()
    page.settle()
    assert added["slot"] not in objects(page) and is_shown(page)
    assert page.state()["scene"]["background"] != first["background"]
    button("button", name="a random scene").click()
    page.settle()
    drawn = [_playground._scene(each) for each in singles(world.draw(_playground.SEED, 0, 48))]
    assert page.state()["scene"] in json.loads(json.dumps(drawn)) and is_shown(page)
    button("button", name="reset").click()
    page.settle()
    assert page.state()["scene"] == first and is_shown(page) and not page.faults


def test_only_changes_can_be_undone_and_each_at_once(started):
    page, first = started, started.state()["scene"]
    undo, label = page.page.get_by_role("button", name="undo"), page.page.get_by_label
    slot = next(one["slot"] for one in first["objects"] if one["odd"])
    handle(page, slot).click(force=True)
    page.page.evaluate("seen.view.redraw()")
    assert page.state()["chosen"] == slot and undo.is_disabled()
    page.page.locator(".qk-scene svg").click(position={"x": 1, "y": 1})
    for key in ("ArrowDown", "Delete"):
        page.page.keyboard.press(key)
    assert page.state()["scene"] == first and undo.is_disabled()

    size, turn = (label(name, exact=True) for name in ("size", "turn"))
    turn.press("End")
    size.press("Home")
    box = size.bounding_box()
    page.page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
    page.page.mouse.down()  # on the slider's own place, so that nothing changes
    page.page.mouse.up()
    size.dispatch_event("input")  # which a browser may send for such a press
    assert objects(page)[slot]["radius"] == 0.2
    drag(page, size, (box["width"] / 3, 0))
    assert objects(page)[slot]["radius"] > 0.35
    radii = []
    for _ in range(3):
        undo.click()
        radii.append((objects(page)[slot]["radius"], objects(page)[slot]["angle"]))
    [odd] = [one for one in first["objects"] if one["odd"]]
    assert radii[0] == (0.2, pytest.approx(3.14))
    assert radii[1] == (odd["radius"], pytest.approx(3.14))
    assert page.state()["scene"] == first and undo.is_disabled()
    handle(page, slot).focus()
    for _ in range(70):  # more than it takes to an edge or a neighbour
        page.page.keyboard.press("ArrowUp")
    last = page.state()["scene"]
    page.page.keyboard.press("ArrowUp")
    assert page.state()["scene"] == last
    undo.click()
    assert page.state()["scene"] != last
    page.settle()
    assert is_shown(page) and not page.faults


def test_a_model_that_stopped_is_started_again(started):
    page, label = started, started.page.get_by_label
    page.page.locator(".qk-handle").first.focus()
    page.page.keyboard.press("ArrowRight")
    page.settle()
    page.kill()
    assert page.page.locator(".qk-error").is_visible()
    assert not page.page.locator(".qk-live").count()
    before = page.state()["scene"]
    for key in ("ArrowDown", "Control+z"):
        page.page.keyboard.press(key)
    assert page.state()["scene"] == before and label("size", exact=True).is_disabled()
    label("layer", exact=True).press("Home")
    page.page.get_by_role("button", name="this head", exact=True).click()
    page.start()
    assert page.state()["off"]["heads"] == [[0, 1]]
    page.page.get_by_role("button", name="new background").click()
    page.settle()
    assert is_shown(page) and page.page.locator(".qk-error").is_hidden() and not page.faults


# A kernel for the page: it is there, keeps what it is asked, and answers when it is told to.
KERNEL = """
() => {
  const { model } = seen.view;
  window.requests = [];
  window.answer = (content) => model.set("answer", { id: requests.at(-1).id, ...content });
  model.send = (sent) => requests.push(sent);
  model.set("answer", { id: 1, found: {} });
}"""


def test_a_kernel_that_fails_is_asked_again(reader):
    page = reader()
    page.page.evaluate(KERNEL)
    switch_off = "(head) => seen.view.set({ off: { modes: [], heads: [[0, head]], salience: [] } })"
    for head in range(2):  # the latter takes the former's place while they wait
        page.page.evaluate(switch_off, head)
    assert page.page.evaluate("requests.length") == 1
    page.page.evaluate("answer({ error: 'MemoryError: no room' })")
    page.page.get_by_text("no room").wait_for()
    asked = page.page.evaluate("requests")
    assert [each["request"]["off"]["heads"] for each in asked] == [[], [[0, 1]]]
    page.page.evaluate("answer({ error: 'KeyboardInterrupt: ' })")
    page.page.evaluate(switch_off, 2)
    assert page.page.evaluate("requests.length") == 3


def singles(drawn):
    """Scenes, one by one."""
    for number in range(len(drawn.pitch)):
        yield world.Factors(
            *(getattr(drawn, each.name)[number : number + 1] for each in fields(drawn))
        )


def test_a_link_brings_its_scene_to_another_page(reader, site):
    permissions = ["clipboard-read", "clipboard-write"]
    page = reader(permissions=permissions).start()
    page.page.evaluate("(s) => change({scene: s})", scene(2))
    page.page.get_by_role("button", name="copy a link").click()
    page.page.get_by_text("The link is copied.").wait_for()
    link = page.page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(f"{site.address}index.html#")
    other = reader(hash_=link.removeprefix(f"{site.address}index.html")).start()
    found, given = other.state()["scene"], scene(2)
    assert {n: len(each) for n, each in found.items() if isinstance(each, list)} == {
        n: len(each) for n, each in given.items() if isinstance(each, list)
    }
    for one, wanted in zip(found["objects"], given["objects"], strict=True):
        assert one == pytest.approx(wanted, abs=1e-4)
    for name in ("pitch", "tilt", "shift", "background"):
        assert found[name] == pytest.approx(given[name], abs=1e-4)
    assert is_shown(other)
    assert not [*page.faults, *other.faults]


def slide(page, label, value):
    """Move a slider to a value by keys."""
    slider = page.page.get_by_label(label, exact=True)
    slider.press("Home")
    for _ in range(value):
        slider.press("ArrowRight")


def done(page):
    """Keys of the tasks that are solved."""
    return {each.get_attribute("data-task") for each in page.page.locator(".qk-done").all()}


def test_the_model_misses_a_small_ball(started):
    """A ball stands among things of another kind; small, it passes for one that was turned."""
    page = started
    assert not done(page)
    [odd] = [one for one in page.state()["scene"]["objects"] if one["odd"]]
    handle(page, odd["slot"]).focus()
    page.page.get_by_label("kind", exact=True).select_option("ball")
    page.settle()
    assert not done(page)
    page.page.get_by_label("size", exact=True).press("Home")
    page.settle()
    assert done(page) == {"miss"}
    run = page.numbers(1, (8, 4, 24))
    assert world.ODD_FACTORS[run["answer"][12:].argmax()] != "kind"
    page.page.get_by_role("button", name="this head’s key salience").click()
    page.settle()
    assert not done(page)  # a model with something off is another model


def test_a_mode_that_answers_to_eyes_is_switched_off(started, view):
    page, (layer, head, mode) = started, view.data["eyes"][0]
    slide(page, "layer", layer)
    slide(page, "head", head)
    wrong = next(m for m in range(24) if [layer, head, m] not in view.data["eyes"])
    for number, solved in ((wrong, set()), (mode, {"eyes"})):
        slide(page, "mode", number + 1)  # before the first mode stands "first"
        page.page.get_by_role("button", name=f"this head’s M{number}", exact=True).click()
        page.settle()
        assert done(page) == solved
    assert page.state()["off"]["modes"] == [[layer, head, wrong], [layer, head, mode]]
    page.page.get_by_role("button", name="everything on").click()
    page.settle()
    assert not done(page)


def test_another_colour_moves_modes_and_leaves_attention(started, oracle, view):
    """The odd one turns purple: head 3 of layer 6 attends as before, and by other modes."""
    page, place, patch = started, (6, 3), 6
    slide(page, "layer", place[0])
    slide(page, "head", place[1])
    box = page.page.get_by_role("application")
    size = box.bounding_box()
    box.click(position={"x": size["width"] * 6.5 / 8, "y": size["height"] * 0.5 / 8})
    assert page.state()["patch"] == patch and not done(page)
    asking = oracle.model.prefix_tokens + patch
    before = page.numbers(asking, (8, 4, 24))["rows"][place]
    page.page.get_by_role("button", name="keep this picture").click()
    assert not done(page)
    [odd] = [one for one in page.state()["scene"]["objects"] if one["odd"]]
    handle(page, odd["slot"]).focus()
    page.page.get_by_label("colour", exact=True).select_option("purple")
    page.settle()
    assert done(page) == {"twins"}
    assert abs(page.numbers(asking, (8, 4, 24))["rows"][place] - before).sum() / 2 < 0.1


def test_a_keyboard_is_enough(reader):
    page = reader()

    def reach(what):
        for _ in range(150):
            page.page.keyboard.press("Tab")
            if page.page.evaluate("(s) => document.activeElement.matches(s)", what):
                return
        raise AssertionError(f"{what} is not reached by Tab")

    reach(".qk-starter button")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector(".qk-live")
    page.settle()
    first = page.state()["scene"]
    reach(".qk-handle")
    for key in ("ArrowUp", "ArrowLeft", "ArrowDown", "ArrowRight"):
        page.page.keyboard.press(key)
        page.settle()
        assert page.page.evaluate("document.activeElement.matches('.qk-handle')")
    moved = objects(page)
    assert sum(moved.get(one["slot"]) != one for one in first["objects"]) <= 1
    reach("[aria-label='layer']")
    page.page.keyboard.press("ArrowRight")
    reach(".qk-shares button")  # a mode's own switch
    mode = int(page.page.evaluate("document.activeElement.dataset.mode"))
    page.page.keyboard.press("Space")
    page.settle()
    assert page.state()["off"]["modes"] == [[4, 1, mode]]
    assert page.page.evaluate("document.activeElement.dataset.mode") == str(mode)
    page.page.keyboard.press("Space")
    page.settle()
    assert page.state()["off"] == NOTHING and not page.faults


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(scheme, reader, skip_or_fail):
    if not AXE.is_file():
        skip_or_fail(f"there is no {AXE.name} (make {AXE.relative_to(AXE.parents[2])})")
    page = reader(color_scheme=scheme, viewport={"width": 1280, "height": 900})

    def violations():
        page.page.evaluate(AXE.read_text())
        found = page.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
        return [
            f"{v['id']}: {n['target']}: {n['failureSummary']}" for v in serious for n in v["nodes"]
        ]

    assert violations() == []  # before the start
    page.start()
    page.page.evaluate("change({ off: { modes: [[3, 1, 0]], heads: [], salience: [] } })")
    page.page.locator(".qk-handle").first.focus()
    for width in (1280, 390):
        page.page.set_viewport_size({"width": width, "height": 900})
        assert violations() == []
        wide = page.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width  # nothing has to be scrolled sideways


@pytest.mark.slow
def test_a_thousand_changes_do_not_grow_the_memory(reader, memory):
    page = reader()
    of_page = memory(page.page)
    page.start()
    rounds = """async (count) => {
      const { scene } = seen.view.state;
      for (let n = 0; n < count; n++) {
        const objects = scene.objects.map((one) => ({ ...one, angle: one.angle + 0.001 * n }));
        const off = { modes: [[n % 8, n % 4, n % 24]], heads: [], salience: [] };
        await change({ scene: { ...scene, objects }, off });
      }
    }"""
    page.page.evaluate(rounds, 200)
    before = of_page.held()
    page.page.evaluate(rounds, 1000)
    assert of_page.held() - before < 2e6  # what 1,000 changes compute has 490 MB


# ---- a real model ------------------------------------------------------------------------------


def test_photographs_through_a_real_model(image_folder, reader, parts, serve, tmp_path):
    if not os.environ.get("QKUTILS_WEIGHTS"):
        pytest.skip("QKUTILS_WEIGHTS names no folder on this machine")
    real = qk.load("deit_tiny_patch16_224.fb_in1k")
    sizes = real.heads.w_q.shape[:3]
    qk.export(real, tmp_path / "real.onnx", weights="half")
    put(
        tmp_path,
        views.playground(real),
        parts | {"graph": ("real.onnx", (tmp_path / "real.onnx").read_bytes())},
    )
    paths = sorted((image_folder / "imagenet-sample").glob("*.jpg"))[:5]
    assert len(paths) == 5
    with serve(tmp_path) as own:
        page = reader(site=own).start()
        for path in paths:
            page.page.get_by_label("a photograph of your own", exact=True).set_input_files(path)
            page.page.get_by_role("img", name=path.name).wait_for(state="attached")
            page.settle()
            picture = real.transform(PIL.Image.open(path).convert("RGB"))[None]
            maps = qk.observed_attention(real, picture).isel(image=0)
            for asking in (0, 1, 100):
                found = page.numbers(asking, sizes)
                wanted = maps.isel(query=asking).transpose("layer", "head", "key").values
                np.testing.assert_allclose(found["rows"], wanted, 0, 1e-3)

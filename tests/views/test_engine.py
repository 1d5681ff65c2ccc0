"""The engine: graphs that run in the browser as they run in onnxruntime, and what may go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import qkutils as qk
from qkutils.views import _engine, _page

onnx = pytest.importorskip("onnx.parser")
onnxruntime = pytest.importorskip("onnxruntime")

NAME = "tiny-supervised"
# Small graphs with the inputs and outputs of a model and of the renderer.
GRAPHS = {
    "graph": """<ir_version: 10, opset_import: ["": 20]>
    model (float[1,3,64,64] image, float[2,1,3] modes, float[2,1] heads, float[2,1] salience)
      => (float[1,3] answer, float[2,1,3] query)
    {
      axes = Constant <value = int64[2] {2, 3}> ()
      colour = ReduceMean <keepdims = 0> (image, axes)
      strength = ReduceSum <keepdims = 0> (modes)
      both = Mul (heads, salience)
      rest = ReduceSum <keepdims = 0> (both)
      scaled = Mul (colour, strength)
      answer = Sub (scaled, rest)
      query = Exp (modes)
    }""",
    "renderer": """<ir_version: 10, opset_import: ["": 20]>
    renderer (float[1,2] shift, int32[1,49] kind)
      => (float[1,3,64,64] image, int32[1,64,64] slot)
    {
      start = Constant <value = float {0}> ()
      end = Constant <value = float {12288}> ()
      step = Constant <value = float {1}> ()
      ramp = Range (start, end, step)
      shape = Constant <value = int64[4] {1, 3, 64, 64}> ()
      picture = Reshape (ramp, shape)
      moved = ReduceSum <keepdims = 0> (shift)
      phase = Add (picture, moved)
      image = Sin (phase)
      most = ReduceMax <keepdims = 0> (kind)
      flat = Constant <value = int64[3] {1, 64, 64}> ()
      slot = Expand (most, flat)
    }""",
}
ON = {"modes": np.ones((2, 1, 3)), "heads": np.ones((2, 1)), "salience": np.ones((2, 1))}
# Arrays as the engine takes and gives them, on their way from and to Python.
IMPORT = 'import { startEngine } from "./engine.js";'
PAGE = (
    IMPORT
    + """
const arrays = { float32: Float32Array, int32: Int32Array };
const taken = ([type, shape, values]) => ({ data: arrays[type].from(values), shape });
const given = ({ data, shape }) =>
  [data instanceof Float32Array ? "float32" : "int32", shape, [...data]];
const each = (values, change) =>
  values && Object.fromEntries(Object.entries(values).map(([k, v]) => [k, change(v)]));
const unpacked = ({ factors, ...rest }) =>
  ({ ...(factors && { factors: each(factors, taken) }), ...each(rest, taken) });
window.news = [];
window.begin = async (files) => {
  window.news.length = 0;
  window.engine = await startEngine(files, (...now) => window.news.push(now));
};
window.ask = async (kind, values) => each(await window.engine[kind](unpacked(values)), given);
window.unpacked = unpacked;
"""
)


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """The small graphs as files."""
    models = {part: onnx.parse_model(text) for part, text in GRAPHS.items()}
    return {part: model.SerializeToString() for part, model in models.items()}


@pytest.fixture
def parts(contents, monkeypatch, skip_or_fail) -> dict[str, tuple[str, bytes]]:
    """All files of an engine with the small graphs."""
    monkeypatch.setattr(_engine, "exported", lambda *_: tuple(contents.values()))
    try:
        return _engine.files(**_engine.facts(qk.load(NAME)))
    except FileNotFoundError as error:
        return skip_or_fail(str(error))


@pytest.fixture
def site(parts, tmp_path, serve) -> Iterator[Any]:
    """A folder with these files and a page, served under the policy."""
    files = {}
    for part, (name, content) in parts.items():
        (tmp_path / name).write_bytes(content)
        files[part] = {"name": name, "size": len(content), "address": name}
    (tmp_path / "engine.js").write_bytes((_page.FRONT / "engine.js").read_bytes())
    (tmp_path / "page.js").write_text(PAGE)
    (tmp_path / "index.html").write_text('<script type="module" src="page.js"></script>')
    with serve(tmp_path) as shared:
        shared.files, shared.folder = files, tmp_path
        yield shared


@pytest.fixture
def opened(site, browser) -> Iterator[Callable[..., Any]]:
    """A function that opens the page, after a script of the test's."""
    contexts = []

    def visit(script: str = "") -> Any:
        contexts.append(browser.new_context())
        page = contexts[-1].new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.add_init_script(script)
        page.goto(f"{site.address}index.html")
        page.wait_for_function("window.begin !== undefined")
        return page

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture
def started(site, opened) -> Any:
    """The page with an engine that has started."""
    page = opened()
    page.evaluate("begin", site.files)
    return page


def typed(value: Any) -> np.ndarray:
    """An array of numbers as graphs take it."""
    return np.asarray(value, "int32" if np.asarray(value).dtype.kind == "i" else "float32")


def packed(values: dict[str, Any]) -> dict[str, Any]:
    """Arrays as JSON carries them to the page."""

    def one(array: np.ndarray) -> list[Any]:
        return [array.dtype.name, list(array.shape), array.ravel().tolist()]

    return {
        name: packed(value) if isinstance(value, dict) else one(typed(value))
        for name, value in values.items()
    }


def ask(page: Any, kind: str, /, **values: Any) -> dict[str, np.ndarray]:
    """What the engine in the page answers."""
    found = page.evaluate("([kind, values]) => ask(kind, values)", [kind, packed(values)])
    return {
        name: np.array(flat, kind).reshape(shape) for name, (kind, shape, flat) in found.items()
    }


def wanted(content: bytes, **values: Any) -> dict[str, np.ndarray]:
    """What onnxruntime answers."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    taken = {name: typed(value) for name, value in values.items()}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, taken), strict=True))


def agrees(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Outputs have the same names, types, shapes and values."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-4)


def refused(page: Any, files: dict[str, Any]) -> str:
    """With what message the engine does not start."""
    message = page.evaluate("(f) => begin(f).then(() => null, (e) => e.message)", files)
    assert message and "\n" not in message
    return message


def scene(seed: int) -> dict[str, Any]:
    """Factors of the small renderer."""
    some = np.random.default_rng(seed)
    return {"shift": some.normal(size=(1, 2)), "kind": some.integers(0, 9, (1, 49))}


def masks(seed: int) -> dict[str, np.ndarray]:
    """Modes, heads and key salience, some of them off."""
    some = np.random.default_rng(seed)
    return {name: some.integers(0, 2, values.shape).astype(float) for name, values in ON.items()}


def test_each_graph_and_both_together_answer_as_onnxruntime_does(started, contents):
    image = np.random.default_rng(0).random((1, 3, 64, 64))
    for seed in range(3):
        off, factors = masks(seed), scene(seed)
        drawn = wanted(contents["renderer"], **factors)
        agrees(ask(started, "render", **factors), drawn)
        alone = wanted(contents["graph"], image=image, **off)
        agrees(ask(started, "run", image=image, **off), alone)
        agrees(ask(started, "see", image=image, **off), alone)
        seen = wanted(contents["graph"], image=drawn["image"], **off)
        agrees(ask(started, "see", factors=factors, **off), drawn | seen)


@pytest.fixture(scope="module")
def embedded() -> tuple[bytes, bytes]:
    """An embedded model and the renderer."""
    return _engine.exported(qk.load(NAME))


def test_an_embedded_model_answers_as_onnxruntime_does_and_few_bytes_bring_it(
    site, opened, embedded
):
    for part, content in zip(("graph", "renderer"), embedded, strict=True):
        (site.folder / site.files[part]["name"]).write_bytes(content)
        site.files[part]["size"] = len(content)
    page = opened()
    page.evaluate("begin", site.files)
    assert sum(size for _, size in site.sent) <= 8e6
    some = np.random.default_rng(0)
    switches = {"modes": (8, 4, 24), "heads": (8, 4), "salience": (8, 4)}
    for seed in range(5):
        drawn = qk.world.draw(seed, 0, 1)
        factors = {n: v.numpy() for n, v in vars(drawn).items() if n not in ("odd", "mixed")}
        off = {n: (some.random(shape) < 0.8).astype(float) for n, shape in switches.items()}
        picture = wanted(embedded[1], **factors)
        seen = wanted(embedded[0], image=picture["image"], **off)
        agrees(ask(page, "see", factors=factors, **off), picture | seen)


def test_nothing_is_fetched_before_a_reader_asks_and_nothing_from_another_host(site, opened):
    page = opened()
    page.wait_for_load_state("networkidle")
    own = {"index.html", "page.js", "engine.js", "favicon.ico"}
    assert {name for name, _ in site.sent} <= own
    page.evaluate("begin", site.files)
    ask(page, "see", factors=scene(0), **ON)
    assert {name for name, _ in site.sent} - own == {file["name"] for file in site.files.values()}
    assert all(url.startswith(site.address) for url in page.asked)


@pytest.mark.parametrize("compresses", [False, True])
def test_progress_counts_all_bytes_once_also_where_a_server_compresses(site, opened, compresses):
    page = opened()
    site.compresses = compresses
    page.evaluate("begin", site.files)
    loaded, totals = np.array(page.evaluate("news")).T
    total = sum(file["size"] for part, file in site.files.items() if part != "worker")
    assert set(totals) == {total} and loaded[0] > 0 and loaded[-1] == total
    assert (np.diff(loaded) >= 0).all() and len(loaded) > 4


def test_of_requests_that_wait_only_the_latest_of_a_kind_is_answered(started, contents):
    many = [packed({"factors": scene(seed), **ON}) for seed in range(12)]
    one = packed(scene(99))
    found, other = started.evaluate(
        """([many, one]) => Promise.all([
          Promise.all(many.map((values) => ask("see", values))), ask("render", one)
        ])""",
        [many, one],
    )
    assert [answer is not None for answer in found] == [True, *[False] * 10, True]
    for seed in (0, 11):
        slot = wanted(contents["renderer"], **scene(seed))["slot"]
        assert found[seed]["slot"][2] == slot.ravel().tolist()
    assert other["slot"][2][0] == scene(99)["kind"].max()


def test_a_request_that_is_wrong_says_so_and_the_next_is_answered(started):
    values = packed({"image": np.zeros((1, 3, 64, 64)), "heads": ON["heads"]})
    short = packed({"image": np.zeros((1, 3, 8, 8)), **ON})
    for wrong, what in ((values, "modes"), (short, "image")):
        message = started.evaluate("(v) => ask('run', v).then(() => '', (e) => e.message)", wrong)
        assert what in message
    assert started.evaluate("engine.run({ image: () => 0 }).then(() => '', (e) => e.name)")
    assert ask(started, "see", factors=scene(0), **ON)


HUGE = """<ir_version: 10, opset_import: ["": 20]>
huge (float[1] one) => (float[2000000000] many)
{
  shape = Constant <value = int64[1] {2000000000}> ()
  many = Expand (one, shape)
}"""


def test_too_little_memory_is_told_and_the_model_still_answers(site, opened):
    content = onnx.parse_model(HUGE).SerializeToString()
    (site.folder / "huge.onnx").write_bytes(content)
    page = opened()
    huge = {"name": "huge.onnx", "size": len(content), "address": "huge.onnx"}
    page.evaluate("begin", site.files | {"renderer": huge})
    one = packed({"one": np.ones(1)})
    message = page.evaluate("(v) => ask('render', v).then(() => '', (e) => e.message)", one)
    assert "memory" in message and "huge" not in message and "(" not in message
    assert ask(page, "run", image=np.zeros((1, 3, 64, 64)), **ON)


def test_a_closed_engine_answers_nothing_and_ends_its_worker(started):
    values = packed({"factors": scene(0), **ON})
    (worker,) = started.workers
    with worker.expect_event("close"):
        found = started.evaluate(
            """async (values) => {
              const waiting = [ask("see", values), ask("see", values)];
              engine.close();
              return [...await Promise.all(waiting), await engine.run({})];
            }""",
            values,
        )
    assert found == [None, None, None]


@pytest.mark.parametrize("part", ["worker", "runtime", "wasm", "graph", "renderer"])
def test_a_file_that_is_not_there_is_named_and_a_second_start_works(site, opened, part):
    page = opened()
    gone = site.files[part] | {"name": f"my-{part}", "address": f"nowhere/{part}.js"}
    assert f"my-{part}" in refused(page, site.files | {part: gone})
    page.evaluate("begin", site.files)
    assert ask(page, "see", factors=scene(0), **ON)
    assert len(page.workers) == 1


@pytest.mark.parametrize("part", ["runtime", "wasm", "graph", "renderer"])
def test_a_broken_file_is_named_and_a_second_start_works(site, opened, part):
    page = opened()
    file = site.folder / site.files[part]["name"]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert site.files[part]["name"] in refused(page, site.files)
    file.write_bytes(whole)
    page.evaluate("begin", site.files)
    assert ask(page, "see", factors=scene(0), **ON)


def test_without_a_network_webassembly_or_workers_a_sentence_says_so(site, opened):
    page = opened()
    page.context.set_offline(True)
    assert site.files["worker"]["name"] in refused(page, site.files)
    assert "workers" in refused(opened("delete window.Worker"), site.files)
    site.policy = site.policy.replace(" 'wasm-unsafe-eval'", "")
    assert "WebAssembly" in refused(opened(), site.files)


def test_a_thousand_runs_do_not_grow_the_memory(site, opened, memory):
    page = opened()
    of_page = memory(page)
    page.evaluate("begin", site.files)
    rounds = """async ([values, count]) => {
      const given = unpacked(values);
      for (let n = 0; n < count; n++) await engine.see(given);
    }"""
    values = packed({"factors": scene(0), **ON})
    page.evaluate(rounds, [values, 300])
    before = of_page.held()
    page.evaluate(rounds, [values, 1000])
    assert of_page.held() - before < 1e6  # what 1,000 runs give has 66 MB


@pytest.mark.parametrize("worker", [True, False])
def test_a_file_that_carries_everything_needs_no_server(browser, tmp_path, parts, contents, worker):
    script = _page.front_end("engine") + PAGE.replace(
        'import { startEngine } from "./engine.js";', ""
    )
    script += "\nfunction render({ model }) { window.files = model.get('files'); }"
    values = {"files": _engine.carried(**_engine.facts(qk.load(NAME)))}
    path = tmp_path / "all.html"
    path.write_text(_page.page("all", "", "", script, values))
    assert path.stat().st_size <= 25e6
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    if not worker:
        page.add_init_script("delete window.Worker")
    page.goto(path.as_uri())
    for _ in range(2):  # what a page carries can be used again
        page.evaluate("begin(files)")
        assert len(page.workers) == worker
        drawn = wanted(contents["renderer"], **scene(1))
        seen = wanted(contents["graph"], image=drawn["image"], **masks(1))
        agrees(ask(page, "see", factors=scene(1), **masks(1)), drawn | seen)
        page.evaluate("engine.close()")
    assert {url.partition(":")[0] for url in asked} <= {"file", "blob", "data"}
    page.close()


def test_a_page_of_the_book_that_was_opened_from_a_file_says_what_to_start(site, browser, tmp_path):
    script = _page.front_end("engine") + PAGE.replace(
        'import { startEngine } from "./engine.js";', ""
    )
    path = tmp_path / "page.html"
    path.write_text(f"<script>{script}</script>")
    page = browser.new_page()
    page.goto(path.as_uri())
    assert "make serve" in refused(page, site.files)
    page.close()

"""What all views have in common: packing, asking Python, the still picture, one file, the code."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from dataclasses import replace

import ipywidgets
import numpy as np
import PIL.Image
import pytest
import traitlets
from matplotlib.figure import Figure

import qkutils as qk
from qkutils import options, views
from qkutils.views import View, _engine, _page
from qkutils.views._arrays import encoded, packed, seen
from qkutils.views._base import entry
from qkutils.views._origin import needed
from qkutils.views._page import FRONT, front_end


class Doubling(View):
    """A view that knows how to double a number, for these tests."""

    front = "trends"

    def respond(self, request):
        return {"twice": 2 * request["number"]}


class Stopping(Doubling):
    """A view whose answers a reader does not wait for."""

    def respond(self, request):
        raise KeyboardInterrupt


@pytest.fixture
def view():
    return Doubling("a <b>title</b>", {"some": [1]}, {"n": 0}, Figure(), 'says "<hello>"')


def sent(view, request):
    """What the browser is sent for a request, in turn."""
    answers = []
    view.observe(lambda change: answers.append(change["new"]), "answer")
    view._asked(view, {"id": 7, "request": request}, [])
    return answers


def test_answers_are_sent_once_and_not_kept(view):
    assert sent(view, {"number": 4}) == [{"id": 7, "found": {"twice": 8}}, {}]
    assert view.answer == {}


def test_an_error_is_shown_in_the_view_and_raised(view):
    answers = []
    view.observe(lambda change: answers.append(change["new"]), "answer")
    with pytest.raises(KeyError):
        view._asked(view, {"id": 1, "request": {"nonsense": 4}}, [])
    assert answers[0] == {"id": 1, "error": "KeyError: 'number'"}


def test_an_interrupt_is_an_answer_too():
    view, answers = Stopping("", {}, {}, Figure(), ""), []
    view.observe(lambda change: answers.append(change["new"]), "answer")
    with pytest.raises(KeyboardInterrupt):
        view._asked(view, {"id": 1, "request": {}}, [])
    assert [set(each) for each in answers] == [{"id", "error"}, set()]


def test_a_view_that_computes_nothing_says_so(view):
    with pytest.raises(ValueError, match="does not compute"):
        View.respond(view, {"model": "x"})


def test_both_forms_are_offered_and_text_is_escaped(view):
    bundle = view._repr_mimebundle_()[0]
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == view.model_id
    assert 'alt="says &quot;&lt;hello&gt;&quot;"' in bundle["text/html"]
    assert "base64," not in json.dumps(view.get_state(["data", "state", "code"]))


def test_one_file_holds_everything(view, tmp_path):
    view.data = {"label": "</script><img src=x onerror=alert(1)>", "bytes": b"\x00\xff"}
    path = view.to_html(tmp_path / "slide.html")
    text = path.read_text()
    assert "a &lt;b&gt;title&lt;/b&gt;" in text and "<b>title" not in text
    assert text.count("</script>") == 1 and "onerror" in text
    assert "http://" not in text.replace("http://www.w3.org/", "") and "https://" not in text
    assert [p.name for p in tmp_path.iterdir()] == ["slide.html"]


SCRIPTS = sorted(name for name in views.__all__ if name.islower())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_one_module_with_each_part_once(name, node, tmp_path):
    script = front_end(name)
    (tmp_path / "view.mjs").write_text(script)  # a name that two parts have is an error of syntax
    subprocess.run([node, "--check", tmp_path / "view.mjs"], check=True)
    assert script.count("class Frame ") == 1 and script.count("\nexport default") == 1
    assert not [line for line in script.splitlines() if line.startswith(("import", "export {"))]


def test_scripts_are_those_of_the_views():
    found = {path.stem for path in FRONT.glob("*.js") if "\nexport default" in path.read_text()}
    assert found == set(SCRIPTS)


@pytest.mark.parametrize(
    "line",
    [
        'import * as all from "./other.js";',
        'import other from "./other.js";',
        'import { one as two } from "./other.js";',
        'import { one } from "other";',
        'export { one } from "./other.js";',
        "export { one };",
        "export let one = 1;",
    ],
)
def test_other_imports_and_exports_are_refused(line, monkeypatch, tmp_path):
    monkeypatch.setattr(_page, "FRONT", tmp_path)
    (tmp_path / "other.js").write_text("export const one = 1;\n")
    (tmp_path / "bad.js").write_text(f"{line}\nexport default {{ render }};\n")
    with pytest.raises(ValueError, match=r"bad\.js"):
        front_end("bad")


def test_parts_stand_before_those_that_use_them(monkeypatch, tmp_path):
    monkeypatch.setattr(_page, "FRONT", tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/one.js").write_text(
        'import { two } from "../two.js";\nexport const one = 1 + two;\n'
    )
    (tmp_path / "two.js").write_text("export const two = 2;\n")
    both = 'import { one } from "./deep/one.js";\nimport {\n  two,\n} from "./two.js";\n'
    (tmp_path / "ordered.js").write_text(f"{both}export default {{ render }};\n")
    lines = [line for line in front_end("ordered").splitlines() if line]
    assert lines == ["const two = 2;", "const one = 1 + two;", "export default { render };"]


# ---- beside other widgets ------------------------------------------------------------------------


class Linked(View):
    """A view whose layer is a trait of its own, from 0 to 7."""

    front = "stepper"
    layer = entry()

    def checked(self, state):
        return state | {"layer": options.index("layer", state["layer"], 8)}


@pytest.fixture
def linked():
    return Linked("title", {}, {"layer": 2, "head": 1}, Figure(), "")


def test_an_entry_and_the_state_follow_each_other(linked):
    assert linked.layer == 2 and "layer" in linked.keys
    linked.layer = 5
    assert linked.state == {"layer": 5, "head": 1}
    linked.state = {"layer": 3, "head": 0}
    assert linked.layer == 3


def test_an_entry_that_the_state_refuses_stays_what_it_was(linked):
    with pytest.raises(traitlets.TraitError):
        linked.layer = 8
    assert linked.layer == linked.state["layer"] == 2


def test_views_are_laid_out_and_linked_as_other_widgets_are(linked):
    slider, other = ipywidgets.IntSlider(max=7), Linked("b", {}, {"layer": 1}, Figure(), "")
    row = ipywidgets.HBox([linked, ipywidgets.VBox([slider, other])])
    assert row.children[0] is linked
    ipywidgets.link((slider, "value"), (linked, "layer"))
    traitlets.dlink((linked, "layer"), (other, "layer"))
    slider.value = 6
    assert linked.state["layer"] == other.state["layer"] == 6
    linked.state = linked.state | {"layer": 4}
    assert slider.value == other.layer == 4
    assert ipywidgets.jslink((slider, "value"), (linked, "layer")).target[1] == "layer"


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e5])
def test_numbers_that_a_form_cannot_carry_are_refused(bad):
    with pytest.raises(ValueError, match="can't carry"):
        packed(np.array([1.0, bad]), "float16")


def test_small_pictures_keep_their_pixels_and_large_ones_are_jpeg():
    small = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    made = encoded(PIL.Image.fromarray(small))
    back = np.asarray(PIL.Image.open(io.BytesIO(made["bytes"])))
    assert made["type"] == "image/png" and (back == small).all()
    assert encoded(PIL.Image.new("RGB", (200, 200)))["type"] == "image/jpeg"


def test_a_model_sees_the_pixels_of_its_crop():
    model = qk.load("tiny-supervised")
    [picture] = qk.world.pictures(0, 0, 1)
    shown = np.asarray(seen(model, model.transform(picture)))
    assert np.abs(shown.astype(int) - np.asarray(picture)).max() <= 1


CELLS = [
    "import numpy as np\nimport pandas as pd",
    "SEED = 1",
    "SEED = 2",
    "%matplotlib inline",
    "numbers = np.arange(SEED)\nother = pd.Series([1])",
    "numbers[0] = 5\nprint(other)",
    "def twice(x):\n    return 2 * x",
    "for x in range(3):\n    y = x",
    "shown = 3\n[twice(x) for x in numbers]",
]


def test_code_is_what_the_last_statement_needs_and_no_more():
    code = needed(CELLS)
    assert code.splitlines() == [
        "import numpy as np",
        "SEED = 2",
        "numbers = np.arange(SEED)",
        "numbers[0] = 5",
        "def twice(x):",
        "    return 2 * x",
        "[twice(x) for x in numbers]",
    ]
    space: dict = {}
    exec(code, space)
    assert space["numbers"].tolist() == [5, 1]


def test_no_cells_no_code():
    assert needed([]) == needed(["%lsmagic"]) == ""


@pytest.fixture
def living(view):
    """A view in which a model runs."""
    view.model = replace(qk.load("tiny-untrained"), name="small")
    view.data = {"engine": _engine.facts(view.model)}
    return view


def test_a_file_carries_what_a_model_needs_and_is_not_too_large(living, tmp_path, monkeypatch):
    content = bytes(range(256))
    monkeypatch.setattr(
        _engine, "files", lambda model, *_: {"graph": (f"{model.name}.onnx", content)}
    )
    text = living.to_html(tmp_path / "view.html").read_text()
    assert base64.b64encode(content).decode() in text and "small.onnx" in text
    monkeypatch.setattr(_engine, "LIMIT", len(text) - 1)
    with pytest.raises(ValueError, match=r"large\.html with small"):
        living.to_html(tmp_path / "large.html")
    assert not (tmp_path / "large.html").exists()


def test_a_runtime_that_is_not_there_is_asked_for(living, tmp_path, monkeypatch):
    monkeypatch.setenv(_engine.VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=_engine.VARIABLE):
        living.to_html(tmp_path / "view.html")

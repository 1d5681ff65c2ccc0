"""What all views have in common: packing, asking Python, the still picture, one file, the code."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from qkutils.views import View
from qkutils.views._arrays import encoded, packed
from qkutils.views._origin import needed


class Doubling(View):
    """A view that knows how to double a number, for these tests."""

    front = "trends"

    def respond(self, request):
        return {"twice": 2 * request["number"]}


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


@pytest.mark.parametrize(
    ("form", "error"), [("uint8", 0.011), ("float16", 0.002), ("float32", 1e-7)]
)
def test_packed_numbers_are_near_what_they_were(form, error, open_unpacked):
    values = np.random.default_rng(0).normal(size=(3, 4, 5))
    values[0, 0, :3] = (0, 1e-7, -2)  # the middle one is less than float16's smallest normal number
    assert np.abs(open_unpacked(packed(values, form)) - values).max() < error


@pytest.fixture
def open_unpacked(browser):
    """A function that unpacks numbers in the browser."""
    from qkutils.views._base import FRONT

    page = browser.new_page()
    source = (FRONT / "common.js").read_text()

    def unpack(numbers):
        whole = numbers | {"bytes": list(numbers["bytes"])}
        act = f"(p) => {{ {source}; p.bytes = new DataView(Uint8Array.from(p.bytes).buffer);"
        found = page.evaluate(
            f"{act} const u = unpack(p); return [u.shape, [...u.values]]; }}", whole
        )
        return np.array(found[1]).reshape(found[0])

    yield unpack
    page.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e5])
def test_numbers_that_a_form_cannot_carry_are_refused(bad):
    with pytest.raises(ValueError, match="can't carry"):
        packed(np.array([1.0, bad]), "float16")


def test_small_pictures_keep_their_pixels_and_large_ones_are_jpeg():
    import io

    import PIL.Image

    small = np.random.default_rng(0).random((16, 24, 3))
    made = encoded(small)
    back = np.asarray(PIL.Image.open(io.BytesIO(made["bytes"]))) / 255
    assert made["type"] == "image/png" and np.abs(back - small).max() < 0.003
    assert encoded(np.zeros((200, 200, 3)))["type"] == "image/jpeg"


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

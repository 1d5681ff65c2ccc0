"""Tables and numbers: what was given can be read back, and nothing of it is markup."""

import re
from xml.etree import ElementTree

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from qkutils.book import stacked, tell


def test_a_table_reads_back_as_it_was_given():
    given = pd.DataFrame({"a_b": ["+0.1 [+0.0, +0.2]", "none"], "n": [3, 4]}, ["x_y", "z"])
    text = re.sub("<br>", " ", re.sub("<wbr>", "", stacked(given).data))
    rows = ElementTree.fromstring(text).iter("tr")
    assert [["".join(cell.itertext()) for cell in row] for row in rows] == [
        ["", "a_b", "n"],
        ["x_y", "+0.1 [+0.0, +0.2]", "3"],
        ["z", "none", "4"],
    ]


def test_an_interval_stands_small_on_a_line_of_its_own():
    shown = stacked(pd.DataFrame({"a": ["+0.1 [+0.0, +0.2]", "+0.3"]})).data
    assert re.findall(r"<td>(.*?)<br><small[^>]*>(.*?)</small></td>", shown) == [
        ("+0.1", "[+0.0, +0.2]")
    ]


def test_numbers_of_rows_are_not_shown():
    frame = pd.DataFrame({"a": [5, 6]})
    assert stacked(frame).data.count("<th>") == 1
    assert stacked(frame.set_axis(["x", "y"])).data.count("<th>") == 4


def test_names_are_text():
    assert "<b>" not in stacked(pd.DataFrame({"<b>": ["<b>"]}, ["<b>"])).data


@pytest.fixture
def told(monkeypatch):
    """What a call of `tell` shows in a notebook, in a build and outside of it."""
    shell = InteractiveShell.instance()

    def call(building, **values):
        shell.execution_count += 1  # another cell
        monkeypatch.delenv("QKUTILS_BUILDING", raising=False)
        if building:
            monkeypatch.setenv("QKUTILS_BUILDING", "1")
        with capture_output() as shown:
            tell(**values)
        return [(output.data, output.metadata) for output in shown.outputs]

    return call


def test_outside_of_a_build_numbers_appear_where_they_are_computed(told):
    ((data, metadata),) = told(
        False, rank=3, part=1 / 3, name="<b>", table=pd.DataFrame({"x": [7]})
    )
    assert "scrapbook" not in (metadata or {})
    plain = re.sub(r"(?s)<style.*?</style>", "", data["text/html"])
    assert plain.startswith("<details><summary>") and plain.endswith("</details>")
    assert re.findall("<div>(.*?)</div>", plain)[:3] == [
        "rank = 3",
        "part = 0.3333",
        "name = &lt;b&gt;",
    ]
    assert "<td>7</td>" in plain and "<b>" not in plain


def test_one_cell_has_one_place_for_its_numbers(told):
    assert len(told(False, rank=3)) == 1
    with capture_output() as shown:
        tell(more=4)
        tell(last="x")
    assert [output.update for output in shown.outputs] == [True, True]
    assert len({output.transient["display_id"] for output in shown.outputs}) == 1
    text = shown.outputs[-1].data["text/html"]
    assert re.findall("<div>(.*?)</div>", text) == ["rank = 3", "more = 4", "last = x"]
    ((data, _),) = told(False, next=5)
    assert re.findall("<div>(.*?)</div>", data["text/html"]) == ["next = 5"]


def test_a_build_hands_them_to_the_text(told):
    outputs = told(True, rank=3, name="<b>")
    assert [metadata["scrapbook"]["name"] for _, metadata in outputs] == ["rank", "name"]
    assert [data for data, _ in outputs] == [
        {"application/papermill.record/text/plain": "3"},
        {"application/papermill.record/text/plain": "'<b>'"},
    ]

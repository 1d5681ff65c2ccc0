"""Tables of intervals: what was given can be read back, and nothing of it is markup."""

import re
from xml.etree import ElementTree

import pandas as pd

from qkutils.book import stacked


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

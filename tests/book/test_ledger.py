"""The ledger keeps what chapters judged: numbers, intervals, verdicts, and nothing else."""

import json

import nbformat
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter

from qkutils import statistics
from qkutils.book import ledger

WHO = {"subject": "three <models>", "over": "3 runs"}


@pytest.fixture
def rows():
    found = statistics.interval(0.3, 0.25, 0.34)
    return [
        ledger.claim("Attention follows objects.", found, 1, "grouping", **WHO, said_by="paper"),
        ledger.claim("It follows colours & shapes.", found, -1, "grouping", **WHO, seen=True),
        ledger.claim("Nobody looked.", None, 1, "weighted cosine", **WHO, more="no data"),
    ]


@pytest.fixture
def notebook(tmp_path, rows):
    """A chapter that showed the rows, as a kernel writes it."""
    data, _ = DisplayFormatter().format(ledger.Rows(rows))
    cell = nbformat.v4.new_code_cell("rows", outputs=[nbformat.v4.new_output("display_data", data)])
    path = tmp_path / "05_chapter.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("x"), cell]), path)
    return path


def test_each_row_has_the_verdict_of_the_rule(rows):
    assert [row["verdict"] for row in rows] == [
        statistics.HOLDS,
        statistics.CONTRADICTED,
        statistics.NOT_RUN,
    ]


def test_rows_come_back_as_they_were_judged(tmp_path, notebook, rows):
    table = ledger.read(ledger.gather({"05_chapter": notebook}, tmp_path / "ledger.csv"))
    assert list(table.chapter) == ["05_chapter"] * 3
    pd.testing.assert_frame_equal(table[ledger.FIELDS], pd.DataFrame(rows)[ledger.FIELDS])


def test_a_ledger_that_says_the_same_is_not_written_again(tmp_path, notebook):
    path = ledger.gather({"05_chapter": notebook}, tmp_path / "ledger.csv")
    before = path.stat().st_ino, path.stat().st_mtime_ns
    ledger.gather({"05_chapter": notebook}, path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
    ledger.gather({"06_other": notebook}, path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) != before


def test_the_table_escapes_what_it_shows(rows):
    shown = ledger.as_html(rows)
    assert shown.count("<tr>") == 4
    assert "three &lt;models&gt;" in shown
    assert "<models>" not in shown
    assert "+0.30 [+0.25, +0.34]" in shown


def test_rows_are_plain_json(rows):
    bundle = ledger.Rows(rows)._repr_mimebundle_()
    assert json.loads(json.dumps(bundle, allow_nan=False)) == bundle
    assert np.isnan(rows[2]["estimate"])
    assert bundle[ledger.MEDIA_TYPE][2]["estimate"] is None


@pytest.mark.parametrize(
    "changed",
    [{"said_by": "nobody"}, {"subject": " "}, {"direction": 0}, {"measure": "size"}],
    ids=["said_by", "subject", "direction", "measure"],
)
def test_what_can_not_be_judged_is_refused(changed):
    found = statistics.interval(0.3, 0.25, 0.34)
    with pytest.raises(ValueError, match=next(iter(changed))):
        ledger.claim("A claim.", found, **{"direction": 1, "measure": "grouping", **WHO, **changed})


def test_a_chapter_that_is_no_notebook_stops_the_build(tmp_path):
    with pytest.raises(FileNotFoundError):
        ledger.gather({"05_chapter": tmp_path / "missing.ipynb"}, tmp_path / "ledger.csv")


@pytest.fixture
def gathered(tmp_path, notebook, monkeypatch):
    """The ledger of this file's rows, in the place of the published one."""
    path = ledger.gather({"05_chapter": notebook}, tmp_path / "ledger.csv")
    monkeypatch.setenv("QKUTILS_LEDGER", str(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It follows", "+0.30 [+0.25, +0.34]"),
        ("Attention follows objects. | subject", WHO["subject"]),
        (f"Nobody @ {WHO['subject'][:3]} | more", "no data"),
    ],
)
def test_a_claim_is_quoted(gathered, text, said):
    assert ledger.quote(text) == said


@pytest.mark.parametrize(
    "text", ["Nothing of this", "", "Nobody @ others", "Nobody looked. | colour"]
)
def test_what_is_not_in_the_ledger_is_not_quoted(gathered, text):
    with pytest.raises(ValueError):
        ledger.quote(text)

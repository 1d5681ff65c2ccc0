"""Editions of the chapters: plain Markdown everywhere, stubs for the student, the run's numbers."""

import ast
import html
import io
import json
import re
import subprocess
import sys
import zipfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from markdown_it import MarkdownIt
from nbformat import v4

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_tools"))
import editions  # noqa: E402
import handing_out  # noqa: E402
import stage  # noqa: E402
import stubs  # noqa: E402

from qkutils.book import handout  # noqa: E402

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
EXECUTED = ROOT / "_build" / "executed"
HEADER = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (ch-planted)=
# # Does it *show*?
"""
FIRST = HEADER.count("\n") + 2  # the line of the cell that follows
STUB = re.compile(r"\s*(\w+ = )?\.\.\.")


def written(folder: Path, *cells: str, name: str = "05_planted") -> Path:
    """A chapter with these cells after its title; those of text are given as Markdown."""
    parts = [HEADER]
    for cell in cells:
        if not cell.startswith("# %%"):
            cell = "\n# ".join(["# %% [markdown]", *cell.split("\n")]).replace("# \n", "#\n")
        parts.append(cell + "\n")
    script = folder / f"{name}.py"
    script.write_text("\n".join(parts))
    return script


def executed(folder: Path, **forms: dict[str, str]) -> None:
    """The run of the planted chapter, which handed over these values."""
    prefix = "application/papermill.record/"
    outputs = [
        v4.new_output(
            "display_data",
            {prefix + kind: text for kind, text in data.items()},
            metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
        )
        for name, data in forms.items()
    ]
    cell = v4.new_code_cell("tell()", outputs=outputs)
    nbformat.write(v4.new_notebook(cells=[cell]), folder / "05_planted.ipynb")


def made(folder: Path, *cells: str, edition: str = "student") -> Any:
    """One edition of a planted chapter, without the cell of its title."""
    chapters = editions.read([written(folder, *cells)], folder)
    (content,) = editions.editions(chapters, edition).values()
    notebook = nbformat.reads(content.decode(), as_version=4)
    nbformat.validate(notebook)
    return notebook.cells[1:]


def shown(source: str) -> str:
    """The HTML of some Markdown, as CommonMark has it."""
    return MarkdownIt("commonmark").enable("table").render(source)


def words(source: str) -> str:
    """The text of some HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", source)).split())


@pytest.fixture(scope="module")
def every() -> dict[str, dict[str, Any]]:
    """Every edition of every chapter: edition → chapter → notebook."""
    chapters = editions.read(SCRIPTS, EXECUTED)
    return {
        edition: {
            name: nbformat.reads(content.decode(), as_version=4)
            for name, content in editions.editions(chapters, edition).items()
        }
        for edition in editions.EDITIONS
    }


def left_over(source: str) -> list[str]:
    """What only MyST understands, outside of code."""
    found, tokens = [], MarkdownIt("commonmark").enable("table").parse(source)
    for token in tokens:
        if token.type == "fence" and token.info.startswith("{"):
            found.append(token.info)
        children = token.children or []
        for each, after in zip_longest(children, children[1:]):
            if each.type != "text":
                continue
            found += re.findall(r":{3,}|^\([\w-]+\)=$|^% ", each.content)
            if after and after.type == "code_inline":
                found += re.findall(r"\{[\w:.+-]+\}$", each.content)
    return found


def test_what_is_left_over_is_found() -> None:
    for source in (
        "{term}`mode`",
        ":::{note}\nx\n:::",
        "```{math}\nx\n```",
        "a {a:b}`c`",
        "(x)=",
    ):
        assert left_over(source), source
    assert not left_over("`` {term}`mode` `` and $x_{i}$ `code`")


@pytest.mark.parametrize("edition", editions.EDITIONS)
def test_every_chapter_is_plain(edition: str, every: dict[str, dict[str, Any]]) -> None:
    assert [Path(name).stem for name in every[edition]] == [script.stem for script in SCRIPTS]
    for name, notebook in every[edition].items():
        nbformat.validate(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                assert not left_over(cell.source), (name, cell.source)
                tokens = MarkdownIt("commonmark").parse(cell.source)
                raw = "".join(token.content for token in tokens if token.type == "html_block")
                assert raw.count("<details>") == raw.count("</details>") == raw.count("<summary>")
                assert not re.search(r"<summary>.*[$\\].*</summary>", raw)  # VS Code sets none
                assert "](attachment:" not in cell.source  # which Colab does not show
                for target in re.findall(r"\]\(([\w.]+\.ipynb)\)", cell.source):
                    assert target in every[edition]


def test_student_and_solution_agree_outside_of_stubs(every: dict[str, dict[str, Any]]) -> None:
    for script in SCRIPTS:
        name = f"{script.stem}.ipynb"
        both = (every[edition][name].cells for edition in ("student", "solution"))
        codes = [[cell.source for cell in cells if cell.cell_type == "code"] for cells in both]
        for student, solution in zip(*codes, strict=True):
            kept = [line for line in student.split("\n") if not STUB.fullmatch(line)]
            theirs = iter(solution.split("\n"))
            assert all(line in theirs for line in kept), name  # in this order
            assert "# solution" not in student + solution


@pytest.mark.skipif(not EXECUTED.is_dir(), reason="the book is not built")
def test_numbers_are_those_of_the_run(every: dict[str, dict[str, Any]]) -> None:
    for script in SCRIPTS:
        run = json.loads((EXECUTED / f"{script.stem}.ipynb").read_text())
        outputs = [output for cell in run["cells"] for output in cell.get("outputs", ())]
        told = {
            output["metadata"]["scrapbook"]["name"]: output["data"]
            for output in outputs
            if "scrapbook" in output.get("metadata", {})
        }
        notebook = every["solution"][f"{script.stem}.ipynb"]
        text = words(shown("\n\n".join(c.source for c in notebook.cells if "id" in c)))
        asked = re.findall(r"\{glue:text\}`(\w+):(\.\d[ef%])`", script.read_text())
        for name, form in asked:
            if data := told.get(name):
                value = float(ast.literal_eval(data["application/papermill.record/text/plain"]))
                assert format(value, form) in text, (script.stem, name)


def paragraphs(page: str) -> set[str]:
    """The paragraphs and captions of a built page, with straight quotes."""
    straight = page.translate(str.maketrans("“”‘’", "\"\"''"))
    straight = re.sub(r'<a class="headerlink".*?</a>', "", straight)
    return {words(each) for each in re.findall(r"<p[ >].*?</p>", straight, re.DOTALL)}


@pytest.mark.site
@pytest.mark.parametrize("chapter", [script.stem for script in SCRIPTS])
def test_prose_is_that_of_the_page(chapter: str, every: dict[str, dict[str, Any]]) -> None:
    """Sphinx is the oracle: numbers, figures, titles and terms, a paragraph at a time."""
    cells = every["solution"][f"{chapter}.ipynb"].cells
    page = (ROOT / "_build" / "html" / "notebooks" / f"{chapter}.html").read_text("utf-8")
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    mine = re.findall(r"<p>(.*?)</p>", shown(prose), re.DOTALL)
    plain = {words(each) for each in mine if not re.search(r"\$|https?://|<img", each)}
    assert len(plain) > 10 and not plain - paragraphs(page)
    captions = re.findall(r"<p><strong>(Fig\. [\d.]+)</strong>", shown(prose))
    assert set(captions) == set(re.findall(r'caption-number">(Fig\. [\d.]+) ', page))


# What a role shows, as text: the planted run hands over some values
ROLES = {
    "{glue:text}`a:.2f`": "-0.13",
    "{glue:text}`share:.0%`": "88%",
    "{glue:text}`name`": "*a* _b_ `c` <d> $x$",
    "{glue:text}`none:.1%`": "nan%",
    "{glue:text}`none`": "nan",
    "{glue:text}`least:.2f`": "-inf",
    "{glue:text}`count:d`": "3",
    "{glue:text}`count:>3s`": "3",
    "{glue:text}`kind`": "<A: 1>",
    "{glue:text}`nowhere:.2f`": "nowhere:.2f"[:7],
    "{term}`modes <mode>`": "modes",
    "{term}`mode`": "mode",
    "{cite}`pan2024dissecting,elhage2021mathematical`": "(Pan et al., 2024; Elhage et al., 2021)",
    "{cite}`eckart1936approximation`": "(Eckart and Young, 1936)",
    "{doc}`/book/notation`": "Notation, glossary and conventions",
    "{doc}`the words <../book/notation>`": "the words",
    "{ref}`notation-symbols`": "Symbols",
    "{numref}`fig-b`": "Fig. 5.2",
    "{eq}`eq-a`": "(5.1)",
    "`{term}` and ``{doc}`x` ``": "{term} and {doc}`x` ",
}
VALUES = {
    "a": {"text/plain": "-0.126"},
    "share": {"text/plain": "0.881"},
    "none": {"text/plain": "nan"},
    "least": {"text/plain": "-inf"},
    "count": {"text/plain": "3"},
    "kind": {"text/plain": "<A: 1>"},
    "name": {"text/plain": "'*a* _b_ `c` <d> $x$'"},
}
FIGURES = [
    '# %% mystnb={"figure": {"name": "fig-a", "caption": "First, of {glue:text}`a:.1f`."}}\n1',
    ':::{glue:figure} shown\n:name: "fig-b"\n:alt: "A line."\n\nSecond.\n:::',
    "$$ x $$ (eq-a)",
]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_shows(role: str, tmp_path: Path) -> None:
    executed(tmp_path, **VALUES)
    cell = made(tmp_path, *FIGURES, f"Here:\n{role}, and on.")[-1]
    assert words(shown(cell.source)) == f"Here: {ROLES[role]}, and on."


def test_a_value_begins_no_list(tmp_path: Path) -> None:
    executed(tmp_path, one={"text/plain": "1"})
    (cell,) = made(tmp_path, "The layer is\n{glue:text}`one`. And on.")
    assert shown(cell.source) == "<p>The layer is 1. And on.</p>\n"


def test_pages_are_linked_where_the_site_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "{doc}`/book/notation` {ref}`notation-symbols` {doc}`05_planted` {ref}`ch-planted`"
    (cell,) = made(tmp_path, text)
    assert "](" not in cell.source
    monkeypatch.setenv("SITE", "https://example.org/book/")
    (cell,) = made(tmp_path, text)
    assert re.findall(r"\]\((.*?)\)", cell.source) == [
        "https://example.org/book/book/notation.html",
        "https://example.org/book/book/notation.html#notation-symbols",
    ]


def test_a_chapter_is_linked_to_its_notebook(tmp_path: Path) -> None:
    both = [written(tmp_path, name="04_other"), written(tmp_path, "See {doc}`04_other`.")]
    content = editions.editions(editions.read(both, tmp_path), "class")["05_planted.ipynb"]
    assert "[Does it *show*?](04_other.ipynb)" in json.loads(content)["cells"][1]["source"][0]


def test_boxes_are_quotes_and_answers_are_folded(tmp_path: Path) -> None:
    text = (
        "Before.\n:::{admonition} *Look* at {term}`mode`\n:class: tip\nOne\n\n$$\na \\\\\nb\n$$\n\n"
        "::::{dropdown} `x` & more\n- A\n\n  :::{note}\n  {term}`B`\n  :::\n::::\n:::\nAfter."
    )
    text = text.replace(":::{adm", ":::::{adm").replace("\n:::\nAfter", "\n:::::\nAfter")
    page = shown(made(tmp_path, text)[0].source)
    assert re.findall("<p>(Before|After).</p>", page) == ["Before", "After"]
    assert "<blockquote>\n<p><strong><em>Look</em> at mode</strong></p>\n<p>One</p>" in page
    assert "<p>$$ a \\\nb $$" not in page and "$$ a \\" in page
    assert "<summary><code>x</code> &amp; more</summary>" in page and "open" not in page
    assert re.search(r"<li>\s*<p>A</p>\s*<blockquote>\s*<p><strong>Note</strong>", page)


def test_formulas_of_titles_are_html(tmp_path: Path) -> None:
    text = ":::{dropdown} $W_q^\\top W_k$ and $\\sigma_0$\nA\n:::"
    html = "<i>W<sub>q</sub><sup>⊤</sup> W<sub>k</sub></i> and <i>σ<sub>0</sub></i>"
    assert f"<summary>{html}</summary>" in made(tmp_path, text)[0].source
    with pytest.raises(SystemExit, match="frac"):
        made(tmp_path, ":::{dropdown} $\\frac{a}{b}$\nA\n:::")


def test_formulas_carry_their_numbers(tmp_path: Path) -> None:
    fenced = "```{math}\n:label: eq-b\ny\n```"
    sources = [
        cell.source for cell in made(tmp_path, "$$ x $$ (eq-a)", fenced, "$$\nz\n$$\nAfter.")
    ]
    assert sources[0] == "$$ x \\tag{5.1}$$"
    assert sources[1].split() == ["$$", "y", "\\tag{5.2}", "$$"]
    assert sources[2] == "$$\nz\n$$\nAfter."


def test_figures_have_pictures_and_captions(tmp_path: Path) -> None:
    table = "<div><style>x</style>\n<table>\n  <tr><td>7</td></tr>\n</table></div>"
    executed(tmp_path, shown={"image/png": "aGk=\n"}, t={"text/html": table}, **VALUES)
    cells = made(tmp_path, *FIGURES, ":::{glue:} t\n:::")
    assert [cell.cell_type for cell in cells[:2]] == ["code", "markdown"]
    assert cells[1].source == "**Fig. 5.1** First, of -0.1."
    assert cells[2].source.split("\n\n") == [
        "![A line.](data:image/png;base64,aGk=)",
        "**Fig. 5.2** Second.",
    ]
    assert shown(cells[4].source).split() == ["<table>", "<tr><td>7</td></tr>", "</table>"]


def test_tables_are_tables(tmp_path: Path) -> None:
    rows = "* - {term}`a`\n  - b\n* - c\n  - d\n    e"
    listed = f":::{{list-table}} Title\n:header-rows: 1\n{rows}\n:::"
    headless, plain = f":::{{list-table}}\n{rows}\n:::", ":::{table} T\n| a |\n|---|\n| b |\n:::"
    cells = made(tmp_path, listed, headless, plain)
    pages = [shown(cell.source) for cell in cells]
    parts = [re.findall(r"<(strong|th|td)>(.*?)</", page) for page in pages]
    body = [("td", "c"), ("td", "d e")]
    assert parts[0] == [("strong", "Title"), ("th", "a"), ("th", "b"), *body]
    assert parts[1] == [("th", ""), ("th", ""), ("td", "a"), ("td", "b"), *body]
    assert parts[2] == [("strong", "T"), ("th", "a"), ("td", "b")]


def test_a_picture_in_a_file(tmp_path: Path) -> None:
    (cell,) = made(tmp_path, ":::{figure} ../book/assets/page.png\n:name: f\n\nA page.\n:::")
    assert cell.source.startswith("![](data:image/png;base64,iVBOR")
    assert cell.source.endswith("**Fig. 5.1** A page.")


def test_what_a_page_folds_is_folded(tmp_path: Path) -> None:
    figure = '# %% tags=["hide-cell"] mystnb={"figure": {"name": "f", "caption": "It falls."}}\n2'
    parameters = '# %% tags=["parameters", "hide-input"]\nx = 1'
    first, second, caption = made(tmp_path, parameters, figure)
    assert first.metadata == {"jupyter": {"source_hidden": True}, "tags": ["parameters"]}
    assert second.metadata.jupyter == {"source_hidden": True, "outputs_hidden": True}
    assert caption.source.startswith("<details>") and "**Fig. 5.1** It falls." in caption.source


def test_comments_and_labels_are_dropped_and_code_is_kept(tmp_path: Path) -> None:
    text = "(x)=\n% a comment\n```python\n% {term}`a`\n\n\n:::{note}\n```\n{term}`b`"
    (cell,) = made(tmp_path, text)
    assert cell.source == "```python\n% {term}`a`\n\n\n:::{note}\n```\nb"


# A cell, and at which of its lines the fault lies
FAULTS = {
    "an unknown role": ("One\nand {foo}`x`.", 2, "'foo'"),
    "one in a box": (":::{note}\n:class: tip\n\n{foo}`x`\n:::", 4, "'foo'"),
    "one in a title": ("A\n\n:::{dropdown} {foo}`x`\nb\n:::", 3, "'foo'"),
    "an unknown directive": ("A\n\n```{margin} x\n* - a\n```", 3, "'margin'"),
    "no row": (":::{list-table} x\n- a\n:::", 1, "'- a'"),
    "one in a box that is not known": (":::{note}\na\n```{foo}\n```\n:::", 3, "'foo'"),
    "no end": ("A\n:::{note}\nb", 2, "never closed"),
    "no end of a formula": ("A\n\n$$\nb", 3, "never closed"),
    "an unknown label": ("{ref}`nowhere`", 1, "'nowhere'"),
    "an unknown figure": ("{numref}`fig-x`", 1, "'fig-x'"),
    "an unknown equation": ("{eq}`eq-x`", 1, "'eq-x'"),
    "an unknown page": ("{doc}`nowhere`", 1, "'notebooks/nowhere'"),
    "an unknown work": ("A\n{cite}`pan2024dissecting,\nnobody2020`", 2, "'nobody2020'"),
    "no claim": ("{ledger}`Nobody said this.`", 1, "0 claims"),
    "no number": ("{glue:text}`name:.2f`", 1, "name is '*a*"),
    "no whole number": ("{glue:text}`none:d`", 1, "none is nan"),
    "no picture": (":::{figure} nowhere.png\n:::", 1, "nowhere.png"),
    "a mark without an exercise": ("# %%\nx = 1\ny = 2  # solution", 2, "exercise"),
    "a stub that is no Python": (
        '# %% tags=["exercise"]\nx = 1\nif x:  # solution\n    y = 2',
        2,
        "Python",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_with_chapter_and_line(name: str, tmp_path: Path) -> None:
    executed(tmp_path, **VALUES)
    cell, line, told = FAULTS[name]
    with pytest.raises(SystemExit) as stopped:
        made(tmp_path, "Fine.", cell)
    said = str(stopped.value)
    assert f"05_planted.py, cell 3, line {FIRST + 3 + line}: " in said
    assert told in said and "\n" not in said


def test_a_fault_of_a_teaching_note_names_the_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "05_planted.md").write_text("# A note\n\nSee {numref}`fig-x`.\n")
    monkeypatch.setattr(editions, "NOTES", tmp_path)
    quotes = editions.Quotes(editions.Book(), "05_planted", {})
    with pytest.raises(SystemExit, match="05_planted.md, line 3: .*'fig-x'"):
        editions.note(Path("05_planted.py"), quotes)


EXERCISE = '''\
# %% tags=["exercise"]
import numpy as np

first = 1  # solution
# then the second
whole = np.sum(  # solution
    [first, 2]  # solution
)  # solution


def third(x):
    """Keep me."""
    y = x * 3  # solution
    return y  # solution


for n in range(3):
    third(n)  # solution
    if n:
        a, b = n, n  # solution
print("# solution is a word here")'''
STUBBED = '''\
import numpy as np

first = ...
# then the second
whole = ...


def third(x):
    """Keep me."""
    ...


for n in range(3):
    ...
    if n:
        ...
print("# solution is a word here")'''


def test_marked_lines_are_stubs_for_the_student(tmp_path: Path) -> None:
    assert made(tmp_path, EXERCISE)[0].source == STUBBED
    for edition in ("class", "solution", "instructor"):
        lines = made(tmp_path, EXERCISE, edition=edition)[0].source.split("\n")
        assert lines == [line.split("  # solution")[0] for line in EXERCISE.split("\n")[1:]]


def test_in_class_every_fifth_exercise_of_the_book_is_open(tmp_path: Path) -> None:
    meaning = '# %% [markdown] tags=["solution"]\n# It means.'
    cells = ['# %% tags=["exercise"]\nx = 1  # solution', meaning] * 4
    scripts = [
        written(tmp_path, *cells, name=name) for name in ("04_first", "05_second", "06_third")
    ]
    made_of = editions.editions(editions.read(scripts, tmp_path), "class").values()
    sources = [c["source"] for content in made_of for c in json.loads(content)["cells"][1:]]
    assert [source[0] for source in sources].count("x = ...") == 2
    left = [n for n, source in enumerate(sources) if source == ["x = ..."]]
    assert [sources[n - 1] for n in left] == [["It means."]] * 2  # of the exercise before
    assert all(sources[n + 1] != ["It means."] for n in left)
    assert sources.count(["It means."]) == 10


def test_who_gets_notes_and_solutions_in_text(tmp_path: Path) -> None:
    cells = [
        '# %% [markdown] tags=["instructor"]\n# Note.\n# :::{glue:figure} x\n# :name: n\n# :::',
        '# %% [markdown] tags=["solution"]\n# Answer.',
    ]
    figure = '# %% mystnb={"figure": {"name": "fig-a", "caption": "First."}}\n1'
    caption = made(tmp_path, *cells, figure, edition="instructor")[-1]
    assert caption.source == "**Fig. 5.1** First."  # as on the page, which has no notes
    got = {
        edition: [cell.source for cell in made(tmp_path, *cells, edition=edition)]
        for edition in editions.EDITIONS
    }
    assert got == {
        "student": [],
        "class": ["Answer."],
        "solution": ["Answer."],
        "instructor": ["Note.\n\n`x`", "Answer."],
    }


def test_a_page_shows_the_stub_and_folds_the_solution(tmp_path: Path) -> None:
    notebook, _ = editions.read_chapter(written(tmp_path, EXERCISE))
    note = v4.new_markdown_cell("Note.", metadata={"tags": ["instructor"]})
    notebook.cells += [note, v4.new_code_cell("1", metadata={"tags": ["exercise"]})]
    notebook.cells += [v4.new_code_cell("check.f(2)", metadata={"tags": ["check"]})]
    notebook.cells[1].metadata["mystnb"] = {"figure": {"name": "fig-a"}}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [v4.new_output("stream", text="seen")]
    nbformat.write(notebook, tmp_path / "05_planted.ipynb")
    (tmp_path / "notebooks").mkdir()
    stage.copy(tmp_path / "05_planted.ipynb", tmp_path)
    page = nbformat.read(tmp_path / "notebooks" / "05_planted.ipynb", as_version=4)
    nbformat.validate(page)
    _, stub, solution, given, check = page.cells
    assert stub.source == STUBBED and not stub.outputs and not stub.metadata.get("tags")
    assert solution.source == stubs.solved(notebook.cells[1].source)
    assert solution.metadata.tags == ["hide-cell"] and solution.outputs
    assert solution.metadata.mystnb["figure"] == {"name": "fig-a"}
    assert given.source == "1" and given.outputs
    assert check.metadata.tags == ["hide-output"] and check.outputs  # it may answer a prediction


def test_copies_that_somebody_changed_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    assert not handout.copies({"a": b"1", "b": b"1", "c": b"1"}, folder)
    (folder / "a").write_bytes(b"mine")
    (folder / "c").unlink()
    assert not handout.copies({"a": b"1", "b": b"1", "c": b"1"}, folder)  # there is nothing new
    assert handout.copies({"a": b"2", "b": b"2", "c": b"2"}, folder) == [folder / "a"]
    assert [(folder / name).read_bytes() for name in "abc"] == [b"mine", b"2", b"2"]
    (folder / "a").rename(folder / "mine")
    handout.copies({"a": b"2"}, folder)
    assert (folder / "a").read_bytes() == b"2" and (folder / "mine").read_bytes() == b"mine"


def test_where_notebooks_cannot_be_written_one_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, editions.__file__, "lab", str(tmp_path / "file" / "lab")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and str(tmp_path / "file") in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_was_there_before_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    assert handout.copies({"a": b"1"}, tmp_path) == [tmp_path / "a"]
    assert (tmp_path / "a").read_bytes() == b"mine"


def test_copies_that_were_stopped_go_on_beside_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(b"mine")
    (tmp_path / "b").mkdir()  # so that no file can be written there
    with pytest.raises(OSError, match="/b: "):
        handout.copies({"a": b"1", "b": b"1"}, tmp_path)
    (tmp_path / "b").rmdir()
    assert not handout.copies({"a": b"2", "b": b"2"}, tmp_path)
    there = {file.name: file.read_bytes() for file in tmp_path.glob("[!.]*")}
    assert there == {"a": b"2", "b": b"2", "a.part": b"mine"}
    assert [file.name for file in tmp_path.glob(".*")] == [handout.RECORD]


def test_the_archive_has_the_same_bytes_and_the_pages(tmp_path: Path) -> None:
    page = tmp_path / "html" / "notebooks" / "a.html"
    page.parent.mkdir(parents=True)
    page.write_text("page")
    (tmp_path / "html" / "index.html").write_text("first")
    kinds = {f"{edition}/a.ipynb": edition.encode() for edition in editions.EDITIONS}
    out = tmp_path / "out" / "editions.zip"
    handing_out.archive(kinds, tmp_path / "html", out)
    before = out.read_bytes()
    page.touch()
    handing_out.archive(dict(reversed(kinds.items())), tmp_path / "html", out)
    assert out.read_bytes() == before and list(out.parent.iterdir()) == [out]
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert sorted(archive.namelist()) == sorted([*kinds, "site.zip"])
        assert all(archive.read(name) == content for name, content in kinds.items())
        site = zipfile.ZipFile(io.BytesIO(archive.read("site.zip")))
    assert site.read("index.html") == b"first" and site.read("notebooks/a.html") == b"page"


def test_without_pages_there_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make book"):
        handing_out.archive({}, tmp_path, tmp_path / "editions.zip")
    assert not list(tmp_path.iterdir())


@pytest.mark.chapter
@pytest.mark.slow
def test_a_solution_runs_outside_of_the_repository(tmp_path: Path) -> None:
    name = "03_cosine_trends"
    chapters = editions.read(SCRIPTS, EXECUTED)
    solution = tmp_path / f"{name}.ipynb"
    solution.write_bytes(editions.editions(chapters, "solution")[solution.name])
    papermill.execute_notebook(solution, solution, cwd=tmp_path, progress_bar=False)
    cells = nbformat.read(solution, as_version=4).cells
    pages = [o["data"] for cell in cells for o in cell.get("outputs", ()) if "data" in o]
    assert not any("papermill.record" in kind for data in pages for kind in data)
    assert any("application/vnd.jupyter.widget-view+json" in data for data in pages)
    text = "".join(data.get("text/html", "") for data in pages)
    for each in re.findall(r"\btell\((\w+)=", "".join(cell.source for cell in cells)):
        assert f"<div>{each} = " in text
    for cell in cells:
        shown_at = [o for o in cell.get("outputs", ()) if "numbers of this run" in json.dumps(o)]
        assert len(shown_at) == ("tell(" in cell.source)

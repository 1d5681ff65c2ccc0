"""Exercises and quizzes of the chapters: their form, and their editions as they run."""

import ast
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_tools"))
import editions  # noqa: E402
import stubs  # noqa: E402

ROOT = Path(__file__).parents[2]
EXECUTED = ROOT / "_build" / "executed"
CHAPTERS = {
    chapter.script.stem: chapter
    for chapter in editions.read(sorted((ROOT / "notebooks").glob("[0-9]*.py")), EXECUTED)
}
KINDS = {"predict first", "with the view", "in pairs"}
HEAD = re.compile(
    r"^### Exercise (?P<number>[\d.]+)\. .+\n\n"
    r"\*(?P<level>Easy|Medium|Hard), (?P<minutes>\d+) minutes(?P<kinds>(?:, [a-z ]+)*)\. "
    r"Trains: [^*]+\.\*\n",
    re.MULTILINE,
)
FOLD = re.compile(r"^:::\{dropdown\} (.+)\n((?::[\w-]+: .*\n)*)([\s\S]*?)\n:::$", re.MULTILINE)
OPTION = ":class-container: option"


def part(chapter: str, title: str) -> list[Any]:
    """The cells from a heading of the second level to the next one."""
    cells, inside = [], False
    for cell in CHAPTERS[chapter].notebook.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^## (.+)$", cell.source, re.M)):
            inside = found[1] == title
        cells += [cell] if inside else []
    assert cells, f"{chapter} has no section {title!r}"
    return cells


def exercises(chapter: str) -> list[tuple[re.Match, list[Any]]]:
    """Each exercise: its head, and its cells."""
    made: list[tuple[re.Match, list[Any]]] = []
    for cell in part(chapter, "Exercises"):
        found = HEAD.search(cell.source) if cell.cell_type == "markdown" else None
        if found:
            made.append((found, []))
        if made:
            made[-1][1].append(cell)
    return made


def tags(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", ()))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_its_exercises(chapter: str) -> None:
    found = exercises(chapter)
    assert 3 <= len(found) <= 5
    numbers = [f"{int(chapter.split('_')[0])}.{n}" for n, _ in enumerate(found, 1)]
    assert [head["number"] for head, _ in found] == numbers
    heads = sum(c.source.count("### Exercise") for c in part(chapter, "Exercises"))
    assert heads == len(found)
    kinds = [kind for head, _ in found for kind in head["kinds"].split(", ")[1:]]
    assert set(kinds) == KINDS


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_an_exercise_is_whole(chapter: str) -> None:
    for head, cells in exercises(chapter):
        which = head["number"]
        (answer,) = [cell for cell in cells if stubs.EXERCISE in tags(cell)]
        (check,) = [cell for cell in cells if stubs.CHECK in tags(cell)]
        assert any(map(stubs.marked, answer.source.split("\n"))), which
        assert cells.index(check) == cells.index(answer) + 1, which
        assert check.source.startswith("check."), which
        meaning = [cell for cell in cells if "solution" in tags(cell)]
        assert len(meaning) == 1 and meaning[0].cell_type == "markdown", which
        assert FOLD.search(meaning[0].source)[1] == "What it means", which
        titles = [fold[1] for cell in cells for fold in FOLD.finditer(cell.source)]
        hints = [title for title in titles if title.startswith("Hint")]
        assert len(hints) >= 2 and hints == [f"Hint {n}" for n, _ in enumerate(hints, 1)], which
        assert titles == [*hints, "What you should see", "What it means"], which


def names(source: str, kind: type) -> set[str]:
    """Names that code assigns (`ast.Store`) or reads (`ast.Load`)."""
    nodes = list(ast.walk(ast.parse(source)))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    found = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, kind)}
    return found | (defined if kind is ast.Store else set())


def outer(source: str) -> set[str]:
    """Names that a cell leaves behind."""
    body = ast.parse(source).body
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    others = [ast.unparse(node) for node in body if not isinstance(node, ast.FunctionDef)]
    return defined | names("\n".join(others), ast.Store)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_nothing_later_needs_an_answer(chapter: str) -> None:
    cells = CHAPTERS[chapter].notebook.cells
    own = [cell for _, group in exercises(chapter) for cell in group if cell.cell_type == "code"]
    left = set().union(*(outer(cell.source) for cell in own))
    last = max(cells.index(cell) for cell in own)
    for cell in [cell for cell in cells[last + 1 :] if cell.cell_type == "code"]:
        assert not left & names(cell.source, ast.Load), cell.source
    for (_, one), (_, other) in pairwise(exercises(chapter)):
        answers = [c.source for c in one if stubs.EXERCISE in tags(c)]
        later = [c.source for c in other if c.cell_type == "code"]
        left = outer(answers[0])
        assert not left & (names(later[0], ast.Load) - outer(later[0])), other[0].source


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_check_reads_names_that_a_student_has(chapter: str) -> None:
    for _, cells in exercises(chapter):
        (answer,) = [cell.source for cell in cells if stubs.EXERCISE in tags(cell)]
        (check,) = [cell.source for cell in cells if stubs.CHECK in tags(cell)]
        asked = names(check, ast.Load) & outer(stubs.solved(answer))
        assert asked <= outer(stubs.stubbed(answer)), answer


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_quiz_answers_every_choice(chapter: str) -> None:
    text = "\n\n".join(cell.source for cell in part(chapter, "Quiz"))
    questions = re.split(r"^\*\*\d\. (?=.+\*\*$)", text, flags=re.MULTILINE)[1:]
    assert len(questions) == 3
    places = []
    for question in questions:
        options = [fold for fold in FOLD.finditer(question) if fold[2].startswith(OPTION)]
        right = [fold[2].strip() == f"{OPTION} right" for fold in options]
        assert len(options) >= 3 and sum(right) == 1, question
        assert question.count(":::{dropdown}") == len(options)
        places.append(right.index(True))
        for fold, holds in zip(options, right, strict=True):
            assert fold[3].startswith("Right. " if holds else "No. "), fold[0]
            assert len(fold[3].split()) >= 5, fold[0]
    assert len(set(places)) > 1, "the right answer always stands in the same place"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_solution_is_in_the_student_edition(chapter: str) -> None:
    book = editions.book_of(list(CHAPTERS.values()))
    student = editions.edition(CHAPTERS[chapter], book, "student")
    text = "\n".join(cell.source for cell in student.cells)
    for _, cells in exercises(chapter):
        for cell in cells:
            if stubs.EXERCISE in tags(cell):
                hidden = [line for line in cell.source.split("\n") if stubs.marked(line)]
                hidden = [stubs.solved(line) for line in hidden]
                assert not [line for line in hidden if len(line) > 12 and line in text]
            elif "solution" in tags(cell):
                told = FOLD.search(cell.source)[3].split("\n")[0]
                assert told not in text


def ran(notebook: Any) -> list[tuple[Any, Any]]:
    """The cells that ended in an error, each with it."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [(c, out) for c in cells for out in c.outputs if out.output_type == "error"]


@pytest.mark.chapter
@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_student_edition_stops_only_at_checks(
    chapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QKUTILS_BUILDING", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as in a build: other tests run beside it
    book = editions.book_of(list(CHAPTERS.values()))
    notebook = editions.edition(CHAPTERS[chapter], book, "student")
    for cell in notebook.cells:
        if cell.cell_type == "code":  # few pictures are enough to get from check to check
            cell.source = re.sub(r"(?m)^(COUNT|MANY) = \d+", r"\1 = 16", cell.source)
            cell.source = cell.source.replace("directions=40_000", "directions=2_000")
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": tmp_path}}).execute()
    checks = [cell for cell in notebook.cells if stubs.CHECK in tags(cell)]
    failed = ran(notebook)
    assert [cell.id for cell, _ in failed] == [cell.id for cell in checks]
    for _, error in failed:
        assert error.ename == "NotYet"
        assert len(error.traceback) == 1 and "`...`" in error.traceback[0], error.traceback


@pytest.mark.skipif(not EXECUTED.is_dir(), reason="the book is not built")
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_solution_edition_passes_all_checks(chapter: str) -> None:
    """The build executed, with papermill, the very code of the solution edition."""
    run = nbformat.read(EXECUTED / f"{chapter}.ipynb", as_version=4)
    book = editions.book_of(list(CHAPTERS.values()))
    solution = editions.edition(CHAPTERS[chapter], book, "solution")
    theirs = [c for c in run.cells if c.cell_type == "code"]
    theirs = [c for c in theirs if "injected-parameters" not in tags(c)]
    mine = [cell.source for cell in solution.cells if cell.cell_type == "code"]
    assert [stubs.solved(cell.source) for cell in theirs] == mine
    checks = [cell for cell in theirs if stubs.CHECK in tags(cell)]
    assert len(checks) >= 3 and not ran(run)
    for cell in checks:
        (told,) = [out.text for out in cell.outputs if out.output_type == "stream"]
        assert set(line[0] for line in told.splitlines()) == {"✓"}

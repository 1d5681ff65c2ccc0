"""Editions of the chapters, as notebooks that any notebook program shows as they are meant.

usage: editions.py lab FOLDER | editions.py student FOLDER
       editions.py downloads FOLDER | editions.py archive FILE.zip --html FOLDER
Numbers in the text are those of the chapters in --executed, as far as they are there.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faults
import handing_out
import nbformat
import stubs
from chapters import explain, read_chapter
from nbformat import v4
from plain import Reader, folded
from pybtex.database import parse_file
from quotes import CHAPTERS, ROOT, Book, Quotes, values

from qkutils import store
from qkutils.book import handout

EDITIONS = ("student", "class", "solution", "instructor")
FOLDED = {"hide-input", "hide-cell"}  # tags
NOTES = ROOT / "book" / "teach"
EVERY = 5  # in class, one exercise of so many is left open


@dataclass
class Chapter:
    """A chapter as it is written, with the values of its run and the line of each cell."""

    script: Path
    notebook: Any
    lines: dict[str, int]
    glued: dict[str, dict[str, str]]


def read(scripts: list[Path], executed: Path) -> list[Chapter]:
    """Read chapters, and what their runs handed to the prose."""
    found = []
    for script in scripts:
        run = executed / f"{script.stem}.ipynb"
        glued = values(nbformat.read(run, as_version=4)) if run.is_file() else {}
        found.append(Chapter(script, *read_chapter(script), glued))
    return found


def book_of(chapters: list[Chapter]) -> Book:
    """All that chapters refer to: each other, the pages of the book, and works."""
    book = Book(works=parse_file(ROOT / "book" / "references.bib"), site=os.environ.get("SITE", ""))
    pages = ROOT / "book"
    for page in sorted([*pages.glob("*.md"), *NOTES.glob("*.md")]):
        name = page.relative_to(ROOT).with_suffix("").as_posix()
        book.add(name, page.read_text("utf-8"))
    for chapter in chapters:
        book.add_chapter(chapter.script.stem, chapter.notebook)
    return book


def tags(cell: Any) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def belongs(cell: Any, edition: str) -> bool:
    """Whether an edition has a cell: notes are the instructor's, solutions not the student's."""
    only = {stubs.INSTRUCTOR: edition == "instructor", "solution": edition != "student"}
    return cell.cell_type == "code" or all(only.get(tag, True) for tag in tags(cell))


def prose(cell: Any, quotes: Quotes) -> Any:
    """A cell of text."""
    reader = Reader(quotes, cell.id)
    return v4.new_markdown_cell(reader.read(cell.source), id=cell.id)


def code(cell: Any, as_stub: bool) -> Any:
    """A cell of code, folded where its page folds it; an exercise as stub or with its solution."""
    stubs.check(cell.source, cell.id, tags(cell))
    source = stubs.stubbed(cell.source) if as_stub else stubs.solved(cell.source)
    metadata: dict[str, Any] = {}
    kept = [tag for tag in tags(cell) if tag not in FOLDED]
    kept += ["raises-exception"] if stubs.CHECK in kept else []  # so that later cells run
    if kept:
        metadata["tags"] = kept
    if hidden := FOLDED & set(tags(cell)):
        metadata["jupyter"] = {"source_hidden": True}
        metadata["jupyter"] |= {"outputs_hidden": True} if "hide-cell" in hidden else {}
    return v4.new_code_cell(source, metadata=metadata, id=cell.id)


def caption(cell: Any, quotes: Quotes) -> list[Any]:
    """The caption of a cell's figure, as a cell below it; folded where the figure is."""
    figure = cell.metadata.get("mystnb", {}).get("figure", {})
    if "caption" not in figure:
        return []
    reader = Reader(quotes, cell.id)
    lines = reader.caption(figure.get("name", ""), [reader.read(figure["caption"])])[1:]
    if "hide-cell" in tags(cell):
        lines = folded(f"Fig. {quotes.figures[figure['name']]}", lines)
    return [v4.new_markdown_cell("\n".join(lines), id=f"{cell.id}-caption")]


def note(script: Path, quotes: Quotes) -> list[Any]:
    """The teaching note of a chapter, as a cell, where it has one."""
    page = NOTES / f"{script.stem}.md"
    if not page.is_file():
        return []
    cell = v4.new_markdown_cell(page.read_text("utf-8"), id="teaching-note")
    try:
        return [prose(cell, quotes)]
    except faults.Fault as fault:
        sys.exit(f"{page}, line {fault.line}: {fault}")


def edition(chapter: Chapter, book: Book, name: str, exercises: int = 0) -> Any:
    """One edition of a chapter; `exercises` says how many the chapters before it have."""
    quotes = Quotes(book, chapter.script.stem, chapter.glued)
    cells = note(chapter.script, quotes) if name == "instructor" else []
    for cell in chapter.notebook.cells:
        exercises += stubs.EXERCISE in tags(cell)
        left = exercises > 0 and exercises % EVERY == 0  # open in class
        as_stub = name == "student" or (name == "class" and left)
        if cell.cell_type == "code":
            cells += [code(cell, as_stub), *caption(cell, quotes)]
        elif belongs(cell, name) and not (as_stub and "solution" in tags(cell)):
            cells.append(prose(cell, quotes))
    metadata = {"kernelspec": chapter.notebook.metadata["kernelspec"]}
    return v4.new_notebook(cells=cells, metadata=metadata)


def editions(chapters: list[Chapter], name: str) -> dict[str, bytes]:
    """One edition of all chapters: file → content."""
    book, exercises, made = book_of(chapters), 0, {}
    for chapter in chapters:
        try:
            notebook = edition(chapter, book, name, exercises)
        except faults.Fault as fault:
            sys.exit(explain(fault, chapter.script, chapter.lines))
        exercises += sum(stubs.EXERCISE in tags(cell) for cell in chapter.notebook.cells)
        made[f"{chapter.script.stem}.ipynb"] = nbformat.writes(notebook).encode() + b"\n"
    return made


def main() -> None:
    """Hand out what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["lab", "student", "downloads", "archive"])
    parser.add_argument("to", type=Path)
    parser.add_argument("--executed", type=Path, default=ROOT / "_build" / "executed")
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html")
    given = parser.parse_args()
    chapters = read(sorted((ROOT / CHAPTERS).glob("[0-9]*.py")), given.executed)
    if given.what == "lab":
        if not all(chapter.glued for chapter in chapters):
            print("Some numbers in the text are shown by name: make book gives them")
        for kept in handout.copies(editions(chapters, "student"), given.to):
            print(f"{kept}: kept, you changed it; rename it to get the new one", file=sys.stderr)
        return
    if given.what == "student":
        for name, content in editions(chapters, "student").items():
            store.write(given.to / name, content)
        return
    if given.what == "downloads":
        for chapter in chapters:
            store.write(given.to / "script" / chapter.script.name, chapter.script.read_bytes())
        for name in ("student", "solution"):
            for file, content in editions(chapters, name).items():
                store.write(given.to / name / file, content)
        return
    every = {f"{e}/{file}": got for e in EDITIONS for file, got in editions(chapters, e).items()}
    handing_out.archive(every, given.html, given.to)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(str(error))

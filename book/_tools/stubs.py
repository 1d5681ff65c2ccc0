"""Exercises: what becomes of the lines that end in `# solution`."""

import ast
import re
from itertools import groupby
from textwrap import dedent

import faults

EXERCISE = "exercise"  # the tag of a cell that may have such lines
CHECK = "check"  # the tag of the cell below it, which says whether the answer holds
INSTRUCTOR = "instructor"  # the tag of a note that the instructor's edition alone has
MARK = re.compile(r"[ \t]*# solution[ \t]*$")


def marked(line: str) -> bool:
    """Whether a line belongs to the solution alone."""
    return bool(MARK.search(line))


def solved(source: str) -> str:
    """An exercise with its solution, without marks."""
    return "\n".join(MARK.sub("", line) for line in source.split("\n"))


def stubbed(source: str) -> str:
    """An exercise without its solution: marked lines that follow each other become a stub."""
    made: list[str] = []
    for hidden, lines in groupby(source.split("\n"), marked):
        part = list(lines)
        made += [stub(solved("\n".join(part)))] if hidden else part
    return "\n".join(made)


def stub(solution: str) -> str:
    """What stands for some lines: `name = ...` for each name if they only give values, or `...`."""
    indent = re.match(r"[ \t]*", solution)[0]  # type: ignore[index]
    try:
        body = ast.parse(dedent(solution)).body
    except SyntaxError:  # they are a part of a statement
        body = []
    names = [name for statement in body if (name := given(statement))]
    if not names or len(names) < len(body):
        return f"{indent}..."
    return "\n".join(f"{indent}{name} = ..." for name in dict.fromkeys(names))


def given(statement: ast.stmt) -> str | None:
    """The one name that a statement gives a value."""
    match statement:
        case ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)):
            return name
    return None


def check(source: str, cell: str, tags: list[str]) -> None:
    """Raise a Fault if marks stand where no exercise is, or if what they leave is not Python."""
    lines = [number for number, line in enumerate(source.split("\n"), 1) if marked(line)]
    if lines and EXERCISE not in tags:
        raise faults.Fault("`# solution` needs a cell tagged `exercise`", cell, lines[0])
    for made in (stubbed(source), solved(source)) if lines else ():
        try:
            ast.parse(made)
        except SyntaxError as error:
            told = f"with and without its marked lines an exercise has to be Python: {error.msg}"
            raise faults.Fault(told, cell, lines[0]) from None

"""Checks of exercises: other right answers pass, and each planted fault is named."""

import importlib
import importlib.util
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
from IPython.core.interactiveshell import InteractiveShell

from qkutils.book import checks
from qkutils.book.checks import NotYet, Rule

ANSWERS = {path.stem: path for path in sorted((Path(__file__).parent / "checks").glob("*.py"))}


def read(name: str) -> ModuleType:
    """The answers that are kept for the checks of a chapter: RIGHT and WRONG."""
    found = importlib.util.spec_from_file_location(f"answers_{name}", ANSWERS[name])
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


MODULES = {name: read(name) for name in ANSWERS}
RIGHT = [each for module in MODULES.values() for each in module.RIGHT]
WRONG = [each for module in MODULES.values() for each in module.WRONG]


def named(case: tuple) -> str:
    """The check, and what is given to it or said by it."""
    last = case[-1] if isinstance(case[-1], str) else getattr(case[-1], "__name__", "")
    return f"{case[0].__module__.rpartition('.')[2]}.{case[0].__name__}-{last}"


@pytest.mark.parametrize("answer", RIGHT, ids=named)
def test_another_right_answer_passes(answer: tuple, capsys: pytest.CaptureFixture) -> None:
    check, *given = answer
    check(*given)
    told = capsys.readouterr().out.splitlines()
    assert told and all(line.startswith("✓ ") for line in told)


@pytest.mark.parametrize("fault", WRONG, ids=named)
def test_a_planted_fault_is_named(fault: tuple) -> None:
    check, *given, symptom = fault
    with pytest.raises(NotYet) as told:
        check(*given)
    assert symptom in str(told.value)


@pytest.mark.parametrize("name", ANSWERS)
def test_every_check_has_both(name: str) -> None:
    module = importlib.import_module(f"{checks.__name__}.{name}")
    own = {n for n, f in vars(module).items() if getattr(f, "__wrapped__", None) and n[0] != "_"}
    own = {n for n in own if vars(module)[n].__module__ == module.__name__}
    for answers in (MODULES[name].RIGHT, MODULES[name].WRONG):
        assert {check.__name__ for check, *_ in answers} == own


def test_every_module_of_checks_has_answers() -> None:
    folder = Path(checks.__file__).parent
    assert {path.stem for path in folder.glob("[a-z]*.py")} == set(ANSWERS)


@checks.checked
def positive(answer):
    """A check for the tests below."""
    value = answer() if isinstance(answer, FunctionType) or callable(answer) else answer
    yield Rule(value > 0, "It is positive.", f"It is {value}.", "Turn the sign.")


def unwritten(): ...


def broken():
    raise KeyError("lost")


@pytest.mark.parametrize(
    "answer, symptom",
    [
        (..., "`...`"),
        (unwritten, "`unwritten` returns nothing"),
        (lambda: ..., "returns nothing"),
        (broken, "KeyError: 'lost'"),
        ("text", "can't use your answer"),
        (-2, "This should hold: It is positive.\nIt is -2.\nHint: Turn the sign."),
    ],
)
def test_what_is_not_an_answer_is_told(answer: object, symptom: str) -> None:
    with pytest.raises(NotYet) as told:
        positive(answer)
    assert symptom in str(told.value)


def test_a_notebook_shows_the_message_alone(capsys: pytest.CaptureFixture) -> None:
    shell = InteractiveShell.instance()
    shell.run_cell("from qkutils.book.checks import NotYet\nraise NotYet('Look.')")
    out = capsys.readouterr()
    assert "Not yet. Look." in out.out + out.err and "Traceback" not in out.out + out.err


def test_an_array_has_its_shape_or_says_so() -> None:
    assert checks.array([[1, 2]], 1, 2).tolist() == [[1, 2]]
    for wrong in ([1, 2], [[1, float("nan")]]):
        with pytest.raises(NotYet):
            checks.array(wrong, 1, 2)


@pytest.mark.parametrize("factor, same", [(1, True), (1 + 1e-9, True), (1.001, False), (-1, False)])
def test_near_is_relative_to_the_largest(factor: float, same: bool) -> None:
    for size in (1e-12, 1, 1e12):
        assert checks.near([size, 0], [size * factor, 0]) == same
    assert not checks.near([1, 1], [1])

"""Checks of the exercises: what must hold of an answer, what was seen of it, and a hint.

Each chapter has a module, named as the chapter is.  A check tests properties, in the order in
which they are explained; it holds no answer that it would compare with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

NEAR = 1e-6  # relative to the largest number
ODD = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class NotYet(Exception):
    """An answer that does not hold yet; a notebook shows the message, and no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet. {self}"]


class Rule(NamedTuple):
    """One property of an answer."""

    holds: Any  # true or false
    name: str  # what must hold, as a sentence
    seen: str  # what was seen instead, as a sentence
    hint: str  # what to look at, as a sentence


def checked(rules: Callable[..., Iterator[Rule]]) -> Callable[..., None]:
    """Make a check of rules: it says which hold, or raises NotYet at the first that does not.

    An answer that is a function is called only through `_attempt`, so that its faults are told.

    Parameters
    ----------
    rules
        Takes what the reader wrote, and yields `Rule`s.  Later ones may rely on earlier ones.

    Examples
    --------
    >>> @checked
    ... def half(answer):
    ...     yield Rule(answer < 1, "A half is less than 1.", f"It is {answer}.", "Divide.")
    >>> half(0.5)
    ✓ A half is less than 1.
    """

    @functools.wraps(rules)
    def check(*answers: Any) -> None:
        if any(answer is ... for answer in answers):
            raise NotYet("Write your answer in the cell above, where `...` stands, and run it.")
        held = []
        try:
            for rule in rules(*map(_attempt, answers)):
                if not rule.holds:
                    raise NotYet(f"This should hold: {rule.name}\n{rule.seen}\nHint: {rule.hint}")
                held.append(f"✓ {rule.name}")
        except ODD as error:
            told = f"The check can't use your answer: {error}"
            raise NotYet(f"{told}\nHint: print it, and compare it with what is asked.") from error
        print("\n".join(held))

    return check


def _attempt(answer: Any) -> Any:
    """A function that says so if it is not written yet, or what stops it; else the answer."""
    if not isinstance(answer, FunctionType):
        return answer

    def attempt(*given: Any) -> Any:
        try:
            result = answer(*given)
        except Exception as error:  # whatever a reader's code may raise
            told = f"`{answer.__name__}` stops with {type(error).__name__}: {error}"
            raise NotYet(told) from error
        parts = result if isinstance(result, tuple) else (result,)
        if any(part is None or part is ... for part in parts):
            told = f"`{answer.__name__}` returns nothing: write it where `...` stands, and end"
            raise NotYet(f"{told} every way through it with a `return`.")
        return result

    return attempt


def predicted(prediction: Any, *answers: str) -> Rule:
    """Whether a prediction is one of some answers; case and a full stop do not count.

    Examples
    --------
    >>> predicted("Yes.", "yes", "no").holds
    True
    """
    known = str(prediction).strip(" .").lower() in answers
    one_of = ", ".join(f'"{answer}"' for answer in answers[:-1]) + f' or "{answers[-1]}"'
    told = f"You predicted {prediction!r}."
    return Rule(known, "A prediction is made.", told, f"Write {one_of}.")


def array(answer: Any, *sizes: int, name: str = "Your answer") -> np.ndarray:
    """Numbers of an answer, which must have a shape.

    Parameters
    ----------
    answer
        A number, list, tensor or labelled array.
    sizes
        The size of each of its dimensions.
    name
        What the answer is called in the message.

    Raises
    ------
    NotYet
        If the shape is another one, or if a number is not finite.

    Examples
    --------
    >>> array([1, 2], 2)
    array([1., 2.])
    """
    found = answer.detach().cpu() if hasattr(answer, "detach") else answer
    numbers = np.asarray(found, dtype=float)
    if numbers.shape != sizes:
        raise NotYet(f"{name} has the shape {list(numbers.shape)}; it should be {list(sizes)}.")
    if not np.isfinite(numbers).all():
        raise NotYet(f"{name} holds numbers that are not finite.")
    return numbers


def near(one: Any, other: Any, tolerance: float = NEAR) -> bool:
    """Whether two arrays agree, up to rounding.

    Examples
    --------
    >>> near([1.0, 2.0], [1.0, 2.0 + 1e-9])
    True
    """
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    size = max(float(abs(one).max(initial=0)), float(abs(other).max(initial=0)))
    return one.shape == other.shape and bool((abs(one - other) <= tolerance * size).all())

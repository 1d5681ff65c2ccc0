"""Options: what a caller may ask for, checked at the door."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any


def choice(name: str, value: Any, options: Iterable[Any]) -> Any:
    """The value, where it is one of the options; ValueError names them where it is not."""
    known = list(options)
    if not any(type(value) is type(each) and value == each for each in known):
        raise ValueError(f"{name}={value!r}: it is one of {', '.join(map(repr, known))}")
    return value


def choices(name: str, values: Any, options: Iterable[Any]) -> tuple:
    """Several different ones of the options; ValueError where it is no list of them."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"{name}={values!r}: a list is needed, of {', '.join(map(repr, options))}")
    known = list(options)
    chosen = tuple(choice(name, value, known) for value in values)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"{name}={values!r}: each of them once")
    return chosen


def count(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A whole number from `least` to `most`; ValueError for any other value, and for True."""
    try:
        whole = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = None
    if whole is None or whole < least or (most is not None and whole > most):
        span = f"{least} or more" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}={value!r}: a whole number {span} is needed")
    return whole


def index(name: str, value: Any, size: int) -> int:
    """The number of one of `size` things, counted from 0; ValueError outside of 0 to size − 1."""
    return count(name, value, 0, size - 1)


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number with low < value < high; ValueError for any other value, and for NaN."""
    try:
        real = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError):
        real = math.nan
    if not (math.isfinite(real) and low < real < high):
        raise ValueError(f"{name}={value!r}: a number between {low:g} and {high:g} is needed")
    return real

"""Options: what a caller may ask for, checked at the door."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def choice(name: str, value: Any, options: Iterable[Any]) -> Any:
    """The value, where it is one of the options; ValueError names them where it is not."""
    known = list(options)
    for each in known:
        alike = isinstance(value, str) if isinstance(each, str) else type(value) is type(each)
        if alike and value == each:
            return each
    raise ValueError(f"{name}={value!r}: it is one of {', '.join(map(repr, known))}")


def choices(name: str, values: Any, options: Iterable[Any], least: int = 0) -> tuple:
    """Several different ones of the options; ValueError where it is no list of them."""
    known = list(options)
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) < least:
        of = ", ".join(map(repr, known))
        raise ValueError(f"{name}={values!r}: a list of {least} or more is needed, of {of}")
    chosen = tuple(choice(name, value, known) for value in values)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"{name}={values!r}: each of them once")
    return chosen


def _read(convert: Callable[[Any], Any], value: Any) -> Any:
    """What a value is as a number; None where it is none, and for text and True."""
    try:
        return None if isinstance(value, bool | str | bytes) else convert(value)
    except (TypeError, ValueError, OverflowError):
        return None


def count(name: str, value: Any, least: int = 1, most: float | int = math.inf) -> int:
    """A whole number from `least` to `most`; ValueError for any other value, and for True."""
    whole = _read(operator.index, value)
    if whole is None or not least <= whole <= most:
        span = f"{least} or more" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name}={value!r}: a whole number {span} is needed")
    return whole


def seed(value: Any) -> int:
    """The beginning of a random generator, as torch and numpy both take it."""
    return count("seed", value, 0, 2**63 - 1)


def device(value: Any) -> str:
    """The CPU or a GPU, as torch calls it; ValueError for any other."""
    place = f"cuda:{value}" if type(value) is int else str(value)
    if not re.fullmatch(r"cpu(:0)?|cuda(:\d+)?", place):
        raise ValueError(f"device={value!r}: it is 'cpu' or 'cuda'")
    return place


def index(name: str, value: Any, size: int) -> int:
    """The number of one of `size` things, counted from 0; ValueError outside of 0 to size − 1."""
    return count(name, value, 0, size - 1)


def indices(name: str, values: Any, size: int) -> list[int]:
    """The numbers of one or more of `size` things, each once; ValueError for anything else."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(f"{name}={values!r}: a list of numbers from 0 to {size - 1} is needed")
    chosen = [index(name, value, size) for value in values]
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"{name}={chosen}: name one or more, each once")
    return chosen


def number(
    name: str,
    value: Any,
    low: float | int = -math.inf,
    high: float | int = math.inf,
    closed: bool = False,
) -> float:
    """A finite number with low < value < high; ValueError for any other value, and for NaN.

    `closed`: both ends are allowed, too.
    """
    real = _read(float, value)
    inside = real is not None and (low <= real <= high if closed else low < real < high)
    if not (inside and math.isfinite(real)):
        ends = "from {:g} to {:g}" if closed else "between {:g} and {:g}"
        raise ValueError(f"{name}={value!r}: a number {ends.format(low, high)} is needed")
    return real


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that only reads like it."""
    return bool(choice(name, bool(value) if isinstance(value, np.bool_) else value, (True, False)))


def finite(name: str, values: Any, ndim: int | None = None) -> np.ndarray:
    """Values as an array of float64; ValueError where there is none, or one that is not finite."""
    array = _read(lambda each: np.asarray(each, np.float64), values)
    if array is None or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name}: one or more finite numbers are needed")
    if ndim not in (None, array.ndim):
        raise ValueError(f"{name}: numbers in {ndim} dimensions are needed, not {array.ndim}")
    return array


def sequence(name: str, values: Any) -> Any:
    """What has a length and numbered members; ValueError for a text, an iterator or one item."""
    numbered = hasattr(values, "__len__") and hasattr(values, "__getitem__")
    if not numbered or isinstance(values, str | bytes | Mapping):
        raise ValueError(f"{name}: a list is needed, not {type(values).__name__}")
    return values


def with_dims(name: str, values: Any, *dims: str) -> Any:
    """Labelled values; ValueError where they lack one of these dimensions."""
    return _with(name, values, dims, "dims" if hasattr(values, "ndim") else "")


def with_fields(name: str, found: Any, *fields: str) -> Any:
    """A Dataset; ValueError where it lacks one of these fields."""
    return _with(name, found, fields, "data_vars")


def _with(name: str, values: Any, needed: Sequence[str], kind: str) -> Any:
    there = [*getattr(values, kind, ())]
    missing = [each for each in needed if each not in there]
    if missing:
        has = f"has {', '.join(map(str, there))}" if there else f"is {type(values).__name__}"
        raise ValueError(f"{name}: {', '.join(map(str, missing))} is missing; it {has}")
    return values

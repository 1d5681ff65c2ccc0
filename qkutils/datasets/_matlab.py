"""MATLAB's files of version 5, by its published format: cells, structures and plain numbers.

scipy's reader ends the whole process where such a file is damaged.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_TYPES = dict(enumerate("i1 u1 i2 u2 i4 u4 f4 - f8 - - i8 u8 - - u1 u2 u4".split(), 1))
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCTURE, _NUMBERS = 1, 2, range(6, 16)
_ORDERS = {b"\0\1IM": "<", b"\1\0MI": ">"}  # by version and its byte order


def read(content: bytes) -> dict[str, Any]:
    """Variables by name: a cell is a list, a structure a dict, numbers an array, all else None.

    Raises ValueError for a file of another kind or version, and any Exception for a damaged one.
    """
    order = _ORDERS.get(content[124:128])
    if order is None:
        raise ValueError("is no MATLAB file of version 5; save it with `-v7`")
    return dict(_elements(memoryview(content)[128:], order))


def _elements(content: memoryview, order: str) -> Iterator[Any]:
    """What lies in a file or matrix, one after the other: named matrices, and numbers."""
    at = 0
    while at < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        begin, end = at + 8, at + 8 + size
        at = end if kind == _COMPRESSED else end + -size % 8
        if kind >> 16:  # a small one, which shares its eight bytes with its kind and size
            kind, size = kind & 0xFFFF, kind >> 16
            begin, end, at = begin - 4, begin - 4 + size, begin
        inside = content[begin:end]
        if len(inside) < size:
            raise ValueError("is cut short")
        if kind == _COMPRESSED:
            yield from _elements(memoryview(zlib.decompress(inside)), order)
        elif kind == _MATRIX:
            yield _matrix(inside, order)
        else:
            yield np.frombuffer(inside, order + _TYPES[kind])


def _matrix(content: memoryview, order: str) -> tuple[str, Any]:
    """A name, and what is called so."""
    if not content:
        return "", np.empty((0, 0))
    flags, *parts = _elements(content, order)
    kind = int(flags[0]) & 0xFF
    if kind not in (_CELL, _STRUCTURE, *_NUMBERS):  # text, a sparse matrix, an object, a function
        return "", None
    shape, name, *rest = parts
    if kind == _CELL:
        held: Any = [each for _, each in rest]
    elif kind == _STRUCTURE:
        length, names, *values = rest
        fields = [bytes(each).split(b"\0")[0].decode() for each in names.reshape(-1, length[0])]
        held = {key: each for key, (_, each) in zip(fields, values, strict=True)}
    else:
        (numbers,) = rest  # of complex ones there are two
        held = numbers.reshape(shape, order="F")
    return bytes(name).decode(), held

"""MATLAB's files as scipy writes them, whole and damaged."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from scipy.io import savemat

from qkutils.datasets import _matlab

RNG = np.random.default_rng(0)
KINDS = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float32 float64".split()
SHAPES = [(1, 1), (1, 3), (5, 1), (4, 7), (2, 3, 4), (0, 0), (0, 5)]


def written(held: dict, **options) -> bytes:
    file = io.BytesIO()
    savemat(file, held, **options)
    return file.getvalue()


def cell(*items) -> np.ndarray:
    made = np.empty((1, len(items)), dtype=object)
    made[0] = items
    return made


@pytest.mark.parametrize("packed", [False, True])
def test_numbers_of_every_kind_and_shape(packed):
    held = {
        f"{kind}_{n}": RNG.integers(0, 2 if kind == "bool" else 100, shape).astype(kind)
        for kind in KINDS
        for n, shape in enumerate(SHAPES)
    }
    found = _matlab.read(written(held, do_compression=packed))
    assert list(found) == list(held)
    for name, values in held.items():
        assert found[name].shape == values.shape and (found[name] == values).all()


@pytest.mark.parametrize("packed", [False, True])
def test_cells_and_structures_in_each_other(packed):
    first, second = RNG.integers(0, 9, (2, 6, 4), dtype=np.uint16)
    inner = {"Segmentation": first, "people": cell(second, {"x": 3.0}), "said": "text"}
    found = _matlab.read(written({"all": cell(inner, second)}, do_compression=packed))["all"]
    assert (found[0]["Segmentation"] == first).all() and (found[1] == second).all()
    assert (found[0]["people"][0] == second).all() and found[0]["people"][1]["x"] == 3
    assert found[0]["said"] is None


def swapped(content: bytes) -> bytes:
    """A file of one column of 32-bit integers, as a machine of the other byte order writes it."""
    words = np.frombuffer(content[128:], "<u4").copy()
    text = slice(12, 14)  # the name, eight bytes long
    turned = words.byteswap()
    turned[text] = words[text]
    return content[:124] + b"\1\0MI" + turned.tobytes()


def test_the_other_byte_order():
    held = np.array([[1], [2], [70000]], dtype=np.uint32)
    content = swapped(written({"numbers_": held}))
    assert _matlab.read(content)["numbers_"].ravel().tolist() == [1, 2, 70000]


def test_other_versions_and_kinds_are_refused():
    whole = written({"a": np.ones((2, 2))})
    others = (b"", b"\x89HDF" * 50, whole[:100], whole[:124] + b"\0\2IM" + whole[128:])
    for content in (*others, written({"a": np.ones((2, 2))}, format="4")):
        with pytest.raises(ValueError, match="version 5"):
            _matlab.read(content)
    for held in ({"a": np.ones((2, 2)) * 1j}, {"a": np.zeros(2, [("x", int)])}):
        with pytest.raises(ValueError):
            _matlab.read(written(held))


def test_a_damaged_file_never_ends_the_process():
    """Of these, scipy's reader ends it at some: without compression there is no checksum."""
    chance, people = random.Random(0), cell(*({"Segmentation": np.ones((4, 6))} for _ in range(3)))
    whole = written({"groundTruth": people}, do_compression=False)
    raised = 0
    for _ in range(3000):
        spoilt = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            spoilt[chance.randrange(124, len(spoilt))] = chance.randrange(256)
        try:
            _matlab.read(bytes(spoilt[: chance.randrange(124, 3 * len(spoilt))]))
        except Exception:
            raised += 1
    assert 1000 < raised < 3000

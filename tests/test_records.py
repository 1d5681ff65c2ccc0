"""Records: masks and label maps that are taken or refused, and sequences that act like lists."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch

import qkutils as qk
from qkutils.records import Records, Sample, Segmented

PICTURE = PIL.Image.new("RGB", (20, 10))
ON = np.arange(200).reshape(10, 20) % 7 == 0


@pytest.mark.parametrize(
    "mask",
    [
        ON,
        ON.astype(np.uint8),
        ON * np.uint8(255),
        ON * np.uint16(65535),
        ON.astype(np.float32),
    ],
    ids="bool 0-1 0-255 16-bit float".split(),
)
def test_a_mask_of_two_values_is_taken(mask):
    found = Sample("a", PICTURE, {"target": mask}).masks["target"]
    assert found.dtype == bool and (found == ON).all()


def test_a_mask_may_have_another_size_but_not_another_shape():
    half = np.ones((5, 10), dtype=bool)
    assert Sample("a", PICTURE, {"target": half}).masks["target"].shape == (5, 10)
    with pytest.raises(ValueError, match="'a'.*target"):
        Sample("a", PICTURE, {"target": ON.T})
    with pytest.raises(ValueError, match="'a'.*target.*distractor"):
        Sample("a", PICTURE, {"target": half, "distractor": ON})


@pytest.mark.parametrize(
    "mask",
    [
        np.repeat(ON[..., None], 3, 2),
        np.repeat(ON[..., None] * np.uint8(255), 4, 2),
        ON[0],
        ON[:0],
        np.where(ON, np.nan, 0.0),
        np.where(ON, np.nan, 1.0),
        np.where(ON, np.inf, 0.0),
        np.where(ON, 0.9, 0.3),
        np.arange(200, dtype=np.uint8).reshape(10, 20),
        ON.astype(str),
        ON.astype(complex),
    ],
    ids="RGB RGBA row empty NaN NaN-and-1 infinity soft labels text complex".split(),
)
def test_what_is_no_mask_is_refused_with_its_picture(mask):
    with pytest.raises(ValueError, match="'a'.*target"):
        Sample("a", PICTURE, {"target": mask})


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.float64, bool])
def test_label_maps_of_whole_numbers_are_taken(dtype):
    labels = (np.arange(200).reshape(10, 20) % 90).astype(dtype)
    (found,) = Segmented("a", PICTURE, (labels,)).labels
    assert (found == labels).all() and found.dtype == np.int32


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5, -2, 2**31])
def test_label_maps_of_other_numbers_are_refused(value):
    labels = np.zeros((10, 20))
    labels[3, 4] = value
    with pytest.raises(ValueError, match="'a'"):
        Segmented("a", PICTURE, (labels,))


@pytest.mark.parametrize("labels", [ON.T, ON[0], np.zeros((10, 20, 3), int), ON.astype(str)])
def test_label_maps_of_other_shapes_are_refused(labels):
    with pytest.raises(ValueError, match="'a'"):
        Segmented("a", PICTURE, (labels,))


def behaves_like(found, wanted):
    """Whether a sequence gives what a list of the same things gives."""
    last = len(wanted)
    assert len(found) == last and list(found) == wanted and list(reversed(found)) == wanted[::-1]
    for at in (0, -1, last - 1, -last, np.int64(1), np.uint8(2), torch.tensor(1)):
        assert found[at] == wanted[at]
    slices = slice(2), slice(1, None), slice(None, None, 2), slice(None, None, -3), slice(5, 2)
    for part in (*slices, slice(-3, np.int64(last)), slice(0, 999)):
        assert list(found[part]) == wanted[part] and len(found[part]) == len(wanted[part])
        assert list(found[part][::-1][1:]) == wanted[part][::-1][1:]
    for at in (last, -last - 1):
        with pytest.raises(IndexError):
            found[at]
    for at in ("0", 1.0, None):
        with pytest.raises(TypeError):
            found[at]
    assert wanted[1] in found and found.index(wanted[2]) == 2


def test_records_behave_like_a_list():
    behaves_like(Records(range(10, 18), lambda n: n**2), [n**2 for n in range(10, 18)])
    behaves_like(Records(list("abcdef"), str.upper), list("ABCDEF"))


def test_scenes_are_records():
    drawn = qk.world.pictures(3, 62, 67)  # one batch ends at 64, another way of counting
    whole = [picture.tobytes() for picture in drawn]
    assert isinstance(drawn, Records) and len(set(whole)) == 5
    assert [picture.tobytes() for picture in drawn[1:][::-2]] == whole[1:][::-2]
    samples = qk.world.samples(3, 60, 190)
    keys = [f"scene-3-{n}" for n in range(60, 190)]
    assert [each.key for each in samples[::43][2:]] == keys[::43][2:]
    assert samples[-1].key == samples[129:][0].key == keys[-1]


def test_a_slice_reads_nothing():
    read = []
    rest = Records(range(5), read.append)[1:]
    assert len(rest) == 4 and read == []

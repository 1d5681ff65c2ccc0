"""What a page is told of a model's preprocessing; that pixels agree is in `test_math`."""

from __future__ import annotations

import qkutils._torchvision

from dataclasses import replace

import pytest
from timm.data import create_transform
from torchvision import transforms as steps

from qkutils import models
from qkutils.views._recipe import recipe

REST = [steps.ToTensor(), steps.Normalize(0.5, 0.5)]


@pytest.fixture(scope="module")
def made_of(plain_vit):
    model = replace(models.load(plain_vit), name="mine")
    return lambda *given: recipe(replace(model, transform=steps.Compose([*given, *REST])))


def test_what_a_page_is_told(made_of):
    bicubic = steps.InterpolationMode.BICUBIC
    told = made_of(steps.Resize(72, bicubic), steps.CenterCrop(64))
    assert told == {"resize": 72, "filter": "bicubic", "size": [64, 64]}
    told = made_of(steps.Resize((40, 72)))
    assert told == {"resize": [40, 72], "filter": "bilinear", "size": [40, 72]}


def test_sizes_that_are_lists_of_one(made_of):
    told = made_of(steps.Resize([72]), steps.CenterCrop([64]))
    assert told == {"resize": 72, "filter": "bilinear", "size": [64, 64]}


@pytest.mark.parametrize(
    "given",
    [
        [],
        [steps.Resize(72)],  # whose other side no model can tell
        [steps.CenterCrop(64), steps.Resize(64)],
        [steps.Resize(72), steps.Grayscale(3), steps.CenterCrop(64)],
        [steps.Resize(72, steps.InterpolationMode.NEAREST), steps.CenterCrop(64)],
        [steps.Resize(72, max_size=100), steps.CenterCrop(64)],
        create_transform((3, 64, 96)).transforms[:2],
        create_transform((3, 64, 64), crop_mode="border").transforms[:2],
    ],
)
def test_a_transform_that_is_not_known_is_refused(given, made_of):
    with pytest.raises(ValueError, match="^mine: its transform"):
        made_of(*given)

"""Masks and label maps lie on the same pixels as the picture that the model sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from timm.data import create_transform
from torchvision.transforms import Compose, RandomHorizontalFlip, ToTensor

import qkutils as qk

CROPS = ["center", "squash", "border"]


def model_with(make_vit, size=(32, 32), **options):
    """A model whose preprocessing is timm's for these options."""
    model = qk.load(make_vit(img_size=size))
    return replace(model, transform=create_transform((3, *size), is_training=False, **options))


def blob(width, height, left, top, right, bottom):
    """A mask that is on in a rectangle given in fractions of the sides."""
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    return ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))[None]


def painted(mask):
    return PIL.Image.fromarray(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))


def seen(model, pixels):
    """The model's normalisation undone: 0 is black, 1 is white."""
    return qk.pictures.visible(model, pixels[None])[0].mean(-1)


@pytest.mark.parametrize("size", [(32, 32), (40, 24)], ids=["square", "upright"])
@pytest.mark.parametrize("mode", CROPS)
@pytest.mark.parametrize("width, height", [(640, 480), (300, 451), (97, 97), (20, 33)])
def test_a_mask_lies_where_the_picture_shows_it(make_vit, mode, size, width, height):
    model = model_with(make_vit, size, crop_mode=mode, mean=(0.0,) * 3, std=(1.0,) * 3)
    mask = blob(width, height, 0.3, 0.35, 0.6, 0.7)
    pixels, (moved,) = qk.alignment.align(model, painted(mask), mask[None])
    assert pixels.shape == (3, *size) and moved.shape == size
    sharp = np.abs(seen(model, pixels) - 0.5) > 0.4  # away from the blurred outline
    assert sharp.mean() > 0.6
    white = seen(model, pixels) > 0.5
    assert (white == moved.numpy())[sharp].all() and moved.any()
    assert (white ^ moved.numpy()).sum() <= moved.sum() / 5


@pytest.mark.parametrize("mode", CROPS)
@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0])
def test_the_size_of_a_mask_does_not_move_it(make_vit, mode, scale):
    model = model_with(make_vit, crop_mode=mode)
    width, height = 641, 427
    picture = PIL.Image.new("RGB", (width, height))
    box = (0.31, 0.22, 0.71, 0.83)
    other = blob(round(width * scale), round(height * scale), *box)
    _, moved = qk.alignment.align(model, picture, blob(width, height, *box)[None])
    _, again = qk.alignment.align(model, picture, other[None])
    assert (moved != again).float().mean() < 0.02 and again.any()


def test_pixels_are_the_ones_that_nearest_neighbour_picks(make_vit):
    model = model_with(make_vit, crop_pct=0.5)  # short side 64, the middle 32 × 32 of it
    labels = np.arange(128 * 256, dtype=np.int32).reshape(128, 256)
    moved = qk.alignment.align_labels(model, PIL.Image.new("RGB", (256, 128)), labels)
    rows, columns = np.arange(16, 48) * 2 + 1, np.arange(48, 80) * 2 + 1
    assert (moved.numpy() == labels[np.ix_(rows, columns)]).all()


def test_labels_are_never_mixed_and_borders_have_none(make_vit):
    model = model_with(make_vit, crop_mode="border", crop_pct=1.0)
    labels = np.where(np.arange(60)[None] < 30, 3, 11) * np.ones((20, 1), dtype=int)
    moved = qk.alignment.align_labels(model, PIL.Image.new("RGB", (60, 20)), labels)
    assert set(moved.unique().tolist()) == {-1, 3, 11}
    assert (moved[:5] == -1).all() and (moved[-5:] == -1).all() and (moved[14:18] >= 0).all()
    assert moved.dtype == torch.int64


def test_the_picture_is_what_the_model_would_get_alone(make_vit):
    model = qk.load(make_vit())
    rng = np.random.default_rng(0)
    picture = PIL.Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8))
    pixels, masks = qk.alignment.align(model, picture, np.zeros((0, 50, 70), dtype=bool))
    assert torch.equal(pixels, model.transform(picture))
    assert masks.shape == (0, *model.image_size)
    grey = picture.convert("L")
    pixels, _ = qk.alignment.align(model, grey, np.zeros((0, 50, 70), dtype=bool))
    assert torch.equal(pixels, model.transform(grey.convert("RGB")))


def test_a_mask_of_another_picture_is_refused(make_vit):
    model = qk.load(make_vit())
    with pytest.raises(ValueError, match="30 × 60 pixels does not fit a picture of 60 × 30"):
        qk.alignment.align(model, PIL.Image.new("RGB", (60, 30)), np.ones((1, 60, 30), dtype=bool))


def test_a_preprocessing_that_masks_cannot_follow_is_refused(make_vit):
    model = qk.load(make_vit())
    flips = replace(model, transform=Compose([RandomHorizontalFlip(), ToTensor()]))
    with pytest.raises(ValueError, match="RandomHorizontalFlip.*can't follow"):
        qk.alignment.align(flips, PIL.Image.new("RGB", (32, 32)), np.ones((1, 32, 32), dtype=bool))

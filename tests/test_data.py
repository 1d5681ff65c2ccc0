"""Pictures: which are taken, how files of every kind are read, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import qkutils as qk
from qkutils import data


def save(folder, name, picture, **options):
    picture.save(folder / name, **options)
    return folder


def test_scenes_are_shown_where_no_folder_is_named():
    picture = data.pictures("", count=2, size=64)[1]
    expected = qk.scenes.make(data.BOOK_SCENES, 1, 2).image[0].movedim(0, -1).numpy() * 255
    assert np.abs(np.asarray(picture, dtype=float) - expected).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1", "I;16"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    kind = "jpg" if mode == "CMYK" else "png"
    save(tmp_path, f"one.{kind}", Image.new(mode, (20, 10)))
    (picture,) = data.pictures(tmp_path, count=1)
    assert picture.mode == "RGB" and picture.size == (20, 10)


def test_a_rotated_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was held on its side
    save(tmp_path, "side.jpg", Image.new("RGB", (20, 10)), exif=exif)
    assert data.pictures(tmp_path, count=1)[0].size == (10, 20)


def test_pictures_are_spread_evenly_over_a_folder(tmp_path):
    for value in range(10):
        save(tmp_path, f"{value}.png", Image.new("L", (4, 4), value))
    taken = [p.getpixel((0, 0))[0] for p in data.pictures(tmp_path, count=5)]
    assert taken == [0, 2, 4, 6, 8]


def test_a_folder_with_too_few_pictures_is_named(tmp_path):
    save(tmp_path, "one.png", Image.new("RGB", (4, 4)))
    with pytest.raises(ValueError, match="holds 1 pictures, and 2 are needed"):
        data.pictures(tmp_path, 2)


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path):
    grey = Image.fromarray(np.full((4, 4), 128 * 257, dtype=np.uint16))
    save(tmp_path, "deep.png", grey)
    assert data.pictures(tmp_path, 1)[0].getpixel((0, 0)) == (128, 128, 128)


def test_images_fit_the_model_and_can_be_seen_again(make_vit):
    model = qk.load(make_vit())
    images = data.images("", model, count=3)
    assert images.shape == (3, 3, *model.image_size)
    scenes = np.stack([np.asarray(p) / 255 for p in data.pictures("", 3, 32)])
    middle = slice(8, 24)  # away from the border, which resizing before the crop changes
    seen = data.visible(model, images)
    assert seen.shape == (3, 32, 32, 3) and seen.min() >= 0 and seen.max() <= 1
    assert abs(seen.mean() - scenes[:, middle, middle].mean()) < 0.1


def test_the_embedded_model_sees_scenes_as_they_are():
    model = qk.load("tiny-supervised")
    seen = data.visible(model, data.images("", model, count=2))
    drawn = qk.scenes.make(data.BOOK_SCENES, 0, 2).image.movedim(1, -1).numpy()
    assert np.abs(seen - drawn).max() <= 1 / 255


@pytest.mark.parametrize("count", [0, -1])
def test_no_picture_asked_for(count):
    with pytest.raises(ValueError, match="at least one"):
        data.pictures("", count)


def test_a_folder_that_is_missing_or_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.*check the path"):
        data.pictures(tmp_path / "nowhere", 1)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(FileNotFoundError, match="holds no picture"):
        data.pictures(tmp_path, 1)


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    with pytest.raises(ValueError, match=r"broken\.png.*remove or mend"):
        data.pictures(tmp_path, 1)


def test_a_file_that_is_cut_short_is_named(tmp_path):
    pixels = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()
    save(tmp_path, "cut.jpg", Image.fromarray(pixels))
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.jpg"):
        data.pictures(tmp_path, 1)

"""Pictures: which are taken, how files of every kind are read, and what is refused."""

from __future__ import annotations

import inspect
import os
import socket
import struct
import tempfile
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import qkutils as qk
from qkutils.pictures._folders import picture_files
from qkutils.pictures._opening import open_picture, upright

RAMP = np.linspace(0, 65535, 256).reshape(4, 64)


def save(folder, name, picture, **options):
    picture.save(folder / name, **options)
    return folder


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1", "I;16"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    kind = "jpg" if mode == "CMYK" else "png"
    save(tmp_path, f"one.{kind}", Image.new(mode, (20, 10)))
    (picture,) = qk.pictures.pictures(tmp_path, count=1)
    assert picture.mode == "RGB" and picture.size == (20, 10)


def test_a_rotated_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was held on its side
    save(tmp_path, "side.jpg", Image.new("RGB", (20, 10)), exif=exif)
    assert qk.pictures.pictures(tmp_path, count=1)[0].size == (10, 20)
    assert upright(open_picture(tmp_path / "side.jpg")).size == (10, 20)  # and not turned again


def test_pictures_are_spread_evenly_over_a_folder(tmp_path):
    for value in range(10):
        save(tmp_path, f"{value}.png", Image.new("L", (4, 4), value))
    taken = [p.getpixel((0, 0))[0] for p in qk.pictures.pictures(tmp_path, count=5)]
    assert taken == [0, 2, 4, 6, 8]


def test_a_folder_with_too_few_pictures_is_named(tmp_path):
    save(tmp_path, "one.png", Image.new("RGB", (4, 4)))
    with pytest.raises(ValueError, match="count=2"):
        qk.pictures.pictures(tmp_path, 2)


def grey_of(folder, values, name="deep.tif"):
    """What is seen of an array that was saved as a picture."""
    save(folder, name, Image.fromarray(values))
    return np.asarray(open_picture(folder / name))[..., 0]


@pytest.mark.parametrize(
    "values, name",
    [
        (RAMP.astype(np.uint16), "deep.png"),
        (RAMP.astype(np.uint16), "deep.tif"),
        (RAMP.astype(np.int32), "deep.tif"),
        ((RAMP / 257).astype(np.int32), "deep.tif"),
        ((RAMP / 65535).astype(np.float32), "deep.tif"),
    ],
    ids=["16 bits, PNG", "16 bits, TIFF", "32 bits", "32 bits to 255", "floating point"],
)
def test_a_ramp_is_seen_as_a_ramp(tmp_path, values, name):
    assert np.abs(grey_of(tmp_path, values, name) - RAMP / 257).max() <= 1


@pytest.mark.parametrize("depth", [8, 16])
def test_a_ramp_in_which_zero_is_white_is_seen_as_a_ramp(tmp_path, depth):
    values = ((65535 - RAMP) / (257 if depth == 8 else 1)).round().astype(f"uint{depth}")
    save(tmp_path, "deep.tif", Image.fromarray(values))
    whole = (tmp_path / "deep.tif").read_bytes()
    black, white = (struct.pack("<HHIHxx", 262, 3, 1, zero) for zero in (1, 0))
    assert whole.count(black) == 1
    (tmp_path / "deep.tif").write_bytes(whole.replace(black, white))
    assert np.abs(np.asarray(open_picture(tmp_path / "deep.tif"))[..., 0] - RAMP / 257).max() <= 1


def tiff(values, *tags, bits):
    """A TIFF file of rows of bytes, without compression, with these (tag, number)."""
    rows, data = len(values), values.tobytes()
    plain = {256: 64, 257: rows, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: rows}
    held = sorted((plain | {279: len(data)} | dict(tags)).items())
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in held)
    head = struct.pack("<4sI", b"II*\0", 8 + len(data))
    return head + data + struct.pack("<H", len(held)) + entries + bytes(4)


def packed(values):
    """Numbers of 12 bits, two in three bytes."""
    first, second = values.reshape(4, -1, 2).astype(int).transpose(2, 0, 1)
    parts = (first >> 4, (first & 15) << 4 | second >> 8, second & 255)
    return np.stack(parts, -1).astype(np.uint8)


OF_12, OF_10 = ((RAMP * white / 65535).round().astype(np.uint16) for white in (4095, 1023))


@pytest.mark.parametrize(
    "content",
    [
        tiff(packed(OF_12), bits=12),
        tiff(OF_12, (281, 4095), bits=16),
        tiff(4095 - OF_12, (281, 4095), (262, 0), bits=16),
        tiff(OF_10, (281, 1023), bits=16),
        tiff(RAMP.astype(np.uint16), (281, 65535), bits=16),
        tiff(RAMP.astype(np.uint16), (281, 61111), bits=16),  # the largest that there is
    ],
    ids=["packed", "12 bits", "12 bits, 0 is white", "10 bits", "16 bits", "no depth"],
)
def test_the_depth_is_what_the_tags_tell(tmp_path, content):
    (tmp_path / "deep.tif").write_bytes(content)
    assert np.abs(np.asarray(open_picture(tmp_path / "deep.tif"))[..., 0] - RAMP / 257).max() <= 1


def test_where_no_tag_tells_twelve_bits_are_of_sixteen(tmp_path):
    (tmp_path / "deep.tif").write_bytes(tiff(OF_12, bits=16))
    assert np.asarray(open_picture(tmp_path / "deep.tif")).max() == 16


def test_numbers_above_the_depth_are_refused(tmp_path):
    (tmp_path / "deep.tif").write_bytes(tiff(OF_12 + np.uint16(9), (281, 4095), bits=16))
    with pytest.raises(ValueError, match=r"deep\.tif.*1\.0"):
        open_picture(tmp_path / "deep.tif")


def test_eight_bits_with_a_sign(tmp_path):
    signed = np.arange(256).reshape(4, 64) // 2
    (tmp_path / "signed.tif").write_bytes(tiff(signed.astype(np.int8), (339, 2), bits=8))
    assert (np.asarray(open_picture(tmp_path / "signed.tif"))[..., 0] == signed).all()
    (tmp_path / "signed.tif").write_bytes(tiff((signed - 1).astype(np.int8), (339, 2), bits=8))
    with pytest.raises(ValueError, match=r"signed\.tif.*-1 to 126"):
        open_picture(tmp_path / "signed.tif")


@pytest.mark.parametrize(
    "values",
    [RAMP.astype(np.int32) - 1, 2 * RAMP.astype(np.int32), RAMP.astype(np.float32)],
    ids=["below 0", "above 16 bits", "floating point above 1"],
)
def test_numbers_of_unknown_range_are_refused(tmp_path, values):
    with pytest.raises(ValueError, match=r"deep\.tif.*65535"):
        grey_of(tmp_path, values)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(tmp_path, value):
    values = np.zeros((4, 4), dtype=np.float32)
    values[1, 2] = value
    with pytest.raises(ValueError, match=r"deep\.tif"):
        grey_of(tmp_path, values)


def test_pictures_in_memory_are_scaled_as_files_are(make_vit):
    deep, plain = (Image.fromarray(v) for v in (RAMP.astype(np.int32), (RAMP / 257).round()))
    assert upright(deep).tobytes() == plain.convert("L").convert("RGB").tobytes()
    model = qk.load(make_vit())
    masks = np.ones((1, 4, 64), dtype=bool)
    seen = [qk.alignment.align(model, each, masks)[0] for each in (deep, plain.convert("L"))]
    assert torch.equal(*seen) and torch.equal(seen[0], qk.pictures.images([deep], model, 1)[0])


def exif(*tags):
    """An EXIF block of these (tag, type, count, value or offset), as a broken camera writes it."""
    entries = b"".join(struct.pack("<HHI4s", *tag) for tag in sorted(tags))
    head = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags))
    return head + entries + bytes(4) + b"72 dots per inch\0"


SIDE = (274, 3, 1, b"\6\0")  # the camera was held on its side


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    "tags, turned",
    [
        ([SIDE, (282, 2, 3, b"72\0")], True),
        ([SIDE, (0x8769, 2, 3, b"72\0")], True),  # text where another block's place should be
        ([SIDE, (0x8769, 4, 1, b"\xff\xff\xff\x7f")], True),  # that block lies outside the file
        ([SIDE, (271, 3, 1, b"\6\0")], True),
        ([(274, 2, 2, b"6\0")], True),
        ([(274, 4, 1, b"\6\0\0\0")], True),
        ([(274, 2, 3, b"up\0")], False),
        ([(274, 3, 1, b"\x63\0")], False),
    ],
    ids="resolution pointer outside maker text long word 99".split(),
)
def test_exif_of_wrong_types_drops_no_picture(tmp_path, kind, tags, turned):
    save(tmp_path, f"a.{kind}", Image.new("RGB", (20, 10)), exif=exif(*tags))
    assert open_picture(tmp_path / f"a.{kind}").size == ((10, 20) if turned else (20, 10))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_turned_tiff_is_turned_once(tmp_path, compression):
    pixels = RAMP.astype(np.uint16)
    options = {"tiffinfo": {274: 6, 271: "72"}, "compression": compression}
    save(tmp_path, "a.tif", Image.fromarray(pixels), **options)
    seen = np.asarray(open_picture(tmp_path / "a.tif"))[..., 0]
    assert (seen == np.rot90((pixels / 257).round(), -1)).all()


@pytest.mark.parametrize("kind", ["gif", "tif", "webp", "mpo"])
def test_the_first_of_several_frames_is_read(tmp_path, kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("white", "black")]
    name = "a.jpg" if kind == "mpo" else f"a.{kind}"
    options = {"format": "MPO"} if kind == "mpo" else {}
    save(tmp_path, name, frames[0], save_all=True, append_images=frames[1:], **options)
    assert np.asarray(open_picture(tmp_path / name)).min() > 250


def test_images_fit_the_model_and_can_be_seen_again(make_vit):
    model = qk.load(make_vit())
    drawn = qk.world.pictures(0, 0, 3, size=32)
    images = qk.pictures.images(drawn, model, count=3)
    assert images.shape == (3, 3, *model.image_size)
    pixels = np.stack([np.asarray(p) / 255 for p in drawn])
    middle = slice(8, 24)  # away from the border, which resizing before the crop changes
    seen = qk.pictures.visible(model, images)
    assert seen.shape == (3, 32, 32, 3) and seen.min() >= 0 and seen.max() <= 1
    assert abs(seen.mean() - pixels[:, middle, middle].mean()) < 0.1


def test_the_embedded_model_sees_scenes_as_they_are():
    model = qk.load("tiny-supervised")
    seen = qk.pictures.visible(
        model, qk.pictures.images(qk.world.pictures(0, 0, 2), model, count=2)
    )
    drawn = qk.world.make(0, 0, 2).image.movedim(1, -1).numpy()
    assert np.abs(seen - drawn).max() <= 1 / 255


def test_every_source_gives_the_same_images(tmp_path, make_vit):
    model = qk.load(make_vit())
    drawn = qk.world.pictures(0, 0, 4, size=32)
    for n, picture in enumerate(drawn):
        save(tmp_path, f"{n}.png", picture)
    tensor = torch.stack([model.transform(picture) for picture in drawn])
    records = [qk.records.Sample("a", picture, {}) for picture in drawn]
    for source in (tmp_path, str(tmp_path), drawn, list(drawn), records, tensor, list(tensor)):
        assert torch.equal(qk.pictures.images(source, model, 2), tensor[[0, 2]])
    assert qk.pictures.pictures(records, 1)[0].tobytes() == drawn[0].tobytes()


@pytest.mark.parametrize(
    "source", ["", 3, {"a": 1}, np.zeros((1, 3, 4, 4)), Image.new("L", (4, 4))]
)
def test_what_is_no_source_is_refused(source):
    with pytest.raises(ValueError, match="source="):
        inspect.unwrap(qk.pictures.pictures)(source, 1)


def test_items_that_are_no_pictures_are_refused(make_vit):
    model = qk.load(make_vit())
    unchecked = inspect.unwrap(qk.pictures.images)  # without the type checks that tests have
    for items in (["a.png"], [np.zeros((4, 4, 3))], [None], torch.zeros(1, 3, 4, 4)):
        with pytest.raises(ValueError):
            unchecked(items, model, 1)
    with pytest.raises(ValueError, match="pixels"):
        unchecked([Image.new("RGB", (0, 4))], model, 1)


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "1", None, np.nan])
def test_no_picture_asked_for(count):
    with pytest.raises(ValueError, match="count="):
        inspect.unwrap(qk.pictures.pictures)(qk.world.pictures(0, 0, 2), count)


def test_folders_in_which_there_is_nothing_to_see(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    told = []
    for name, kind in {
        "nowhere": FileNotFoundError,
        "link": FileNotFoundError,
        "notes.txt": NotADirectoryError,
        ".": FileNotFoundError,
    }.items():
        (tmp_path / "link").unlink(missing_ok=name == ".") if name == "." else None
        with pytest.raises(kind) as raised:
            qk.pictures.pictures(tmp_path / name, 1)
        told.append(str(raised.value).removeprefix(str(tmp_path / name)))
    assert told[0] == told[1] and len(set(told)) == 3


@pytest.fixture
def locked():
    """A folder in which nobody but root may look into `shut` or read `shut.png`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for each in ("shut", "open"):
            (folder / each).mkdir()
            save(folder / each, "a.png", Image.new("RGB", (4, 4)))
        save(folder, "shut.png", Image.new("RGB", (4, 4)))
        for each, mode in {".": 0o755, "shut": 0, "shut.png": 0}.items():
            (folder / each).chmod(mode)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        yield folder
        os.seteuid(was)
        (folder / "shut").chmod(0o755)


def test_what_may_not_be_read_is_told_as_such(locked):
    files = picture_files(locked)
    assert list(files) == ["open/a.png", "shut", "shut.png"]
    for key in ("shut", "shut.png"):
        with pytest.raises(ValueError, match=f"{key}: .*permission"):
            open_picture(files[key])
    with pytest.raises(PermissionError, match="shut"):
        picture_files(locked / "shut")


def test_links_are_followed_and_never_in_circles(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "set"
    for folder in (outside / "deep", inside / "a"):
        folder.mkdir(parents=True)
        save(folder, "x.png", Image.new("RGB", (4, 4)))
    (inside / "b").symlink_to(outside)
    (inside / "c").symlink_to(inside / "a")  # the same pictures as another class
    (inside / "a/up").symlink_to(inside)
    (outside / "deep/back").symlink_to(inside / "b")
    (inside / "a/one.png").symlink_to(outside / "deep/x.png")
    (inside / "loop").symlink_to("loop")
    keys = [key for key in picture_files(inside) if key != "loop"]
    assert keys == ["a/one.png", "a/x.png", "b/deep/x.png", "c/one.png", "c/x.png"]


def test_links_that_lead_nowhere_are_faults(tmp_path):
    save(tmp_path, "whole.png", Image.new("RGB", (4, 4)))
    (tmp_path / "file.png").symlink_to("gone.png")
    (tmp_path / "class").symlink_to("gone")
    (tmp_path / "notes.md").symlink_to("gone.md")  # no picture, and no folder
    files = picture_files(tmp_path)
    assert list(files) == ["class", "file.png", "whole.png"]
    for key in ("class", "file.png"):
        with pytest.raises(ValueError, match=f"{key}.*gone"):
            open_picture(files[key])


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, kind, monkeypatch):
    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # a socket's path has to be short
        socket.socket(socket.AF_UNIX).bind("x.png")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    if kind != "folder":
        assert list(picture_files(tmp_path)) == ["x.png"]
    with pytest.raises(ValueError, match=r"x\.png"):
        open_picture(path)


def test_what_systems_leave_behind_never_counts(tmp_path):
    leftovers = (".ipynb_checkpoints", "__MACOSX", "@eaDir/a.png", "$RECYCLE.BIN", "a/.thumbs")
    for folder in (*leftovers, "a", "b.png"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        save(tmp_path / folder, "x.PNG", Image.new("RGB", (4, 4)))
    (tmp_path / "a/._x.png").write_bytes(b"what macOS leaves")
    (tmp_path / "a/.DS_Store").write_bytes(b"")
    (tmp_path / "a/Thumbs.db").write_bytes(b"")
    assert list(picture_files(tmp_path)) == ["a/x.PNG", "b.png/x.PNG"]
    assert len(picture_files(tmp_path / ".ipynb_checkpoints")) == 1  # it was asked for by name


@pytest.mark.parametrize("names", [["a.png", "A.png"], ["a.png", "a.PNG"], ["a.png", "a.jpg"]])
def test_names_that_differ_a_little_are_different_pictures(tmp_path, names):
    for name in names:
        save(tmp_path, name, Image.new("RGB", (4, 4)))
    assert list(picture_files(tmp_path)) == sorted(names)


def test_a_name_that_is_not_utf8_becomes_a_key_that_is(tmp_path):
    save(tmp_path, "whole.png", Image.new("L", (4, 4), 7))
    real = os.path.join(os.fsencode(tmp_path), b"\xe9.png")
    os.rename(tmp_path / "whole.png", real)
    (key,) = picture_files(tmp_path)
    assert key.encode("utf-8") == b"\\xe9.png"
    assert qk.pictures.pictures(tmp_path, 1)[0].getpixel((0, 0)) == (7, 7, 7)
    with open(real, "wb"):
        pass  # empty now
    with pytest.raises(ValueError) as raised:
        qk.pictures.pictures(tmp_path, 1)
    assert key in str(raised.value) and str(raised.value).encode("utf-8")


def test_pictures_of_every_kind_are_found(tmp_path):
    kinds = "jpg jpeg JPEG jpe jfif png bmp gif tif tiff webp ppm pgm jp2 avif".split()
    for kind in kinds:
        save(tmp_path, f"a.{kind}", Image.new("L" if kind == "pgm" else "RGB", (16, 8), "white"))
    files = picture_files(tmp_path)
    assert sorted(files) == sorted(f"a.{kind}" for kind in kinds)
    assert all(np.asarray(open_picture(file)).min() > 250 for file in files.values())


def test_a_file_that_would_swell_is_named(tmp_path):
    """A billion pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", 32_000, 32_000, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(ValueError, match=r"bomb\.png.*1024000000 pixels"):
        open_picture(tmp_path / "bomb.png")


def test_two_files_of_one_key_are_refused_together(tmp_path):
    for name in ("é", "ü"):
        for form in ("NFC", "NFD"):
            save(tmp_path, unicodedata.normalize(form, f"{name}.png"), Image.new("L", (4, 4)))
    with pytest.raises(ValueError, match=r"é\.png.*ü\.png"):
        picture_files(tmp_path)


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    with pytest.raises(ValueError, match=r"broken\.png"):
        qk.pictures.pictures(tmp_path, 1)


def test_a_file_that_is_cut_short_is_named(tmp_path):
    pixels = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()
    save(tmp_path, "cut.jpg", Image.fromarray(pixels))
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.jpg"):
        qk.pictures.pictures(tmp_path, 1)

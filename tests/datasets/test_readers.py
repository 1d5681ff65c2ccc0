"""Data sets in their real layouts: what is read, and what one report says of faulty files."""

from __future__ import annotations

import inspect
import os
import random
import re
import unicodedata
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from scipy.io import savemat

import qkutils as qk

RNG = np.random.default_rng(0)
BOX = (slice(4, 10), slice(6, 18))  # where the target is


def noise(width=40, height=24):
    return PIL.Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def white_in(box, shape=(24, 40)):
    pixels = np.zeros(shape, dtype=np.uint8)
    pixels[box] = 255
    return pixels


def save(path, picture, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, np.ndarray):
        picture = PIL.Image.fromarray(picture)
    picture.save(path, **options)


@pytest.fixture
def o3(tmp_path):
    """Three photographs with grey JPEG masks, one of them of half the size."""
    for key, shape in {"a": (24, 40), "b": (12, 20), "c": (24, 40)}.items():
        box = tuple(slice(s.start * shape[0] // 24, s.stop * shape[0] // 24) for s in BOX)
        rest = (slice(shape[0] // 2, None), slice(None))
        save(tmp_path / "O3/images" / f"{key}.jpg", noise())
        save(tmp_path / "O3/targ_labels" / f"{key}.jpg", white_in(box, shape), quality=95)
        save(tmp_path / "O3/dist_labels" / f"{key}.jpg", white_in(rest, shape), quality=95)
    return tmp_path / "O3"


@pytest.fixture
def segmented(tmp_path):
    """Two pictures with label maps 0 to 3."""
    for key in ("x", "y"):
        save(tmp_path / "set/images" / f"{key}.png", noise())
        values = RNG.integers(0, 4, (24, 40), dtype=np.uint8)
        save(tmp_path / "set/annotations" / f"{key}.png", values)
    return tmp_path / "set"


def people(*maps):
    """What BSDS500 stores: a row of cells, each with a Segmentation and its Boundaries."""
    cells = np.empty((1, len(maps)), dtype=object)
    for i, each in enumerate(maps):
        cells[0, i] = {"Segmentation": each.astype(np.uint16), "Boundaries": np.zeros_like(each)}
    return {"groundTruth": cells}


@pytest.fixture
def bsds(tmp_path):
    """The original layout, with two people's segmentations in each file, compressed as there."""
    for key in ("train/1", "val/2"):
        save(tmp_path / f"images/{key}.jpg", noise())
        (tmp_path / f"groundTruth/{key}").parent.mkdir(parents=True, exist_ok=True)
        maps = RNG.integers(1, 9, (2, 24, 40))
        savemat(tmp_path / f"groundTruth/{key}.mat", people(*maps), do_compression=True)
    (tmp_path / "images/train/Thumbs.db").write_bytes(b"not a picture")
    return tmp_path


def test_jpeg_masks_are_thresholded_and_keep_their_size(o3):
    samples = qk.datasets.odd_one_out(o3)
    assert samples.keys == ["a", "b", "c"] and len(samples) == 3
    first, second = samples[0], samples[1]
    assert list(first.masks) == ["target", "distractor"]
    assert (first.masks["target"] == (white_in(BOX) > 0)).all()
    assert first.masks["distractor"].mean() == 0.5
    assert second.image.size == (40, 24) and second.masks["target"].shape == (12, 20)


@pytest.mark.parametrize("level, on", [(127, False), (128, True)])
def test_the_threshold_is_128(o3, level, on):
    pixels = white_in(BOX)
    pixels[20, 30] = level
    (o3 / "targ_labels/a.jpg").unlink()
    save(o3 / "targ_labels/a.png", pixels)
    assert qk.datasets.odd_one_out(o3)[0].masks["target"][20, 30] == on


def test_rgba_masks_as_in_p3(tmp_path):
    opaque = np.full((24, 40), 255, dtype=np.uint8)
    clear = np.where(white_in(BOX) > 0, 255, 0).astype(np.uint8)
    for each in ("colors", "sizes"):  # P3 comes in sets
        save(tmp_path / each / "images/i.png", noise().convert("RGBA"))
        grey = white_in(BOX)
        save(tmp_path / each / "targ_labels/i.png", np.dstack([grey] * 3 + [opaque]))
        white = np.full_like(grey, 255)  # what is on says the transparency alone
        save(tmp_path / each / "dist_labels/i.png", np.dstack([white] * 3 + [clear]))
    samples = qk.datasets.odd_one_out(tmp_path)
    assert samples.keys == ["colors/i", "sizes/i"] and samples[0].image.mode == "RGB"
    for mask in samples[1].masks.values():
        assert (mask == (white_in(BOX) > 0)).all()


def test_the_older_folder_names(o3):
    (o3 / "targ_labels").rename(o3 / "targ_images")
    (o3 / "dist_labels").rename(o3 / "dist_images")
    assert len(qk.datasets.odd_one_out(o3)) == 3


def test_files_are_opened_when_asked_for(o3, monkeypatch):
    samples = qk.datasets.odd_one_out(o3)
    opened = []
    real = PIL.Image.open
    monkeypatch.setattr(
        PIL.Image, "open", lambda path, *a: (opened.append(path), real(path, *a))[1]
    )
    rest = samples[1:]
    assert not opened and len(rest) == 2
    assert rest[-1].key == "c" and {Path(file.name).stem for file in opened} == {"c"}
    assert [each.key for each in samples] == ["a", "b", "c"]
    with pytest.raises(IndexError):
        samples[3]


def spoil(o3):
    """One item for each kind of fault; returns what the report has to say of each."""
    for key in "defghijk":
        for folder in ("images", "targ_labels", "dist_labels"):
            (o3 / folder / f"{key}.jpg").write_bytes((o3 / folder / "a.jpg").read_bytes())
    (o3 / "images/d.jpg").unlink()
    (o3 / "targ_labels/d.jpg").write_bytes(b"")
    (o3 / "dist_labels/e.jpg").unlink()
    whole = (o3 / "images/f.jpg").read_bytes()
    (o3 / "images/f.jpg").write_bytes(whole[: len(whole) // 2])
    (o3 / "targ_labels/f.jpg").write_bytes(b"no picture")
    (o3 / "targ_labels/g.jpg").write_bytes(b"")
    save(o3 / "dist_labels/h.jpg", white_in(BOX).T.copy())
    save(o3 / "targ_labels/i.jpg", np.full((24, 40), 20, dtype=np.uint8))
    save(o3 / "images/j.png", noise())
    for folder in ("targ_labels", "dist_labels"):  # alike, but not like their picture
        save(o3 / folder / "k.jpg", white_in(BOX).T.copy())
    return {
        "d": [r"images/d\.\*: there is no such file"],
        "e": [r"dist_labels/e\.\*: there is no such file"],
        "f": [r"images/f\.jpg: can't be read.*trunc", r"targ_labels/f\.jpg: can't be read"],
        "g": [r"targ_labels/g\.jpg: can't be read"],
        "h": [r"distractor mask of 24 × 40 .* 40 × 24"],
        "i": [r"targ_labels/i\.jpg: the mask is empty"],
        "k": [r"target mask of 24 × 40 .* 40 × 24"],
        "j": [r"images/j\.jpg, .*images/j\.png: which one\?"],
    }


def test_one_error_lists_everything_that_is_wrong(o3):
    expected = spoil(o3)
    with pytest.raises(ValueError, match="3 of 11 items can be used") as raised:
        qk.datasets.odd_one_out(o3)
    lines = {line.strip()[0]: line for line in str(raised.value).splitlines()[1:-1]}
    assert lines.keys() == expected.keys()
    for key, patterns in expected.items():
        assert all(re.search(each, lines[key]) for each in patterns), lines[key]
    assert 'on_error="skip"' in str(raised.value)


def test_faulty_items_are_skipped_only_when_asked_and_counted(o3):
    spoil(o3)
    samples = qk.datasets.odd_one_out(o3, on_error="skip")
    assert samples.keys == ["a", "b", "c"] and [each.key for each in samples] == ["a", "b", "c"]
    assert samples.report.usable == 3 and samples.report.skipped == 8
    assert list(samples.report.faults) == list("defghijk")
    assert samples[:2].report is samples.report
    assert "8 skipped" in repr(samples)


def test_nothing_usable_is_an_error_even_when_skipping(o3):
    for path in (o3 / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="(?s)0 of 3.*nothing is left"):
        qk.datasets.odd_one_out(o3, on_error="skip")
    for path in o3.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(ValueError, match="0 of 0"):
        qk.datasets.odd_one_out(o3)


def test_a_file_that_breaks_later_is_named(o3):
    samples = qk.datasets.odd_one_out(o3)
    (o3 / "dist_labels/b.jpg").write_bytes(b"")
    assert samples[0].key == "a"
    with pytest.raises(ValueError, match=r"dist_labels/b\.jpg"):
        samples[1]


def test_hidden_files_are_passed_over(o3):
    (o3 / "images/._a.jpg").write_bytes(b"what macOS leaves")
    (o3 / "image_properties.txt").write_text("name")
    assert len(qk.datasets.odd_one_out(o3)) == 3


def test_folders_that_are_not_there_are_named(o3, tmp_path):
    for read in (
        qk.datasets.odd_one_out,
        qk.datasets.ade20k,
        qk.datasets.bsds500,
        qk.datasets.label_maps,
    ):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            read(tmp_path / "nowhere")
        with pytest.raises(NotADirectoryError, match="a.jpg"):
            read(o3 / "images/a.jpg")
    (o3 / "dist_labels").rename(o3 / "other")
    with pytest.raises(FileNotFoundError, match="dist_labels or dist_images.*distractor"):
        qk.datasets.odd_one_out(o3)
    with pytest.raises(FileNotFoundError, match="images/validation.*annotations/validation"):
        qk.datasets.ade20k(tmp_path)
    with pytest.raises(FileNotFoundError, match="groundTruth"):
        qk.datasets.bsds500(o3)


def test_options_are_checked(o3, segmented, bsds):
    with pytest.raises(ValueError, match="on_error='ignore'"):
        qk.datasets.odd_one_out(o3, on_error="ignore")
    with pytest.raises(ValueError, match="split='vall'"):
        qk.datasets.bsds500(bsds, split="vall")
    with pytest.raises(ValueError, match=r"split='\.\./validation'"):
        qk.datasets.ade20k(segmented, split="../validation")
    for value in (-1, True, 1.5, "3"):
        with pytest.raises(ValueError, match="unlabelled="):
            inspect.unwrap(qk.datasets.label_maps)(segmented, unlabelled=value)


def test_composed_and_decomposed_names_belong_together(segmented):
    """As when the masks were made on another system than the pictures."""
    composed, decomposed = (unicodedata.normalize(form, "é/ü") for form in ("NFC", "NFD"))
    for folder, name in {"images": composed, "annotations": decomposed}.items():
        save(segmented / folder / f"{name}.png", np.full((24, 40), 2, dtype=np.uint8))
    assert qk.datasets.label_maps(segmented).keys == ["x", "y", composed]


def test_names_that_are_not_utf8(segmented):
    for folder in ("images", "annotations"):
        old = os.fsencode(segmented / folder)
        os.rename(old + b"/x.png", old + b"/\xe9.png")
    os.rename(segmented, os.fsencode(segmented) + b"\xe9")
    sets = qk.datasets.label_maps(Path(f"{segmented}\udce9"))
    assert sets.keys == [r"\xe9", "y"] and sets[0].key == r"\xe9"
    assert str(sets.report).encode("utf-8") and repr(sets).encode("utf-8")


def test_a_folder_of_links_and_leftovers(segmented, tmp_path):
    for folder in ("images", "annotations"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "more").symlink_to(segmented / folder)
        (tmp_path / folder / "__MACOSX").mkdir()
        (tmp_path / folder / "__MACOSX/x.png").write_bytes(b"no picture")
        (tmp_path / folder / "more/._x.png").write_bytes(b"what macOS leaves")
    assert qk.datasets.label_maps(tmp_path).keys == ["more/x", "more/y"]


def test_what_is_no_file_is_a_fault(segmented, bsds):
    for folder in (segmented / "annotations", segmented / "images"):
        (folder / "x.png").unlink()
    os.mkfifo(segmented / "images/x.png")
    (segmented / "annotations/x.png").symlink_to("gone.png")
    faults = qk.datasets.label_maps(segmented, on_error="skip").report.faults
    assert list(faults) == ["x"] and all(part in faults["x"] for part in ("images", "gone.png"))
    (bsds / "groundTruth/val/2.mat").unlink()
    os.mkfifo(bsds / "groundTruth/val/2.mat")
    assert list(qk.datasets.bsds500(bsds, on_error="skip").report.faults) == ["val/2"]


def test_label_maps_keep_their_numbers(segmented):
    sets = qk.datasets.label_maps(segmented, unlabelled=3, names={0: "sky", 1: "road", 2: "tree"})
    assert sets.keys == ["x", "y"]
    stored = np.asarray(PIL.Image.open(segmented / "annotations/y.png")).astype(int)
    assert (sets[1].labels[0] == np.where(stored == 3, -1, stored)).all()
    assert len(sets[1].labels) == 1 and sets[1].names[1] == "road"


def test_a_palette_colours_label_maps_and_changes_no_number(segmented):
    stored = PIL.Image.open(segmented / "annotations/x.png")
    numbers = np.asarray(stored)
    coloured = stored.convert("P")
    coloured.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250, 9, 9, 9])
    save(segmented / "annotations/x.png", coloured)
    assert (qk.datasets.label_maps(segmented)[0].labels[0] == numbers).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_label_maps_keep_their_numbers(segmented, dtype):
    """TIFF files; numbers above 255 are labels, and no picture that is to be scaled."""
    values = RNG.integers(0, 60_000, (24, 40)).astype(dtype)
    (segmented / "annotations/x.png").unlink()
    save(segmented / "annotations/x.tif", values)
    (found,) = qk.datasets.label_maps(segmented)[0].labels
    assert (found == values).all() and found.dtype == np.int32


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, -7, 2**31])
def test_label_maps_of_other_numbers_are_faults(segmented, value):
    values = np.ones((24, 40), dtype=np.float32)
    values[3, 3] = value
    (segmented / "annotations/x.png").unlink()
    save(segmented / "annotations/x.tif", values)
    assert list(qk.datasets.label_maps(segmented, on_error="skip").report.faults) == ["x"]


@pytest.mark.parametrize("least", [-1, -2])
def test_label_maps_of_eight_bits_with_a_sign(segmented, least):
    """A TIFF file; without the sign its negative numbers would be classes from 128 on."""
    values = RNG.integers(least, 128, (24, 40), dtype=np.int8)
    values[0, 0] = least
    (segmented / "annotations/x.png").unlink()
    save(segmented / "annotations/x.tif", values.view(np.uint8), tiffinfo={339: 2})
    reading = qk.datasets.label_maps(segmented, on_error="skip")
    assert list(reading.report.faults) == ([] if least == -1 else ["x"])
    assert least == -2 or (reading[0].labels[0] == values).all()


def masks_of_every_kind():
    """One mask as files hold it, by what they hold."""
    on = white_in(BOX) > 0
    palette = PIL.Image.fromarray(on.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    return {
        "bits": PIL.Image.fromarray(on),
        "bytes": PIL.Image.fromarray(on * np.uint8(255)),
        "16 bits": PIL.Image.fromarray(on * np.uint16(65535)),
        "32 bits": PIL.Image.fromarray(on * np.int32(255)),
        "floating point": PIL.Image.fromarray(on.astype(np.float32)),
        "colour": PIL.Image.fromarray(np.repeat(on[..., None] * np.uint8(255), 3, 2)),
        "palette": palette,
    }


@pytest.mark.parametrize("kind", masks_of_every_kind())
def test_masks_of_every_kind(o3, kind):
    (o3 / "targ_labels/a.jpg").unlink()
    save(o3 / "targ_labels/a.tif", masks_of_every_kind()[kind])
    assert (qk.datasets.odd_one_out(o3)[0].masks["target"] == (white_in(BOX) > 0)).all()


def test_a_mask_with_nan_is_a_fault(o3):
    values = np.ones((24, 40), dtype=np.float32)
    values[0, 0] = np.nan
    (o3 / "targ_labels/a.jpg").unlink()
    save(o3 / "targ_labels/a.tif", values)
    faults = qk.datasets.odd_one_out(o3, on_error="skip").report.faults
    assert list(faults) == ["a"] and "targ_labels/a.tif" in faults["a"]


def test_label_maps_that_are_none_are_listed_together(segmented):
    for key in "pqrs":
        save(segmented / f"images/{key}.png", noise())
    save(segmented / "annotations/p.png", noise())
    save(segmented / "annotations/q.png", np.full((24, 40), 9, dtype=np.uint8))
    save(segmented / "annotations/r.png", np.full((24, 40), 3, dtype=np.uint8))
    save(segmented / "annotations/s.png", np.zeros((40, 24), dtype=np.uint8))
    names = {0: "sky", 1: "road", 2: "tree"}
    skipped = qk.datasets.label_maps(segmented, unlabelled=3, names=names, on_error="skip")
    faults = skipped.report.faults
    assert skipped.keys == ["x", "y"] and list(faults) == list("pqrs")
    for key, why in zip("pqrs", ("in colour", r"values \[9\]", "empty", "24 × 40"), strict=True):
        assert re.search(why, faults[key])
    with pytest.raises(ValueError, match="2 of 6"):
        qk.datasets.label_maps(segmented, unlabelled=3, names=names)


def test_ade20k_counts_from_one_and_names_its_classes(tmp_path):
    save(tmp_path / "images/validation/ADE_val_00000001.jpg", noise())
    values = RNG.integers(0, 3, (24, 40), dtype=np.uint8)
    save(tmp_path / "annotations/validation/ADE_val_00000001.png", values)
    table = "Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t5\t6\twall\n2\t0.1\t5\t6\tbuilding, edifice  \n"
    (tmp_path / "objectInfo150.txt").write_text(table)
    (one,) = qk.datasets.ade20k(tmp_path)
    assert one.names == {1: "wall", 2: "building, edifice"}
    assert (one.labels[0] == np.where(values == 0, -1, values.astype(int))).all()
    (tmp_path / "objectInfo150.txt").unlink()
    assert qk.datasets.ade20k(tmp_path)[0].names == {}


def test_camvid_leaves_out_what_is_unlabelled(segmented):
    save(
        segmented / "annotations/x.png", np.full((24, 40), 11, dtype=np.uint8) - white_in(BOX) // 25
    )
    labels = qk.datasets.camvid(segmented)[0].labels[0]
    assert (
        set(np.unique(labels)) == {-1, 1}
        and qk.datasets.camvid(segmented)[0].names[1] == "building"
    )


def test_bsds_keeps_every_persons_segments(bsds):
    both = qk.datasets.bsds500(bsds)
    assert both.keys == ["train/1", "val/2"] and qk.datasets.bsds500(bsds, "val").keys == ["2"]
    labels = both[0].labels
    assert len(labels) == 2 and labels[0].shape == (24, 40) and (labels[0] != labels[1]).any()
    assert labels[0].min() == 1 and labels[0].max() == 8


def test_bsds_files_that_are_none_are_listed(bsds):
    files = {f"{i}": (bsds / "groundTruth/val/2.mat").read_bytes() for i in range(4, 9)}
    for key in files:
        save(bsds / f"images/val/{key}.jpg", noise())
    files["4"] = files["4"][:400]
    files["5"] = b""
    for key, content in files.items():
        (bsds / f"groundTruth/val/{key}.mat").write_bytes(content)
    savemat(bsds / "groundTruth/val/6.mat", {"other": 1})
    savemat(bsds / "groundTruth/val/7.mat", people(np.ones((24, 40)), np.ones((40, 24))))
    faults = qk.datasets.bsds500(bsds, on_error="skip").report.faults
    assert list(faults) == ["val/4", "val/5", "val/6", "val/7"]
    assert "KeyError" in faults["val/6"] and "24 × 40" in faults["val/7"]


def test_a_corrupted_file_is_a_fault_and_never_another_error(o3, bsds):
    chance = random.Random(0)
    for folder, part, key, others in (
        (o3, "images", "a.jpg", ["targ_labels/a.jpg", "dist_labels/a.jpg"]),
        (bsds, "groundTruth/val", "2.mat", ["images/val/2.jpg"]),
    ):
        whole = (folder / part / key).read_bytes()
        for n in range(150):
            spoilt = bytearray(whole)
            for _ in range(chance.randint(1, 5)):
                spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
            cut = chance.randrange(len(spoilt)) if chance.random() < 0.3 else None
            (folder / part / f"{n}.{key}").write_bytes(spoilt[:cut])
            for each in map(Path, others):
                os.link(folder / each, folder / each.parent / f"{n}.{key[0]}{each.suffix}")
    for read, folder, whole in ((qk.datasets.odd_one_out, o3, 3), (qk.datasets.bsds500, bsds, 2)):
        report = read(folder, on_error="skip").report
        assert report.usable + report.skipped == whole + 150 and 50 < report.skipped < 150


@pytest.mark.parametrize("name", ["o3-sample", "p3-sample"])
def test_real_odd_ones_out(image_folder, name):
    (sample,) = qk.datasets.odd_one_out(image_folder / name)
    target, distractor = sample.masks["target"], sample.masks["distractor"]
    assert sample.image.size == (1024, 1024) and target.shape == (1024, 1024)
    assert not (target & distractor).any()
    assert 0.001 < target.mean() < 0.1 < distractor.mean() < 0.6


def test_a_real_target_stays_on_its_object(real_model, image_folder):
    (sample,) = qk.datasets.odd_one_out(image_folder / "p3-sample")
    pixels, (target, distractor) = qk.alignment.align(
        real_model, sample.image, np.stack(list(sample.masks.values()))
    )
    colours = torch.from_numpy(qk.pictures.visible(real_model, pixels[None])[0])
    outside = ~(target | distractor)
    assert pixels.shape[1:] == target.shape and target.any()
    # P3's target and distractors are plain colours on a plain background.
    background = colours[outside].median(0).values
    assert (colours[target] - background).abs().mean() > 4 * (
        colours[outside] - background
    ).abs().mean()


def test_real_ade20k(image_folder):
    three = qk.datasets.ade20k(image_folder / "ade20k-sample")
    assert len(three) == 3 and len(three[0].names) == 150 and three[0].names[1] == "wall"
    for each in three:
        assert each.labels[0].shape == each.image.size[::-1] and each.labels[0].max() <= 150


def test_real_camvid(image_folder):
    streets = qk.datasets.camvid(image_folder / "camvid-val")
    assert len(streets) == 51 and not streets.report.faults
    height = np.arange(360)[:, None].repeat(480, 1)
    labels = streets[0].labels[0]
    assert height[labels == 0].mean() < 150 < 250 < height[labels == 3].mean()  # sky, road


def test_real_bsds500(image_folder):
    pictures = qk.datasets.bsds500(image_folder / "bsds500-val")
    assert len(pictures) == 50
    for each in pictures[::10]:
        assert len(each.labels) >= 5
        assert all(labels.shape == each.image.size[::-1] for labels in each.labels)
        assert all(labels.min() == 1 for labels in each.labels)


def test_whether_a_folder_has_odd_ones_is_seen_from_its_layout(o3, segmented, tmp_path):
    assert qk.datasets.has_odd_ones(o3) and qk.datasets.has_odd_ones(
        tmp_path
    )  # itself, or those inside
    save(tmp_path / "plain/a.png", noise())
    assert not qk.datasets.has_odd_ones(tmp_path / "plain")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        qk.datasets.has_odd_ones(tmp_path / "nowhere")


def test_whether_a_folder_has_segments_is_seen_from_its_layout(bsds, tmp_path):
    save(tmp_path / "plain/a.png", noise())
    assert qk.datasets.has_segments(bsds)
    assert not qk.datasets.has_segments(tmp_path / "plain")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        qk.datasets.has_segments(tmp_path / "nowhere")

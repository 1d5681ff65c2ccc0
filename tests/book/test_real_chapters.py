"""The chapters run on a real model without a change but the parameter."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from PIL import Image, ImageOps

import qkutils as qk
from qkutils.book import ledger, stored

ROOT = Path(__file__).parents[2]
OTHER = "tiny-dino-s1"  # of which nothing is stored
AWAY = "deit_tiny_patch16_224.fb_in1k"  # stored, and not at hand
CHAPTERS = sorted(ROOT.glob("notebooks/[0-9]*.py"))


def odd_folder(images: Path, folder: Path) -> Path:
    """The one sample of O3, upright and turned, as a folder of three samples."""
    turns = {"upright": lambda p: p, "mirrored": ImageOps.mirror, "flipped": ImageOps.flip}
    for part in ("images", "targ_labels", "dist_labels"):
        (folder / part).mkdir(parents=True)
        (picture,) = (images / "o3-sample" / part).glob("*.jpg")
        for name, turn in turns.items():
            turn(Image.open(picture)).save(folder / part / f"{name}.png")
    return folder


def few(images: Path, folder: Path) -> Path:
    """A folder of twenty-four photographs, spread evenly over those of ImageNet."""
    folder.mkdir()
    for picture in sorted((images / "imagenet-sample").glob("*.jpg"))[::21]:
        (folder / picture.name).symlink_to(picture)
    return folder


def run(chapter: Path, folder: Path, **parameters: str | list[str]) -> list:
    """All outputs of a chapter that was executed with these parameters."""
    given, out = folder / "parameters.yaml", folder / "out.ipynb"
    given.write_text(yaml.safe_dump(parameters))
    tool = ROOT / "book" / "_tools" / "run_chapter.py"
    command = [sys.executable, tool, chapter, out, "--parameters", given]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [each for cell in nbformat.read(out, 4).cells for each in cell.get("outputs", ())]


def told(outputs: list, name: str) -> str:
    """What the text of a chapter quotes by a name."""
    (data,) = (
        o.data for o in outputs if o.get("metadata", {}).get("scrapbook", {}).get("name") == name
    )
    (text,) = data.values()
    return ast.literal_eval(text)


@pytest.mark.chapter
@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_runs_on_a_real_model_and_real_images(
    chapter, tmp_path, real_model, real_names, real_images
):
    world = "world" in chapter.stem
    if world and real_model.name != real_names[0]:
        pytest.skip("the same stand-in names the odd object for each of them")
    images = Path(os.environ["QKUTILS_IMAGES"]).resolve()
    odd = "odd_one" in chapter.stem
    source = (odd_folder if odd else few)(images, tmp_path / "pictures")
    outputs = str(run(chapter, tmp_path, MODEL=real_model.name, IMAGES=str(source)))
    outputs = outputs.replace("<wbr>", "")  # where tables let a long name break
    assert world or real_model.name in outputs


@pytest.mark.chapter
@pytest.mark.slow
@pytest.mark.parametrize("chapter", [c for c in CHAPTERS if c.stem[:2] == "10"], ids=["10"])
def test_without_images_a_real_model_sees_the_photographs(
    chapter, tmp_path, real_model, real_names
):
    if real_model.name != real_names[0]:
        pytest.skip("one real model is enough")
    outputs = run(chapter, tmp_path, MODEL=real_model.name)
    assert "clock" in str(outputs)  # the picture of that number


@pytest.mark.chapter
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "besides", "far"),
    [
        ("01", ["tiny-supervised", OTHER], 0.1),  # its own model is drawn too; the pictures differ
        ("03", [OTHER], 1e-5),
        ("04", [], 1e-5),  # where the embedded models are the chapter's own
        ("05", [OTHER], 1e-5),
        ("10", ["tiny-supervised", OTHER], 1e-5),
    ],
)
def test_models_at_hand_are_compared_with_what_is_stored_of_them(
    number, besides, far, tmp_path, real_names
):
    (chapter,) = (each for each in CHAPTERS if each.stem.startswith(number))
    outputs = run(chapter, tmp_path, MODELS=[*real_names, OTHER])
    assert set(told(outputs, "computed").split(", ")) == {*real_names, *besides}
    differs = dict(each.split(", by ") for each in told(outputs, "differs").split("; "))
    assert set(differs) == set(real_names) <= set(stored.names())
    assert all(float(most.removesuffix(" at most")) < far for most in differs.values())


def rows_of(outputs: list, subject: str) -> dict[str, dict]:
    """Rows of the ledger whose subject begins so, by the first words of their claims."""
    rows = [row for o in outputs for row in o.get("data", {}).get(ledger.MEDIA_TYPE, ())]
    return {row["claim"][:9]: row for row in rows if row["subject"].startswith(f"{subject},")}


def moved_late() -> float:
    """What *same* gains from the first third of the layers to the last, on 24 drawn scenes."""
    found = qk.studies.odd_one_out(OTHER, qk.world.samples(5_000_000, 0, 24))
    same = qk.studies.relations(qk.studies.share_excess(found)).sel(relation="same")
    of_layer = same.mean("head").mean("image")
    third = of_layer.sizes["layer"] // 3
    return float(of_layer[-third:].mean() - of_layer[:third].mean())


def missed_by_six() -> float:
    """Attention that lies elsewhere with six modes of each head, on 20 drawn scenes."""
    model = qk.load(OTHER)
    seen = qk.pictures.images(qk.world.pictures(0, 0, 20), model, 20)
    return float(qk.studies.few_modes(model, seen, [6]).sel(basis="modes").mean())


@pytest.mark.chapter
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "claim", "wanted", "count", "away"),
    [
        ("05", "Attention", moved_late, 24, AWAY),
        ("10", "The six s", missed_by_six, 48, AWAY.partition(".")[0]),
    ],
    ids=["05", "10"],
)
def test_what_is_at_hand_is_computed_and_what_is_not_keeps_its_stored_numbers(
    number, claim, wanted, count, away, tmp_path, monkeypatch
):
    monkeypatch.delenv("QKUTILS_WEIGHTS", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (chapter,) = (each for each in CHAPTERS if each.stem.startswith(number))
    outputs = run(chapter, tmp_path, MODELS=[AWAY, OTHER], COUNT=count)
    assert told(outputs, "computed").split(", ")[-1] == OTHER
    assert AWAY not in told(outputs, "computed") and told(outputs, "differs") == "none"
    assert rows_of(outputs, OTHER)[claim]["estimate"] == pytest.approx(wanted(), rel=1e-4)
    published = ledger.read(ledger.PUBLISHED).query("chapter == @chapter.stem")
    of_away = published[published.subject.str.startswith(f"{away},")].set_index("claim")
    row = rows_of(outputs, away)[claim]
    assert row["estimate"] == pytest.approx(of_away.estimate[row["claim"]], rel=1e-5)

"""The replication report: its numbers by hand, its words, and that nothing is measured twice."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import qkutils as qk
from qkutils import statistics
from qkutils.book import _page, report, stored

ROOT = Path(__file__).parents[2]
PAIR = ["tiny-simmim", "tiny-simmim-finetuned"]
COUNT = 24  # of which two or three scenes have no pair that can be asked
WORDS = re.compile(
    r"holds|contradicted|not run here"
    r"|none larger than 0\.\d\d( \((above|below) zero\))?"
    r"|cannot be told \(an interval of less than ±\d+\.\d\d would tell\)"
)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """Where a report of two embedded models was written in one go."""
    folder = tmp_path_factory.mktemp("report")
    report.write(PAIR, {}, COUNT, folder, "cpu")
    return folder


@pytest.fixture(scope="module")
def table(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "report.csv", dtype={"figure": str}).fillna({"fingerprint": ""})


def row_of(table: pd.DataFrame, model: str, measurement: str, **more: str) -> pd.Series:
    """The row of a measurement, of which the claim that takes it off another one is left out."""
    kept = table[(table.model == model) & (table.measurement == measurement)]
    for column, value in more.items():
        kept = kept[kept[column] == value]
    assert len(kept) == 1
    return kept.iloc[0]


def thirds(curve: np.ndarray) -> tuple[float, float, float]:
    """Means of the first two, the middle four and the last two of eight layers."""
    assert len(curve) == 8
    return curve[:2].mean(), curve[2:6].mean(), curve[6:].mean()


def cosines(name: str) -> np.ndarray:
    """Weighted cosine per layer from the full matrix of every head."""
    heads = qk.load(name).heads
    found = np.empty(heads.w_q.shape[:2])
    for at in np.ndindex(found.shape):
        product = heads.w_q[at].double().numpy().T @ heads.w_k[at].double().numpy()
        found[at] = np.trace(product) / np.linalg.svd(product, compute_uv=False).sum()
    return found.mean(1)


def shares(name: str, field: str = "share") -> np.ndarray:
    """Attention on the same object, per image and layer, as mean over heads and both queries."""
    samples = qk.world.samples(report.SCENES, 0, COUNT)
    values = qk.studies.odd_one_out(name, samples)[field].mean("head")
    on = [values.sel(query=each, region=each).values for each in ("target", "distractor")]
    return (on[0] + on[1]) / 2


@pytest.mark.slow
def test_cosines_are_those_of_the_whole_matrices(table):
    early, middle, late = thirds(cosines("tiny-simmim-finetuned"))
    found = row_of(table, "tiny-simmim-finetuned", "cosine, late − early", convention="paper")
    assert found.estimate == pytest.approx(late - early, abs=1e-5)
    assert found.whose == "paper" and found["over"] == "head" and found["count"] == 4
    curve = cosines("tiny-simmim")
    rise = row_of(table, "tiny-simmim", "cosine, last − middle", convention="paper")
    assert rise.estimate == pytest.approx(curve[-1] - thirds(curve)[1], abs=1e-5)
    level = row_of(table, "tiny-simmim", "cosine, middle", convention="paper")
    assert level.estimate == pytest.approx(thirds(curve)[1], abs=1e-5)
    band = row_of(table, "tiny-simmim", "band", convention="paper")
    assert band.estimate == pytest.approx(1.96 / 96**0.5, abs=1e-4)
    assert band.verdict == "contradicted"


@pytest.mark.slow
def test_shares_and_their_difference_are_those_of_the_pictures(table):
    turn = {}
    for name in PAIR:
        of_image = shares(name)
        whole = ~np.isnan(of_image).any(1)
        contrasts = of_image[whole, 6:].mean(1) - of_image[whole, :2].mean(1)
        null = shares(name, "null_share")[whole]
        turn[name] = contrasts.mean(), null[:, 6:].mean() - null[:, :2].mean(), whole.sum()
    own = row_of(table, "tiny-simmim", "share, same", data="drawn scenes")
    assert (own.estimate, own.null) == pytest.approx(turn["tiny-simmim"][:2], abs=1e-5)
    assert own.images == turn["tiny-simmim"][2] and own.whose == "ours"
    spread = contrast_interval(shares("tiny-simmim"))
    assert (own.low, own.high) == pytest.approx(spread, abs=0.1 * (own.high - own.low))
    lost = table[(table.claim.str.contains("loses")) & (table.data == "drawn scenes")].iloc[0]
    assert lost.model == "tiny-simmim-finetuned"
    both = np.subtract(turn["tiny-simmim-finetuned"][:2], turn["tiny-simmim"][:2])
    assert (lost.estimate, lost.null) == pytest.approx(tuple(both), abs=1e-5)


def contrast_interval(of_image: np.ndarray) -> tuple[float, float]:
    """Late minus early with a bootstrap over pictures, by other random numbers."""
    values = of_image[~np.isnan(of_image).any(1)]
    values = values[:, 6:].mean(1) - values[:, :2].mean(1)
    draws = np.random.default_rng(7).choice(values, (4000, len(values))).mean(1)
    return tuple(np.quantile(draws, [0.025, 0.975]))


@pytest.mark.slow
def test_grouping_is_the_excess_over_the_null(table):
    pictures = qk.world.segmentations(report.SCENES, 0, COUNT, background=True)
    found = qk.studies.grouping("tiny-simmim", pictures).sel(matching="displacement")
    fields = ("same", "different", "null_same", "null_different")
    same, different, null_same, null_different = (found[each].values.mean(2) for each in fields)
    excess = same - different - null_same + null_different
    level = row_of(table, "tiny-simmim", "grouping")
    assert level.estimate == pytest.approx(np.nanmean(excess.mean(1)), abs=1e-5)
    turn = row_of(table, "tiny-simmim", "grouping, late − early")
    late_less_early = excess[:, 6:].mean(1) - excess[:, :2].mean(1)
    assert turn.estimate == pytest.approx(np.nanmean(late_less_early), abs=1e-5)


@pytest.mark.slow
def test_every_claim_names_every_model_of_the_paper_that_it_is_about(table):
    claims = {claim["words"]: claim for claim in report.FACTS["claim"]}
    assert len(claims) == len(report.FACTS["claim"])
    falls = table[table.measurement == "cosine, late − early"]
    assert {"CLIP B/16", "ViT-H/14", "SimMIM fine-tuned"} <= set(falls.paper)
    assert not falls.paper.isin(["DINO B/16", "DeiT-Ti", "SimMIM pre-trained"]).any()
    rises = table[table.measurement == "cosine, last − middle"]
    assert {"DINO B/16", "DeiT-Ti", "SimMIM pre-trained", "ViT-H/14"} <= set(rises.paper)
    assert not rises.paper.isin(["CLIP B/16", "ViT-B/16-224"]).any()
    said_of_some = {"objectives", "models", "minus"}
    for words, claim in claims.items():
        of_paper = table[(table.claim == words) & table.paper.notna()]
        assert (of_paper.verdict == "not run here").all()
        if "data" in claim and not said_of_some & claim.keys():
            assert of_paper.paper.nunique() == len(of_paper) == 16


@pytest.mark.parametrize("whose", [pytest.param("table", marks=pytest.mark.slow), "published"])
def test_verdicts_are_in_the_one_vocabulary(whose, request):
    of = report.published() if whose == "published" else request.getfixturevalue(whose)
    assert all(WORDS.fullmatch(verdict) for verdict in of.verdict)
    silent = of.verdict == "not run here"
    assert of.estimate[silent].isna().all() and of.estimate[~silent].notna().all()
    assert (of.fingerprint[~silent] != "").all()


@pytest.mark.parametrize("count, runs", [(19, False), (20, True)])
def test_fewer_than_twenty_pictures_are_not_run(count, runs, make_vit):
    model = qk.load(make_vit(embed_dim=24, num_heads=2, img_size=64))
    pictures = qk.world.pictures(0, 0, count, size=64)
    job = report.Job("ImageNet", report.of_tokens, "paper", pictures)
    measured = report.measure(model, [job])
    assert ("ImageNet" in measured.data.values) == runs
    name = "vit_base_patch16_224.orig_in21k_ft_in1k"  # what it is taken for
    judged = report.judge({name: measured}, {"ImageNet": count})
    own = judged[(judged.model == name) & (judged.data == "ImageNet")]
    assert (own.verdict != "not run here").all() == runs
    assert own.whose.tolist() == ["paper"] and own.images.tolist() == [count]


@pytest.mark.slow
def test_killed_and_resumed_it_is_the_same(out, tmp_path):
    command = [
        sys.executable,
        "-u",
        "-m",
        "qkutils",
        "report",
        "--models",
        *PAIR,
        "--device",
        "cpu",
    ]
    command += ["--count", str(COUNT), "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert f"{PAIR[1]}: measuring\n" in iter(process.stdout.readline, "")
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob("*.nc")] == [f"{PAIR[0]}.nc"]
    before = os.stat(tmp_path / f"{PAIR[0]}.nc")
    report.write(PAIR, {}, COUNT, tmp_path, "cpu")
    assert os.stat(tmp_path / f"{PAIR[0]}.nc").st_ino == before.st_ino
    for name in ("report.csv", "report.md"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_the_time_is_of_what_is_left_to_measure(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "seconds", lambda *_: 600.0)  # of the first model's images

    def minutes() -> int:
        said = report.plan(PAIR, [], COUNT, True, "cpu", tmp_path)
        assert all(name in said for name in PAIR)
        return int(re.search(r"about (\d+) minutes", said)[1])

    both = minutes()
    (tmp_path / f"{PAIR[0]}.nc").touch()
    other = minutes()
    (tmp_path / f"{PAIR[1]}.nc").touch()
    assert both - other == 3 * 4 * COUNT * 10 and other > 0 and minutes() == 0


def test_other_weights_under_a_name_are_seen(tmp_path):
    weights = ROOT / "qkutils" / "weights"
    own = tmp_path / "own.safetensors"
    shutil.copy(weights / "tiny-dino.safetensors", own)
    report.write([str(own)], {}, 2, tmp_path / "out", "cpu")
    first = (tmp_path / "out" / "report.csv").read_bytes()
    report.write([str(own)], {}, 2, tmp_path / "out", "cpu")
    assert (tmp_path / "out" / "report.csv").read_bytes() == first
    shutil.copy(weights / "tiny-supervised.safetensors", own)
    with pytest.raises(ValueError, match=r"own\.nc.*other model"):
        report.write([str(own)], {}, 2, tmp_path / "out", "cpu")


def test_a_bad_name_among_several_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "measure", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(ValueError, match="tiny-dyno"):
        report.write(["tiny-dino", "tiny-dyno"], {}, 2, tmp_path / "out", "cpu")
    assert not list(tmp_path.rglob("*.*"))


# ---- what is published -----------------------------------------------------------------------


def test_the_page_of_the_book_is_that_of_the_published_table():
    text = (ROOT / "book" / "report.md").read_text("utf-8")
    assert _page.page(report.published()) in text, "copy report.md of `make report` into the page"


def test_published_rows_say_where_they_come_from():
    table = report.published()
    run = table[table.fingerprint != ""]
    assert run.model.nunique() == 3 and (run.code_version != "").all()
    for name, of in run.groupby("model"):
        assert of.fingerprint.nunique() == 1
        recorded = qk.catalogue().fingerprint.get(name)
        assert not recorded or of.fingerprint.iloc[0] == recorded
    assert (run.images[run["over"] == "image"] >= statistics.FEWEST_IMAGES).all()
    assert not run.whose[run.data.isin(["CamVid", "BSDS500", "photographs"])].eq("paper").any()
    text = _page.page(table)
    assert all(said in text for said in stored.TENSORS.values())


def test_what_the_published_code_gives_is_recomputed():
    """The length of a vector of d uniform numbers is close to √(d/3), by a normal deviation."""
    for width in _page.WIDTHS:
        spread = (4 / 45 / width) ** 0.5 * 3 / 2  # of the length, as a share of it
        wanted = (3 / width) ** 0.5 / (1 - 2.326 * spread)
        assert _page.published_baseline(width) == pytest.approx(wanted, rel=0.02)
    numbers = _page._of_code(report.published())
    assert numbers["first"] == pytest.approx(0.872, abs=1e-3)  # as others published it
    assert numbers["divided"] == pytest.approx(0.872 / 64, abs=1e-4)
    assert numbers["covered"] == 13 and numbers["copies"] == 1152
    folder = Path(qk.__file__).parent / "datasets" / "photographs"
    assert numbers["photographs"] == len(list(folder.glob("*.jpg")))
    assert numbers["measured"] == 45 and numbers["intervals"] == 39  # six bands have a formula
    assert numbers["fixed"] == pytest.approx(1.96 / 255**0.5, abs=1e-3)


def test_a_real_row_is_filled(real_model, image_folder, tmp_path):
    folders = {"images": image_folder / "imagenet-sample", "o3": image_folder / "o3-sample"}
    report.write([real_model.name], folders, 20, tmp_path, "cpu")
    found = pd.read_csv(tmp_path / "report.csv", dtype={"figure": str})
    own = found[found.model == real_model.name]
    assert (own.verdict[own.data == "O3"] == "not run here").all()
    measured = own[own.data == "ImageNet"]
    claimed = real_model.facts["objective"] == "classification"  # that it falls, also without S4
    assert measured.images.tolist() == [20] * claimed and measured.estimate.notna().all()
    kept = report.published()
    for convention in ("paper", "exact"):
        place = {"convention": convention, "data": "weights"}
        fresh = row_of(own, real_model.name, "cosine, middle", **place)
        stored = row_of(kept, real_model.name, "cosine, middle", **place)
        numbers = [[row.estimate, row.low, row.high, row.null] for row in (fresh, stored)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-5)

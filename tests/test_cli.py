"""The command `qkutils`: what it lists is what there is, and every slip gets one line."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import qkutils
import qkutils as qk
from qkutils import cli, models
from qkutils.atlas._scan import Precision
from qkutils.atlas._state import STATISTICS
from qkutils.datasets import _fetching as fetching
from qkutils.heads import CONVENTIONS
from qkutils.world.training import evaluate, objectives


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: beside a folder of two pictures, an empty one and broken files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(models.WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("pictures", "empty", "taken"):
        (tmp_path / name).mkdir()
    for n, image in enumerate(qk.world.make(0, 0, 2).image.movedim(1, -1)):
        Image.fromarray((image * 255).byte().numpy()).save(tmp_path / "pictures" / f"{n}.png")
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    (tmp_path / "cut.pth").write_bytes(b"PK\3\4")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    return tmp_path


SCAN = ["scan", "--model", "tiny-dino", "--images", "pictures", "--out", "a.nc"]
FEW = ["--count", "1"]
FETCH = ["models", "fetch"]
USAGE = {  # what is wrong with a command line itself, and what its message names
    "no command": ([], "COMMAND"),
    "an unknown command": (["scann"], "scann"),
    "an unknown option": ([*SCAN, "--deep"], "--deep"),
    "no model": (SCAN[:1] + SCAN[3:], "--model"),
    "no images": (SCAN[:3] + SCAN[5:], "--images"),
    "k of none": ([*SCAN, "--k", "0"], "--k"),
    "k of 1.5": ([*SCAN, "--k", "1.5"], "--k"),
    "k of nothing": ([*SCAN, "--k", ""], "--k"),
    "a batch of none": ([*SCAN, "--batch-size", "0"], "--batch-size"),
    "workers of -1": ([*SCAN, "--workers", "-1"], "--workers"),
    "overfetch of 0": ([*SCAN, "--overfetch", "0"], "--overfetch"),
    "save at nan": ([*SCAN, "--save-every", "nan"], "--save-every"),
    "save at inf": ([*SCAN, "--save-every", "inf"], "--save-every"),
    "save at -1": ([*SCAN, "--save-every", "-1"], "--save-every"),
    "an unknown convention": ([*SCAN, "--convention", "Paper"], "Paper"),
    "unknown statistics": ([*SCAN, "--statistics", "variance", "sink"], "sink"),
    "an unknown precision": ([*SCAN, "--precision", "bf16"], "bf16"),
    "device gpu": ([*SCAN, "--device", "gpu"], "gpu"),
    "device meta": ([*SCAN, "--device", "meta"], "meta"),
    "device mps": ([*SCAN, "--device", "mps"], "mps"),
    "device cuda:x": ([*SCAN, "--device", "cuda:x"], "cuda:x"),
    "images without a name": (SCAN[:4] + [""] + SCAN[5:], "--images"),
    "out without a name": ([*SCAN[:-1], ""], "--out"),
    "models, but what": (["models"], "COMMAND"),
    "fetching models, but which": (["models", "fetch"], "NAME"),
    "an unknown data set": (["datasets", "fetch", "o4"], "o4"),
    "data sets, but which": (["datasets", "fetch"], "name"),
    "an unknown objective": (["train", "simim"], "simim"),
    "steps of -1": (["train", "simmim", "--steps", "-1"], "--steps"),
    "a seed of -1": (["train", "simmim", "--seed", "-1"], "--seed"),
    "training on the gpu": (["train", "simmim", "--device", "gpu"], "gpu"),
    "a count of 0": (["store", "tiny-dino", "--count", "0"], "--count"),
    "a report of none": (["report", "--count", "0"], "--count"),
    "a report on the gpu": (["report", "--device", "gpu"], "gpu"),
    "odd without a name": (["store", "tiny-dino", "--odd", "folder"], "NAME=FOLDER"),
}
FAILS = {  # what can't be done, and what its message names
    "an unknown model": ([*SCAN, "--model", "tiny-dyno"], "tiny-dino"),
    "an unknown tag": (
        [*SCAN, "--model", "vit_tiny_patch16_224.mine"],
        "vit_tiny_patch16_224.mine",
    ),
    "a model without a name": ([*SCAN, "--model", ""], "''"),
    "a missing checkpoint": ([*SCAN, "--model", "no/where.pth"], "no/where.pth"),
    "a cut safetensors file": ([*SCAN, "--model", "cut.safetensors"], "cut.safetensors"),
    "a cut torch file": ([*SCAN, "--model", "cut.pth"], "cut.pth"),
    "a foreign checkpoint": ([*SCAN, "--model", "foreign.safetensors"], "foreign.safetensors"),
    "a missing folder": ([*SCAN, "--images", "nowhere"], "nowhere"),
    "a file for a folder": ([*SCAN, "--images", "file.txt"], "file.txt"),
    "an empty folder": ([*SCAN, "--images", "empty"], "empty"),
    "out is a folder": ([*SCAN, "--out", "taken"], "taken"),
    "out in a file": ([*SCAN, "--out", "file.txt/a.nc"], "file.txt"),
    "out is no atlas": ([*SCAN, "--out", "file.txt"], "file.txt"),
    "a file that only a person gets": ([*FETCH, "ijepa_vith14_1k_predictor"], "10.4 GB"),
    "an embedded model": ([*FETCH, "tiny-dino"], "tiny-dino"),
    "fetching what nobody knows": (
        ["models", "fetch", "vit_tinny_patch16_224"],
        "vit_tiny_patch16_224",
    ),
    "fetching without a network": ([*FETCH, "vit_tiny_patch16_224.augreg_in21k"], "hub"),
    "fetching into a file": (
        ["models", "fetch", "vit_tiny_patch16_224", "--folder", "file.txt"],
        "file.txt",
    ),
    "an address of another kind": (["datasets", "fetch", "o3", "--url", "file:///x"], "http"),
    "an address that is none": (["datasets", "fetch", "o3", "--url", "http://[::1"], "http://[::1"),
    "an address without a host": (["datasets", "fetch", "o3", "--url", "http:///x.zip"], "url="),
    "an address with a space": (["datasets", "fetch", "o3", "--url", "http://a b/x"], "url="),
    "a checksum that is none": (["datasets", "fetch", "o3", "--sha256", "xyz"], "sha256='xyz'"),
    "more places than any memory": ([*SCAN, "--k", "999999999999"], "k=999999999999"),
    "training without a step": (["train", "simmim", "--steps", "0"], "steps=0"),
    "training on from nothing": (["train", "simmim-finetuned", "--seed", "77"], "seed 77"),
    "data sets into a file": (["datasets", "fetch", "o3", "--to", "file.txt"], "file.txt"),
    "training into a file": (["train", "untrained", "--out", "file.txt"], "file.txt"),
    "storing an unknown model": (["store", "tiny-dyno", *FEW], "tiny-dino"),
    "storing of a missing folder": (["store", "tiny-dino", *FEW, "--images", "nowhere"], "nowhere"),
    "storing of a missing set": (["store", "tiny-dino", *FEW, "--odd", "o3=nowhere"], "nowhere"),
    "storing of missing streets": (["store", "tiny-dino", *FEW, "--camvid", "nowhere"], "nowhere"),
    "reporting an unknown model": (["report", "--models", "tiny-dino", "tiny-dyno"], "tiny-dyno"),
    "reporting of a missing folder": (
        ["report", "--models", "tiny-dino", "--o3", "nowhere"],
        "nowhere",
    ),
    "reporting of no pictures": (["report", "--images", "empty"], "empty"),
    "reporting into a file": (["report", "--out", "file.txt"], "file.txt"),
    "notebooks without a wheel": (["notebooks", "mine"], "make wheel"),
    "storing of missing people": (["store", "tiny-dino", *FEW, "--bsds", "nowhere"], "nowhere"),
}


def one_line(capsys: pytest.CaptureFixture, named: str) -> None:
    """Checks that one line was said, that it names the slip, and that nothing else was."""
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1, said.err
    assert named in said.err


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("slip", USAGE)
def test_a_wrong_command_line(slip: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    arguments, named = USAGE[slip]
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    one_line(capsys, named)


@pytest.mark.parametrize("slip", FAILS)
def test_what_cannot_be_done(slip: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    arguments, named = FAILS[slip]
    before = files(folder)
    assert cli.main(arguments) == 1
    one_line(capsys, named)
    assert files(folder) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", [SCAN, ["train", "untrained"]], ids=lambda c: c[0])
def test_a_gpu_that_is_not_there(command, folder, capsys) -> None:
    assert cli.main([*command, "--device", "cuda"]) == 1
    one_line(capsys, "device")


def test_out_is_tried_before_the_model_is_loaded(folder, capsys, monkeypatch) -> None:
    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("it was loaded"))
    for option, value in (("--out", "taken"), ("--images", "empty"), ("--images", "nowhere")):
        assert cli.main([*SCAN, option, value]) == 1
        one_line(capsys, value)


def test_an_atlas_of_another_scan_is_kept(folder, capsys) -> None:
    assert cli.main([*SCAN, "--k", "1"]) == 0
    before = (folder / "a.nc").read_bytes()
    capsys.readouterr()
    assert cli.main([*SCAN, "--k", "2"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert "a.nc" in said[-1] and not any("Traceback" in line for line in said)
    assert (folder / "a.nc").read_bytes() == before
    assert cli.main([*SCAN, "--k", "1"]) == 0
    assert qk.open_atlas(folder / "a.nc").sizes["picture"] == 2


def test_a_stopped_command_says_what_is_kept(folder, capsys, monkeypatch) -> None:
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(qk.atlas, "scan", stop)
    assert cli.main(SCAN) == 130
    assert "a.nc" in capsys.readouterr().err


def test_too_little_memory_is_told_in_one_line(folder, capsys, monkeypatch) -> None:
    monkeypatch.setattr(qk.atlas, "scan", lambda *_, **__: bytearray(2**62))
    assert cli.main(SCAN) == 1
    one_line(capsys, "qkutils")


@pytest.mark.parametrize("error", [TypeError, KeyError, ValueError, RuntimeError])
def test_what_nobody_foresaw_keeps_its_traceback(error, folder, monkeypatch) -> None:
    """Here it is raised by this test, so by no code of the library that says what to do."""

    def fail(*_, **__):
        raise error("planted")

    monkeypatch.setattr(qk.atlas, "scan", fail)
    with pytest.raises(error, match="planted"):
        cli.main(SCAN)


def test_a_picture_that_is_none_is_told_in_one_line(folder, capsys) -> None:
    (folder / "pictures" / "broken.png").write_text("no picture")
    assert cli.main([*SCAN, "--k", "1"]) == 0
    said = capsys.readouterr()
    (line,) = [each for each in said.err.splitlines() if "broken.png" in each]
    assert line.startswith("qkutils: ") and "broken.png" in said.out


def test_names_that_are_no_unicode(folder, capsys) -> None:
    os.rename(folder / "pictures", folder / "gr\udcfcn")
    arguments = [*SCAN, "--images", "gr\udcfcn", "--out", "gr\udcfcn.nc"]
    assert cli.main(arguments) == 0
    assert "gr\\udcfcn.nc" in capsys.readouterr().out


def test_a_file_with_a_tag_of_ones_own_is_scanned(folder, capsys) -> None:
    save_file(timm.create_model("test_vit").state_dict(), folder / "test_vit.mine.safetensors")
    assert cli.main([*SCAN, "--model", "test_vit.mine.safetensors", "--k", "1"]) == 0
    assert "test_vit.mine" in capsys.readouterr().out


def test_neither_a_home_nor_a_locale_is_needed(folder) -> None:
    os.rename(folder / "pictures", folder / "grün")
    command = [sys.executable, "-m", "qkutils", *SCAN, "--k", "1", "--images", "grün"]
    paths = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(qk.__file__).parents[1])}
    given = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1", **paths}
    done = subprocess.run(command, capture_output=True, env=given)
    assert done.returncode == 0, done.stderr
    assert qk.open_atlas(folder / "a.nc").done.all()


def test_a_training_is_resumed_and_told(folder, capsys, monkeypatch) -> None:
    monkeypatch.setattr(evaluate, "measure", lambda _: {"odd factor": 0.5})
    assert cli.main(["train", "supervised", "--steps", "1", "--out", "runs"]) == 0
    assert "odd" in capsys.readouterr().out and (folder / "runs" / "supervised-0.pt").is_file()
    assert cli.main(["train", "supervised", "--steps", "2", "--out", "runs"]) == 1
    assert "supervised-0.pt" in capsys.readouterr().err


def test_numbers_are_stored_where_asked(folder, capsys) -> None:
    assert cli.main(["store", "tiny-dino", "--count", "2", "--to", "numbers"]) == 0
    names = {path.name for path in (folder / "numbers").iterdir()}
    assert names == {f"tiny-dino.{kind}.csv" for kind in ("modes", "null_band", "salience")}
    assert capsys.readouterr().out.split() == [f"numbers/{name}" for name in sorted(names)]


def test_one_kind_is_stored_alone(folder, capsys) -> None:
    few = ["store", "tiny-dino", "--count", "2", "--to", "numbers"]
    assert cli.main([*few, "--only", "modes"]) == 0
    assert [path.name for path in (folder / "numbers").iterdir()] == ["tiny-dino.modes.csv"]
    assert cli.main([*few, "--only", "one_image"]) == 1  # it needs --images
    told = capsys.readouterr().err
    assert "'one_image'" in told and "'modes'" in told


def test_notebooks_are_written_and_changed_ones_kept(folder, capsys, monkeypatch) -> None:
    (folder / "carried").mkdir()
    for name in ("01_a.ipynb", "02_b.ipynb"):
        (folder / "carried" / name).write_text(name)
    monkeypatch.setattr("qkutils.book.handout.FOLDER", folder / "carried")
    assert cli.main(["notebooks", "my notebooks"]) == 0
    (folder / "my notebooks" / "01_a.ipynb").write_text("mine")
    (folder / "carried" / "01_a.ipynb").write_text("new")
    assert cli.main(["notebooks", "my notebooks"]) == 0
    told = capsys.readouterr()
    assert (folder / "my notebooks" / "01_a.ipynb").read_text() == "mine"
    assert (folder / "my notebooks" / "02_b.ipynb").read_text() == "02_b.ipynb"
    assert told.err.count("\n") == 1 and "01_a.ipynb" in told.err
    assert told.out.splitlines()[0].endswith('-m jupyterlab "my notebooks"')


def test_models_and_data_sets_are_listed(capsys) -> None:
    assert cli.main(["models", "list"]) == 0
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(listed) == set(qkutils.catalogue().index)
    at_hand = {name for name, line in listed.items() if " at hand " in line}
    assert at_hand == set(models.at_hand())
    assert cli.main(["datasets", "list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(fetching.DATASETS)


OFFERS = {  # what a command lets one choose from, and what the library takes
    ("scan", "--convention"): CONVENTIONS,
    ("scan", "--statistics"): STATISTICS,
    ("scan", "--precision"): get_args(Precision),
    ("datasets fetch", "name"): fetching.DATASETS,
    ("train", "objective"): objectives.OBJECTIVES,
}


@pytest.mark.parametrize("command, option", OFFERS)
def test_the_command_offers_what_the_library_takes(command: str, option: str) -> None:
    offered = cli.COMMANDS[command]["options"][option]["choices"]
    assert set(offered) == set(OFFERS[command, option])


def test_the_options_have_the_defaults_of_the_library() -> None:
    taken = inspect.signature(inspect.unwrap(qk.scan)).parameters
    for option, details in cli.COMMANDS["scan"]["options"].items():
        if details.get("default"):
            assert details["default"] == taken[option[2:].replace("-", "_")].default


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["scan", "--help"], ["scan"]])
def test_help_needs_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from qkutils import cli\n"
        "try:\n    cli.main(sys.argv[1:])\n"
        "finally:\n    assert not {'torch', 'timm', 'xarray'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == (2 if arguments == ["scan"] else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert arguments != ["--version"] or done.stdout.split()[0] == "qkutils"


def test_a_reader_who_has_seen_enough_is_no_fault(capsys, monkeypatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        assert cli.main(["datasets", "list"]) == 1
    assert capsys.readouterr().err == ""

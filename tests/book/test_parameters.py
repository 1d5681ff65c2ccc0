"""A parameters file as people write it: each slip gets one line with its place."""

from __future__ import annotations

import qkutils._torchvision

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "book" / "_tools" / "parameters.py"
CHAPTERS = {
    "01_first": 'MODEL = "m"\nIMAGES = ""\nSHARE = 0.5\nLAYERS = [1, 2]',
    "02_second": 'MODEL = "m"\nIMAGES = ""\nCOUNT: int = 8\nFAST = False\nMODELS = []',
}


@pytest.fixture(scope="module")
def tool() -> Any:
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location("parameters", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def collect(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a build takes from a file of this content, beside two chapters."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    for name, code in CHAPTERS.items():
        text = f'# %%\n"nothing"\n\n# %% tags=["parameters"]\n{code}\n'
        (tmp_path / "notebooks" / f"{name}.py").write_text(text)

    def read(content: bytes | str, **environment: str) -> dict[str, Any]:
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "given.yaml").write_bytes(raw)
        return tool.collect({"PARAMETERS": "given.yaml", **environment})

    return read


SLIPS = {
    "tab": ("MODEL: a\n\tCOUNT: 1\n", 2),
    "tab before a value": ("MODEL:\t- a\n", 1),
    "open bracket": ("MODEL: [a\n", 2),
    "open quote": ("MODEL: 'a\n", 2),
    "Latin-1": (b"# x\nMODEL: gr\xfcn\n", 2),
    "UTF-16": ("MODEL: a\n".encode("utf-16"), 1),
    "NUL": ("# x\nMODEL: a\0b\n", 2),
    "empty": ("", 1),
    "comments alone": ("# MODEL: a\n", 1),
    "a list": ("- MODEL\n", 1),
    "a word": ("MODEL\n", 1),
    "two documents": ("MODEL: a\n---\nMODEL: b\n", 2),
    "a deep nest": ("MODEL: " + "[" * 1000, 1),
    "a Python object": ("MODEL: !!python/object/apply:os.getcwd []\n", 1),
    "an unknown anchor": ("MODEL: *a\n", 1),
    "a number as name": ("MODEL: a\n5: b\n", 2),
    "null as name": ("null: b\n", 1),
    "yes as name": ("yes: b\n", 1),
    "a date as name, unknown": ("2024-01-01: b\n", 1),
    "a list as name": ("? [a]\n: b\n", 1),
    "merged": ("<<: {MODEL: a}\n", 1),
    "twice": ("MODEL: a\nIMAGES: ''\nMODEL: b\n", 3),
    "twice in a section": ("02_second:\n  COUNT: 1\n  COUNT: 2\n", 3),
    "a section twice": ("02_second: {COUNT: 1}\n02_second: {COUNT: 2}\n", 2),
    "a list as section": ("02_second:\n  - COUNT\n", 1),
    "a number as section": ("02_second: 5\n", 1),
    "an empty section": ("MODEL: a\n02_second:\n", 2),
    "an unknown chapter": ("2_second: {COUNT: 1}\n", 1),
    "an unknown parameter": ("MODEL: a\nMODLE: b\n", 2),
    "an unknown one in a section": ("02_second:\n  COUNTS: 1\n", 2),
    "one that only some have": ("COUNT: 1\n", 1),
    "1e1": ("02_second:\n  FAST: true\n  COUNT: 1e1\n", 3),
    "quoted": ("02_second: {COUNT: '8'}\n", 1),
    "octal": ("02_second: {COUNT: 010}\n", 1),
    "sixties": ("02_second: {COUNT: 1:30}\n", 1),
    "8.0": ("02_second: {COUNT: 8.0}\n", 1),
    "true for a number": ("02_second: {COUNT: true}\n", 1),
    "null for a number": ("02_second: {COUNT: }\n", 1),
    "a list for a number": ("02_second: {COUNT: [8]}\n", 1),
    "a section for a number": ("02_second: {COUNT: {a: 1}}\n", 1),
    "a date for a number": ("02_second: {COUNT: 2024-13-45}\n", 1),
    "1 for true": ("02_second: {FAST: 1}\n", 1),
    "text for a fraction": ("01_first: {SHARE: half}\n", 1),
    "infinity": ("01_first: {SHARE: .inf}\n", 1),
    "thousands of digits": (f"02_second: {{COUNT: {'9' * 5000}}}\n", 1),
    "a tag that lies": ("02_second: {FAST: !!bool perhaps}\n", 1),
    "NaN": ("01_first: {SHARE: .nan}\n", 1),
    "one for a list": ("01_first: {LAYERS: 1}\n", 1),
    "text in a list": ("01_first: {LAYERS: [1, a]}\n", 1),
    "MODELS is text": ("02_second: {MODELS: a b}\n", 1),
    "a number in MODELS": ("02_second: {MODELS: [a, 5]}\n", 1),
    "MODEL is a number": ("MODEL: 5\n", 1),
    "MODEL is no": ("MODEL: no\n", 1),
    "IMAGES is a list": ("IMAGES: [a, b]\n", 1),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_one_line_with_its_place(slip: str, collect: Any, tool: Any) -> None:
    content, line = SLIPS[slip]
    with pytest.raises(tool.Wrong) as raised:
        collect(content)
    told = str(raised.value)
    assert told.startswith(f"given.yaml, line {line}: ") and "\n" not in told
    assert len(told) < 300


def test_what_is_needed_is_named(collect: Any, tool: Any) -> None:
    with pytest.raises(tool.Wrong, match="COUNT.*'1e1'.*02_second.*whole number"):
        collect("02_second: {COUNT: 1e1}\n")
    with pytest.raises(tool.Wrong, match=r"LAYERS: \[\[1\]\].*such as \[1, 2\]"):
        collect("01_first: {LAYERS: [[1]]}\n")
    with pytest.raises(tool.Wrong, match="MODEL.*line 1"):
        collect("MODEL: a\nMODEL: b\n")


def test_a_file_that_is_none(collect: Any, tool: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in ("nowhere.yaml", "notebooks", "pipe.yaml"):
        with pytest.raises(tool.Wrong, match=f"^{name}: "):
            collect("", PARAMETERS=name)
    (tmp_path / "file.png").touch()
    for images in ("nowhere", "file.png", "a\nb"):
        with pytest.raises(tool.Wrong, match="^IMAGES="):
            collect("MODEL: a\n", IMAGES=images)


@pytest.mark.parametrize("size", ["22.4", "-14", "224px", "224 224", "none"])
def test_an_image_size_that_is_no_number(size: str, collect: Any, tool: Any) -> None:
    with pytest.raises(tool.Wrong, match="^IMAGE_SIZE="):
        collect("MODEL: a\n", IMAGE_SIZE=size)


def test_what_is_right_is_taken(collect: Any, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "own.pth").touch()
    taken = collect(
        b"\xef\xbb\xbfMODEL: own.pth\r\n02_second: {COUNT: -8, FAST: yes, IMAGES: pictures}\r\n"
        b"01_first: {SHARE: 1, LAYERS: []}\r\n"
    )
    assert taken == {
        "MODEL": str(tmp_path / "own.pth"),
        "02_second": {"COUNT": -8, "FAST": True, "IMAGES": str(tmp_path / "pictures")},
        "01_first": {"SHARE": 1, "LAYERS": []},
    }
    assert collect("MODEL: a\n", MODEL="b", IMAGES="") == {"MODEL": "b"}
    own = str(tmp_path / "own.pth")
    assert collect("{}", MODELS=" a  own.pth\tb ") == {"MODELS": ["a", own, "b"]}
    assert collect("02_second: {MODELS: [own.pth]}") == {"02_second": {"MODELS": [own]}}
    assert collect("{}") == {}
    assert collect("MODEL: a\n", IMAGE_SIZE="224") == {"MODEL": "a", "IMAGE_SIZE": 224}


@pytest.fixture
def write(collect: Any, tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes out.yaml as Make asks for it; gives the file and when it was written last."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("PARAMETERS", raising=False)
    monkeypatch.setattr(sys, "argv", ["parameters.py", "out.yaml"])

    def run(**environment: str) -> tuple[Path, int]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        tool.main()
        return tmp_path / "out.yaml", (tmp_path / "out.yaml").stat().st_mtime_ns

    return run


def test_the_file_is_rewritten_only_when_it_changes(write: Any, tmp_path: Path) -> None:
    times = []
    for model in ("tiny-dino", "tiny-dino", "tiny-simmim"):
        out, time = write(MODEL=model, IMAGES=str(tmp_path))
        assert out.read_text() == f"IMAGES: {tmp_path}\nMODEL: {model}\n"
        times.append(time)
    assert times[0] == times[1] < times[2]


def test_a_file_with_a_tag_of_ones_own_is_a_model(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "test_vit.mine.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), path)
    out, _ = write(MODEL=path.name, IMAGES=str(tmp_path))
    assert out.read_text() == f"IMAGES: {tmp_path}\nMODEL: {path}\n"


def test_a_model_that_cannot_be_had_is_told_before_any_chapter_runs(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMAGES", raising=False)
    with pytest.raises(SystemExit, match="^MODEL=tiny-dyno: .*$") as raised:
        write(MODEL="tiny-dyno")
    assert isinstance(raised.value.code, str) and not (tmp_path / "out.yaml").exists()


def test_a_model_to_compare_with_is_at_hand_or_stored(
    write: Any, tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMAGES", raising=False)
    monkeypatch.delenv("QKUTILS_WEIGHTS", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match="^MODELS=tiny-dyno: .*$"):
        write(MODELS="tiny-dino tiny-dyno")
    with pytest.raises(tool.Wrong, match="^MODELS=tiny-dyno: "):
        tool.try_models({"02_second": {"MODELS": ["tiny-dyno"]}})
    assert not (tmp_path / "out.yaml").exists()
    stored = "deit_tiny_patch16_224.fb_in1k"
    out, _ = write(MODELS=f"tiny-dino {stored}")
    assert out.read_text() == f"MODELS:\n- tiny-dino\n- {stored}\n"


def test_an_image_size_that_a_model_cannot_take_is_told_too(
    write: Any, tool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMAGES", raising=False)
    with pytest.raises(SystemExit, match="^MODEL=tiny-dino: .*image_size=60"):
        write(MODEL="tiny-dino", IMAGE_SIZE="60")
    out, _ = write(IMAGE_SIZE="128")
    assert out.read_text() == "IMAGE_SIZE: 128\nMODEL: tiny-dino\n"
    with pytest.raises(tool.Wrong, match="image_size=60"):
        tool.try_models({"MODEL": "tiny-dino", "02_second": {"IMAGE_SIZE": 60}})

"""The runner stops at every kind of fault, and its message says where to look."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.chapter

ROOT = Path(__file__).parents[2]
HEADER = """\
# ---
# jupyter:
#   jupytext:
#     comment_magics: false
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does it run?

# %% tags=["parameters"]
MODEL = "tiny"
IMAGES = ""
MODELS: list = []
size: int = 3

# %%
import warnings
import ipywidgets
"""
LAST_LINE = HEADER.count("\n")  # the next cell's marker stands two lines below, its code three


def run(folder: Path, code: str, *options: str) -> tuple[str, Path]:
    """Run a chapter that ends with this code; return what was said, and the output's path."""
    script, out = folder / "05_planted.py", folder / "out" / "05_planted.ipynb"
    script.write_text(f"{HEADER}\n# %%\n{code}\n")
    runner = [sys.executable, str(ROOT / "book/_tools/run_chapter.py"), str(script), str(out)]
    done = subprocess.run([*runner, *options], capture_output=True, text=True, cwd=folder)
    assert (done.returncode == 0) == out.exists(), done.stderr
    return done.stderr, out


FAULTS = {
    "cell": ('x = 1\nraise ValueError("planted")', "cell 4, line {1}: ValueError: planted"),
    "call": (
        "def f():\n    return 1 / 0\nf()",
        "cell 4, line {2}: ZeroDivisionError: division by zero",
    ),
    "warning": (
        'warnings.warn("planted")',
        "cell 4, line {0}: a warning: ",
        "UserWarning: planted",
    ),
    "exit": ("raise SystemExit(0)", "cell 4, line {0}: SystemExit"),
    "button": (
        'button = ipywidgets.Button(description="go")\nbutton.on_click(lambda _: 1 / 0)',
        "cell 4, line {1}: a widget fails when it is used: Button 'go', click:",
        "ZeroDivisionError",
    ),
    "slider": (
        'slider = ipywidgets.IntSlider(max=7, description="layer")\n'
        'slider.observe(lambda change: {1: "first"}[change.new], "value")',
        "cell 4, line {1}: a widget fails when it is used: IntSlider 'layer', change of value:",
        "KeyError: 0",
    ),
    "choice": (
        'choice = ipywidgets.Dropdown(options=["a", "b"], description="pick")\n'
        'choice.observe(lambda change: {"a": 1}[change.new], "value")',
        "Dropdown 'pick', index = 1:",
        "KeyError: 'b'",
    ),
    "output": (
        "out = ipywidgets.Output()\nwith out:\n    1 / 0",
        "inside an Output widget: ZeroDivisionError",
    ),
    "callback in output": (
        'out, button = ipywidgets.Output(), ipywidgets.Button(description="draw")\n'
        "def draw(_):\n    with out:\n        1 / 0\nbutton.on_click(draw)",
        "cell 4, line {3}: a widget fails when it is used: Button 'draw', click:",
        "ZeroDivisionError",
    ),
    "callback warns": (
        'button = ipywidgets.Button(description="go")\n'
        'button.on_click(lambda _: warnings.warn("planted"))',
        "Button 'go', click:",
        "UserWarning: planted",
    ),
    "custom view": (
        "import traitlets\nclass View(ipywidgets.DOMWidget):\n"
        "    head = traitlets.Int(0).tag(sync=True)\n"
        'view = View()\nview.observe(lambda _: 1 / 0, "head")',
        "View '', change of head:",
        "ZeroDivisionError",
    ),
    "request of a view": (
        "from qkutils.views._stepper import Stepper\nclass Asked(Stepper):\n"
        '    def trials(self):\n        return [{"number": 0}]\n'
        '    def respond(self, request):\n        return 1 / request["number"]\n'
        "from matplotlib.figure import Figure\n"
        'data = {"label": "x", "names": ["a"], "texts": ["b"], "pictures": []}\n'
        'view = Asked("view", data, {"step": 0}, Figure(), "text")',
        "Asked '', request {{'number': 0}}:",
        "ZeroDivisionError",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named(name: str, tmp_path: Path) -> None:
    code, *wanted = FAULTS[name]
    said, _ = run(tmp_path, code)
    lines = [LAST_LINE + 3 + offset for offset in range(4)]
    for text in ["05_planted.py", *wanted]:
        assert text.format(*lines) in said


def test_what_the_library_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    said, _ = run(tmp_path, 'import qkutils\nqkutils.load("tiny-dyno")')
    assert "cell 4, line" in said and "'tiny-dyno'" in said and said.count("\n") == 1


def test_hanging_cell_is_named(tmp_path: Path) -> None:
    said, _ = run(tmp_path, "import time\ntime.sleep(60)", "--execution-timeout", "2")
    assert f"05_planted.py, cell 4, line {LAST_LINE + 3}: CellTimeoutError" in said


def test_a_kernel_that_the_system_kills_is_told_to_have_lacked_memory(tmp_path: Path) -> None:
    code = 'import os, signal\nheld = b"x" * 800_000_000\nos.kill(os.getpid(), signal.SIGKILL)'
    said, _ = run(tmp_path, code)
    assert f"05_planted.py, cell 4, line {LAST_LINE + 3}: " in said and said.count("\n") == 1
    peak, limit = map(float, re.findall(r"([\d.]+) GB", said))
    assert 0.8 < peak < 1.5 and peak < limit
    for remedy in ("memory", "COUNT", "IMAGE_SIZE", "MODEL"):
        assert remedy in said


def test_a_kernel_that_dies_of_itself_lacked_no_memory(tmp_path: Path) -> None:
    said, _ = run(tmp_path, "import os\nos._exit(3)")
    assert f"cell 4, line {LAST_LINE + 3}: the kernel died" in said and "status 3" in said
    assert "memory" not in said


def test_the_limit_is_that_of_the_container_where_it_is_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "book" / "_tools")
    faults = importlib.import_module("faults")
    (tmp_path / "limit").write_text("5000\n")
    (tmp_path / "none").write_text("max\n")
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for names, wanted in ((["nowhere", "none"], whole), (["none", "limit"], 5000)):
        monkeypatch.setattr(faults, "LIMITS", [tmp_path / name for name in names])
        assert faults.memory() == wanted


def parameters(folder: Path, text: str) -> tuple[str, str]:
    """Write a parameters file and give the options that name it."""
    file = folder / "parameters.yaml"
    file.write_text(text)
    return "--parameters", str(file)


@pytest.mark.parametrize("text", ["moodel: big", "05_planted: {moodel: big}"])
def test_unknown_parameter_is_named(text: str, tmp_path: Path) -> None:
    said, _ = run(tmp_path, "pass", *parameters(tmp_path, text))
    assert "05_planted has no such parameter: moodel (it has: MODEL, IMAGES, MODELS, size)" in said


def test_parameters_reach_the_chapter_they_name(tmp_path: Path) -> None:
    (tmp_path / "06_other.py").write_text(HEADER)
    text = "MODEL: big\n05_planted: {size: 7}\n06_other: {size: 9}\n"
    _, out = run(tmp_path, "print(MODEL, size)", *parameters(tmp_path, text))
    assert json.loads(out.read_text())["cells"][-1]["outputs"][0]["text"] == ["big 7\n"]


GOOD = """
import sys
slider, seen = ipywidgets.IntSlider(value=2, max=5), ipywidgets.Label("start")
def show(change):
    seen.value = str(change.new)
slider.observe(show, "value")
print(" 50%|#####     | 1/2 [00:01<00:01, 1.2it/s]", file=sys.stderr)
ipywidgets.VBox([slider, seen])
"""


def test_good_chapter_is_published_as_its_reader_finds_it(tmp_path: Path) -> None:
    said, out = run(tmp_path, GOOD)
    assert said == "" and str(tmp_path) not in out.read_text()
    notebook = json.loads(out.read_text())
    assert [cell["cell_type"] for cell in notebook["cells"]] == ["markdown"] + 3 * ["code"]
    (output,) = notebook["cells"][-1]["outputs"]  # the widget; the progress bar is gone
    assert "application/vnd.jupyter.widget-view+json" in output["data"]
    (widgets,) = notebook["metadata"]["widgets"].values()
    values = {each["model_name"]: each["state"].get("value") for each in widgets["state"].values()}
    assert values["IntSliderModel"] == 2 and values["LabelModel"] == "start"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of its own: a module and data files that are used, and two that are not."""
    package = tmp_path / "qkutils"
    (package / "tables" / "inner").mkdir(parents=True)
    (package / "other").mkdir()
    (package / "__init__.py").write_text("")
    (package / "stored.py").write_text('FOLDER = "tables"\n')
    (package / "unused.py").write_text("")
    (package / "tables" / "a #1 $b.csv").write_text("1\n")
    (package / "tables" / "inner" / "c.csv").write_text("1\n")
    (package / "other" / "b.csv").write_text("1\n")
    return package


def importing(folder: Path) -> str:
    """Code that imports the package in a folder."""
    return f"import sys\nsys.path.insert(0, {str(folder)!r})\nfrom qkutils import stored\n"


def test_a_chapter_runs_again_when_what_it_uses_changes(package: Path, tmp_path: Path) -> None:
    script = tmp_path / "05_planted.py"
    code = importing(tmp_path)
    odd, pictures = tmp_path / "a [b]~*? %c.pth", tmp_path / "pictures"
    beside = tmp_path / "beside.pth"
    odd.touch()
    beside.touch()
    pictures.mkdir()
    own = {"IMAGES": str(pictures), "MODELS": ["tiny-dino", str(beside)]}
    values = json.dumps({"MODEL": str(odd), "05_planted": own})
    run(tmp_path, code, *parameters(tmp_path, values))
    (tmp_path / "Makefile").write_text(
        f"all: out/05_planted.ipynb\nout/05_planted.ipynb: {script.name}\n\t@echo runs $@\n"
        "-include out/05_planted.d\n"
    )
    assert not runs(tmp_path)
    used = ["qkutils/__init__.py", "qkutils/stored.py", "qkutils/tables/a #1 $b.csv", script.name]
    used += ["qkutils/tables/inner/c.csv", odd.name, beside.name, pictures.name]
    for name in [*used, "qkutils/unused.py", "qkutils/other/b.csv"]:
        before = (tmp_path / name).stat()
        os.utime(tmp_path / name, (4e9, 4e9))
        assert runs(tmp_path) == (name in used), name
        os.utime(tmp_path / name, (before.st_atime, before.st_mtime))
    (package / "tables" / "new.csv").write_text("1\n")
    os.utime(package / "tables", (4e9, 4e9))
    assert runs(tmp_path)
    (package / "stored.py").unlink()
    assert runs(tmp_path)


@pytest.mark.parametrize("edited", [None, "05_planted.py", "qkutils/stored.py"])
def test_a_chapter_is_older_than_what_was_edited_while_it_ran(
    edited: str | None, package: Path, tmp_path: Path
) -> None:
    before = tmp_path / "before"  # as pages of an earlier build are
    before.touch()
    code = f"{importing(tmp_path)}from pathlib import Path\n"
    code += (
        f"file = Path({str(tmp_path / edited)!r})\nfile.write_text(file.read_text())"
        if edited
        else ""
    )
    _, out = run(tmp_path, code)
    made = out.stat().st_mtime
    assert made > before.stat().st_mtime
    changed = {
        name: made < (tmp_path / name).stat().st_mtime
        for name in ("05_planted.py", "qkutils/stored.py", "qkutils/__init__.py")
    }
    assert [name for name in changed if changed[name]] == ([edited] if edited else [])


def runs(folder: Path) -> bool:
    """Whether Make would run the chapter."""
    done = subprocess.run(["make", "-s", "-n"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return "runs" in done.stdout

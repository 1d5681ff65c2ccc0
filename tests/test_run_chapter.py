"""The runner stops at every kind of fault, and its message says where to look."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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
        'slider.observe(lambda change: {0: "first"}[change.new], "value")',
        "cell 4, line {1}: a widget fails when it is used: IntSlider 'layer', value = 7:",
        "KeyError: 7",
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
        "from qkutils import views\nclass Asked(views.stepping.Stepper):\n"
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


def test_hanging_cell_is_named(tmp_path: Path) -> None:
    said, _ = run(tmp_path, "import time\ntime.sleep(60)", "--execution-timeout", "2")
    assert f"05_planted.py, cell 4, line {LAST_LINE + 3}: CellTimeoutError" in said


def parameters(folder: Path, text: str) -> tuple[str, str]:
    """Write a parameters file and give the options that name it."""
    file = folder / "parameters.yaml"
    file.write_text(text)
    return "--parameters", str(file)


@pytest.mark.parametrize("text", ["moodel: big", "05_planted: {moodel: big}"])
def test_unknown_parameter_is_named(text: str, tmp_path: Path) -> None:
    said, _ = run(tmp_path, "pass", *parameters(tmp_path, text))
    assert "05_planted.py: no such parameter: moodel (it has: MODEL, size)" in said


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


def test_parameters_file_is_rewritten_only_when_it_changes(tmp_path: Path) -> None:
    file, images = tmp_path / "parameters.yaml", tmp_path / "images"
    images.mkdir()
    command = [sys.executable, str(ROOT / "book/_tools/parameters.py"), str(file)]
    for model in ("a", "a", "b"):
        before = file.stat().st_mtime_ns if file.exists() else 0
        subprocess.run(command, cwd=tmp_path, check=True, env={"MODEL": model, "IMAGES": "images"})
        assert file.read_text() == f"IMAGES: {images}\nMODEL: {model}\n"
        assert (file.stat().st_mtime_ns > before) == (before == 0 or model == "b")

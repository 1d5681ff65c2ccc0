"""Views leave an executed chapter whole: bytes, state and script as the kernel gave them."""

import base64
import contextlib
import json
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import PIL.Image
import pytest
from ipywidgets import IntSlider, Widget
from matplotlib.figure import Figure

import qkutils as qk
from qkutils import views
from qkutils.views import _engine, _page

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_tools"))
import mount  # noqa: E402
import stage  # noqa: E402


def executed(*widgets: Widget) -> nbformat.NotebookNode:
    """A chapter that showed some widgets, as a kernel leaves it."""
    cells = []
    for widget in widgets:
        data = widget._repr_mimebundle_()
        data = data[0] if isinstance(data, tuple) else data
        output = nbformat.v4.new_output("display_data", data)
        cells.append(nbformat.v4.new_code_cell("shown", outputs=[output]))
    state = {"state": Widget.get_manager_state()["state"]}
    content = nbformat.v4.new_notebook(cells=cells, metadata={"widgets": {mount.STATE: state}})
    return nbformat.from_dict(json.loads(json.dumps(content, default=str)))


@pytest.fixture
def stepper():
    return views.stepper([Figure(), Figure()], ["a", "b"], ["one", "two"], "</script>")


def test_a_view_is_in_files_and_not_in_the_page(tmp_path, stepper):
    notebook = executed(stepper)
    mount.separate(notebook, tmp_path)
    (output,) = notebook.cells[0].outputs
    assert mount.VIEW not in output.data and "widgets" not in notebook.metadata
    names = dict(re.findall(r'data-(style|front|values)="([^"]+)"', output.data["text/html"]))
    assert set(names) == {"style", "front", "values"}
    assert all((tmp_path / mount.FOLDER / name).is_file() for name in names.values())
    assert "base64" not in output.data["text/html"]


def test_finished_figures_are_in_files(tmp_path, stepper):
    model = Widget.get_manager_state()["state"][stepper.model_id]
    values = json.loads(mount.values_of(model, tmp_path))
    sizes = values["data"]["sizes"]
    for address, size in zip(values["data"]["pictures"], sizes, strict=True):
        file = tmp_path / address.removeprefix(mount.ADDRESS)
        assert list(PIL.Image.open(file).size) == size


def test_a_model_that_runs_in_the_page_is_in_files(tmp_path, monkeypatch, stepper):
    contents = {"graph": b"a model", "renderer": b"what draws"}
    monkeypatch.setattr(_engine, "exported", lambda *_: tuple(contents.values()))
    monkeypatch.setenv(_engine.VARIABLE, str(tmp_path))
    for name in _engine.RUNTIME.values():
        (tmp_path / name).write_bytes(name.encode())
    stepper.data = stepper.data | {"engine": _engine.facts(qk.load("tiny-supervised"))}
    model = Widget.get_manager_state()["state"][stepper.model_id]
    files = json.loads(mount.values_of(model, tmp_path))["files"]
    contents["worker"] = (_page.FRONT / "engine_worker.js").read_bytes()
    assert set(files) == {*contents, *_engine.RUNTIME}
    for part, content in contents.items():
        assert (
            tmp_path / files[part]["address"].removeprefix(mount.ADDRESS)
        ).read_bytes() == content
        assert files[part]["size"] == len(content)
    for part, name in _engine.RUNTIME.items():
        assert files[part]["address"] == mount.RUNTIME + name
        assert files[part]["size"] == len(name)


def test_pages_that_are_laid_out_at_once_export_one_after_the_other(tmp_path, monkeypatch):
    together, other_comes = [], threading.Barrier(2)

    def exported(*_):
        with contextlib.suppress(threading.BrokenBarrierError):
            other_comes.wait(0.3)
            together.append(True)
        return b"a model", b"what draws"

    monkeypatch.setattr(_engine, "exported", exported)
    monkeypatch.setenv(_engine.VARIABLE, str(tmp_path))
    for name in _engine.RUNTIME.values():
        (tmp_path / name).write_bytes(b"")
    told = _engine.facts(qk.load("tiny-supervised"))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda told: _engine.files(**told), 2 * [told]))
    assert not together


def test_bytes_come_back_as_they_were(tmp_path):
    curve = qk.trend("tiny-supervised")
    view = views.trends([curve])
    model = Widget.get_manager_state()["state"][view.model_id]
    text = json.loads(mount.values_of(model, tmp_path))
    heads = text["data"]["curves"][0]["heads"]
    found = np.frombuffer(base64.b64decode(heads["bytes"]["$bytes"]), "float32")
    wanted = curve.weighted_cosine.transpose("convention", "layer", "head").values
    np.testing.assert_array_equal(found, wanted.astype("float32").ravel())


def test_one_script_serves_all_views_of_a_kind(tmp_path, stepper):
    other = views.stepper([Figure()], ["c"], ["three"], "other")
    notebook = executed(stepper, other)
    mount.separate(notebook, tmp_path)
    texts = [cell.outputs[0].data["text/html"] for cell in notebook.cells]
    fronts = {re.search(r'data-front="([^"]+)"', text)[1] for text in texts}
    assert len(fronts) == 1
    assert sum("mount.js" in text for text in texts) == 1


def test_other_widgets_stay_in_the_page(tmp_path, stepper):
    slider = IntSlider()
    notebook = executed(stepper, slider)
    mount.separate(notebook, tmp_path)
    assert mount.VIEW in notebook.cells[1].outputs[0].data
    assert slider.model_id in notebook.metadata["widgets"][mount.STATE]["state"]


def test_a_script_that_draws_nothing_is_refused(tmp_path, stepper):
    model = Widget.get_manager_state()["state"][stepper.model_id]
    model["state"]["_esm"] = "nothing()"
    with pytest.raises(ValueError, match="render"):
        mount.place_of(model, tmp_path)


def test_folded_cells_that_show_nothing_are_one_with_the_next():
    def cell(source: str, folded: bool, shows: bool = False):
        glued = nbformat.v4.new_output("display_data", {f"{stage.HANDED}/text/plain": source})
        outputs = [nbformat.v4.new_output("stream", text="x")] if shows else [glued]
        tags = {"tags": ["hide-input"]} if folded else {}
        return nbformat.v4.new_code_cell(source, metadata=tags, outputs=outputs)

    text = nbformat.v4.new_markdown_cell("text")
    given = [cell("a", True), cell("b", True, True), cell("c", True), text, cell("d", True)]
    given += [cell("e", False), cell("f", True), cell("g", True)]
    found = [(each.source, len(each.get("outputs", ()))) for each in stage.join(given)]
    wanted = [("a\n\nb", 2), ("c", 1), ("text", 0), ("d", 1), ("e", 1)]
    assert found == [*wanted, ("f\n\ng", 2)]

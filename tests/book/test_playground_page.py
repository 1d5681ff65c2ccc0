"""The page of the playground: the answers that it gives hold, by the library's own numbers."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import qkutils as qk
from qkutils import views

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_tools"))
import mount  # noqa: E402
import playing  # noqa: E402

PAGE = (ROOT / "book" / "playground.md").read_text("utf-8")
ROBOT, DOTTED = qk.world.KINDS.index("robot"), qk.world.TEXTURES.index("dotted")
YELLOW = qk.world.COLOURS.index("yellow")


@pytest.fixture(scope="module")
def view() -> views.Playground:
    return views.playground(playing.MODEL, tasks=["miss", "eyes", "twins"])


def found(view, **look):
    """What is computed of the first scene, in which some objects (slot → look) look otherwise."""
    scene = view.state["scene"]
    objects = [each | look.get(f"slot{each['slot']}", {}) for each in scene["objects"]]
    request = {"photo": None, "scene": scene | {"objects": objects}, "off": view.state["off"]}
    return {
        name: torch.tensor(np.frombuffer(each["bytes"], each["form"]).reshape(each["shape"]))
        for name, each in view.respond(request).items()
    }


def says(found):
    return qk.world.ODD_FACTORS[int(found["answer"][-len(qk.world.ODD_FACTORS) :].argmax())]


def test_a_dotted_robot_is_missed_and_the_tree_is_not(view):
    (odd,) = [each for each in view.state["scene"]["objects"] if each["odd"]]
    others = [each for each in view.state["scene"]["objects"] if not each["odd"]]
    assert {each["kind"] for each in others} == {ROBOT} != {odd["kind"]}
    assert DOTTED not in {each["texture"] for each in others}
    assert says(found(view)) == "kind"
    look = {"kind": ROBOT, "texture": DOTTED}
    assert says(found(view, **{f"slot{odd['slot']}": look})) == "size"


def test_the_modes_of_eyes_are_those_of_the_page(view):
    assert "layer 5, head 0, mode 0" in PAGE and "Layers 4 and 6 have such a mode in head 0" in PAGE
    assert re.findall(r"M\d+", PAGE.partition("Layers 4 and 6")[2])[:2] == ["M5", "M22"]
    assert sorted(map(tuple, view.data["eyes"])) == [(4, 0, 5), (5, 0, 0), (6, 0, 22)]


def test_a_yellow_robot_makes_twins_of_different_modes(view):
    scale = view.data["scale"]

    def row_and_shares(run):
        query, key, kappa = (run[name][5, 3] for name in ("query", "key", "kappa"))
        parts = scale * torch.cat([query[0] * key, kappa[:, None]], 1)  # [token, part]
        logit = parts.sum(1)
        shares = torch.cov(torch.cat([parts.T, logit[None]]))[-1, :-1].abs()
        return logit.softmax(0), shares / shares.sum()

    runs = found(view), found(view, slot30={"colour": YELLOW})
    (row, shares), (other_row, other_shares) = map(row_and_shares, runs)
    assert row.max() > 0.9 and abs(row - other_row).sum() / 2 < 0.1
    assert abs(shares - other_shares).sum() / 2 > 0.3
    lead = shares.argsort(descending=True)[:2]
    assert shares[lead].min() > 0.3 and other_shares.max() > 0.7


def test_a_page_without_a_place_for_its_view_is_refused(tmp_path):
    view = views.stepper([Figure()], ["a"], ["text"], "step")
    page = tmp_path / "page.md"
    page.write_text("nothing", "utf-8")
    with pytest.raises(ValueError, match=re.escape(playing.HERE)):
        mount.put(view, page, playing.HERE, tmp_path)

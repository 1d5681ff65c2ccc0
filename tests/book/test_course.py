"""What a teacher relies on: the shape of every chapter, its times, its figures, the notation."""

import re
import typing
from pathlib import Path
from typing import Any

import jupytext
import pytest
import torch

import qkutils as qk
from qkutils import scores

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
PAGES = [page for page in ROOT.glob("book/*.md") if page.stem != "api"]
SHAPE = (  # headings, and what stands in bold or at the start of a box, in this order
    "**Where we stand.**",
    "**After this chapter you can**",
    "**You need**",
    "**Time**",
    "## Exercises",
    "## Quiz",
    "## Did we reproduce it?",
    "## What was found",
    "**Limits.**",
    "**Further reading.**",
    "**Next.**",
)
JUDGED = ("## Did we reproduce it?", "## What was found")


@pytest.fixture(params=SCRIPTS, ids=lambda script: script.stem)
def chapter(request: pytest.FixtureRequest) -> Any:
    """Each chapter, read as a notebook."""
    return jupytext.read(request.param)


def prose(chapter: Any) -> str:
    return "\n\n".join(cell.source for cell in chapter.cells if cell.cell_type == "markdown")


def test_a_chapter_has_its_shape(chapter: Any) -> None:
    text = prose(chapter)
    last = "(ch-survives)=" in text  # it judges all the others, so all of it is what was found
    places = {part: text.find(part) for part in SHAPE if not last or part not in JUDGED}
    assert [part for part, place in places.items() if place < 0] == []
    assert sorted(places, key=places.get) == list(places)


def test_times_of_exercises_add_up(chapter: Any) -> None:
    text = " ".join(prose(chapter).split())
    minutes = [int(each) for each in re.findall(r"\*(?:Easy|Medium|Hard), (\d+) minutes", text)]
    (stated,) = re.findall(r"exercises (\d+) minutes|(\d+) minutes for the exercises", text)
    assert int("".join(stated)) == sum(minutes)


def figures(chapter: Any) -> dict[str, tuple[str, str]]:
    """The label of each figure → its caption and its alternative text."""
    found = {}
    for cell in chapter.cells:
        meta = cell.metadata.get("mystnb", {})
        if cell.cell_type == "code" and "figure" in meta:
            name = meta["figure"]["name"]
            found[name] = (meta["figure"]["caption"], meta.get("image", {}).get("alt", ""))
        elif cell.cell_type == "markdown":
            for block in re.split(r"(?=:::\{(?:glue:)?figure\})", cell.source)[1:]:
                options = dict(re.findall(r"^:(\w+): *\"?(.*?)\"?$", block, re.MULTILINE))
                caption = block.partition("\n\n")[2].partition("\n:::")[0]
                found[options["name"]] = (caption, options.get("alt", ""))
    return found


def test_every_figure_is_described_and_referred_to(chapter: Any) -> None:
    text, found = prose(chapter), figures(chapter)
    assert found
    for name, (caption, alt) in found.items():
        assert len(alt.split()) >= 5 and alt.strip() != caption.strip(), name
        folded = re.search(rf"dropdown\}}(?:(?!\n::::\n)[\s\S])*name: \"?{name}\"?\n", text)
        assert folded or re.search(rf"\{{numref\}}`[^`]*{name}[`>]", text), name


@pytest.mark.parametrize("room", [qk, qk.studies, qk.world], ids=lambda room: room.__name__)
def test_every_function_of_the_face_is_taught(room: Any) -> None:
    taught = "\n".join(path.read_text("utf-8") for path in [*SCRIPTS, *PAGES])
    every = {name: getattr(room, name) for name in room.__all__}
    face = {n for n, one in every.items() if callable(one) and not isinstance(one, type)}
    assert face
    assert {name for name in face if not re.search(rf"\b{name}\b", taught)} == set()


# ---- the page on notation ------------------------------------------------------------------------

ROW = re.compile(r"^\| (\$.+?\$.*?) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
NOTATION = (ROOT / "book" / "notation.md").read_text("utf-8")


def dims(shape: str) -> list[str]:
    """The names in `[layer, head]`."""
    return re.findall(r"\w+", shape.partition("`[")[2].partition("]`")[0])


def rows() -> dict[str, list[str]]:
    """What stands in the code → the dimensions that the page gives it."""
    made = {}
    for _, code, shape, _, _ in ROW.findall(NOTATION):
        made |= dict.fromkeys(re.findall(r"`(\w+)`", code), dims(shape))
    return made


MODES = ("u", "sigma", "v", "cosine")
SIGNED = {  # what stands in the code → whose signature gives its shape
    **dict.fromkeys(("w_q", "w_k", "b_q", "b_k", "ln_gain", "ln_shift"), qk.heads.Heads),
    "position_bias": qk.heads.Heads,
    "kappa": scores.ScoreFactors,
    "scores": qk.heads.Heads.logits,
}


def test_every_row_is_tested() -> None:
    assert set(rows()) == {*MODES, *SIGNED, "x", "z", "attention"}


@pytest.mark.parametrize("name", MODES)
def test_modes_have_the_shapes_of_the_page(name: str, make_vit: Any) -> None:
    found = qk.decompose(make_vit(embed_dim=24, num_heads=2, depth=2))[name]
    assert list(found.dims) == rows()[name]


@pytest.mark.parametrize("name", SIGNED)
def test_weights_and_scores_have_the_shapes_of_their_signatures(name: str) -> None:
    annotated = typing.get_type_hints(SIGNED[name])[name]
    tensor = next(iter(typing.get_args(annotated)), annotated)  # of a field that may be None
    assert tensor.dim_str.split() == rows()[name]


def test_tokens_and_attention_have_the_shapes_of_the_page(make_vit: Any) -> None:
    x = typing.get_type_hints(scores.ScoreFactors.logits)["x"]
    assert x.dim_str.split() == ["image", *rows()["x"]]  # the page has one image
    assert rows()["z"] == rows()["x"]  # which `normalise` leaves as it was
    model = make_vit(embed_dim=24, num_heads=2, depth=2)
    seen = qk.observed_attention(model, torch.zeros(1, 3, 32, 32))
    assert list(seen.dims) == rows()["attention"]

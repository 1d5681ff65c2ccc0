"""The instructor's pages: minutes add up and agree with the chapters, numbers with the report."""

import re
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch

import qkutils as qk
from qkutils import statistics

ROOT = Path(__file__).parents[2]
TEACH = ROOT / "book" / "teach"
CHAPTERS = {path.stem: path.read_text("utf-8") for path in ROOT.glob("notebooks/[0-9]*.py")}
SCHEDULES = (TEACH / "schedules.md").read_text("utf-8")
HEADINGS = [
    "In five minutes on the board",
    "Answers to expect",
    "Live demonstration",
    "Rubric",
    "If time is short",
]
LESSON = 90  # minutes
WORKED = r"[+-]\d\.\d{3} \[[+-]\d\.\d{3}, [+-]\d\.\d{3}\]"
SIGNED = r"[+−-]\d\.\d+"


def lessons(text: str) -> dict[str, list[tuple[int, int, str]]]:
    """The rows of each table that has minutes: section → (from, to, what happens)."""
    found = {}
    for part in re.split(r"(?m)^##+ ", text)[1:]:
        rows = re.findall(r"(?m)^\| (\d+)–(\d+) \| ([^|]+) \|", part)
        if rows:
            found[part.split("\n")[0]] = [(int(a), int(b), what) for a, b, what in rows]
    return found


def faults(rows: list[tuple[int, int, str]]) -> list[str]:
    """What is wrong with the minutes of a lesson."""
    wrong = [f"{b}: a gap or an overlap" for (_, b, _), (a, *_) in pairwise(rows) if a != b]
    wrong += [f"{what}: takes no time" for a, b, what in rows if a >= b]
    ends = (rows[0][0], rows[-1][1])
    return wrong + [f"{ends}: not the lesson" * (ends != (0, LESSON))] * (ends != (0, LESSON))


def exercises() -> dict[str, int]:
    """The minutes of each exercise, as the chapters state them."""
    found = {}
    for text in CHAPTERS.values():
        for part in text.split("### Exercise ")[1:]:
            minutes = re.search(r"(\d+) minutes", part)
            assert minutes
            found[part[: part.index(". ")]] = int(minutes[1])
    return found


def times(text: str) -> int:
    """The minutes that a chapter takes to read."""
    minutes = re.search(r"\*\*Time\*\*: (\d+) minutes", text)
    assert minutes
    return int(minutes[1])


def test_faults_of_a_lesson_are_found() -> None:
    text = (
        "## One\n| 0–10 | a | b |\n| 12–12 | c | d |\n| 12–80 | e | f |\n## Two\n| 0–90 | g | h |"
    )
    found = lessons(text)
    assert len(faults(found["One"])) == 3
    assert not faults(found["Two"])


@pytest.mark.parametrize("lesson", lessons(SCHEDULES))
def test_the_minutes_of_a_lesson_add_up(lesson: str) -> None:
    rows = lessons(SCHEDULES)[lesson]
    assert not faults(rows)
    assert sum("Break" in what for _, _, what in rows) == 1


def test_there_are_all_lessons() -> None:
    assert len(lessons(SCHEDULES)) == 1 + 2 + 3  # the first of four weeks is one of the two


def test_a_lesson_gives_exercises_their_minutes() -> None:
    stated = exercises()
    for rows in lessons(SCHEDULES).values():
        for start, end, what in rows:
            for name in re.findall(r"^Exercise (\d+\.\d+)", what):
                assert end - start >= stated[name], name


@pytest.mark.parametrize("page", sorted(TEACH.glob("*.md")), ids=lambda page: page.stem)
def test_chapters_and_exercises_that_are_named_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    assert set(re.findall(r"notebooks/(\d\d_\w+)", text)) <= set(CHAPTERS)
    written = {number.split(".")[0] for number in exercises()}
    named = re.findall(r"Exercise (\d+\.\d+)", text)
    assert {name for name in named if name.split(".")[0] in written} <= set(exercises())


def test_sections_that_a_lesson_names_are_in_a_chapter() -> None:
    headings = {h for text in CHAPTERS.values() for h in re.findall(r"(?m)^# ##+ (.+)", text)}
    material = [row.split("|")[4] for row in SCHEDULES.split("\n") if re.match(r"\| \d+–", row)]
    named = re.findall(r"\*([^*]+)\*", " ".join(material))
    assert len(named) > 10
    assert not [n for n in named if not any(h.startswith(n.rstrip("?")) for h in headings)]


def test_reading_at_home_takes_what_the_chapters_say() -> None:
    rows = re.findall(r"\{doc\}`/notebooks/(\w+)` \| (\d+) \|", SCHEDULES)
    assert len(rows) == len(CHAPTERS) - 1  # the first is read in class
    assert {name: int(minutes) for name, minutes in rows} == {
        n: times(CHAPTERS[n]) for n, _ in rows
    }


@pytest.mark.parametrize("note", sorted(TEACH.glob("[0-9]*.md")), ids=lambda note: note.stem)
def test_a_note_has_its_parts_and_judges_every_exercise(note: Path) -> None:
    text = note.read_text("utf-8")
    assert re.findall(r"(?m)^## (.+)", text) == HEADINGS
    number = note.stem[:2].lstrip("0")
    of_chapter = {name for name in exercises() if name.split(".")[0] == number}
    rubric = text.split("## Rubric")[1].split("## ")[0]
    assert set(re.findall(r"(?m)^\| *(?:Exercise )?(\d+\.\d+)", rubric)) == of_chapter


def predicted(text: str) -> set[str]:
    """The exercises of a chapter in which a prediction comes first."""
    parts = text.split("### Exercise ")[1:]
    return {part[: part.index(". ")] for part in parts if "predict first" in part}


@pytest.mark.parametrize("note", sorted(TEACH.glob("[0-9]*.md")), ids=lambda note: note.stem)
def test_a_note_says_what_to_expect_of_every_prediction(note: Path) -> None:
    asked = predicted(CHAPTERS[note.stem])
    assert asked
    expected = note.read_text("utf-8").split("## Answers to expect")[1].split("\n## ")[0]
    assert asked <= set(re.findall(r"Exercise (\d+\.\d+)", expected))


def worked() -> str:
    return (TEACH / "capstone.md").read_text("utf-8")


def test_numbers_of_the_worked_examples_are_those_of_the_report() -> None:
    table = pd.read_csv(ROOT / "qkutils" / "book" / "results" / "report.csv")
    told = set()
    for row in table.dropna(subset=["estimate"]).itertuples():
        found = statistics.interval(row.estimate, row.low, row.high)
        told.add((statistics.text(found, ".3f"), row.fingerprint))
    typed = re.findall(WORKED, worked())
    assert len(typed) == 5
    assert set(typed) <= {number for number, _ in told}
    for part in worked().split("## Worked example")[1:]:
        whose = re.search(r"fingerprint (\w+)", part)
        assert whose
        mine = {number for number, fingerprint in told if fingerprint == whose[1]}
        assert re.findall(WORKED, part)[0] in mine
        nulls = {f"{null:+.3f}" for null in table[table.fingerprint == whose[1]]["null"].dropna()}
        assert set(re.findall(SIGNED, re.sub(WORKED, "", part))) <= nulls


@pytest.mark.parametrize(
    "row", re.findall(r"(?m)^\| `(\S+)` \|(.+)\|$", worked()), ids=lambda r: r[0]
)
def test_models_of_the_capstone_are_those_of_the_catalogue(row: tuple[str, str]) -> None:
    goal, megabytes, licence = (cell.strip() for cell in row[1].split("|"))
    entry = qk.catalogue().loc[row[0]]
    assert (goal, licence) == (entry.objective, entry.licence)
    if megabytes.isdecimal():
        with torch.device("meta"):
            weights = timm.create_model(row[0], num_classes=1000 if "in1k" in row[0] else 0)
        size = sum(p.numel() for p in weights.parameters()) * 4 / 1e6
        assert float(megabytes) == pytest.approx(size, abs=1)

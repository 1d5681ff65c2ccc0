"""The workflows, which run on another machine: what they name is there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

import qkutils as qk
from qkutils import cli

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob(".github/workflows/*.yml"))
WORKFLOWS = [yaml.safe_load(path.read_text("utf-8")) for path in FILES]
STEPS = [step for each in WORKFLOWS for job in each["jobs"].values() for step in job["steps"]]
SHELL = "\n".join(step.get("run", "") for step in STEPS).replace("\\\n", " ")
LINES = [shlex.split(line) for line in SHELL.splitlines() if line]


def calls(program: str) -> list[list[str]]:
    return [words for first, *words in LINES if Path(first).name == program]


@pytest.fixture(scope="module")
def targets() -> set[str]:
    """What make itself says it can make."""
    command = ["make", "--print-data-base", "--question", "help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    return set(re.findall(r"(?m)(?<!# Not a target:\n)^([^\s#:=]+):(?!=)", told))


def test_each_line_is_one_that_is_looked_at_here():
    assert {first for first, *_ in LINES} == {"make", ".venv/bin/qkutils", ".ci/run"}


@pytest.mark.parametrize("words", calls("make"), ids=" ".join)
def test_what_is_made_can_be_made(words, targets):
    wanted = {word for word in words if "=" not in word}
    assert wanted and wanted <= targets and "nothing-such" not in targets


@pytest.mark.parametrize("words", calls("qkutils"), ids=" ".join)
def test_the_command_takes_its_line_and_the_catalogue_has_its_models(words):
    given = vars(cli.parser().parse_args(words))
    assert set(given["name"]) <= set(qk.catalogue().index)


@pytest.mark.parametrize("words", [w for w in calls("make") if "MODELS=" in " ".join(w)])
def test_the_catalogue_has_the_models_that_are_compared(words):
    (models,) = (word.removeprefix("MODELS=") for word in words if word.startswith("MODELS="))
    assert set(re.sub(r"\$\(.*\)", "", models).split()) <= set(qk.catalogue().index)


@pytest.mark.parametrize("action", [step["uses"] for step in STEPS if "uses" in step])
def test_an_action_has_a_version(action):
    assert re.fullmatch(r"[\w-]+/[\w/-]+@(v\d+(\.\d+)*|[0-9a-f]{40})", action)

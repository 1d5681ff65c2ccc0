"""Builds do not harm each other, a good book is never away, and what can't be served is told."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "book" / "_tools"
sys.path.insert(0, str(TOOLS))
import stage  # noqa: E402


def tool(name: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, str(TOOLS / name), *map(str, arguments)]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def building(tmp_path: Path):
    """A build that goes on until its input ends, whose child does the work."""
    script = "import subprocess, sys; sys.exit(subprocess.call(['cat'], close_fds=False))"
    command = tool("lock.py", sys.executable, "-c", script)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=pipe, stdout=pipe, text=True, start_new_session=True
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write("there\n")
        process.stdin.flush()
        assert process.stdout.readline() == "there\n"
        yield process
        process.stdin.close()


def test_a_second_build_is_told_who_builds(building, tmp_path: Path) -> None:
    second = run(tmp_path, *tool("lock.py", "touch", "harm"))
    assert second.returncode == 1 and not (tmp_path / "harm").exists()
    assert f"process {building.pid}," in second.stderr and second.stderr.count("\n") == 1


def test_a_killed_build_leaves_no_lock(building, tmp_path: Path) -> None:
    os.killpg(building.pid, signal.SIGKILL)
    building.wait()
    building.stdout.read()  # ends when its child has ended too
    assert run(tmp_path, *tool("lock.py", "touch", "built")).returncode == 0
    assert (tmp_path / "built").exists()


def test_what_a_killed_build_started_still_has_the_lock(building, tmp_path: Path) -> None:
    building.kill()
    building.wait()
    assert run(tmp_path, *tool("lock.py", "true")).returncode == 1
    building.stdin.close()
    building.stdout.read()
    assert run(tmp_path, *tool("lock.py", "true")).returncode == 0


def test_a_build_that_fails_says_so(tmp_path: Path) -> None:
    assert run(tmp_path, *tool("lock.py", "sh", "-c", "exit 7")).returncode == 7


def test_make_builds_and_cleans_under_the_lock() -> None:
    for target, command in (("book", "index.html"), ("clean", "rm -rf _build")):
        made = run(ROOT, "make", "-n", "-o", ".venv/.ready", "PYTHON=echo", target).stdout
        assert any(command in line and "lock.py" in line for line in made.splitlines())


@pytest.mark.parametrize("stamp", ["_build/.site", "_build/.downloads"])
def test_what_is_edited_while_a_book_is_built_is_newer_than_the_build(stamp: str) -> None:
    lines = run(ROOT, "make", "-n", "-B", "-o", ".venv/.ready", "PYTHON=echo", stamp).stdout
    begun, ended = f"touch {stamp}.begun", f"mv {stamp}.begun {stamp}"
    first, last = lines.splitlines().index(begun), lines.splitlines().index(ended)
    assert last - first > 1 and f"touch {stamp}" not in lines.splitlines()


@pytest.mark.parametrize("killed", [False, True], ids=["as it should", "after a kill"])
def test_a_new_book_takes_the_place_of_the_old_one(killed: bool, tmp_path: Path) -> None:
    new, place = tmp_path / "new", tmp_path / "html"
    for folder in (new, tmp_path / "html.old" if killed else place):
        folder.mkdir()
        (folder / "index.html").write_text(folder.name)
    assert run(tmp_path, *tool("swap.py", new, place)).returncode == 0
    assert [each.name for each in tmp_path.iterdir()] == ["html"]
    assert (place / "index.html").read_text() == "new"


def test_without_a_new_book_the_old_one_stays(tmp_path: Path) -> None:
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "index.html").touch()
    assert run(tmp_path, *tool("swap.py", tmp_path / "new", tmp_path / "html")).returncode
    assert (tmp_path / "html" / "index.html").exists()


@pytest.mark.parametrize("port", ["99999", "65536", "0", "-1", "8e3", "", " 80", "８０", "http"])
def test_a_port_that_is_none(port: str, tmp_path: Path) -> None:
    told = run(tmp_path, *tool("serve.py", port, "--check"))
    assert told.returncode == 1 and f"PORT={port}:" in told.stderr
    assert told.stderr.count("\n") == 1


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        told = run(tmp_path, *tool("serve.py", port, "--check"))
        assert told.returncode == 1 and f"PORT={port}:" in told.stderr
        assert told.stderr.count("\n") == 1
    assert run(tmp_path, *tool("serve.py", port, "--check")).returncode == 0


def test_pages_link_to_the_repository_where_its_address_is_known(tmp_path, monkeypatch):
    address = "https://github.com/example/book"
    monkeypatch.setenv("REPOSITORY", address)
    for part in (stage.cover, stage.playing, stage.status):
        monkeypatch.setattr(part, "write", lambda *_: None)  # other pages, which take long
    stage.stage(tmp_path / "stage", [])
    (tmp_path / "stage" / "_toc.yml").write_text("format: jb-book\nroot: book/notation\n")
    build = [Path(sys.executable).with_name("jupyter-book"), "build", "--quiet", tmp_path / "stage"]
    subprocess.run(build, check=True, capture_output=True)
    page = (tmp_path / "stage" / "_build" / "html" / "book" / "notation.html").read_text()
    links = re.findall(r'href="([^"]+)"', page)
    assert address in links
    assert any(link.startswith(f"{address}/issues/new") for link in links)

"""What a page offers beside its text: files, places to run it, a card, how the build ran."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

import nbformat
import pytest
from docutils.core import publish_doctree
from nbformat import v4

for folder in ("_ext", "_tools"):
    sys.path.insert(0, str(Path(__file__).parents[2] / "book" / folder))
import editions  # noqa: E402
import launch  # noqa: E402
import page_links  # noqa: E402
import status  # noqa: E402

GITHUB = "https://github.com/example/book"
DOCTREE = publish_doctree('A "title" & more\n================\n\nFirst <b>\nwords.\n\nSecond.\n')


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch):
    """The menus and the tags of a page, as the theme's own menus were before."""

    def offered(name: str, **environment: str) -> tuple[dict[str, list[str]], str]:
        for variable in ("REPOSITORY", "SITE", "WITH_PDF"):
            monkeypatch.delenv(variable, raising=False)
            if variable in environment:
                monkeypatch.setenv(variable, environment[variable])
        theirs = [page_links.group("download-buttons", "", "", {"x": "_sources/x.ipynb"})]
        if "REPOSITORY" in environment:
            theirs.append(page_links.group("source-buttons", "", "", {"x": "x"}))
        context = {"header_buttons": theirs, "pathto": lambda path, _: f"../{path}"}
        page_links.offer(None, name, "page.html", context, DOCTREE)
        menus = context["header_buttons"]
        urls = {menu["label"]: [each["url"] for each in menu["buttons"]] for menu in menus}
        return urls, context["metatags"]

    return offered


def test_a_chapter_offers_files_and_places(page) -> None:
    menus, _ = page("notebooks/05_planted", REPOSITORY=GITHUB)
    assert menus["download-buttons"] == [
        "../downloads/student/05_planted.ipynb",
        "../downloads/solution/05_planted.ipynb",
        "../downloads/script/05_planted.py",
        "../slides/05_planted.html",
    ]
    assert menus["launch-buttons"] == [
        "https://mybinder.org/v2/gh/example/book/notebooks?urlpath=lab/tree/05_planted.ipynb",
        "https://colab.research.google.com/github/example/book/blob/notebooks/05_planted.ipynb",
        "https://codespaces.new/example/book/tree/notebooks",
    ]
    assert menus["source-buttons"][1:] == [f"{GITHUB}/edit/main/notebooks/05_planted.py"]


@pytest.mark.parametrize("given", [{}, {"REPOSITORY": "https://gitlab.com/example/book"}])
def test_without_github_there_is_no_place_to_run_it(given, page) -> None:
    menus, _ = page("notebooks/05_planted", **given)
    assert "launch-buttons" not in menus and "download-buttons" in menus


def test_a_plain_page_offers_its_source_alone(page) -> None:
    menus, _ = page("book/notation", REPOSITORY=GITHUB)
    assert menus == {"source-buttons": ["x", f"{GITHUB}/edit/main/book/notation.md"]}


def test_the_printed_book_is_offered_where_it_was_made(page) -> None:
    without, _ = page("notebooks/05_planted")
    menus, _ = page("notebooks/05_planted", WITH_PDF="yes")
    new = set(menus["download-buttons"]) - set(without["download-buttons"])
    assert new == {f"../{page_links.PDF}"}


def test_a_card_says_title_and_first_words_as_text(page) -> None:
    _, tags = page("book/notation", SITE="https://example.org/book/")
    said = dict(re.findall(r'<meta property="og:(\w+)" content="([^"]*)" />', tags))
    assert {name: html.unescape(text) for name, text in said.items()} == {
        "title": 'A "title" & more',
        "description": "First <b> words.",
        "type": "article",
        "image": "https://example.org/book/_static/page.png",
        "url": "https://example.org/book/book/notation.html",
    }
    assert "og:image" not in page("book/notation")[1]  # it would need an address
    assert (Path(__file__).parents[2] / "book" / "assets" / "page.png").is_file()


def test_files_on_pages_are_those_that_are_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["editions.py", "downloads", str(tmp_path / "downloads")])
    editions.main()
    names = [file.stem for file in (editions.ROOT / "notebooks").glob("[0-9]*.py")]
    ours = [path for path in page_links.FILES.values() if path.startswith("downloads/")]
    promised = {path.format(name) for path in ours for name in names}
    written = {f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*.*") if f.is_file()}
    assert written == promised


def test_the_branch_has_what_its_files_name(tmp_path: Path) -> None:
    assert launch.BRANCH == page_links.BRANCH
    wheel = tmp_path / "qkutils-0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    files = launch.files(wheel, GITHUB)
    needed = files["requirements.txt"].decode().split()
    assert {needed[needed.index("-c") + 1], wheel.name} <= set(files)
    assert f"./{wheel.name}[lab]" in needed and files[wheel.name] == b"wheel"
    first = nbformat.reads(files["03_cosine_trends.ipynb"].decode(), as_version=4).cells[0]
    assert f'"qkutils[views] @ {GITHUB}/raw/notebooks/{wheel.name}"' in first.source


def test_the_first_cell_does_nothing_where_the_library_is(tmp_path: Path) -> None:
    content = nbformat.writes(v4.new_notebook(cells=[v4.new_code_cell("1")])).encode()
    first = nbformat.reads(launch.installing(content, "a/b.whl").decode(), as_version=4).cells[0]
    code = first.source.replace("%pip", "raise SystemExit  #")
    exec(code, {})
    with pytest.raises(SystemExit):
        exec(code.replace('"qkutils"', '"not_there"'), {})


def test_the_page_of_the_build_says_how_it_ran(tmp_path: Path) -> None:
    run = {"seconds": 17, "model": "tiny-dino"}
    nbformat.write(v4.new_notebook(metadata={"run": run}), tmp_path / "05_planted.ipynb")
    page = tmp_path / "status.md"
    page.write_text(f"Before.\n\n{status.MARK}\n\nAfter.\n")
    status.write(page, [tmp_path / "05_planted.ipynb"])
    text = page.read_text()
    assert "| {doc}`/notebooks/05_planted` | 17 | `tiny-dino` |" in text
    assert f"| `tiny-dino` | `{status.qk.load('tiny-dino').fingerprint}` |" in text
    assert f"| numpy | {status.version('numpy')} |" in text and status.MARK not in text
    assert status.MARK in (editions.ROOT / "book" / "status.md").read_text()
    with pytest.raises(ValueError, match=f"{page}: it has no {status.MARK}"):
        status.write(page, [tmp_path / "05_planted.ipynb"])  # the mark is gone

"""Fetching data sets from a host that breaks off, lies, or serves what must not be unpacked."""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import os
import random
import re
import shutil
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field

import numpy as np
import PIL.Image
import pytest

import qkutils as qk
from qkutils import cli, store
from qkutils.datasets import _fetching as fetching


@dataclass
class Host:
    """What the local host serves, how it misbehaves, and what it was asked."""

    url: str = ""
    content: bytes = b""
    cuts: list[int] = field(default_factory=list)  # bytes until each connection breaks off
    statuses: list[int] = field(default_factory=list)  # answers before the real one
    ranges: bool = True
    wrong_part: bool = False
    short: int = 0  # bytes at most in one answer to a range, as if that were all
    length: bool = True
    asked: list[str | None] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the server's `host` says."""

    def do_GET(self):
        host = self.server.host
        asked = self.headers.get("Range")
        host.asked.append(asked)
        if host.statuses:
            return self.send_error(host.statuses.pop(0))
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and host.ranges else 0
        if start and start >= len(host.content):
            return self.answer(416, b"", f"bytes */{len(host.content)}")
        part = host.content[start:]
        if start and host.short:
            part = part[: host.short]
        told = f"bytes {start + host.wrong_part}-{start + len(part) - 1}/{len(host.content)}"
        self.answer(206 if start else 200, part, told if start else "")

    def answer(self, status, content, content_range):
        host = self.server.host
        self.send_response(status)
        if content_range:
            self.send_header("Content-Range", content_range)
        if host.length:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: host.cuts.pop(0)] if host.cuts else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def host(monkeypatch):
    """A host on this machine; no pauses between tries."""
    monkeypatch.setattr(fetching, "PAUSE", 0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.host = Host(f"http://127.0.0.1:{server.server_port}/O3_data.zip")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.host
    server.shutdown()
    server.server_close()


def jpeg(value):
    stream = io.BytesIO()
    pixels = np.zeros((16, 16), dtype=np.uint8)
    pixels[:8] = value
    PIL.Image.fromarray(pixels).save(stream, "jpeg")
    return stream.getvalue()


def zipped(**files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(*members):
    """A .tar.gz of (name, content or a member's changed fields)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                info.size = len(what)
                archive.addfile(info, io.BytesIO(what))
            else:
                info.type, info.linkname = what
                archive.addfile(info)
    return stream.getvalue()


O3 = zipped(
    **{f"{folder}/a.jpg": jpeg(255) for folder in ("images", "targ_labels", "dist_labels")},
    **{"image_properties.txt": b"x" * 30_000},
)


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def fetch(folder, url):
    """The exit status of fetching O3 from an address."""
    return cli.main(["datasets", "fetch", "o3", "--to", str(folder), "--url", url])


def test_o3_is_fetched_unpacked_and_read(host, tmp_path, capsys):
    host.content = O3
    assert fetch(tmp_path / "new", host.url) == 0
    told = capsys.readouterr().out
    checksum = hashlib.sha256(O3).hexdigest()
    assert f"{len(O3)} bytes, sha256 {checksum}" in told and "http" in told
    assert (tmp_path / "new/O3_data.zip.sha256").read_text().split() == [checksum, "O3_data.zip"]
    assert f"odd_one_out('{tmp_path / 'new/o3'}')" in told
    assert qk.datasets.odd_one_out(tmp_path / "new/o3").keys == ["a"]
    assert not list(tmp_path.rglob("*.partial"))
    assert fetch(tmp_path / "new", host.url) == 0
    assert "there already" in capsys.readouterr().out and len(host.asked) == 1


def test_a_download_that_breaks_off_goes_on_where_it_stopped(host, tmp_path):
    host.content, host.cuts = O3, [10_000, 5_000, 1]
    fetching.download(host.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == O3
    assert host.asked == [None, "bytes=10000-", "bytes=15000-", "bytes=15001-"]


def test_it_goes_on_after_having_been_stopped(host, tmp_path):
    host.content = O3
    (tmp_path / "file.partial").write_bytes(O3[:20_000])
    fetching.download(host.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == O3 and host.asked == ["bytes=20000-"]


def test_a_part_that_is_whole_already(host, tmp_path):
    host.content = O3
    (tmp_path / "file.partial").write_bytes(O3)
    fetching.download(host.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == O3 and len(host.asked) == 1


def test_a_part_that_is_longer_than_the_file_is_dropped(host, tmp_path):
    host.content = O3
    (tmp_path / "file.partial").write_bytes(O3 + b"more")
    fetching.download(host.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == O3


def test_a_host_that_ignores_ranges_sends_all_again(host, tmp_path):
    host.content, host.cuts, host.ranges = O3, [10_000], False
    fetching.download(host.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == O3


def test_a_host_that_sends_another_part_is_not_believed(host, tmp_path):
    host.content, host.wrong_part = O3, True
    (tmp_path / "file.partial").write_bytes(O3[:100])
    with pytest.raises(ConnectionError, match="another part"):
        fetching.download(host.url, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_an_answer_that_is_a_piece_only_is_not_taken_for_all(host, tmp_path):
    host.content, host.cuts, host.short = O3, [10_000], 8_000
    fetching.download(host.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == O3
    assert host.asked == [None, "bytes=10000-", "bytes=18000-", "bytes=26000-"]


def test_a_host_that_tells_no_length(host, tmp_path):
    host.content, host.length = O3, False
    fetching.download(host.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == O3


@pytest.mark.parametrize("kind", ["link", "link that leads nowhere", "pipe", "folder"])
@pytest.mark.parametrize("name", ["O3_data.zip.partial", "o3.partial", "O3_data.zip.sha256"])
def test_what_lies_in_the_way_is_never_written_through(host, tmp_path, kind, name):
    host.content, other = O3, tmp_path / "other"
    home = tmp_path / "home"
    home.mkdir()
    if kind.startswith("link"):
        (home / name).symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(home / name)
    else:
        (home / name).mkdir()
    if kind == "link":
        other.write_bytes(b"precious")
    if name.endswith("sha256") and kind in ("link", "folder"):
        with pytest.raises((ValueError, OSError)):
            fetching.fetch("o3", home, url=host.url)
    else:
        assert qk.datasets.odd_one_out(fetching.fetch("o3", home, url=host.url)).keys == ["a"]
    assert (other.read_bytes() == b"precious") if kind == "link" else not other.exists()


def test_one_fetch_at_a_time(host, tmp_path):
    host.content = O3
    with store.locked(tmp_path / "O3_data.zip"):
        with pytest.raises(BlockingIOError, match=str(os.getpid())):
            fetching.fetch("o3", tmp_path, url=host.url)
    assert not host.asked
    assert fetching.fetch("o3", tmp_path, url=host.url).is_dir()
    assert files_in(tmp_path)[0] == "O3_data.zip"  # no lock is left


@pytest.mark.parametrize("when", ["downloading", "unpacking"])
def test_a_full_disk_is_told_in_one_line(host, tmp_path, monkeypatch, capsys, when):
    host.content = O3

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if when == "unpacking":
        (tmp_path / "O3_data.zip").write_bytes(O3)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        assert fetch(tmp_path, host.url) == 1
    assert str(tmp_path) in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "o3").exists() and not (tmp_path / "o3.partial").exists()
    assert fetching.fetch("o3", tmp_path, url=host.url).is_dir()


def test_what_a_killed_run_left_is_cleared(tmp_path):
    (tmp_path / "o3.partial/images").mkdir(parents=True)
    (tmp_path / "o3.partial/images/half.jpg").write_bytes(b"half")
    (tmp_path / "O3_data.zip").write_bytes(O3)
    assert qk.datasets.odd_one_out(fetching.fetch("o3", tmp_path)).keys == ["a"]
    assert not list(tmp_path.rglob("*half*")) and not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_host_that_always_breaks_off_ends_with_advice(host, tmp_path, ranges):
    host.content, host.ranges = O3, ranges
    host.cuts = [500] + [0 if ranges else 500] * 20
    with pytest.raises(ConnectionError, match="500 bytes are kept.*put it at .*file") as raised:
        fetching.download(host.url, tmp_path / "file")
    assert len(host.asked) == fetching.ATTEMPTS and "127.0.0.1" in str(raised.value)
    assert (tmp_path / "file.partial").read_bytes() == O3[:500]
    assert not (tmp_path / "file").exists()


def test_an_overloaded_host_is_asked_again(host, tmp_path):
    host.content, host.statuses = O3, [503, 500]
    fetching.download(host.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == O3


def told(capsys, folder, url):
    """The one line in which fetching O3 from an address is given up."""
    assert fetch(folder, url) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_nobody_there(host, tmp_path, capsys):
    line = told(capsys, tmp_path, "http://127.0.0.1:9/O3_data.zip")
    assert re.search(r"127\.0\.0\.1 can't be reached.*fetch .*elsewhere", line)
    assert files_in(tmp_path) == []


def test_a_file_that_has_moved(host, tmp_path, capsys):
    host.statuses = [404]
    assert re.search(r"404.*P3O3/.*--url", told(capsys, tmp_path, host.url))
    assert len(host.asked) == 1


def test_the_second_address_is_tried(host, tmp_path, monkeypatch):
    host.content, host.statuses = O3, [404]
    both = fetching.Dataset([host.url, host.url], "page", "odd_one_out")
    monkeypatch.setitem(fetching.DATASETS, "o3", both)
    assert fetching.fetch("o3", tmp_path) == tmp_path / "o3" and len(host.asked) == 2


def test_an_archive_that_was_brought_by_hand(tmp_path):
    (tmp_path / "O3_data.zip").write_bytes(O3)
    assert len(qk.datasets.odd_one_out(fetching.fetch("o3", tmp_path))) == 1


def test_a_truncated_archive_is_no_data_set(host, tmp_path):
    host.content, host.cuts, host.length = O3, [20_000], False  # nothing tells that it is short
    with pytest.raises(ValueError, match="(?s)can't be unpacked.*fetch it again"):
        fetching.fetch("o3", tmp_path, url=host.url)
    assert files_in(tmp_path) == ["O3_data.zip"]
    (tmp_path / "O3_data.zip").unlink()
    assert fetching.fetch("o3", tmp_path, url=host.url).is_dir()


def test_a_page_instead_of_an_archive(host, tmp_path):
    host.content = b"<html>please log in</html>"
    with pytest.raises(ValueError, match="no whole archive"):
        fetching.fetch("o3", tmp_path, url=host.url)
    assert not (tmp_path / "o3").exists()


def test_the_checksum_is_compared(host, tmp_path):
    host.content = O3
    with pytest.raises(ValueError, match="sha256 is not 0000"):
        fetching.fetch("o3", tmp_path, url=host.url, sha256="0" * 64)
    right = hashlib.sha256(O3).hexdigest().upper()
    fetching.fetch("o3", tmp_path, url=host.url, sha256=right)
    (tmp_path / "o3").rename(tmp_path / "old")
    (tmp_path / "O3_data.zip").write_bytes(zipped(other=b"changed since"))
    with pytest.raises(ValueError, match="as expected"):
        fetching.fetch("o3", tmp_path)
    for sha256 in ("123", "g" * 64, right + "0"):
        with pytest.raises(ValueError, match="sha256="):
            fetching.fetch("o3", tmp_path, sha256=sha256)


def symlink_in_zip():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("images")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc")
    return stream.getvalue()


HOSTILE = {
    "zip above": zipped(**{"images/a.jpg": b"x", "../../stolen.txt": b"x"}),
    "zip absolute": zipped(**{"/tmp/stolen.txt": b"x"}),
    "zip beside": zipped(**{"../o3.partial2/stolen.txt": b"x"}),
    "tar above": tarred(("a.txt", b"x"), ("../stolen.txt", b"x")),
    "tar absolute": tarred(("/tmp/stolen.txt", b"x")),
    "tar link": tarred(("images", (tarfile.SYMTYPE, "/etc")), ("images/stolen.txt", b"x")),
    "tar hard link": tarred(("a", b"x"), ("b", (tarfile.LNKTYPE, "../../stolen.txt"))),
    "tar device": tarred(("a", b"x"), ("b", (tarfile.CHRTYPE, ""))),
    "empty": b"",
    "empty zip": zipped(),
    "empty tar": tarred(),
    "zip of empty files": zipped(**{"images/a.jpg": b""}),
}


@pytest.mark.parametrize("archive", HOSTILE)
def test_a_hostile_archive_writes_nothing(host, tmp_path, archive):
    host.content = HOSTILE[archive]
    home = tmp_path / "deep" / "home"
    with pytest.raises(ValueError, match="O3_data.zip"):
        fetching.fetch("o3", home, url=host.url)
    assert files_in(tmp_path) == ["deep", "deep/home", "deep/home/O3_data.zip"]


@pytest.mark.parametrize("content", [symlink_in_zip(), tarred(("a", b"x"), ("b", (b"2", "a")))])
def test_links_in_an_archive_lead_nowhere_else(tmp_path, content):
    (tmp_path / "archive").write_bytes(content)
    fetching.unpack(tmp_path / "archive", tmp_path / "out")
    inside = (tmp_path / "out").resolve()
    assert all(path.resolve().is_relative_to(inside) for path in inside.rglob("*"))


def test_what_does_not_fit_the_disk_is_not_begun(tmp_path, monkeypatch):
    (tmp_path / "O3_data.zip").write_bytes(O3)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match="1000 are free; make room"):
        fetching.fetch("o3", tmp_path)


def test_tar_archives_and_what_to_read_in_them(tmp_path):
    members = [(f"BSR/BSDS500/data/{each}/1", b"x") for each in ("images", "groundTruth")]
    (tmp_path / "BSR_bsds500.tgz").write_bytes(tarred(*members))
    assert fetching.fetch("bsds500", tmp_path) == tmp_path / "bsds500/BSR/BSDS500/data"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_corrupted_archive_is_named_and_leaves_no_folder(tmp_path, kind):
    chance = random.Random(0)
    noise = chance.randbytes(2000)
    whole = zipped(a=noise, b=noise) if kind == "zip" else tarred(("a", noise), ("b", noise))
    archive, refused = tmp_path / "archive", 0
    for i in range(100):
        spoilt = bytearray(whole)
        for _ in range(3):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        archive.write_bytes(spoilt[: chance.randrange(len(spoilt))] if i % 3 == 0 else spoilt)
        out = tmp_path / f"out{i}"
        try:
            fetching.unpack(archive, out)
        except (ValueError, OSError):
            refused += 1
            assert not out.exists()
        else:  # what was hit says nothing about the content
            assert [path.read_bytes() for path in sorted(out.iterdir())] == [noise, noise]
    assert refused > 80 and not list(tmp_path.glob("*.partial"))


def test_only_http_and_known_names(tmp_path):
    with pytest.raises(ValueError, match="http://"):
        fetching.fetch("o3", tmp_path, url="file:///etc/passwd")
    with pytest.raises(ValueError, match="name='o4'.*o3"):
        fetching.fetch("o4", tmp_path)

"""What pages load of others: stored so that few bytes are sent, and always alike."""

import gzip
import sys
from pathlib import Path

from qkutils.views import _engine

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_tools"))
import vendor_web  # noqa: E402


def test_webassembly_is_stored_packed_and_names_no_time(tmp_path):
    content = bytes(10_000)
    (tmp_path / "some.wasm").write_bytes(content)
    vendor_web.pack(tmp_path)
    (packed,) = tmp_path.iterdir()
    assert packed.name == "some.bin"
    assert gzip.decompress(packed.read_bytes()) == content
    assert packed.read_bytes()[4:8] == bytes(4)  # where gzip keeps the time


def test_the_runtime_is_where_views_look_for_it():
    wanted = {Path(name) for name in vendor_web.PACKAGES["onnxruntime"].wanted}
    stored = {name.with_suffix(".bin") if name.suffix == ".wasm" else name for name in wanted}
    assert set(map(str, stored)) == set(_engine.RUNTIME.values())
    assert vendor_web.VENDOR / "onnxruntime" == _engine.VENDORED

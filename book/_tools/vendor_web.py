"""Fill book/assets/vendor with the scripts that pages load, so that they ask no other host.

Seven npm packages are fetched by name and checked against the sha512 written here; anywidget's
script is copied from the installed Python package, so that the two always match.

usage: vendor_web.py                    fills the vendor folder
       vendor_web.py --checker FOLDER   fetches what the tests check accessibility with
"""

import base64
import fnmatch
import gzip
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

VENDOR = Path(__file__).resolve().parents[1] / "assets" / "vendor"

LICENCES = Path(__file__).with_name("licences")  # of packages that do not carry theirs


class Package(NamedTuple):
    """An npm package, and which files below which folder of it are wanted."""

    spec: str
    sha512: str
    base: str
    wanted: tuple[str, ...]


PACKAGES = {
    "requirejs": Package(
        "requirejs@2.3.8",
        "7/cTSLOdYkNBNJcDMWf+luFvMriVm7eYxp4BcFCsAX0wF421Vyce5SXP17c+Jd5otXKGNehIonFlyQXSowL6Mw==",
        "package/",
        ("require.js",),
    ),
    "html-manager": Package(
        "@jupyter-widgets/html-manager@1.0.15",
        "5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
        "package/dist/",
        ("embed-amd.js", "*.woff2"),
    ),
    "popper": Package(
        "@popperjs/core@2.11.8",
        "P1st0aksCrn9sGZhp8GMYwBnQsbvAWsZAX44oXNNvLHGqAOcoVxmjZiohstwQ7SqKnbR47akdNi+uleWD8+g6A==",
        "package/dist/umd/",
        ("popper.min.js",),
    ),
    "tippy": Package(
        "tippy.js@6.3.7",
        "E1d3oP2emgJ9dRQZdf3Kkn0qJgI6ZLpyS5z6ZkY1DF3kaQaBsGZsndEpHwx+eC+tYM41HaSNvNtLx8tU57FzTQ==",
        "package/dist/",
        ("tippy-bundle.umd.min.js",),
    ),
    "katex": Package(
        "katex@0.16.22",  # the version that sphinxcontrib-katex renders with
        "XCHRdUw4lf3SKBaJe4EvgqIuWwkPSo9XoeO8GjQW94Bp7TWv9hNhzZjZ+OH9yf1UmLygb7DIT5GSFQiyt16zYg==",
        "package/dist/",
        ("katex.min.css", "fonts/*.woff2"),
    ),
    "reveal": Package(
        "reveal.js@5.2.1",
        "r7//6mIM5p34hFiDMvYfXgyjXqGRta+/psd9YtytsgRlrpRzFv4RbH76TXd2qD+7ZPZEbpBDhdRhJaFgfQ7zNQ==",
        "package/dist/",
        ("reveal.js", "reveal.css"),
    ),
    "onnxruntime": Package(
        "onnxruntime-web@1.30.0",
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        "package/dist/",
        ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    ),
}

# What tests need, and the site does not: the checker of accessibility.
CHECKER = Package(
    "axe-core@4.10.3",
    "Xm7bpRXnDSX2YE2YFfBk2FnF0ep6tmG7xPh8iHee8MIcrgq762Nkce856dYtJYLkuIoYZvGfTs/PbZhideTcEg==",
    "package/",
    ("axe.min.js",),
)


def fetch(package: Package, folder: Path) -> Path:
    """Download a package with npm (the system's, else the environment's) and check it."""
    npm = shutil.which("npm") or str(Path(sys.executable).with_name("npm"))
    command = [npm, "pack", "--silent", package.spec]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    archive = folder / done.stdout.split()[-1]
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != package.sha512:
        sys.exit(f"{package.spec}: its sha512 is {digest}, not {package.sha512}")
    return archive


def unpack(archive: Path, package: Package, target: Path) -> None:
    """Write the wanted files, and the licence, and nothing else, below the target folder."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            name = Path(member.name.removeprefix(package.base).removeprefix("package/"))
            patterns = (*package.wanted, "LICENSE*")
            wanted = any(fnmatch.fnmatchcase(str(name), pattern) for pattern in patterns)
            if not wanted or not member.isfile() or ".." in name.parts or name.is_absolute():
                continue
            stream = tar.extractfile(member)
            assert stream is not None
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(stream.read())


def get(package: Package, target: Path) -> None:
    """Fetch a package and leave its wanted files in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        unpack(fetch(package, Path(folder)), package, target)


def pack(folder: Path) -> None:
    """Store WebAssembly gzipped, so that any server sends few bytes; a page unpacks it.

    No server and no browser takes the name `.bin` for one that it should unpack itself.
    """
    for path in folder.glob("*.wasm"):
        path.with_suffix(".bin").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
        path.unlink()


def main() -> None:
    """Make the vendor folder anew; its stamp, written last, tells Make that it is whole."""
    shutil.rmtree(VENDOR, ignore_errors=True)
    for name, package in PACKAGES.items():
        get(package, VENDOR / name)
    pack(VENDOR / "onnxruntime")
    shutil.copyfile(LICENCES / "onnxruntime-web.txt", VENDOR / "onnxruntime" / "LICENSE")
    anywidget = find_spec("anywidget")
    assert anywidget and anywidget.origin
    shutil.copyfile(Path(anywidget.origin).parent / "nbextension/index.js", VENDOR / "anywidget.js")
    (VENDOR / ".stamp").touch()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--checker"]:
        get(CHECKER, Path(sys.argv[2]))
    else:
        main()

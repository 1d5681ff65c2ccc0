"""What a chapter has used, as a rule for Make: it runs again when that changes.

Modules are those that its kernel has loaded. A data file counts as used where the source of such a
module names, in quotes, the file or a folder above it. Of the reader's own, a model's file counts,
and folders of pictures, into which or out of which pictures have gone.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGE = "qkutils"
# Run in the kernel after the last cell.
LOADED = f"""\
import json, sys
files = [getattr(module, "__file__", None) for name, module in list(sys.modules.items())
         if name.split(".")[0] == {PACKAGE!r}]
print(json.dumps([file for file in files if file]))
"""


def data_files(modules: Iterable[Path]) -> set[Path]:
    """Find the data files that modules name, and with a folder the folder: files come and go."""
    named: set[str] = set()
    found: set[Path] = set()
    for module in modules:
        named |= set(re.findall(r"[\"']([\w.-]+)[\"']", module.read_text("utf-8")))
    for root in {each.parent for each in modules if each.parent.name == PACKAGE}:
        for file in root.rglob("*"):
            if file.is_file() and file.suffix not in (".py", ".pyc"):
                found |= {file} if file.name in named else set()
                folders = file.relative_to(root).parts[:-1]
                found |= {file, file.parent} if named.intersection(folders) else set()
    return found


def own_files(values: Iterable[Any]) -> set[Path]:
    """Find the files that parameters name, and the folders, with those in them."""
    flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
    paths = [Path(each) for each in flat if isinstance(each, str) and os.path.exists(each)]
    inner = [each for path in paths if path.is_dir() for each in path.rglob("*") if each.is_dir()]
    return {path for path in [*paths, *inner] if not re.search(r"[\n\\]", str(path))}


def rule(target: Path, modules: Iterable[Path], values: Iterable[Any]) -> str:
    """Write the rule; a file of its own, without a recipe, may go without stopping Make."""
    used = {*modules, *data_files(modules), *own_files(values)}
    files = sorted(map(in_make, used))
    return f"{in_make(target)}: \\\n  " + " \\\n  ".join(files) + "\n\n" + ":\n".join(files) + ":\n"


def in_make(path: Path) -> str:
    """A path as Make reads it, relative where it lies below the working folder."""
    here = os.path.relpath(path)
    text = str(path.absolute()) if here.startswith("..") else here
    return re.sub(r"([ #:%*?\[\]~])", r"\\\1", text.replace("$", "$$"))

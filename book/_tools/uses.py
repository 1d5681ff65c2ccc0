"""What a chapter has used of the package, as a rule for Make: it runs again when that changes.

Modules are those that its kernel has loaded. A data file counts as used where the source of such a
module names, in quotes, the file or the folder that holds it.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

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
                found |= {file, file.parent} if file.parent.name in named else set()
    return found


def rule(target: Path, modules: Iterable[Path]) -> str:
    """Write the rule; a file of its own, without a recipe, may go without stopping Make."""
    files = sorted(map(in_make, {*modules, *data_files(modules)}))
    return f"{in_make(target)}: \\\n  " + " \\\n  ".join(files) + "\n\n" + ":\n".join(files) + ":\n"


def in_make(path: Path) -> str:
    """A path as Make reads it, relative where it lies below the working folder."""
    here = os.path.relpath(path)
    text = str(path.absolute()) if here.startswith("..") else here
    return re.sub(r"([ #:%])", r"\\\1", text.replace("$", "$$"))

"""The parameters of a build: read, checked against what the chapters have, and written down.

usage: parameters.py OUT.yaml

MODEL, MODELS, IMAGES, IMAGE_SIZE and PARAMETERS come from the environment.
"""

import ast
import math
import os
import re
import reprlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jupytext
import yaml
from yaml.nodes import MappingNode, Node

CHAPTERS = Path("notebooks")
NAMES = ("MODEL", "IMAGES")
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    type(None): "nothing",
}


class Wrong(Exception):
    """What is wrong with the parameters, where, and what to do, in one line."""


def defaults(notebook: Any) -> dict[str, Any]:
    """Collect what the cell tagged `parameters` assigns; papermill would accept any name."""
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    found = {}
    for statement in ast.parse("\n".join(cell.source for cell in tagged)).body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(name)], value=value)
                | ast.AnnAssign(target=ast.Name(name), value=ast.expr() as value)
            ):
                found[name] = ast.literal_eval(value)
    return found


def read_text(file: Path) -> str:
    """Read a file of people's own, whatever it turns out to be."""
    try:
        if file.exists() and not file.is_file():  # a pipe would wait for ever
            raise Wrong(f"{file}: is no regular file; name one with parameters")
        raw = file.read_bytes()
    except FileNotFoundError:
        raise Wrong(f"{file}: there is no such parameters file; check PARAMETERS=") from None
    except OSError as error:
        raise Wrong(f"{file}: can't be read as a parameters file ({error.strerror})") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Wrong(f"{file}, line {line}: is not UTF-8; save the file in that encoding") from None


class Loader(yaml.SafeLoader):
    """YAML in which dates, and whole numbers that are not plainly decimal, are text."""

    yaml_implicit_resolvers = {
        first: [each for each in resolvers if not each[0].endswith((":int", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789")
)


def read(file: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """Read a parameters file; also give where each name stands, as messages say it."""
    text = read_text(file)
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        if not isinstance(root, MappingNode):
            raise Wrong(f"{file}, line 1: a parameters file holds `name: value` lines")
        where = places(root, str(file))
        return loader.construct_document(root), where
    except (yaml.YAMLError, RecursionError, ValueError, LookupError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line if mark else text.count("\n", 0, getattr(error, "position", 0))
        problem = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise Wrong(
            f"{file}, line {line + 1}: is not YAML ({problem}); indent with spaces, and close "
            "quotes and brackets"
        ) from None


def places(section: MappingNode, file: str, above: tuple[str, ...] = ()) -> dict:
    """Where each name of a section stands; refuses names that are no text, or stand there twice."""
    found: dict[tuple[str, ...], str] = {}
    for key, value in section.value:
        where = f"{file}, line {key.start_mark.line + 1}"
        if key.tag != "tag:yaml.org,2002:str":
            raise Wrong(f"{where}: {shown(key)} is no name; a line starts with a parameter's name")
        path = (*above, key.value)
        if path in found:
            raise Wrong(f"{where}: {key.value} is there already ({found[path]}); leave one out")
        found[path] = where
        if isinstance(value, MappingNode) and not above:
            found |= places(value, file, path)
    return found


def shown(key: Node) -> str:
    """A key as it was written, as far as it is short."""
    return repr(key.value) if isinstance(key.value, str) else "a list or a section"


def check(
    given: dict[str, Any], where: dict[tuple[str, ...], str], known: dict[str, dict[str, Any]]
) -> None:
    """Raise Wrong unless every section is a chapter, and each parameter one that it has."""
    for name, value in given.items():
        if name in known:
            if not isinstance(value, dict):
                raise Wrong(f"{where[name,]}: {name} needs `name: value` lines, indented, below it")
            for inner, each in value.items():
                check_one(where[name, inner], name, known[name], inner, each)
        elif isinstance(value, dict):
            chapters = ", ".join(known)
            raise Wrong(f"{where[name,]}: there is no chapter {name!r}; there are {chapters}")
        else:
            having = [chapter for chapter, parameters in known.items() if name in parameters]
            if having and len(having) < len(known):
                raise Wrong(f"{where[name,]}: {name} goes below {' or '.join(having)}, not above")
            for chapter, parameters in known.items():
                check_one(where[name,], chapter, parameters, name, value)


def check_one(where: str, chapter: str, known: dict[str, Any], name: str, value: Any) -> None:
    """Raise Wrong unless the chapter has this parameter and the value is of its default's kind."""
    if name not in known:
        has = ", ".join(known) or "none"
        raise Wrong(f"{where}: {chapter} has no such parameter: {name} (it has: {has})")
    if not fits(value, known[name]):
        needed = f"{KINDS[type(known[name])]}, such as {known[name]!r}"
        raise Wrong(f"{where}: {name}: {reprlib.repr(value)} won't do; {chapter} needs {needed}")


def fits(value: Any, default: Any) -> bool:
    """Whether a value may stand for a default; a whole number may stand for any number."""
    if isinstance(default, list | tuple):
        like = default[0] if default else ""  # a list that is empty by default is of texts
        return isinstance(value, list) and all(fits(each, like) for each in value)
    if isinstance(default, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(default)


def chosen(file: Path, script: Path, known: dict[str, Any]) -> dict[str, Any]:
    """Take what a parameters file says to one chapter; its own section wins."""
    given, where = read(file)
    others = {path.stem for path in script.parent.glob("*.py")} - {script.stem}
    mine = {name: value for name, value in given.items() if name not in others}
    check(mine, where, {script.stem: known})
    section = mine.pop(script.stem, {})
    return mine | section


def absolute(given: dict[str, Any]) -> dict[str, Any]:
    """Make MODEL, MODELS and IMAGES absolute where they are paths: chapters run elsewhere."""
    made = dict(given)
    for name, value in given.items():
        if isinstance(value, dict):
            made[name] = absolute(value)
        elif name == "MODELS":
            made[name] = [absolute_path(each) for each in value]
        elif name in NAMES:
            made[name] = absolute_path(value)
        if name == "IMAGES" and value and not os.path.isdir(made[name]):
            raise Wrong(f"IMAGES={value}: there is no such folder; check the path")
    return made


def absolute_path(value: str) -> str:
    """Make a text absolute where it is the path of something; else leave it as it is."""
    path = os.path.expanduser(value)
    return os.path.abspath(path) if value and os.path.exists(path) else value


def named(environment: dict[str, str]) -> dict[str, Any]:
    """Take what was given to make by name; MODELS are several, and IMAGE_SIZE is a number."""
    given: dict[str, Any] = {n: environment[n] for n in NAMES if environment.get(n)}
    if models := environment.get("MODELS", "").split():
        given["MODELS"] = models
    if size := environment.get("IMAGE_SIZE"):
        if not size.isdecimal():
            raise Wrong(f"IMAGE_SIZE={size}: a whole number of pixels is needed, such as 224")
        given["IMAGE_SIZE"] = int(size)
    return given


def collect(environment: dict[str, str]) -> dict[str, Any]:
    """Join the parameters file with the names given to make, which win over its top level."""
    scripts = sorted(CHAPTERS.glob("[0-9]*.py"))
    known = {script.stem: defaults(jupytext.read(script)) for script in scripts}
    given: dict[str, Any] = {}
    if file := environment.get("PARAMETERS"):
        given, where = read(Path(file))
        check(given, where, known)
    return absolute(given | named(environment))


def try_models(given: dict[str, Any]) -> None:
    """Load each model once, so that one that can't be is told before any chapter runs."""
    sections = [given, *(given | value for value in given.values() if isinstance(value, dict))]
    having = (each for each in sections if "MODEL" in each)
    models = dict.fromkeys((each["MODEL"], each.get("IMAGE_SIZE") or None) for each in having)
    beside = dict.fromkeys(name for each in sections for name in each.get("MODELS", ()))
    if not models and not beside:
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # as when the chapters run
    from qkutils import load  # takes seconds, and most builds name no model
    from qkutils.book import live

    trials: dict[str, Callable[[], Any]]
    trials = {f"MODEL={name}": partial(load, name, image_size=size) for name, size in models}
    trials |= {f"MODELS={name}": partial(live, [name]) for name in beside}
    for named_as, attempt in trials.items():
        try:
            attempt()
        except (OSError, ValueError, RuntimeError) as error:
            raise Wrong(f"{named_as}: {' '.join(str(error).split())}") from error


def main() -> None:
    """Write the file named on the command line, unless it says the same already."""
    path = Path(sys.argv[1])
    try:
        given = collect(dict(os.environ))
        text = yaml.safe_dump(given)
        if path.exists() and path.read_text("utf-8") == text:
            return
        try_models(given)
    except Wrong as error:
        sys.exit(str(error))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, "utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()

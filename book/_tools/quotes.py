"""What the roles of a chapter stand for: numbers of figures, titles, works, values of the run."""

import ast
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stubs
from pybtex.database import BibliographyData, Person

from qkutils.book import ledger

ROOT = Path(__file__).resolve().parents[2]
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
LABEL = re.compile(r"^\(([^()\s]+)\)=\n+(?:#+ (.+))?", re.MULTILINE)
OPTIONS = r"\}.*\n(?:[ ]*:[\w-]+:.*\n)*?[ ]*:"
FIGURE = re.compile(r"\{(?:glue:)?figure" + OPTIONS + r'name: *"?([^\s"]+)')
EQUATION = re.compile(r"\{math" + OPTIONS + r'label: *"?([^\s"]+)|\$\$ *\(([^()\s]+)\)')
TITLED = re.compile(r"(.+?)\s*<([^<>]+)>$")
# By the last letter of a form, what it shows
KINDS = {"s": str} | dict.fromkeys("bcdoxX", int) | dict.fromkeys("eEfFgGn%", float)
CHAPTERS = "notebooks"


@dataclass
class Book:
    """What a chapter may refer to; a document is named by its path, as `notebooks/01_name`."""

    titles: dict[str, str] = field(default_factory=dict)
    labels: dict[str, tuple[str, str]] = field(default_factory=dict)  # → document, heading
    figures: dict[str, str] = field(default_factory=dict)  # label → number
    equations: dict[str, str] = field(default_factory=dict)
    works: BibliographyData = field(default_factory=BibliographyData)
    site: str = ""  # the address of the published pages, where it is known

    def add(self, document: str, text: str) -> None:
        """Note a document's title and the sections that have a label."""
        self.titles[document] = TITLE.search(text)[1]  # type: ignore[index]
        self.labels |= {label: (document, heading) for label, heading in LABEL.findall(text)}

    def add_chapter(self, name: str, notebook: Any) -> None:
        """Note a chapter, and number its figures and equations as its page does."""
        cells = [c for c in notebook.cells if stubs.INSTRUCTOR not in c.metadata.get("tags", ())]
        prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
        self.add(f"{CHAPTERS}/{name}", "\n\n".join(prose))
        figures = []
        for cell in cells:
            figure = cell.metadata.get("mystnb", {}).get("figure", {})
            figures += FIGURE.findall(cell.source) if cell.cell_type == "markdown" else []
            figures += [figure["name"]] if {"name", "caption"} <= set(figure) else []
        equations = ["".join(found) for found in EQUATION.findall("\n\n".join(prose))]
        for numbers, labels in ((self.figures, figures), (self.equations, equations)):
            for order, label in enumerate(labels, 1):
                numbers[label] = f"{int(name.split('_')[0])}.{order}"


def values(executed: Any) -> dict[str, dict[str, str]]:
    """What an executed chapter handed to its prose: name → {type: content}."""
    outputs = [output for cell in executed.cells for output in cell.get("outputs", ())]
    told = {}
    for output in outputs:
        if handed := output.get("metadata", {}).get("scrapbook"):
            data = output["data"].items()
            told[handed["name"]] = {k.removeprefix(handed["mime_prefix"]): v for k, v in data}
    return told


def parted(text: str) -> tuple[str, str]:
    """The words and the target of `words <target>`; of a target alone no words."""
    found = TITLED.match(text)
    return (found[1], found[2]) if found else ("", text)


def escaped(text: str) -> str:
    """A text as Markdown shows it unchanged."""
    return re.sub(r"([*_`$|~])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))


def authors(people: list[Person]) -> str:
    """Surnames of one or two authors; of more, the first."""
    names = [" ".join(map(str, person.rich_last_names)) for person in people]
    return " and ".join(names) if len(names) < 3 else f"{names[0]} et al."


def formatted(text: str, form: str) -> str:
    """A value in a form, as MyST-NB shows it on a page; students don't install that."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):  # nan and inf are names, and so are others
        value = text
    kind = KINDS.get(form[-1:])
    return format(kind(value) if kind else value, form)


class Quotes:
    """What the roles of one chapter stand for."""

    def __init__(self, book: Book, chapter: str, glued: dict[str, dict[str, str]]) -> None:
        """`glued`: what `values` gave, or nothing where the chapter was not executed."""
        self.book, self.glued, self.folder = book, glued, ROOT / CHAPTERS
        self.document = f"{CHAPTERS}/{chapter}"
        self.figures, self.equations = book.figures, book.equations
        self.roles: dict[str, Callable[[str], str]] = {
            "doc": self.doc,
            "ref": self.ref,
            "numref": lambda label: f"Fig. {known(label, self.figures, 'figure')}",
            "eq": lambda label: f"({known(label, self.equations, 'equation')})",
            "term": lambda text: parted(text)[0] or text,
            "cite": self.cite,
            "ledger": lambda text: escaped(ledger.quote(text)),
            "glue:text": self.value,
            "glue:": self.value,
        }

    def role(self, name: str, text: str) -> str:
        """What {name}`text` shows."""
        if name not in self.roles:
            raise ValueError(f"editions can't show the role {name!r}: add it to quotes.py")
        return self.roles[name](text)

    def link(self, text: str, document: str, label: str = "") -> str:
        """A link to the notebook of a chapter, or to a page of the site where that is known."""
        place, _, name = document.partition("/")
        if document == self.document or (place != CHAPTERS and not self.book.site):
            return text
        page = f"{self.book.site.rstrip('/')}/{document}.html" + (f"#{label}" if label else "")
        return f"[{text}]({f'{name}.ipynb' if place == CHAPTERS else page})"

    def doc(self, text: str) -> str:
        """Another document's title, or the words given."""
        words, target = parted(text)
        document = posixpath.normpath(posixpath.join("/" + CHAPTERS, target))[1:]
        return self.link(words or known(document, self.book.titles, "page"), document)

    def ref(self, text: str) -> str:
        """The heading of a section, or the words given."""
        words, label = parted(text)
        document, heading = known(label, self.book.labels, "label")
        if not words + heading:
            raise ValueError(f"{label!r} stands before no heading: {{ref}}`words <{label}>`")
        return self.link(words or heading, document, label)

    def cite(self, text: str) -> str:
        """Authors and years, in brackets."""
        made = []
        for key in text.split(","):
            work = known(key.strip(), self.book.works.entries, "work")
            words, fields = f"{authors(work.persons['author'])}, {work.fields['year']}", work.fields
            address = fields.get("url")
            for name, at in (("doi", "https://doi.org/"), ("eprint", "https://arxiv.org/abs/")):
                address = at + fields[name] if not address and name in fields else address
            made.append(f"[{words}]({address})" if address else words)
        return f"({'; '.join(made)})"

    def value(self, text: str) -> str:
        """A value of the run as it was asked for; its name where the chapter was not executed."""
        name, _, form = text.partition(":")
        if name not in self.glued:
            return f"`{name}`"
        value = self.glued[name]["text/plain"]
        try:
            return escaped(formatted(value, form))
        except (TypeError, ValueError) as error:
            told = f"{name} is {value}, and can't be shown as {form!r}: quote it in another form"
            raise ValueError(told) from error


def known(name: str, among: Any, kind: str) -> Any:
    """What a name stands for; ValueError where there is none."""
    if name not in among:
        raise ValueError(f"there is no {kind} {name!r}")
    return among[name]

"""MyST Markdown as plain Markdown, which shows alike in JupyterLab, VS Code and Colab.

Roles are resolved, directives opened.  What is not known is a fault, never passed on.
"""

import base64
import mimetypes
import re
from collections.abc import Callable

import faults
from markdown_it import MarkdownIt
from quotes import Quotes

DIRECTIVE = re.compile(r"( *)(?P<fence>:{3,}|`{3,})\{([^}`]+)\} *(.*)$")
CODE = re.compile(r" *(?P<fence>`{3,}|~{3,})[^`]*$")
OPTION = re.compile(r" *:([\w-]+): *(.*)$")
DROPPED = re.compile(r" *\([^()\s]+\)= *$|%")  # a label, a comment
MATH_END = re.compile(r"\$\$ *(?:\(([^()\s]+)\))? *$")
# A role, or a span of code, which is left as it is.  A role that begins a line goes to the line
# above: a value such as `1` would otherwise begin a list there.
SPAN = re.compile(
    r"(?P<line>\n *)?(?<!\\)(?:\{(?P<role>[\w:+.-]+)\})?(?P<tick>`+)(?!`)(?P<text>.+?)(?<!`)"
    r"(?P=tick)(?!`)",
    re.DOTALL,
)
SIGNS = {"top": "⊤", "sigma": "σ", "kappa": "κ", "beta": "β"}
NOTES = {name: name.capitalize() for name in ("note", "tip", "hint", "important", "warning")}
NOTES |= {"seealso": "See also"}


def starts(line: str) -> bool:
    """Whether a line is no part of the paragraph above it."""
    known = any(pattern.match(line) for pattern in (DIRECTIVE, CODE, DROPPED))
    return known or not line.strip() or line.lstrip().startswith("$$")


def formula(found: re.Match) -> str:
    """A short formula as HTML; raises ValueError for one that needs more than signs and indices."""
    text = re.sub(r"\\([a-z]+)", lambda sign: SIGNS.get(sign[1], sign[0]), found[1])
    for mark, name in (("_", "sub"), (r"\^", "sup")):
        text = re.sub(mark + r"(\w|⊤)", rf"<{name}>\1</{name}>", text)
    if re.search(r"[\\{}^_]", text):
        raise ValueError(f"{found[0]}: the title of a dropdown shows no such formula")
    return f"<i>{text}</i>"


def folded(title: str, body: list[str]) -> list[str]:
    """Lines behind a click.  A summary holds HTML, in which VS Code sets no formula."""
    title = re.sub(r"\$([^$]+)\$", formula, title)
    summary = f"<summary>{MarkdownIt().renderInline(title)}</summary>"
    return ["<details>", summary, "", *body, "", "</details>"]


def quoted(title: str, body: list[str]) -> list[str]:
    """Lines as a block quote; formulas on one line each, since JupyterLab reads `>` as theirs."""
    text = "\n".join([f"**{title}**", "", *body])
    text = re.sub(r"\$\$.+?\$\$", lambda found: " ".join(found[0].split()), text, flags=re.DOTALL)
    return [f"> {line}".rstrip() for line in text.split("\n")]


class Reader:
    """Reads the Markdown of one cell."""

    def __init__(self, quotes: Quotes, cell: str) -> None:
        """`quotes` says what roles stand for, and `cell` is where faults are."""
        self.quotes, self.cell = quotes, cell

    def read(self, text: str) -> str:
        """The whole cell as plain Markdown."""
        return "\n".join(self.blocks(text.split("\n"), 1)).strip("\n")

    def blocks(self, lines: list[str], first: int) -> list[str]:
        """Lines of which the first has this number in its cell."""
        made: list[str] = []
        at = 0
        while at < len(lines):
            end = self.end(lines, at, first + at)
            part, number = lines[at:end], first + at
            if found := DIRECTIVE.match(part[0]):
                made += [""] if made and made[-1] else []
                made += self.directive(found, part[1:-1], number)
                made += [""] if any(lines[end : end + 1]) else []
            elif part[0].lstrip().startswith("$$"):
                made += self.formula(part)
            elif CODE.match(part[0]):
                made += part
            elif not DROPPED.match(part[0]):
                made += self.inline("\n".join(part), number).split("\n")
            at = end
        return made

    def end(self, lines: list[str], at: int, number: int) -> int:
        """Where the next block begins."""
        if found := DIRECTIVE.match(lines[at]) or CODE.match(lines[at]):
            fence = found["fence"]
            last = re.compile(rf" *{fence[0]}{{{len(fence)},}} *$").match
        elif lines[at].lstrip().startswith("$$"):
            if MATH_END.search(lines[at].lstrip()[2:]):
                return at + 1
            last = MATH_END.search
        else:
            inside = (n for n in range(at + 1, len(lines)) if starts(lines[n]))
            return at + 1 if starts(lines[at]) else next(inside, len(lines))
        for end in range(at + 1, len(lines)):
            if last(lines[end]):
                return end + 1
        raise faults.Fault(f"{lines[at].strip()!r} is never closed", self.cell, number)

    def formula(self, lines: list[str]) -> list[str]:
        """A formula in `$$`, with its number in place of its label."""
        label = MATH_END.search(lines[-1])
        if not label or not label[1]:
            return lines
        tag = rf" \tag{{{self.quotes.equations[label[1]]}}}$$"
        return [*lines[:-1], lines[-1][: label.start()].rstrip() + tag]

    def inline(self, text: str, first: int) -> str:
        """A paragraph, with what its roles stand for."""

        def said(found: re.Match) -> str:
            if not found["role"]:
                return found[0]
            try:
                words = self.quotes.role(found["role"], " ".join(found["text"].split()))
                return f" {words}" if found["line"] else words
            except ValueError as error:
                line = first + text.count("\n", 0, found.start("role"))
                raise faults.Fault(str(error), self.cell, line) from None

        return SPAN.sub(said, text)

    def directive(self, found: re.Match, lines: list[str], number: int) -> list[str]:
        """What a directive shows, indented as it is."""
        indent, _, name, title = found.groups()
        shown: Callable[..., list[str]] | None = getattr(self, SHOWN.get(name, ""), None)
        if not shown:
            told = f"editions can't show the directive {name!r}: add it to book/_tools/plain.py"
            raise faults.Fault(told, self.cell, number)
        options: dict[str, str] = {}
        while lines and (option := OPTION.match(lines[0])):
            options[option[1]] = option[2].strip('"')
            lines, number = lines[1:], number + 1
        lines = [line.removeprefix(indent) for line in lines]
        title = self.inline(title, number) if title else NOTES.get(name, "")
        try:
            made = shown(title, options, lines, number + 1)
        except ValueError as error:
            raise faults.Fault(str(error), self.cell, number) from None
        return [indent + line if line else "" for line in made]

    def dropdown(self, title: str, _: dict[str, str], lines: list[str], first: int) -> list[str]:
        """An answer, folded."""
        return folded(title, self.blocks(lines, first))

    def note(self, title: str, _: dict[str, str], lines: list[str], first: int) -> list[str]:
        """A box with a title."""
        return quoted(title, self.blocks(lines, first))

    def table(self, title: str, _: dict[str, str], lines: list[str], first: int) -> list[str]:
        """A table in Markdown, below its title."""
        return (
            [f"**{title}**", "", *self.blocks(lines, first)] if title else self.blocks(lines, first)
        )

    def list_table(
        self, title: str, options: dict[str, str], lines: list[str], first: int
    ) -> list[str]:
        """A table that is written as a list of rows `* -`, each a list of cells `  -`."""
        rows: list[list[str]] = []
        for line in self.blocks(lines, first):
            found = re.match(r"(\* | {2})- ?(.*)", line)
            if not rows and not (found and found[1] == "* "):
                raise ValueError(f"a row of a list-table begins with `* -`, not {line!r}")
            if not found:
                rows[-1][-1] += f" {line.strip()}"
            elif found[1] == "* ":
                rows.append([found[2]])
            else:
                rows[-1].append(found[2])
        head = [] if options.get("header-rows") else [[""] * len(rows[0])]
        every = [*head, *rows]
        lined = [f"| {' | '.join(row)} |" for row in every]
        return self.table(title, {}, [lined[0], "|---" * len(every[0]) + "|", *lined[1:]], first)

    def math(self, _: str, options: dict[str, str], lines: list[str], first: int) -> list[str]:
        """A formula with its number."""
        label = options.get("label")
        tag = [rf"\tag{{{self.quotes.equations[label]}}}"] if label else []
        return ["$$", *lines, *tag, "$$"]

    def glued(self, name: str, options: dict[str, str], lines: list[str], first: int) -> list[str]:
        """A figure or a table that the run handed over, with its caption."""
        data = self.quotes.glued.get(name, {})
        if picture := data.get("image/png"):
            made = self.picture("image/png", picture, options)
        elif table := re.search(r"<table.*</table>", data.get("text/html", ""), re.DOTALL):
            made = re.sub(r"\n\s*", "\n", table[0]).split("\n")
        else:
            made = [self.quotes.value(name)]
        return made + self.caption(options.get("name", ""), self.blocks(lines, first))

    def figure(self, name: str, options: dict[str, str], lines: list[str], first: int) -> list[str]:
        """A picture in a file, with its caption."""
        file = self.quotes.folder / name
        if not file.is_file():
            raise ValueError(f"{name}: there is no such picture")
        kind = mimetypes.guess_type(file)[0] or "image/png"
        pixels = base64.b64encode(file.read_bytes()).decode()
        made = self.picture(kind, pixels, options)
        return made + self.caption(options.get("name", ""), self.blocks(lines, first))

    def picture(self, kind: str, pixels: str, options: dict[str, str]) -> list[str]:
        """A picture that the text itself carries: Colab shows no attachments of a cell."""
        pixels = pixels.replace("\n", "")
        return [f"![{options.get('alt', '')}](data:{kind};base64,{pixels})"]

    def caption(self, label: str, lines: list[str]) -> list[str]:
        """A caption, after the number of its figure."""
        text = "\n".join(lines).strip()
        number = self.quotes.figures.get(label)
        return ["", f"**Fig. {number}** {text}" if number else text] if text else []


SHOWN = {"dropdown": "dropdown", "admonition": "note", **dict.fromkeys(NOTES, "note")}
SHOWN |= {"table": "table", "list-table": "list_table"}
SHOWN |= {"math": "math", "figure": "figure", "glue:figure": "glued", "glue:": "glued"}

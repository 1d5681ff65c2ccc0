"""What every view is: data, a state that browser and Python share, and one front end for both."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from matplotlib import colormaps
from matplotlib.figure import Figure

from qkutils import options
from qkutils.views._origin import code_of_this_cell
from qkutils.views._page import write
from qkutils.views.figures import DIVERGING, PALETTE, SEQUENTIAL

FRONT = Path(str(resources.files("qkutils.views").joinpath("front")))
_IMPORT = re.compile(r'^import \{\s*\w+(?:,\s*\w+)*,?\s*\} from "(\.[\w./]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|class|const)", re.MULTILINE)


@cache
def front_end(name: str) -> str:
    """The script of a view in one piece: what it imports, each module once, then its own."""
    found: dict[Path, str] = {}
    _gather(FRONT / f"{name}.js", found)
    return "\n".join(found.values())


def _gather(path: Path, found: dict[Path, str]) -> None:
    """Add a module after those it imports; names are shared, so that imports can go."""
    text = path.read_text("utf-8")
    for needed in _IMPORT.findall(text):
        module = (path.parent / needed).resolve()
        if module not in found:
            _gather(module, found)
    plain = _EXPORT.sub("", _IMPORT.sub("", text))
    rest = re.search(r"^(?:import|export)\b(?! default \{ render \};$).*", plain, re.MULTILINE)
    if rest:
        raise ValueError(f"{path.name}: write {rest[0]!r} as a plain named import or export")
    found[path] = plain


@cache
def colour_map(name: str) -> bytes:
    """A matplotlib colour map as 256 × 3 bytes, so that pages and figures share their colours."""
    return (255 * colormaps[name](range(256))[:, :3]).round().astype("uint8").tobytes()


def entry() -> traitlets.Any:
    """An entry of a view's state as a trait of its own."""
    return traitlets.Any().tag(sync=True, entry=True)


class StateError(traitlets.TraitError, ValueError):
    """A state that a view cannot show."""


class View(anywidget.AnyWidget):
    """A view of results that have been computed; where there is a kernel it answers requests.

    `state` says what is chosen; read it, set it or observe it.  Entries of it that a subclass makes
    traits of their own can be linked to other widgets (`ipywidgets.jslink`, `traitlets.link`).  A
    subclass names its script in `front`; in `respond` it computes what its data do not hold, and in
    `checked` it refuses a state that it cannot show.  `sizes`: how many layers, heads and so on the
    largest model has that a view has met.
    """

    front: str
    sizes: dict[str, int]
    data = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    look = traitlets.Dict().tag(sync=True)
    answer = traitlets.Dict().tag(sync=True)
    code = traitlets.Unicode().tag(sync=True)

    def __init__(
        self, title: str, data: Mapping, state: Mapping, still: Figure, alternative: str
    ) -> None:
        """`still`: a figure of the first state, for pages without scripts; it is cleared."""
        self._esm = front_end(self.front)
        self._css = (FRONT / "view.css").read_text("utf-8")
        maps = {name: colour_map(name) for name in (SEQUENTIAL, DIVERGING)}
        look = {"title": title, "palette": list(PALETTE), "maps": maps}
        self.still = still_picture(still, alternative)
        self._entries = set(state)
        self.linked = sorted(self.traits(entry=True))
        linked = {name: state[name] for name in self.linked}
        super().__init__(data=data, state=state, look=look, code=code_of_this_cell(), **linked)
        self.observe(self._give, "state")
        for name in self.linked:
            self.observe(self._take, name)
        self.on_msg(self._asked)

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state, if this view can show it; raises ValueError if not."""
        return state

    @traitlets.validate("state")
    def _known(self, proposal: Any) -> dict[str, Any]:
        state = dict(proposal["value"])
        try:
            if set(state) != self._entries:
                raise ValueError(f"state of {list(state)}: it needs {', '.join(self._entries)}")
            return self.checked(state)
        except ValueError as error:
            raise StateError(str(error)) from error

    def numbered(self, state: dict[str, Any], *names: str) -> dict[str, Any]:
        """The state; raises ValueError where one of these numbers is not one of `sizes`."""
        return state | {name: options.index(name, state[name], self.sizes[name]) for name in names}

    def widen(self, **sizes: int) -> None:
        """Takes note of how much a further model has."""
        self.sizes = {name: max(size, self.sizes[name]) for name, size in sizes.items()}

    def respond(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the browser asked for; raises ValueError where this view knows no such thing."""
        raise ValueError(f"this view does not compute {request}")

    def trials(self) -> list[dict[str, Any]]:
        """Requests that show that `respond` works; a chapter is not published before they do."""
        return []

    def hello(self) -> dict[str, Any]:
        """What the browser learns when it finds that there is a kernel."""
        return {}

    def _give(self, _: Any) -> None:
        """Entries follow the state."""
        for name in self.linked:
            setattr(self, name, self.state[name])

    def _take(self, change: Any) -> None:
        """The state follows an entry, or the entry stays what it was."""
        name, value = change["name"], change["new"]
        if self.state[name] == value:
            return
        try:
            self.state = self.state | {name: value}
        except StateError:
            setattr(self, name, self.state[name])
            raise

    def _asked(self, _: Any, content: dict[str, Any], __: Any) -> None:
        """Answer the browser; an error is shown there, and raised here as well."""
        request = content["request"]
        try:
            if not isinstance(request, dict):
                raise ValueError(f"{request!r:.80} is no request")
            found = self.hello() if request.get("hello") else self.respond(request)
            self.answer = {"id": content["id"], "found": found}
        except Exception as error:
            self.answer = {"id": content["id"], "error": f"{type(error).__name__}: {error}"}
            raise
        finally:
            self.answer = {}  # an answer is sent once, and not kept in the notebook

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget, and for pages without scripts the still picture."""
        made = super()._repr_mimebundle_(**kwargs)
        assert made is not None  # it is where a widget has a front end
        return made[0] | {"text/html": self.still}, made[1]

    def to_html(self, path: str | Path) -> Path:
        """Write the view, in its present state, as one file that needs nothing else."""
        return write(self, Path(path))


def still_picture(figure: Figure, alternative: str) -> str:
    """A figure as an image element that carries its own pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    figure.clear()
    pixels = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img class="qk-still" src="data:image/png;base64,{pixels}" '
        f'alt="{html.escape(alternative)}" style="max-width: 100%; background: white">'
    )

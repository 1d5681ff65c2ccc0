"""What every view is: data, a state that browser and Python share, and one front end for both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from IPython import get_ipython
from matplotlib.figure import Figure

from qkutils import options, store
from qkutils.models import Model
from qkutils.views import _engine, _page
from qkutils.views._origin import needed
from qkutils.views.figures import DIVERGING, PALETTE, SEQUENTIAL


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
    largest model has that a view has met.  `model`: the one that runs in a page, where one does.
    """

    front: str
    sizes: dict[str, int]
    model: Model
    data = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    look = traitlets.Dict().tag(sync=True)
    answer = traitlets.Dict().tag(sync=True)
    code = traitlets.Unicode().tag(sync=True)

    def __init__(
        self, title: str, data: Mapping, state: Mapping, still: Figure, alternative: str
    ) -> None:
        """`still`: a figure of the first state, for pages without scripts; it is cleared."""
        self._esm = _page.front_end(self.front)
        self._css = (_page.FRONT / "view.css").read_text("utf-8")
        maps = {name: _page.colour_map(name) for name in (SEQUENTIAL, DIVERGING)}
        look = {"title": title, "palette": list(PALETTE), "maps": maps}
        self.still = _page.still_picture(still, alternative)
        self._entries = set(state)
        self.linked = sorted(self.traits(entry=True))
        linked = {name: state[name] for name in self.linked}
        shell = get_ipython()  # the code of the cell that runs now
        code = needed(shell.user_ns.get("In", [])) if shell else ""
        super().__init__(data=data, state=state, look=look, code=code, **linked)
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

    def hello(self) -> dict[str, Any] | None:
        """What the browser learns when it finds a kernel; None where that computes nothing."""
        return None

    def _give(self, _: Any) -> None:
        """Entries follow the state."""
        for name in self.linked:
            setattr(self, name, self.state[name])

    def _take(self, change: Any) -> None:
        """The state follows an entry, or the entry stays what it was."""
        name = change["name"]
        try:
            if self.state[name] != change["new"]:
                self.state = self.state | {name: change["new"]}
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
            if found is not None:
                self.answer = {"id": content["id"], "found": found}
        except (Exception, KeyboardInterrupt) as error:
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
        """Write the view, in its present state, as one file that needs nothing else.

        Where a model runs in it: raises ValueError where that makes it larger than 25 MB, or was
        changed since the view was made; FileNotFoundError where the browser's runtime is not here;
        ImportError where the extra `export` is not installed.
        """
        kept = ("data", "state", "look", "code", *self.linked)
        values = {name: getattr(self, name) for name in kept}
        if engine := self.data.get("engine"):
            values["files"] = _engine.carried(**engine | {"model": self.model})
        text = _page.page(self.look["title"], self._css, self.still, self._esm, values)
        if engine and len(text) > _engine.LIMIT:
            size = f"{len(text) / 1e6:.0f} MB, more than {_engine.LIMIT / 1e6:.0f}"
            raise ValueError(f"{path} with {engine['model']} has {size}; choose a smaller model")
        return store.write(Path(path), text)

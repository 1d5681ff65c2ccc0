"""Use the views and controls of a chapter, so that no callback is published untried.

Runs in the chapter's own kernel after its last cell. Jupyter shows what a callback raises, or keeps
it inside an Output widget, and goes on; here it is collected, and one error at the end names all.
"""

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import ipywidgets
from IPython import get_ipython
from ipywidgets.widgets.widget import _instances


def uses(widget: Any) -> Iterator[tuple[str, Any]]:
    """Yield each use of a widget: what it is called, and a function that does it."""
    if isinstance(widget, ipywidgets.Button):
        yield "click", widget.click
    if isinstance(getattr(widget, "index", None), int):
        for index in [*range(len(widget.options)), widget.index]:
            yield f"index = {index}", lambda index=index: widget.set_trait("index", index)
    for request in getattr(widget, "trials", list)():
        yield f"request {request}", lambda request=request: widget.respond(request)
    for name in observed(widget):
        now = getattr(widget, name)
        yield f"change of {name}", lambda name=name, now=now: widget._notify_trait(name, now, now)


def observed(widget: Any) -> list[str]:
    """List the shared traits that the chapter, or a view of its own, observes."""
    heard = [name for name in widget.keys if name in widget._trait_notifiers]
    ready_made = type(widget).__module__.startswith("ipywidgets.")
    return [name for name in heard if name == "value" or not (ready_made or name[0] == "_")]


@contextlib.contextmanager
def shown_errors(record: Callable[[str], None]) -> Iterator[None]:
    """Hand to `record` what Jupyter would only show."""
    shell = get_ipython()
    shell.showtraceback = lambda *_, **__: record(traceback.format_exc())
    try:
        yield
    finally:
        del shell.showtraceback


def faults_of(act: Callable[[], Any]) -> list[str]:
    """Do one thing to a widget, and return what went wrong."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as warned, shown_errors(found.append):
        try:
            act()
        except Exception:
            found.append(traceback.format_exc())
    return found + [f"{w.category.__name__}: {w.message}" for w in warned]


def exercise_all() -> None:
    """Use every live widget, and raise one error that lists all faults."""
    report = []
    for widget in list(_instances.values()):
        name = f"{type(widget).__name__} {getattr(widget, 'description', '')!r}"
        for what, act in uses(widget):
            report += [f"{name}, {what}:\n{fault}" for fault in faults_of(act)]
    if report:
        raise RuntimeError("\n".join(report))

"""Use every control of a chapter as a reader would, so that no callback is published untried.

Runs in the chapter's own kernel after its last cell. Jupyter shows what a callback raises, or keeps
it inside an Output widget, and goes on; here it is collected, and one error at the end names all.
"""

import contextlib
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import ipywidgets
from IPython import get_ipython
from ipywidgets.widgets.widget import _instances


def moves(control: Any) -> tuple[str, list[Any]]:
    """Name the trait that a reader moves, and the values to move it to."""
    value = getattr(control, "value", None)
    if hasattr(control, "index") and hasattr(control, "options"):
        last = len(control.options) - 1
        many = isinstance(control.index, tuple)
        return "index", [(0, last)] if many else list(range(last + 1))
    if hasattr(control, "selected_index"):
        return "selected_index", list(range(len(control.children)))
    if hasattr(control, "min") and hasattr(control, "max"):
        low, high = bounds(control)
        return "value", [(low, low), (high, high)] if isinstance(value, tuple) else [low, high]
    if isinstance(value, bool):
        return "value", [not value]
    if isinstance(control, ipywidgets.Text | ipywidgets.Textarea):
        return "value", [""]
    return "", []


def bounds(control: Any) -> tuple[Any, Any]:
    """Give the smallest and the largest value of a control that has them."""
    if isinstance(control, ipywidgets.FloatLogSlider):
        return control.base**control.min, control.base**control.max
    return control.min, control.max


def observed(widget: Any) -> list[str]:
    """List the shared traits of a custom view that some function observes."""
    if type(widget).__module__.startswith("ipywidgets."):
        return []
    return [name for name in widget.keys if name[0] != "_" and name in widget._trait_notifiers]


def uses(widget: Any) -> Iterator[tuple[str, Any]]:
    """Yield each use of a widget: what it is called, and a function that does it."""
    if isinstance(widget, ipywidgets.Button):
        yield "click", widget.click
    trait, values = moves(widget)
    first = getattr(widget, trait, None)
    for value in [*values, first] if values else []:
        yield f"{trait} = {value!r}", lambda value=value: setattr(widget, trait, value)
    for request in getattr(widget, "trials", list)():
        yield f"request {request}", lambda request=request: widget.respond(request)
    for name in observed(widget):
        now = getattr(widget, name)
        yield f"change of {name}", lambda name=name, now=now: widget._notify_trait(name, now, now)


@contextlib.contextmanager
def nothing_swallowed(record: Any) -> Iterator[None]:
    """Hand to `record` what Jupyter would only show, and let Output widgets pass exceptions on."""
    shell, output = get_ipython(), ipywidgets.Output
    enter, leave = output.__enter__, output.__exit__
    shell.showtraceback = lambda *_, **__: record(traceback.format_exc())
    output.__enter__, output.__exit__ = lambda self: self, lambda self, *_: None
    try:
        yield
    finally:
        del shell.showtraceback
        output.__enter__, output.__exit__ = enter, leave


def faults_of(act: Any) -> list[str]:
    """Do one thing to a widget, and return what went wrong."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as warned, nothing_swallowed(found.append):
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

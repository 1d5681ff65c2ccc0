"""The stepper: finished figures, one slider, and a link that the browser follows by itself."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from qkutils import views


def figures(count):
    return [Figure(figsize=(1, 1)) for _ in range(count)]


def test_slider_and_pictures_are_linked_in_the_browser(monkeypatch):
    linked = []
    monkeypatch.setattr(views.stepping.widgets, "jslink", lambda *ends: linked.append(ends))
    slider, stack = views.stepper(figures(3), [0, 1, 2], ["a", "b", "c"], "layer").children
    assert slider.options == ("0", "1", "2") and slider.description == "layer"
    assert len(stack.children) == 3 and stack.selected_index == 0
    assert linked == [((slider, "index"), (stack, "selected_index"))]


def test_alternative_texts_are_there_and_escaped():
    view = views.stepper(figures(1), ["one"], ['<b>"bold"</b>'], "step")
    markup = view.children[1].children[0].value
    assert 'alt="&lt;b&gt;&quot;bold&quot;&lt;/b&gt;"' in markup
    assert markup.startswith('<img src="data:image/png;base64,')


@pytest.mark.parametrize("counts", [(0, 0, 0), (2, 1, 2), (2, 2, 1)])
def test_figures_names_and_texts_have_to_match(counts):
    shown, names, texts = counts
    with pytest.raises(ValueError, match="one name and one text for each figure"):
        views.stepper(figures(shown), ["n"] * names, ["t"] * texts, "step")

"""The mode browser: every head's modes, and the pictures that a mode responds to most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from qkutils import models, options
from qkutils.atlas import check_atlas, galleries, mode_maps, optimal_pictures
from qkutils.models import AnyModel
from qkutils.modes import decompose, weighted_cosine
from qkutils.pictures import Pictures, pictures_of
from qkutils.provenance import convention_of, refuse_foreign
from qkutils.views import gallery_figures as figures
from qkutils.views._arrays import packed
from qkutils.views._base import View, entry
from qkutils.views._shelf import BUDGET, Named, Shelf, fits, fitting, in_words, pictures_in

PLACE = ("layer", "head", "mode")
COLOURS = ("weighted_cosine", "cosine", "sigma", "carried")
OF_PICTURES = ("image", "score", "query_patch", "key_patch")
HIDDEN = {"named": False, "picture": None}  # until the reader asks for them
NAMED = ("family", "high", "low", "share", "p", "q", "p_random", "q_random")
Names = Mapping[tuple[int, int, int], str] | xr.Dataset


class ModeBrowser(View):
    """The view that `mode_browser` makes."""

    front = "mode_browser"
    layer = entry()
    head = entry()
    mode = entry()

    def __init__(
        self, shelf: Shelf, atlas: xr.Dataset, parts: xr.Dataset, named: Named, *shown: Any
    ) -> None:
        """What answers requests, and what is shown."""
        self.shelf, self.atlas, self.parts, self.named = shelf, atlas, parts, named
        self.sizes = {name: atlas.sizes[name] for name in (*PLACE, "picture")}
        super().__init__("Mode browser", *shown)

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """A mode and a picture that there are, and a map that was measured."""
        options.choice("sign", state["sign"], (1, -1))
        options.choice("show", state["show"], ("both", "query", "key"))
        maps = [name for name in COLOURS if name in self.data["facts"]]
        options.choice("colour", state["colour"], maps)
        named = {"named": options.flag("named", state["named"])}
        picture = () if state["picture"] is None else ("picture",)
        return self.numbered(state, *PLACE, *picture) | named

    def hello(self) -> dict[str, Any]:
        """How many pictures there are, on each of which a mode can be looked at."""
        return {"pictures": len(self.shelf.pictures.keys)}

    def respond(self, request: dict[str, Any]) -> dict[str, Any]:
        """The optimal pictures of one more mode, or its maps on a picture of the source."""
        if set(request) not in ({*PLACE}, {*PLACE, "picture"}):
            return super().respond(request)
        self.numbered(request, *PLACE)
        if "picture" in request:
            return self._one(**request)
        part = self.atlas.isel({name: [request[name]] for name in PLACE})
        found = _front(self.shelf, part, self.parts, self.named)
        carried = self.data["pictures"]
        fresh = {n: p for n, p in pictures_in(self.shelf, part).items() if n not in carried}
        return {"gallery": found, "pictures": fresh}

    def _one(self, layer: int, head: int, mode: int, picture: int) -> dict[str, Any]:
        """A mode's maps on any picture of the source, sign +."""
        options.index("picture", picture, len(self.shelf.pictures.keys))
        image = self.shelf.pictures.read(picture)[None]
        of_head = mode_maps(
            self.shelf.model, image, layer=layer, head=head, convention=convention_of(self.atlas)
        )
        both = of_head.isel(image=0, mode=mode)
        values = np.stack([both["query"].values.ravel(), both["key"].values.ravel()])
        return {"maps": packed(values, "float32"), "pictures": {str(picture): self.shelf[picture]}}

    def trials(self) -> list[dict[str, Any]]:
        """The last mode of the last head, and the first picture with it."""
        last = {name: self.atlas.sizes[name] - 1 for name in PLACE}
        return [last, last | {"picture": 0}]


def mode_browser(
    model: AnyModel,
    atlas: xr.Dataset,
    images: Any,
    *,
    modes: Sequence[int] | None = None,
    top: int = 4,
    heads: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    names: Names | None = None,
) -> ModeBrowser:
    """Show a map of all heads, and of each mode, in either sign, its optimal pictures and facts.

    Red asks, cyan answers, and white does both, on one scale for all pictures of a mode.  A page
    with no kernel knows the facts of all modes, and carries the pictures of some.  In a notebook
    the other pictures are computed when they are asked for.  Paper figures 1, 4, S5–S16.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    atlas
        What `scan` found on `images`.
    images
        The pictures that were scanned.
    modes, heads, layers
        Whose pictures a page carries.  Without, all heads and layers, and as many of the first six
        modes as fit in 1.45 MB.
    top
        How many of the best pictures of a mode it carries.
    names
        What `studies.names` measured, or a text for each (layer, head, mode).

    Returns
    -------
    ModeBrowser
        A widget; its `state` says what is chosen.

    Raises
    ------
    ValueError
        Where atlas, model, images or names do not belong together, and where `modes` need more
        room.

    Examples
    --------
    >>> import qkutils as qk
    >>> images = qk.world.pictures(0, 0, 8)
    >>> model = qk.load("tiny-supervised")
    >>> atlas = qk.scan(model, images, k=2, progress=False)
    >>> view = qk.views.mode_browser(model, atlas, images, modes=[0], heads=[1])
    >>> view.state["mode"], view.state["sign"]
    (0, 1)
    """
    check_atlas(atlas, whole=True)
    top = options.count("top", top)
    asked = {"layer": layers, "head": heads, "mode": modes}
    chosen = {name: _chosen(name, values, atlas) for name, values in asked.items()}
    loaded = models.load(model)
    pictures = pictures_of(images, loaded)
    parts = decompose(loaded, convention=convention_of(atlas))
    _belong(atlas, loaded, pictures)
    best = atlas.isel(rank=slice(top))
    part = best.isel(chosen)
    shelf, named = Shelf(loaded, pictures), _naming(names, atlas)
    if modes is None:
        part = fitting(part, atlas, shelf, named)
    elif not fits(part, atlas, shelf, named):
        raise ValueError(
            f"modes={list(modes)}: their pictures need more than the {BUDGET / 1e6:.2f} MB of a "
            "page; name fewer modes, heads= or layers=, or a smaller top=, or leave out modes= to "
            "carry as many as fit; a notebook computes the others when they are looked at"
        )
    facts = _facts(loaded, atlas, parts)
    state = _first(facts, part)
    return ModeBrowser(
        *(shelf, best, parts, named),
        _frame(facts, loaded, shelf, best.sizes["rank"])
        | _carried(shelf, part, atlas, parts, named)
        | {"naming": _kind(names)},
        state | {"sign": 1, "show": "both", "colour": "weighted_cosine"} | HIDDEN,
        _still(facts, optimal_pictures(loaded, pictures, best, *state.values()), state),
        _alternative(loaded.name, state),
    )


# ---- what is asked for ---------------------------------------------------------------------------


def _chosen(name: str, values: Sequence[int] | None, atlas: xr.Dataset) -> list[int]:
    """The layers, heads or modes that a page is to carry; all of them where none are named."""
    every = atlas.sizes[name]
    return (
        list(range(every)) if values is None else sorted(options.indices(f"{name}s", values, every))
    )


def _belong(atlas: xr.Dataset, model: models.Model, pictures: Pictures) -> None:
    """Raises ValueError where the atlas is of another model or other pictures."""
    refuse_foreign("the atlas", atlas, model)
    if list(atlas.attrs["grid"]) != list(model.grid):
        raise ValueError(f"the atlas has a grid of {atlas.attrs['grid']}, not {model.grid} patches")
    if list(atlas.key.values) != pictures.keys:
        raise ValueError(
            f"the atlas is of {atlas.sizes['picture']} pictures, not of these "
            f"{len(pictures.keys)}, or they have other keys; give what was scanned"
        )


# ---- for the browser -----------------------------------------------------------------------------


def _facts(model: models.Model, atlas: xr.Dataset, parts: xr.Dataset) -> xr.Dataset:
    """What is known of every mode with no picture, and what it carries on pictures."""
    facts = parts[["sigma", "cosine"]].assign(
        weighted_cosine=weighted_cosine(model, convention=convention_of(atlas)),
        share=parts.sigma / parts.sigma.sum("mode").clip(min=1e-30),
        mark=parts.null_mode + 2 * parts.degenerate,
    )
    if "logit_variance" in atlas:
        total = atlas.logit_variance.sum("mode") + atlas.salience_variance
        facts["carried"] = atlas.logit_variance / total.clip(min=1e-30)
    return facts


def _frame(facts: xr.Dataset, model: models.Model, shelf: Shelf, top: int) -> dict[str, Any]:
    sizes = {name: facts.sizes[name] for name in PLACE}
    numbers = {str(name): packed(values.values, "float32") for name, values in facts.items()}
    frame = {"grid": list(model.grid), "shape": list(shelf.shape), "top": top}
    return {"sizes": sizes, "facts": numbers, "model": model.name} | frame


def _carried(
    shelf: Shelf, part: xr.Dataset, atlas: xr.Dataset, parts: xr.Dataset, named: Named
) -> dict[str, Any]:
    """The modes whose pictures a page has, these pictures, and what they are in words."""
    sent = pictures_in(shelf, part)
    said = in_words(part, atlas, len(sent))
    return {"gallery": _front(shelf, part, parts, named), "pictures": sent, "carried": said}


def _front(shelf: Shelf, part: xr.Dataset, parts: xr.Dataset, named: Named) -> dict[str, Any]:
    """Some modes' optimal pictures by number, their maps, and the projection of full colour."""
    shown = galleries(shelf.model, shelf.pictures, part, parts)
    numbers: dict[str, Any] = {
        name: packed(part[name].fillna(0).values, "float32") for name in OF_PICTURES
    }
    for side in ("query", "key"):
        limit = shown[side].max(("sign", "rank", "row", "column")).clip(min=1e-12)
        share = (shown[side] / limit).clip(0, 1)
        numbers[side] = packed(share.values, "uint8")
        numbers[f"{side}_limit"] = packed(limit.values, "float32")
    places = {f"{name}s": [int(n) for n in part[name].values] for name in PLACE}
    at = [(a, b, c) for a in places["layers"] for b in places["heads"] for c in places["modes"]]
    return places | numbers | {"names": {f"{a} {b} {c}": named(a, b, c) for a, b, c in at}}


def _first(facts: xr.Dataset, part: xr.Dataset) -> dict[str, int]:
    """The carried mode that is shown first: with pictures, and the most variance or strength."""
    score = facts["carried" if "carried" in facts else "share"]
    there = (part.image.isel(rank=0) >= 0).all("sign")
    if not there.any():
        there = (part.image.isel(rank=0) >= 0).any("sign")
    if not there.any():
        raise ValueError("the atlas has no picture of these modes; scan more pictures")
    here = score.isel({name: part[name].values for name in PLACE}).where(there.values, -1)
    best = here.argmax(...)
    return {name: int(here[name][best[name]]) for name in PLACE}


def _kind(names: Names | None) -> str | None:
    """What a reader is offered to be shown."""
    if names is None:
        return None
    return "measured name" if isinstance(names, xr.Dataset) else "name"


def _naming(names: Names | None, atlas: xr.Dataset) -> Named:
    """A function that gives the rows of facts about a mode's names, for each sign."""
    if names is None:
        return lambda *_: {}
    if isinstance(names, xr.Dataset):
        return _measured(names, atlas)
    for key in names:
        place = dict(zip(PLACE, key, strict=False))
        for name in PLACE:
            options.index(f"names: {name}", place.get(name), atlas.sizes[name])

    def given(layer: int, head: int, mode: int) -> dict[str, list[list[str]]]:
        place = layer, head, mode
        rows = [["name", str(names[place])]] if place in names else []
        return {"1": rows, "-1": rows}

    return given


def _measured(names: xr.Dataset, atlas: xr.Dataset) -> Named:
    """Names of both directions: a label of the family that explains most of the projection."""
    if "fingerprint" not in names.coords:
        raise ValueError("names: they do not say whose they are; give what name_modes returned")
    if names.fingerprint.item() != atlas.fingerprint.item():
        raise ValueError(
            f"names are of {names.model.item()}, which has other weights than the atlas's model"
        )
    options.with_fields("names", names, *NAMED)
    dims = (*PLACE, "side")
    table = {n: names[n].transpose(*dims).values for n in NAMED[:4]}
    leaning = names[["p_random", "q_random"]].sel(null="leaning")
    tests = {
        "labels of other scenes": (names.p, names.q),
        "random directions": (leaning.p_random, leaning.q_random),
    }
    told = {
        what: [values.transpose(*dims).values for values in both] for what, both in tests.items()
    }

    def row(end: str, place: tuple[int, ...], number: int, side: str) -> list[str]:
        at = (*place, number)
        share = f"{100 * table['share'][at]:.0f} %".replace("-", "−")
        verdicts = [_verdict(what, float(p[at]), float(q[at])) for what, (p, q) in told.items()]
        return [
            f"{side} name",
            f"{table[end][at]} (family {table['family'][at]}); explained share {share} on other "
            f"scenes; {'; '.join(verdicts)}",
        ]

    def given(*place: int) -> dict[str, list[list[str]]]:
        sides = list(enumerate(str(side) for side in names.side.values))
        ends = {"1": "high", "-1": "low"}
        return {sign: [row(end, place, n, s) for n, s in sides] for sign, end in ends.items()}

    return given


def _verdict(what: str, p: float, q: float) -> str:
    """Whether a name is told from chance; a test that is not passed shows no equality."""
    known = "told" if q < 0.05 else "not told"
    return f"{known} from {what} after correction (p = {p:.2g}, corrected {q:.2g})"


def _alternative(name: str, state: Mapping[str, int]) -> str:
    return (
        f"Map of the weighted cosine of every head of {name}. Below, pictures to which layer "
        f"{state['layer']}, head {state['head']}, mode {state['mode']} responds most, in both "
        "signs, with what asks in red and what answers in cyan."
    )


def _still(facts: xr.Dataset, found: xr.Dataset, state: Mapping[str, int]) -> Figure:
    count = 2 * found.sizes["rank"]
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    grid = figure.add_gridspec(3, count, height_ratios=(2.4, 1, 1))
    figures.head_map(figure.add_subplot(grid[0, :]), facts.weighted_cosine, "weighted cosine")
    axes = np.array([[figure.add_subplot(grid[row, n]) for n in range(count)] for row in (1, 2)])
    label = "L{layer} H{head} M{mode}".format(**state)
    figures.gallery_rows(axes, found, f"{label}\ncos {float(facts.cosine.sel(state)):+.2f}")
    return figure

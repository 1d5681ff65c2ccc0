"""The mode browser: every head's modes, and the pictures that a mode responds to most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import xarray as xr
from matplotlib.figure import Figure

from qkutils import models, options
from qkutils.atlas import check_atlas, mode_maps
from qkutils.modes import weighted_cosine
from qkutils.pictures import Pictures, pictures_of
from qkutils.provenance import convention_of, refuse_foreign
from qkutils.views import _shelf
from qkutils.views import gallery_figures as figures
from qkutils.views._arrays import decoded, packed
from qkutils.views._base import View, entry
from qkutils.views._shelf import PLACE, SIDES, Sent, Shelf, numbers, sent_gallery, sent_picture

COLOURS = ("weighted_cosine", "cosine", "sigma", "carried")
CHOSEN = {"sign": 1, "show": "both", "colour": "weighted_cosine"}
HIDDEN = {"named": False, "picture": None}  # until the reader asks for them
SHOWN = {name: f"shown_{name}" for name in PLACE}  # of those modes whose pictures are there
NAMED = ("family", "high", "low", "share", "p", "q", "p_random", "q_random")
Names = Mapping[tuple[int, int, int], str] | xr.Dataset


class ModeBrowser(View):
    """Facts of all modes and the pictures of some, as they were found; it computes no others.

    `found` holds them over (layer, head, mode) and (shown_layer, shown_head, shown_mode).
    """

    front = "mode_browser"
    title = "Mode browser: {}"
    layer = entry()
    head = entry()
    mode = entry()

    def __init__(
        self,
        found: xr.Dataset,
        pictures: Sent,
        names: _shelf.Names | None = None,
        naming: str | None = None,
    ) -> None:
        """`naming`: what a reader is offered to be shown, where there are `names`."""
        self.found = found
        self.sizes = {name: found.sizes[name] for name in PLACE}
        place, gallery = _first(found), _gallery(found)
        facts = {name: packed(found[name].values, "float32") for name in _facts_in(found)}
        data = {
            **{"sizes": self.sizes, "model": found.model.item(), "facts": facts},
            "grid": [found.sizes["row"], found.sizes["column"]],
            "shape": [*decoded(next(iter(pictures.values()))).shape[:2]],
            **{"top": int(found.attrs["top"]), "pictures": pictures},
            **{"gallery": sent_gallery(gallery, names or {}), "naming": naming},
        }
        shown = _still(found, _pictured(gallery.sel(place), pictures), place)
        title = self.title.format(found.model.item())
        super().__init__(title, data, place | CHOSEN | HIDDEN, *shown)

    @classmethod
    def of(cls, found: xr.Dataset, images: Mapping[str, PIL.Image.Image]) -> ModeBrowser:
        """Show again what a browser has `found`, with no model at hand.

        Parameters
        ----------
        found
            The attribute of a mode browser.
        images
            The pictures that it showed, as the model saw them, by their keys.

        Returns
        -------
        ModeBrowser
            A widget that shows the same, and computes no more.

        Raises
        ------
        KeyError
            Where a picture is missing.

        Examples
        --------
        >>> import qkutils as qk
        >>> images = qk.world.pictures(0, 0, 8)
        >>> atlas = qk.scan("tiny-supervised", images, k=2, progress=False)
        >>> live = qk.views.mode_browser("tiny-supervised", atlas, images, modes=[0], heads=[1])
        >>> named = dict(zip(live.found.picture.values, images, strict=True))
        >>> view = qk.views.ModeBrowser.of(live.found, named)
        >>> view.state == live.state
        True
        """
        keys, grid = found.picture.values, (found.sizes["row"], found.sizes["column"])
        shown = {n: str(keys[n]) for n in numbers(found.image)}
        return cls(found, {str(n): sent_picture(k, images[k], grid) for n, k in shown.items()})

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """A mode that there is, and a map that was measured."""
        options.choice("sign", state["sign"], (1, -1))
        options.choice("show", state["show"], ("both", "query", "key"))
        options.choice("colour", state["colour"], [n for n in COLOURS if n in self.found])
        options.choice("picture", state["picture"], [None])
        return self.numbered(state, *PLACE) | {"named": options.flag("named", state["named"])}


class LiveModeBrowser(ModeBrowser):
    """The view that `mode_browser` makes: it computes what the page does not carry."""

    title = "Mode browser"

    def __init__(self, shelf: Shelf, found: xr.Dataset, naming: str | None) -> None:
        """`shelf` answers; `found`: what the page carries."""
        self.shelf = shelf
        super().__init__(found, shelf.sent(found), shelf.names, naming)
        self.sizes = self.sizes | {"picture": found.sizes["picture"]}

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Any picture of the source, too."""
        picture = () if state["picture"] is None else ("picture",)
        known = super().checked(state | {"picture": None})
        return self.numbered(known | {"picture": state["picture"]}, *picture)

    def hello(self) -> dict[str, Any]:
        """How many pictures there are, on each of which a mode can be looked at."""
        return {"pictures": self.sizes["picture"]}

    def respond(self, request: dict[str, Any]) -> dict[str, Any]:
        """The optimal pictures of one more mode, or its maps on a picture of the source."""
        if set(request) not in ({*PLACE}, {*PLACE, "picture"}):
            return super().respond(request)
        at = self.numbered(request, *request)
        if "picture" in at:
            return self._one(**at)
        part = self.shelf.best.isel({name: [at[name]] for name in PLACE})
        carried = self.data["pictures"]
        fresh = {n: p for n, p in self.shelf.sent(part).items() if n not in carried}
        gallery = sent_gallery(self.shelf.gallery(part), self.shelf.names)
        return {"gallery": gallery, "pictures": fresh}

    def _one(self, layer: int, head: int, mode: int, picture: int) -> dict[str, Any]:
        """A mode's maps on any picture of the source, sign +."""
        shelf, convention = self.shelf, convention_of(self.shelf.best)
        image = shelf.pictures.read(picture)[None]
        maps = mode_maps(shelf.model, image, layer=layer, head=head, convention=convention)
        of_mode = maps.isel(image=0, mode=mode)
        values = np.stack([of_mode[side].values.ravel() for side in SIDES])
        sent = {str(picture): shelf.picture(picture)}
        return {"maps": packed(values, "float32"), "pictures": sent}

    def trials(self) -> list[dict[str, Any]]:
        """The last mode of the last head, and the first picture with it."""
        last = {name: self.sizes[name] - 1 for name in PLACE}
        return [last, last | {"picture": 0}]


def mode_browser(
    model: models.AnyModel,
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
    chosen = {}
    for name, values in {"layer": layers, "head": heads, "mode": modes}.items():
        wanted = range(atlas.sizes[name]) if values is None else values
        chosen[name] = sorted(options.indices(f"{name}s", wanted, atlas.sizes[name]))
    loaded = models.load(model)
    pictures = pictures_of(images, loaded)
    _belong(atlas, loaded, pictures)
    best = atlas.isel(rank=slice(top))
    naming, rows = _naming(names, atlas)
    shelf, part = Shelf(loaded, pictures, best, rows), best.isel(chosen)
    if modes is None:
        part = shelf.fitting(part)
    elif not shelf.fits(part):
        raise ValueError(
            f"modes={list(modes)} need more than the {_shelf.BUDGET / 1e6:.2f} MB of a page; fewer "
            "modes, heads=, layers= or a smaller top= fit; without modes=, as many as fit are taken"
        )
    if not (part.image >= 0).any():
        raise ValueError("the atlas has no picture of these modes; scan more pictures")
    facts = _facts(shelf).assign_coords(picture=best.key.values)
    found = facts.assign(shelf.gallery(part).rename(SHOWN).data_vars)
    return LiveModeBrowser(shelf, found.assign_attrs(top=best.sizes["rank"]), naming)


def _belong(atlas: xr.Dataset, model: models.Model, pictures: Pictures) -> None:
    """Raises ValueError where the atlas is of another model or other pictures."""
    refuse_foreign("the atlas", atlas, model)
    if list(atlas.attrs["grid"]) != list(model.grid):
        raise ValueError(f"the atlas has a grid of {atlas.attrs['grid']}, not {model.grid} patches")
    if list(atlas.key.values) != pictures.keys:
        raise ValueError("images: the atlas is of others, or their keys are; give what was scanned")


def _facts(shelf: Shelf) -> xr.Dataset:
    """What is known of every mode with no picture, and what it carries on pictures."""
    parts, atlas = shelf.parts, shelf.best
    facts = parts[["sigma", "cosine"]].assign(
        weighted_cosine=weighted_cosine(shelf.model, convention=convention_of(atlas)),
        share=parts.sigma / parts.sigma.sum("mode").clip(min=1e-30),
        mark=parts.null_mode + 2 * parts.degenerate,
    )
    if "logit_variance" in atlas:
        total = atlas.logit_variance.sum("mode") + atlas.salience_variance
        facts["carried"] = atlas.logit_variance / total.clip(min=1e-30)
    return facts


def _facts_in(found: xr.Dataset) -> list[str]:
    return [str(name) for name, values in found.items() if values.dims[0] == "layer"]


def _gallery(found: xr.Dataset) -> xr.Dataset:
    """Those modes whose pictures are there, under their own names."""
    gallery = found.drop_vars([*_facts_in(found), *PLACE, "picture"])
    return gallery.rename({shown: name for name, shown in SHOWN.items()})


def _first(found: xr.Dataset) -> dict[str, int]:
    """The mode that is shown first: with pictures, and the most variance or strength."""
    gallery = _gallery(found)
    there = gallery.image.isel(rank=0) >= 0
    shown = there.all("sign") if there.all("sign").any() else there.any("sign")
    score = found["carried" if "carried" in found else "share"]
    here = score.isel({name: gallery[name].values for name in PLACE}).where(shown.values, -1)
    best = here.argmax(...)
    return {name: int(here[name][best[name]]) for name in PLACE}


def _pictured(one: xr.Dataset, pictures: Sent) -> xr.Dataset:
    """One mode's pictures and maps as `optimal_pictures` has them, from what is sent."""
    seen = {n: decoded(pictures[str(n)]) for n in numbers(one.image)}
    empty = np.zeros_like(next(iter(seen.values())))
    rows = [[seen.get(n, empty) for n in row] for row in one.image.values.tolist()]
    picture = ("sign", "rank", "height", "width", "channel"), np.stack([*map(np.stack, rows)])
    there = one.image >= 0
    maps = {side: one[side] * one[f"{side}_limit"] for side in SIDES}
    full = one.assign(maps | {"picture": picture, "there": there})
    return full.isel(rank=there.any("sign").values)


def _still(found: xr.Dataset, one: xr.Dataset, at: Mapping[str, int]) -> tuple[Figure, str]:
    """The map of heads over the first mode's pictures, and the same in words."""
    count = 2 * one.sizes["rank"]
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    grid = figure.add_gridspec(3, count, height_ratios=(2.4, 1, 1))
    figures.head_map(figure.add_subplot(grid[0, :]), found.weighted_cosine, "weighted cosine")
    axes = np.array([[figure.add_subplot(grid[row, n]) for n in range(count)] for row in (1, 2)])
    label = "L{layer} H{head} M{mode}".format(**at)
    figures.gallery_rows(axes, one, f"{label}\ncos {float(found.cosine.sel(at)):+.2f}")
    return figure, (
        f"Map of the weighted cosine of every head of {found.model.item()}. Below, pictures to "
        f"which layer {at['layer']}, head {at['head']}, mode {at['mode']} responds most, in both "
        "signs, with what asks in red and what answers in cyan."
    )


# ---- names ---------------------------------------------------------------------------------------


def _naming(names: Names | None, atlas: xr.Dataset) -> tuple[str | None, _shelf.Names]:
    """What a reader is offered to be shown, and what is known of every mode's names."""
    if names is None:
        return None, {}
    known: _shelf.Names = {}
    if isinstance(names, xr.Dataset):
        for row in _measured(names, atlas).to_dict("records"):
            known.setdefault(tuple(row.pop(name) for name in PLACE), []).append(row)
        return "measured name", known
    for key, text in names.items():
        place = dict(zip(PLACE, key, strict=False))
        at = [options.index(f"names: {n}", place.get(n), atlas.sizes[n]) for n in PLACE]
        known[tuple(at)] = [{"text": str(text)}]
    return "name", known


def _measured(names: xr.Dataset, atlas: xr.Dataset) -> pd.DataFrame:
    """Each direction's family, labels and tests, beside random directions that lean as it does."""
    if "fingerprint" not in names.coords:
        raise ValueError("names: they do not say whose they are; give what name_modes returned")
    if names.fingerprint.item() != atlas.fingerprint.item():
        raise ValueError(f"names are of {names.model.item()}: other weights than the atlas is of")
    options.with_fields("names", names, *NAMED)
    table = names[[*NAMED]].sel(null="leaning").to_dataframe(dim_order=[*PLACE, "side"])
    return table[[*NAMED]].round(7).reset_index()

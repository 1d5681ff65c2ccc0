"""One image, many modes: a head's scores on one image taken apart, and built up mode by mode."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import PIL.Image
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import softmax
from torch import Tensor

from qkutils import models, options, studies
from qkutils.attention import observed_attention, token_factors
from qkutils.modes import decompose
from qkutils.pictures import Pictures, open_picture, pictures_of
from qkutils.views import _room
from qkutils.views import figures as plots
from qkutils.views._arrays import Form, encoded, packed, seen
from qkutils.views._base import View, entry
from qkutils.views.figures import Map

_LAYERS = 6  # how many are carried before heads are thinned
_FORMS: dict[str, Form] = {"query": "float16", "key": "float16", "salience": "float32"}
_FORMS |= {"sigma": "float32", "cosine": "float32"}


class Taken:
    """One image as one model takes it, with what every head makes of it."""

    def __init__(self, model: models.Model, name: str, image: Tensor) -> None:
        """`name` is the image's.  Raises ValueError for a model with a position bias."""
        if model.heads.position_bias is not None:
            told = "its attention has a position bias, which this view does not show"
            raise ValueError(f"{model.name}: {told}; use studies.one_image")
        self.model, self.name, self.image = model, name, image
        self.parts = decompose(model, convention="exact")
        self.factors = token_factors(model, image[None], self.parts).isel(image=0)
        self.attention = observed_attention(model, image[None]).isel(image=0)
        self.scale = float(model.heads.scale)
        self.counts = _room.counts(model) | {"mode": self.parts.sizes["mode"]}

    def found(self, layers: Sequence[int], heads: Sequence[int]) -> xr.Dataset:
        """Some heads: z·u and z·v of every token, rounded to halves, and the rest per mode.

        `astray` is how far attention from these rounded numbers lies from the model's own.
        """
        at = {"layer": [*layers], "head": [*heads]}
        for name, chosen in at.items():
            options.indices(name, chosen, self.counts[name])
        parts, own = self.parts[["sigma", "cosine"]].sel(at), self.factors.isel(at)
        own = own[["query", "key", "salience"]].rename(rank="mode")
        strength = parts.sigma * self.scale
        step = strength.where(parts.sigma > 0, 1)  # without strength all is 0 already
        sides = {"query": (own["query"] / step).astype("f2"), "key": own["key"].astype("f2")}
        asking = (sides["query"] * strength).rename(token="asking")
        logits = xr.dot(asking, sides["key"].astype(float), dim="mode") + own.salience
        made = softmax(logits.transpose("layer", "head", "asking", "token").values, -1)
        apart = abs(made - self.attention.sel(at).values).sum(-1).max(-1) / 2
        rest = {"salience": own.salience, "astray": (("layer", "head"), apart)}
        found = parts.astype("f4").assign(sides | rest)
        size = [self.counts[name] for name in ("layer", "head")]
        said = {"name": self.name, "scale": self.scale, "size": size}
        said |= {"grid": list(self.model.grid), "prefix": self.model.prefix_names}
        return found.assign_attrs(self.factors.attrs | said)

    @property
    def seen(self) -> PIL.Image.Image:
        """The image as a person sees it."""
        return seen(self.model, self.image)

    def head(self, layer: int, head: int) -> dict[str, Any]:
        """One head as the browser takes it."""
        return _heads(self.found([layer], [head]))[0]


def _heads(found: xr.Dataset) -> list[dict[str, Any]]:
    """Heads as the browser takes them."""
    sent = []
    for layer, head in product(found.layer.values.tolist(), found["head"].values.tolist()):
        own = found.sel(layer=layer, head=head)
        numbers = {name: packed(own[name].values, form) for name, form in _FORMS.items()}
        sent.append({"layer": layer, "head": head} | numbers | {"astray": float(own.astray)})
    return sent


def _front(found: xr.Dataset, image: PIL.Image.Image) -> dict[str, Any]:
    """What the browser is sent of an image and of some heads."""
    return {
        "model": found.model.item(),
        "name": found.attrs["name"],
        "picture": encoded(image),
        "grid": _numbers(found, "grid"),
        "prefix": _prefix(found),
        "size": _numbers(found, "size"),
        "scale": float(found.attrs["scale"]),
        "heads": _heads(found),
    }


def _numbers(found: xr.Dataset, name: str) -> list[int]:
    return [int(n) for n in found.attrs[name]]


def _prefix(found: xr.Dataset) -> list[str]:
    return [str(name) for name in np.atleast_1d(found.attrs["prefix"])]  # a file has one name alone


class OneImage(View):
    """Show some heads on one image, as a view `found` them, with no model at hand.

    Parameters
    ----------
    found
        The attribute of a view of one image.
    image
        The picture that it showed, as the model saw it.

    Examples
    --------
    >>> import qkutils as qk
    >>> picture = qk.world.pictures(0, 0, 1)[0]
    >>> live = qk.views.one_image("tiny-supervised", picture, layers=[3], heads=[0, 1])
    >>> view = qk.views.OneImage(live.found, picture)
    >>> view.state == live.state
    True
    """

    front = "one_image"
    title = "One image, many modes: {}"
    layer = entry()
    head = entry()
    mode = entry()

    def __init__(self, found: xr.Dataset, image: PIL.Image.Image) -> None:
        """It computes nothing but what is drawn."""
        self.found = found
        depth, width = _numbers(found, "size")
        self.sizes = {"layer": depth, "head": width, "patch": int(np.prod(found.attrs["grid"]))}
        self.sizes["mode"] = found.sizes["mode"]
        self.tokens = {"patch", "all", *_prefix(found)}
        kept = min(3, found.sizes["mode"])
        begin = ("layer", "head", "patch")
        state: dict[str, Any] = {name: int(found.attrs[name]) for name in begin}
        state |= {"asks": "patch", "salience": True, "kept": kept, "order": "contribution"}
        state |= {"mode": None}  # none chosen: the first in this order
        shown = _still(found, image, kept)
        title = self.title.format(found.model.item())
        super().__init__(title, _front(found, image), state, *shown)

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """What the largest model has that was asked for."""
        options.choice("asks", state["asks"], sorted(self.tokens))
        options.choice("order", state["order"], ("contribution", "sigma"))
        more: dict[str, Any] = {"salience": options.flag("salience", state["salience"])}
        more["kept"] = options.count("kept", state["kept"], 0, self.sizes["mode"])
        numbers = ("layer", "head", "patch", *(["mode"] if state["mode"] is not None else []))
        return self.numbered(state, *numbers) | more


class LiveOneImage(OneImage):
    """The view that `one_image` makes: it computes what the page does not carry."""

    title = "One image, many modes"

    def __init__(self, taken: Taken, pictures: Pictures, found: xr.Dataset) -> None:
        """`taken`: the first of the `pictures`, as the view's own model takes it."""
        self.model, self.pictures = taken.model, pictures
        self.taken = {(taken.model.name, 0): taken}
        self.uploads: list[tuple[str, PIL.Image.Image]] = []
        super().__init__(found, taken.seen)

    def hello(self) -> dict[str, Any]:
        """Models and the number of pictures that can be asked for; all heads can be."""
        names = [self.model.name, *models.at_hand()]
        return {"models": list(dict.fromkeys(names)), "pictures": len(self.pictures.keys)}

    def respond(self, request: dict[str, Any]) -> dict[str, Any]:
        """Another image or model, one more head, or a picture of the reader's own."""
        match request:
            case {"model": name, "image": number, "layer": layer, "head": head}:
                return {"head": self._taken(name, number).head(layer, head)}
            case {"model": name, "image": number}:
                return self._whole(name, number)
            case {"model": name, "upload": content, "name": called}:
                self.uploads.append((called, _picture(content, called)))
                return self._whole(name, len(self.pictures.keys) + len(self.uploads) - 1)
        return super().respond(request)

    def trials(self) -> list[dict[str, Any]]:
        """The last picture, a head, another model, and an upload."""
        own = {"model": self.model.name}
        other = next(name for name in models.at_hand() if name != self.model.name)
        file = encoded(PIL.Image.new("RGB", (20, 30)))["bytes"]
        upload = {"upload": base64.b64encode(file).decode(), "name": "grey.png"}
        place = {"image": 0, "layer": 0, "head": 0}
        last = {"image": len(self.pictures.keys) - 1}
        return [own | last, own | place, {"model": other, "image": 0}, own | upload]

    def _whole(self, name: str, number: int) -> dict[str, Any]:
        """An image with as many heads as a page would carry; further ones come when asked for."""
        taken = self._taken(name, number)
        self.widen(**taken.counts)
        self.tokens |= {*taken.model.prefix_names}
        carried = _room.carried(taken.model, None, None, _LAYERS)
        return {"image": number, "data": _front(taken.found(*carried), taken.seen)}

    def _taken(self, name: str, number: int) -> Taken:
        """What a model makes of a picture; the last one is kept, for its other heads."""
        if (name, number) not in self.taken:
            model = self.model if name == self.model.name else models.load(name)
            self.taken = {(name, number): Taken(model, *self._image(model, number))}
        return self.taken[name, number]

    def _image(self, model: models.Model, number: int) -> tuple[str, Tensor]:
        """A picture's name and tensor; other models see what this view's own model sees of it."""
        given = len(self.pictures.keys)
        number = options.index("image", number, given + len(self.uploads))
        if number >= given:
            name, picture = self.uploads[number - given]
            return name, model.transform(picture)
        image = self.pictures.read(number)
        if model is not self.model:
            image = model.transform(seen(self.model, image))
        return self.pictures.keys[number], image


def one_image(
    model: models.AnyModel,
    image: Any,
    pictures: Any = None,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    layer: int | None = None,
    head: int | None = None,
    query_patch: int | None = None,
) -> OneImage:
    """Show the modes of one image: the maps and the share of each, and their sum, mode by mode.

    A static page carries some layers and heads.  A notebook has all of them, the other pictures,
    pictures of the reader's own, and further models, which see of a picture what `model` sees.
    Paper figure 5.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    image
        A picture, or a tensor as the model takes it.
    pictures
        Further pictures for a notebook: a folder, a tensor or a list.
    layers, heads
        What a page carries.  Without, all; where 1.5 MB don't hold them, as many as they do,
        evenly spread.
    layer, head
        Where the view begins; a page must carry them.  Without, in the middle.
    query_patch
        The patch that asks at first, a number in reading order.  Without, the middle patch.

    Returns
    -------
    OneImage
        A widget; its `state` says what is chosen.

    Raises
    ------
    ValueError
        For what the model does not have, for more heads than a page carries, and for a model with
        a position bias.

    Examples
    --------
    >>> import qkutils as qk
    >>> picture = qk.world.pictures(0, 0, 1)[0]
    >>> view = qk.views.one_image("tiny-supervised", picture, layers=[3], heads=[0, 1])
    >>> view.state["layer"], view.state["head"], view.state["patch"]
    (3, 1, 36)
    """
    loaded = models.load(model)
    layers, heads = _room.carried(loaded, layers, heads, _LAYERS, (layer, head))
    if len(layers) * len(heads) > (room := _room.most_heads(loaded)):
        many = f"{len(layers)} layers × {len(heads)} heads"
        raise ValueError(f"{many}: a page carries at most {room} heads; name fewer")
    first = pictures_of([image], loaded).read(0)
    patch = _room.middle(loaded) if query_patch is None else query_patch
    patch = options.index("query_patch", patch, _room.counts(loaded)["patch"])
    start = {"layer": _start("layer", layer, layers), "head": _start("head", head, heads)}
    taken = Taken(loaded, "the given picture", first)
    every = Pictures([taken.name], lambda _: first)
    if pictures is not None:
        rest = pictures_of(pictures, loaded)
        every = Pictures([taken.name, *rest.keys], lambda n: rest.read(n - 1) if n else first)
    found = taken.found(layers, heads).assign_attrs(start | {"patch": patch})
    return LiveOneImage(taken, every, found)


def _start(name: str, value: int | None, chosen: list[int]) -> int:
    """The layer or head to begin with: one that is carried, the middle one if none is named."""
    if value is None:
        return chosen[len(chosen) // 2]
    if options.count(name, value, 0) not in chosen:
        raise ValueError(f"{name}={value}: the page carries {chosen}; add it to {name}s=")
    return value


def _picture(content: str, name: str) -> PIL.Image.Image:
    """An uploaded file as a picture; raises ValueError for what is none."""
    if not isinstance(content, str) or not isinstance(name, str):
        raise ValueError("an upload needs a name, and the file as text")
    try:
        file = io.BytesIO(base64.b64decode(content, validate=True))
    except binascii.Error as error:
        raise ValueError(f"{name}: arrived broken ({error}); try again") from error
    return open_picture(file, name=name)


def _explained(found: xr.Dataset, layer: int, head: int, patch: int) -> xr.Dataset:
    """One head asked by one patch, its modes by contribution, as `studies.one_image` has it."""
    own, prefix = found.sel(layer=layer, head=head).astype(float), len(_prefix(found))
    asked = own["query"].isel(token=prefix + patch)
    both = xr.DataArray([1, -1], dims="sign")
    most = (both * own["key"].isel(token=slice(prefix, None))).max("token").clip(0)
    made = own.assign(
        contribution=own.sigma * ((both * asked).clip(0) * most).max("sign"),
        logit=own.sigma * found.attrs["scale"] * asked * own["key"],
        position_bias=0 * own.salience,
    )
    order = np.argsort(-made.contribution.values, kind="stable")
    return made.isel(mode=order).assign_attrs(query_patch=patch)


def _still(found: xr.Dataset, image: PIL.Image.Image, kept: int) -> tuple[Figure, str]:
    """The first state as a figure, and in words."""
    layer, head, patch = (int(found.attrs[name]) for name in ("layer", "head", "patch"))
    grid, prefix = _numbers(found, "grid"), len(_prefix(found))
    explained = _explained(found, layer, head, patch)
    steps = studies.build_up(explained)
    built, own = steps.values[kept], steps.values[-1]
    first = explained.isel(mode=0)
    sides = [first[side].values[prefix:].reshape(grid) for side in ("query", "key")]
    rows = [row[prefix:].reshape(grid) for row in (built, own)]
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    axes = list(figure.subplots(1, 5))
    axes[0].imshow(image, extent=(0, grid[1], grid[0], 0))
    axes[0].set(xticks=[], yticks=[], title="the framed patch asks")
    mode = f"M{int(first.mode)}"
    titles = [f"{mode} asks", f"{mode} answers"], [f"{kept} modes", "the model"]
    _pair(axes[1:3], sides, titles[0], plots.DIVERGING, "projection")
    _pair(axes[3:], rows, titles[1], plots.SEQUENTIAL, "attention")
    for ax in axes:
        plots.mark_patch(ax, patch, grid[1])
    return figure, (
        f"Layer {layer}, head {head} of {found.model.item()} on one picture, asked by the patch in "
        f"row {patch // grid[1]}, column {patch % grid[1]}: query map and key map of {mode}, which "
        f"contributes most (cosine {float(first.cosine):+.2f}), and the attention from the first "
        f"{kept} of {explained.sizes['mode']} modes beside the model's own; "
        f"{abs(built - own).sum() / 2:.0%} of it lies elsewhere."
    )


def _pair(axes: list[Axes], maps: list[Map], titles: list[str], colours: str, label: str) -> None:
    """Two maps on one scale, with a colour bar."""
    limit = max(float(abs(values).max()) for values in maps)
    for ax, values, title in zip(axes, maps, titles, strict=True):
        drawn = plots.token_map(ax, values, limit, title, colours)
    axes[0].figure.colorbar(drawn, ax=axes, label=label, shrink=0.8)

"""The attention stepper: where a patch of a picture looks, layer by layer and head by head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import contourpy
import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from PIL.Image import fromarray

from qkutils import alignment, models, options
from qkutils.attention import attention_of_token, token_factors
from qkutils.models import AnyModel, Model
from qkutils.pictures import visible
from qkutils.records import Sample, Samples
from qkutils.studies._regions import OBJECTS, memberships, patch_fractions
from qkutils.views import figures as plots
from qkutils.views._arrays import encoded, packed
from qkutils.views._base import View, entry

_MOST = 1_030_000  # bytes of what tokens bring; as text, and with the pictures, below 1.5 MB
_IMAGES, _LAYERS = 4, 3  # how many pictures a page has, and layers before heads are thinned
_NAMES = {"target": "target", "distractor": "distractors"}


class AttentionStepper(View):
    """The view that `attention_stepper` makes."""

    front = "attention_stepper"
    layer = entry()
    head = entry()
    patch = entry()

    def __init__(self, model: Model, samples: Samples, *shown: Any) -> None:
        """`model` and `samples` answer what the page does not carry."""
        self.model, self.samples = model, samples
        self.sizes, self.tokens = _sizes(model), {"patch", *model.prefix_names}
        super().__init__("Attention stepper", *shown)

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """A picture that there is; what the largest model has that was asked for."""
        if not isinstance(state["model"], str):
            raise ValueError(f"model={state['model']!r}: a name is needed")
        options.choice("query", state["query"], sorted(self.tokens))
        shown: dict[str, Any] = {n: options.flag(n, state[n]) for n in ("outlines", "own")}
        shown["image"] = options.index("image", state["image"], len(self.samples))
        numbers = ("layer", "patch") if state["head"] == "mean" else ("layer", "head", "patch")
        return self.numbered(state, *numbers) | shown

    def hello(self) -> dict[str, Any]:
        """How many pictures there are, and the models that could be asked."""
        others = [name for name in models.at_hand() if name != self.model.name]
        return {"images": len(self.samples), "models": [self.model.name, *others]}

    def respond(self, request: dict[str, Any]) -> dict[str, Any]:
        """Another picture, or another model's attention, with all layers and heads."""
        if set(request) != {"model", "image"}:
            return super().respond(request)
        name, image = request["model"], request["image"]
        place = options.index("image", image, len(self.samples))
        model = self.model if name == self.model.name else models.load(name)
        self.widen(**_sizes(model))
        self.tokens |= {*model.prefix_names}
        return {"scene": _front(model, self.samples[place], place)}

    def trials(self) -> list[dict[str, Any]]:
        """The last picture, and one more model where there is one."""
        first, *others = self.hello()["models"][:2]
        last = {"model": first, "image": len(self.samples) - 1}
        return [last, *({"model": name, "image": 0} for name in others)]


def attention_stepper(
    model: AnyModel,
    samples: Samples,
    images: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> AttentionStepper:
    """Show one patch's attention over a picture, and its shares on what is in the picture.

    Click a patch, and step through layers and heads.  In a notebook every picture and every model
    at hand is computed on demand.  Paper figure 2.

    Shares count every key, prefix tokens too.  A patch belongs to regions by the areas that masks
    cover of it.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    samples
        Pictures with the masks "target" and "distractor", such as `world.samples` or
        `datasets.odd_one_out` give.
    images
        Which samples a page without a kernel carries.  Without, the first four.
    layers, heads
        Which layers and heads such a page carries.  Without, all of a small model.  Of a large
        model, as many layers, heads and samples as 1.5 MB hold.

    Returns
    -------
    AttentionStepper
        A widget; its `state` says what is chosen.

    Raises
    ------
    ValueError
        For numbers that do not exist, and for samples without masks.

    Examples
    --------
    >>> import qkutils as qk
    >>> samples = qk.world.samples(0, 0, 4)
    >>> view = qk.views.attention_stepper("tiny-supervised", samples, images=[2], layers=[5])
    >>> view.state["image"], view.state["layer"], view.state["head"]
    (2, 5, 'mean')
    """
    options.sequence("samples", samples)
    loaded = models.load(model)
    places, chosen = _subset(loaded, len(samples), images, layers, heads)
    carried = [_front(loaded, samples[place], place, *chosen) for place in places]
    first = carried[0]
    patch = first["asked"][0] or 0
    state = {
        **{"model": loaded.name, "image": places[0], "layer": chosen[0][0], "head": "mean"},
        **{"patch": patch, "query": "patch", "outlines": True, "own": False},
    }
    still, alternative = _still(loaded, samples[places[0]], chosen, patch)
    carries = {"scenes": carried, "carries": _said(loaded, places, *chosen)}
    return AttentionStepper(loaded, samples, carries, state, still, alternative)


def _sizes(model: Model) -> dict[str, int]:
    """How many layers, heads and patches a model has."""
    layers, heads = len(model.net.blocks), int(model.net.blocks[0].attn.num_heads)
    return {"layer": layers, "head": heads, "patch": model.grid[0] * model.grid[1]}


def _subset(
    model: Model,
    samples: int,
    images: Sequence[int] | None,
    layers: Sequence[int] | None,
    heads: Sequence[int] | None,
) -> tuple[list[int], tuple[list[int], list[int]]]:
    """Pictures, layers and heads that a page carries; what is not given is thinned until it fits.

    Heads first, so that some layers fit in one picture, then layers, then pictures.
    """
    depth, width, patches = _sizes(model).values()
    head_dim = int(model.net.blocks[0].attn.head_dim)
    tokens = model.prefix_tokens + patches
    room = _MOST // (2 * tokens * (2 * head_dim + 1))  # heads of a picture that fit
    if layers is not None:
        layers = options.indices("layers", layers, depth)
    wanted = min(_LAYERS, depth) if layers is None else len(layers)
    heads = _spread(width, room // wanted) if heads is None else heads
    heads = options.indices("heads", heads, width)
    layers = _spread(depth, room // len(heads)) if layers is None else layers
    fit = min(_IMAGES, max(1, room // (len(heads) * len(layers))))
    images = range(min(samples, fit)) if images is None else images
    return options.indices("images", images, samples), (layers, heads)


def _spread(count: int, most: int) -> list[int]:
    """At most so many of `count` numbers from 0, evenly spread, the first and the last included."""
    return np.linspace(0, count - 1, min(count, max(1, most))).round().astype(int).tolist()


def _front(
    model: Model,
    sample: Sample,
    place: int,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> dict[str, Any]:
    """A picture, its regions and what its tokens bring, as the browser takes them."""
    fraction = patch_fractions(model, sample)
    pixels, masks = _seen(model, sample)
    factors = token_factors(model, pixels[None]).isel(image=0)
    layers = range(factors.sizes["layer"]) if layers is None else layers
    every = range(factors.sizes["head"])
    heads = every if heads is None else heads
    factors = factors.isel(layer=list(layers), head=list(heads))
    return {
        "model": model.name,
        "place": place,
        "name": sample.key,
        "picture": encoded(visible(model, pixels[None])[0]),
        "size": list(model.image_size),
        "outlines": [outline(mask) for mask in masks],
        "grid": list(model.grid),
        "prefix": model.prefix_names,
        "layers": list(layers),
        "heads": list(heads),
        "mean": _mean_of(heads, len(every)),
        "member": packed(memberships(fraction[None])[0]),
        "asked": [int(one.argmax()) if one.any() else None for one in fraction],
        **{name: packed(factors[name].values) for name in ("query", "key", "salience")},
    }


def _seen(
    model: Model, sample: Sample
) -> tuple[Float[torch.Tensor, "3 height width"], Bool[np.ndarray, "object height width"]]:
    """Picture and masks on the model's pixels; what overlaps is the target's, as in the shares."""
    stack = np.stack([sample.masks[name] for name in OBJECTS])
    pixels, masks = alignment.align(model, sample.image, stack)
    masks[1] &= ~masks[0]
    return pixels, masks.numpy()


def outline(mask: Bool[np.ndarray, "height width"]) -> str:
    """The edges of a mask as an SVG path in pixels, to be filled by the even-odd rule."""
    padded = np.pad(mask, 1).astype(float)
    lines = contourpy.contour_generator(z=padded).lines(0.5)
    loops = [np.asarray(line)[:-1] - 0.5 for line in lines]  # centres of pixels are at halves
    return "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in loop) + "Z" for loop in loops)


def _mean_of(heads: Sequence[int], count: int) -> str:
    """What is meant by the mean over heads, where not all of them are carried."""
    return "mean over heads" + (f" {_listed(heads)}" if len(heads) < count else "")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _said(model: Model, places: list[int], layers: list[int], heads: list[int]) -> str:
    """What the page carries, in a sentence."""
    every = len(model.net.blocks), model.net.blocks[0].attn.num_heads
    parts = [f"{len(places)} picture{'s' * (len(places) > 1)}"]
    for name, chosen, count in zip(("layer", "head"), (layers, heads), every, strict=True):
        some = f"{name}{'s' * (len(chosen) > 1)} {_listed(chosen)} of {count}"
        parts.append(f"all {count} {name}s" if len(chosen) == count else some)
    return f"Carried here, of {model.name}: {'; '.join(parts)}."


def _still(
    model: Model, sample: Sample, chosen: tuple[list[int], list[int]], patch: int
) -> tuple[Figure, str]:
    """The first state as a figure: picture, attention and shares; and the same in words."""
    pixels, masks = _seen(model, sample)
    layers, heads = chosen
    token = model.prefix_tokens + patch
    rows = attention_of_token(token_factors(model, pixels[None]), token)
    title = f"layer {layers[0]}, {_mean_of(heads, rows.sizes['head'])}"
    row = rows.isel(layer=layers[0], image=0, head=heads).mean("head").values
    regions = _keys(model, sample)
    shares, even = row @ regions, regions.mean(0)
    names = [*_NAMES.values(), "background", *model.prefix_names]
    figure = Figure(figsize=(9.5, 2.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.2, 1.3))
    plots.outlined(left, fromarray(_bytes(visible(model, pixels[None])[0])), list(masks))
    values = row[model.prefix_tokens :].reshape(model.grid)
    drawn = plots.token_map(middle, values, title=title, cmap=plots.SEQUENTIAL)
    plots.mark_patch(middle, patch, model.grid[1])
    figure.colorbar(drawn, ax=middle, label="share of attention")
    plots.shares_and_even(right, names, shares, even)
    listed = ", ".join(f"{s:.0%} on {n}" for n, s in zip(names, shares, strict=True))
    return figure, f"Attention of {model.name} in {title}, of the framed patch: {listed}."


def _keys(model: Model, sample: Sample) -> Float[np.ndarray, "key region"]:
    """How much of every key belongs to each region, of which every prefix token is one."""
    member = memberships(patch_fractions(model, sample)[None])[0]
    prefix = model.prefix_tokens
    keys = np.pad(member, ((prefix, 0), (0, prefix)))
    keys[:prefix, member.shape[1] :] = np.eye(prefix)
    return keys


def _bytes(picture: Float[np.ndarray, "height width 3"]) -> np.ndarray:
    return (picture * 255).round().astype(np.uint8)

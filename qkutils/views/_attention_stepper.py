"""The attention stepper: where a patch of a picture looks, layer by layer and head by head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import contourpy
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from qkutils import alignment, models, options
from qkutils.attention import attention_of_token, token_factors
from qkutils.records import Sample, Samples
from qkutils.studies._regions import OBJECTS, memberships, patch_fractions
from qkutils.views import _room
from qkutils.views import figures as plots
from qkutils.views._arrays import encoded, packed, seen
from qkutils.views._base import View, entry

_IMAGES, _LAYERS = 4, 3  # how many pictures a page has, and layers before heads are thinned


class AttentionStepper(View):
    """The view that `attention_stepper` makes."""

    front = "attention_stepper"
    layer = entry()
    head = entry()
    patch = entry()

    def __init__(self, model: models.Model, samples: Samples, *shown: Any) -> None:
        """`model` and `samples` answer what the page does not carry."""
        self.model, self.samples = model, samples
        self.sizes, self.tokens = _room.counts(model), {"patch", *model.prefix_names}
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
        sizes = _room.counts(model)
        self.widen(**sizes)
        self.tokens |= {*model.prefix_names}
        every = [list(range(sizes[name])) for name in ("layer", "head")]
        return {"scene": _scene(model, self.samples[place], place, *every)}

    def trials(self) -> list[dict[str, Any]]:
        """The last picture, and one more model where there is one."""
        first, *others = self.hello()["models"][:2]
        last = {"model": first, "image": len(self.samples) - 1}
        return [last, *({"model": name, "image": 0} for name in others)]


def attention_stepper(
    model: models.AnyModel,
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
    chosen = _room.carried(loaded, layers, heads, few=_LAYERS)
    if images is None:
        fit = _room.most_heads(loaded) // (len(chosen[0]) * len(chosen[1]))
        images = range(min(len(samples), _IMAGES, max(1, fit)))
    places = options.indices("images", images, len(samples))
    scenes = [_scene(loaded, samples[place], place, *chosen) for place in places]
    patch = scenes[0]["asked"][0] or 0
    state = {
        **{"model": loaded.name, "image": places[0], "layer": chosen[0][0], "head": "mean"},
        **{"patch": patch, "query": "patch", "outlines": True, "own": False},
    }
    shown = _still(loaded, samples[places[0]], *chosen, patch)
    data = {"scenes": scenes, "counts": _room.counts(loaded)}
    return AttentionStepper(loaded, samples, data, state, *shown)


def _scene(
    model: models.Model, sample: Sample, place: int, layers: list[int], heads: list[int]
) -> dict[str, Any]:
    """A picture, its regions and what its tokens bring, as the browser takes them."""
    fraction = patch_fractions(model, sample)
    pixels, masks = _aligned(model, sample)
    factors = token_factors(model, pixels[None]).isel(image=0, layer=layers, head=heads)
    return {
        "model": model.name,
        "place": place,
        "name": sample.key,
        "picture": encoded(seen(model, pixels)),
        "size": list(model.image_size),
        "outlines": [outline(mask) for mask in masks],
        "grid": list(model.grid),
        "prefix": model.prefix_names,
        "layers": layers,
        "heads": heads,
        "mean": _mean_of(model, heads),
        "member": packed(memberships(fraction[None])[0]),
        "asked": [int(one.argmax()) if one.any() else None for one in fraction],
        **{str(name): packed(each.values) for name, each in factors.items()},
    }


def _aligned(
    model: models.Model, sample: Sample
) -> tuple[Float[Tensor, "3 height width"], Bool[np.ndarray, "object height width"]]:
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


def _mean_of(model: models.Model, heads: list[int]) -> str:
    """What is meant by the mean over heads, where not all of them are carried."""
    some = len(heads) < _room.counts(model)["head"]
    return "mean over heads" + f" {', '.join(map(str, heads))}" * some


def _still(
    model: models.Model, sample: Sample, layers: list[int], heads: list[int], patch: int
) -> tuple[Figure, str]:
    """The first state as a figure: picture, attention and shares; and the same in words."""
    pixels, masks = _aligned(model, sample)
    prefix = model.prefix_tokens
    rows = attention_of_token(token_factors(model, pixels[None]), prefix + patch)
    row = rows.isel(layer=layers[0], image=0, head=heads).mean("head").values
    member = memberships(patch_fractions(model, sample)[None])[0]
    shares = np.array([*(row[prefix:] @ member), *row[:prefix]])
    even = np.array([*member.sum(0), *np.ones(prefix)]) / len(row)
    names = ["target", "distractors", "background", *model.prefix_names]
    title = f"layer {layers[0]}, {_mean_of(model, heads)}"
    figure = Figure(figsize=(9.5, 2.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.2, 1.3))
    plots.outlined(left, seen(model, pixels), list(masks))
    on_patches = row[prefix:].reshape(model.grid)
    plots.token_map(middle, on_patches, 0.0, title, plots.SEQUENTIAL, "share of attention")
    plots.mark_patch(middle, patch, model.grid[1])
    plots.shares_and_even(right, names, shares, even)
    listed = ", ".join(f"{s:.0%} on {n}" for n, s in zip(names, shares, strict=True))
    return figure, f"Attention of {model.name} in {title}, of the framed patch: {listed}."

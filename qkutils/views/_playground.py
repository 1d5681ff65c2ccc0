"""The playground: a model that runs where its reader is, on scenes and photographs of their own."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from timm.data import ImageNetInfo
from torch import Tensor

from qkutils import models, options, world
from qkutils.attention import token_factors
from qkutils.graph import ModeNetwork
from qkutils.modes import decompose
from qkutils.views import _engine, _recipe, _room
from qkutils.views import figures as plots
from qkutils.views._arrays import Form, packed
from qkutils.views._base import View, entry
from qkutils.world.training.architecture import QUESTIONS

LATTICE = 7  # cells per side of a scene
SEED, SCENES = 5_000_000, 48  # of the scenes that a page carries; no model saw them
OFF = {"modes": 3, "heads": 2, "salience": 2}  # what can be off, and how many numbers name it
TASKS = {
    "miss": "Make the model miss the odd one.",
    "eyes": "Find a mode that answers to eyes, and switch it off.",
    "twins": "Find two pictures with the same attention from different modes.",
}
LABELS = ("kind", "colour", "odd factor")
_OF_SCENE = ("pitch", "tilt", "shift", "background")
_OF_SLOT = ("kind", "colour", "texture", "role", "radius", "angle", "offset")
# How far apart the attention and the shares of twins are, as total variation; how often a patch
# with an eye has more of a mode than one without.
LIMITS = {"alike": 0.10, "unlike": 0.30, "clear": 0.95}


class Playground(View):
    """The view that `playground` makes: with a kernel, Python runs the model."""

    front = "playground"
    layer = entry()
    head = entry()
    mode = entry()
    patch = entry()

    def __init__(self, model: models.Model, network: ModeNetwork, data: dict, *shown: Any) -> None:
        """`network` is the model's; `data` as the browser takes them."""
        self.model, self.network = model, network
        layers, heads, modes = data["size"]
        self.sizes = _room.counts(model) | {"mode": modes}
        self.tokens = {"patch", *model.prefix_names}
        super().__init__(f"Playground: {model.name}", data, *shown)

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """What the model has; a scene that the world has."""
        options.choice("asks", state["asks"], sorted(self.tokens))
        options.choice("sign", state["sign"], (1, -1))
        options.count("kept", state["kept"], 0, self.sizes["mode"])
        _checked_off(state["off"], self.sizes)
        if self.data.get("world") or state["scene"] is not None:
            _factors(state["scene"])
        if state["chosen"] is not None:
            options.index("chosen", state["chosen"], LATTICE**2)
        numbers = ("layer", "head", "patch", *(["mode"] if state["mode"] is not None else []))
        return self.numbered(state, *numbers)

    def hello(self) -> dict[str, Any]:
        """Python runs the model."""
        return {"runs": self.model.name}

    def respond(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the model computes of a scene, or of a photograph that was prepared for it."""
        match request:
            case {"photo": None, "scene": scene, "off": off}:
                image = world.render(_factors(scene), self.model.image_size[0]).image
            case {"photo": {"pixels": pixels}, "off": off}:
                image = _photograph(pixels, self.model.image_size)
            case _:
                return super().respond(request)
        _checked_off(off, self.sizes)
        return _packed(image, run(self.network, image, off), "float32")

    def trials(self) -> list[dict[str, Any]]:
        """The picture that is shown, with a head switched off."""
        off: dict[str, Any] = dict.fromkeys(OFF, []) | {"heads": [[0, 0]]}
        if self.state["scene"] is not None:
            return [{"photo": None, "scene": self.state["scene"], "off": off}]
        grey = bytes([128]) * (3 * self.model.image_size[0] * self.model.image_size[1])
        return [{"photo": {"pixels": base64.b64encode(grey).decode()}, "scene": None, "off": off}]


def playground(
    model: models.AnyModel,
    *,
    tasks: Sequence[str] = (),
    layer: int | None = None,
    head: int | None = None,
) -> Playground:
    """Let a reader change a picture, or switch parts of the model off, and see what follows.

    The pictures of an embedded model are drawn scenes, whose objects can be moved and changed.
    Other models take photographs.  On a static page the model itself runs in the browser, when the
    reader starts it; with a kernel, Python runs it.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    tasks
        What the reader is asked to do: some of `miss`, `eyes`, `twins`.  All need drawn scenes.
    layer, head
        Where the view begins.  Without, in the middle.

    Returns
    -------
    Playground
        A widget; its `state` says what is chosen, and what is off.

    Raises
    ------
    ValueError
        For what the model does not have, and for a model with a position bias, or whose pictures
        are not square.

    Examples
    --------
    >>> import qkutils as qk
    >>> view = qk.views.playground("tiny-supervised", layer=3, head=1)
    >>> view.state["layer"], view.state["off"]["heads"]
    (3, [])
    """
    loaded = models.load(model)
    _check(loaded, tasks)
    state, data = _start(loaded, {"layer": layer, "head": head}), _data(loaded, tasks)
    network, image = ModeNetwork(loaded), torch.full((1, 3, *loaded.image_size), 0.5)
    if _engine.draws(loaded):
        drawn = _first(world.draw(SEED, 0, SCENES))
        state["scene"] = _scene(drawn)
        image = world.render(drawn, loaded.image_size[0]).image
        data["first"] = _packed(image, run(network, image, state["off"]), "float16")
    return Playground(loaded, network, data, state, *_still(loaded, image))


def _check(model: models.Model, tasks: Sequence[str]) -> None:
    """Raise ValueError for a model that this view can't show, and for tasks it can't have."""
    if model.heads.position_bias is not None:
        told = "its attention has a position bias, which this view does not show"
        raise ValueError(f"{model.name}: {told}; export it, and add the bias yourself")
    if len(set(model.image_size)) > 1:
        raise ValueError(f"{model.name}: takes {model.image_size} pixels; the view's are square")
    for task in options.choices("tasks", tasks, tuple(TASKS)):
        if not _engine.draws(model):
            raise ValueError(f"tasks={task!r}: {model.name} takes photographs; it has no tasks")


def _start(model: models.Model, chosen: dict[str, int | None]) -> dict[str, Any]:
    """What is chosen at first: a layer and a head where they are given, else in the middle."""
    sizes = _room.counts(model)
    at = {
        name: sizes[name] // 2 if given is None else options.index(name, given, sizes[name])
        for name, given in chosen.items()
    }
    off: dict[str, list] = dict.fromkeys(OFF, [])
    how = {"mode": None, "sign": 1, "kept": 3, "asks": "patch", "off": off}
    return at | how | {"patch": _room.middle(model), "scene": None, "chosen": None}


def run(
    network: ModeNetwork, image: Float[Tensor, "1 3 height width"], off: dict[str, list]
) -> dict[str, Tensor]:
    """What a model computes of one picture while some of it is off."""
    switches = network.all_on()
    for name, places in off.items():
        for place in places:
            switches[name][tuple(place)] = 0
    with torch.inference_mode():
        found = network(image.to(network.mean.device), **switches)
    return dict(zip(("answer", "query", "key", "kappa"), found, strict=True))


def _packed(image: Tensor, found: dict[str, Tensor], form: Form) -> dict[str, Any]:
    """A picture, and what was computed of it, as the browser takes them."""
    forms: dict[str, Form] = {"answer": "float32", "image": "float32", "kappa": "float32"}
    every = found | {"image": image}
    return {
        name: packed(each[0].cpu().numpy(), forms.get(name, form)) for name, each in every.items()
    }


def _data(model: models.Model, tasks: Sequence[str]) -> dict[str, Any]:
    """What the browser is told of a model and of its pictures."""
    draws = _engine.draws(model)
    size = [*model.heads.w_q.shape[:2], model.heads.w_q.shape[2]]
    return {
        "model": model.name,
        "grid": list(model.grid),
        "prefix": model.prefix_names,
        "scale": float(model.heads.scale),
        "size": size,
        "questions": _questions(model),
        "engine": _engine.facts(model),
        "first": None,
        "world": _world() if draws else None,
        "recipe": None if draws else _recipe.recipe(model),
        "tasks": [{"key": key, "text": TASKS[key]} for key in tasks],
        "limits": LIMITS,
        "eyes": _eyes(model) if "eyes" in tasks else [],
    }


def _questions(model: models.Model) -> list[dict[str, Any]]:
    """What each of the model's outputs answers; none for a model without a classifier.

    Outputs have names where it is known what the model was trained on, else numbers.
    """
    outputs = getattr(model.net, "num_classes", 0)
    if outputs == sum(QUESTIONS.values()) and _engine.draws(model):
        choices = (world.KINDS, world.COLOURS, world.ODD_FACTORS)
        return [{"name": n, "choices": list(c)} for n, c in zip(LABELS, choices, strict=True)]
    if outputs == 1000 and model.facts.get("data", "").endswith("ImageNet-1k"):
        info = ImageNetInfo("imagenet-1k")
        names = [info.index_to_description(n) for n in range(outputs)]
        return [{"name": "class", "choices": names}]
    return [{"name": "output", "choices": [str(n) for n in range(outputs)]}] if outputs else []


def _world() -> dict[str, Any]:
    """What there is in the world, and some scenes of it."""
    drawn = world.draw(SEED, 0, SCENES)
    scenes = {name: packed(getattr(drawn, name).numpy(), "float32") for name in _OF_SLOT}
    scenes |= {name: packed(getattr(drawn, name).numpy(), "float32") for name in _OF_SCENE}
    names = {"kinds": world.KINDS, "colours": world.COLOURS, "textures": world.TEXTURES}
    return {"lattice": LATTICE, "scenes": scenes} | {name: list(v) for name, v in names.items()}


def _first(drawn: world.Factors) -> world.Factors:
    """The first scene in which a kind is odd and all others are alike, alone."""
    odd = drawn.odd == world.ODD_FACTORS.index("kind")
    at = int((odd & (drawn.mixed == 0)).int().argmax())
    return world.Factors(*(getattr(drawn, each.name)[at : at + 1] for each in fields(drawn)))


def _scene(drawn: world.Factors) -> dict[str, Any]:
    """The first of these scenes as the browser keeps it: its objects, and the rest."""
    of = {name: getattr(drawn, name)[0].tolist() for name in (*_OF_SLOT, *_OF_SCENE)}
    objects = []
    for slot, role in enumerate(of["role"]):
        if role == world.ABSENT:
            continue
        look = {name: of[name][slot] for name in ("kind", "colour", "texture", "radius", "angle")}
        x, y = of["offset"][slot]
        objects.append({"slot": slot, "odd": role == world.TARGET, "x": x, "y": y} | look)
    return {"objects": objects} | {name: of[name] for name in _OF_SCENE}


def _factors(scene: Any) -> world.Factors:
    """A browser's scene as the world's; raises ValueError for what is none."""
    try:
        return _read_factors(scene)
    except (KeyError, TypeError, IndexError, RuntimeError, AttributeError) as error:
        told = f"{json.dumps(scene, default=str)[:80]}: is no scene ({error})"
        raise ValueError(f"{told}; take one from this view's state") from error


def _read_factors(scene: dict[str, Any]) -> world.Factors:
    factors = world.draw(SEED, 0, 1)  # for its types; all that a picture depends on is replaced
    made = {each.name: getattr(factors, each.name).clone() for each in fields(factors)}
    for name in _OF_SCENE:
        made[name] = torch.tensor(options.finite(name, scene[name])).float().view_as(made[name])
    options.number("pitch", scene["pitch"], 0.0)
    made["role"].fill_(world.ABSENT)
    limits = {"kind": world.KINDS, "colour": world.COLOURS, "texture": world.TEXTURES}
    for number, one in enumerate(scene["objects"]):
        slot = options.index(f"object {number}: slot", one["slot"], LATTICE**2)
        if made["role"][0, slot] != world.ABSENT:
            raise ValueError(f"object {number}: slot {slot} has an object already")
        for name, names in limits.items():
            made[name][0, slot] = options.index(f"object {number}: {name}", one[name], len(names))
        made["role"][0, slot] = world.TARGET if one["odd"] else world.DISTRACTOR
        made["radius"][0, slot] = options.number(f"object {number}: radius", one["radius"], 0.0)
        angle, *offset = (
            options.number(f"object {number}: {n}", one[n]) for n in ("angle", "x", "y")
        )
        made["angle"][0, slot], made["offset"][0, slot] = angle, torch.tensor(offset)
    return world.Factors(**made)


def _checked_off(off: Any, sizes: dict[str, int]) -> None:
    """Raise ValueError where something is off that the model does not have."""
    if not isinstance(off, dict) or set(off) != set(OFF):
        raise ValueError(f"off={off!r:.80}: it needs {', '.join(OFF)}, lists of places")
    for name, count in OFF.items():
        for place in options.sequence(f"off, {name}", off[name]):
            if len(options.sequence(f"off, {name}", place)) != count:
                raise ValueError(f"off, {name}: {place} needs {count} numbers")
            for dim, number in zip(("layer", "head", "mode"), place, strict=False):
                options.index(f"off, {name}: {dim}", number, sizes[dim])


def _photograph(pixels: str, size: tuple[int, int]) -> Float[Tensor, "1 3 height width"]:
    """Red, green and blue bytes, row by row, as a picture from 0 to 1."""
    flat = np.frombuffer(base64.b64decode(pixels), "u1")
    if flat.size != 3 * size[0] * size[1]:
        raise ValueError(f"{flat.size} bytes: the model takes {size[0]} × {size[1]} pixels")
    return torch.tensor(flat.reshape(1, *size, 3)).permute(0, 3, 1, 2).float() / 255


def _eyes(model: models.Model, count: int = 96) -> list[list[int]]:
    """Modes whose keys tell patches with an eye from all others, in either sign."""
    images, families = world.labelled(model, count)
    part = families["part"]
    eye = torch.tensor([name.startswith("eye ") for name in part.names])
    labels = part.fine.flatten(1)
    has = (eye[labels.clamp(min=0)] & (labels >= 0)).flatten()
    modes = decompose(model, convention="exact")
    keys = token_factors(model, images, modes).key.isel(token=slice(model.prefix_tokens, None))
    found = []
    for place in np.ndindex(*(keys.sizes[dim] for dim in ("layer", "head", "rank"))):
        layer, head, mode = place
        own = keys.isel(layer=layer, head=head, rank=mode).transpose("image", "token").values
        share = _more_often(torch.tensor(own).flatten(), has)
        if max(share, 1 - share) >= LIMITS["clear"]:
            found.append([layer, head, mode])
    return found


def _more_often(values: Float[Tensor, " n"], there: Tensor) -> float:
    """How often a value that is there exceeds one that is not: the area under the curve."""
    ranks = values.argsort().argsort().float() + 1
    yes = int(there.sum())
    return float((ranks[there].sum() - yes * (yes + 1) / 2) / (yes * (len(there) - yes)))


def _still(model: models.Model, image: Tensor) -> tuple[Figure, str]:
    """The first picture, and what the heads of the middle layer attend to on it."""
    figure = Figure(figsize=(6.4, 3), layout="constrained")
    axes = figure.subplots(1, 2)
    axes[0].imshow(image[0].movedim(0, -1).numpy())
    factors = token_factors(model, model.transform.transforms[-1](image))
    first = factors.isel(image=0, layer=model.heads.w_q.shape[0] // 2)
    logits = (first["query"].rename(token="asking") * first.key).sum("rank") + first.salience
    row = torch.tensor(logits.transpose("head", "asking", "token").values).softmax(-1).mean(0)
    asking = model.prefix_tokens + _room.middle(model)
    seen = row[asking, model.prefix_tokens :].view(model.grid).numpy()
    shown = axes[1].imshow(seen, plots.SEQUENTIAL)
    figure.colorbar(shown, ax=axes[1], label="attention")
    axes[0].set_title("a picture that can be changed")
    axes[1].set_title("what a patch in the middle attends to")
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    return (
        figure,
        "A picture, and the attention of its middle patch. With scripts, both can be changed.",
    )

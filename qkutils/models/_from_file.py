"""A checkpoint's model: built by its tensors and by what else is known of it.

That comes from the catalogue, from a name of timm's, from a config.json beside the file, or from
the file's own metadata.
"""

from __future__ import annotations

import qkutils._torchvision

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import timm.layers
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg, is_model, is_model_in_modules, is_model_pretrained
from timm.models.vision_transformer import VisionTransformer

from qkutils import checkpoints, options
from qkutils.checkpoints import Checkpoint, Grid
from qkutils.heads import check_blocks
from qkutils.models._catalogue import Row, embedded, entry, hint, recipes
from qkutils.models._model import IMAGENET, Model, check_module, model_of
from qkutils.models._transformers import said_of_model, said_of_pictures

_ARGUMENTS = set(inspect.signature(VisionTransformer).parameters)  # of a config.json's model_args


@dataclass(frozen=True)
class Known:
    """What is known of a checkpoint beside its tensors."""

    architecture: str = ""  # of timm; none: a plain vision transformer
    arguments: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)  # preprocessing, in timm's words
    num_heads: int | None = None
    grid: Grid | None = None
    assumed: tuple[str, ...] = ()
    alike: bool = False  # only built alike: all sizes are the file's
    square: bool = False  # that its patch grid is square is no guess
    row: Row = field(default_factory=dict)  # of the catalogue
    variant: str = ""  # whose preprocessing `config` is: timm's, the authors', the paper's code's


_SEEN = ("mean", "std", "interpolation", "crop_pct", "crop_mode")  # of a picture's preprocessing
_PLAIN = "GELU, eps 1e-6, blocks that normalise first"
_UNKNOWN = Known(assumed=(_PLAIN, IMAGENET))


def model_of_file(
    path: Path,
    name: str = "",
    num_heads: Any = None,
    grid: Any = None,
    like: Any = None,
    state_dict: Any = None,
    preprocessing: Any = None,
) -> Model:
    """The model of a checkpoint file or a snapshot folder, called as these are by default."""
    if num_heads is not None:
        num_heads = options.count("num_heads", num_heads)
    if grid is not None:
        rows, columns = grid if isinstance(grid, tuple | list) and len(grid) == 2 else (grid, None)
        grid = options.count("grid", rows), options.count("grid", columns)
    path = checkpoints.in_folder(path) if path.is_dir() else path
    name = name or checkpoints.title(path)
    known = None if like is None else replace(of_known_name("like=", like), alike=True)
    row = entry(name)
    if state_dict is None and row.get("file") == path.name:  # which the catalogue knows from inside
        state_dict = row["state_dict"] or None
    checkpoint = checkpoints.read(path, state_dict)
    known = known or _of_file(path, name) or _of_metadata(checkpoint.metadata)
    told = checkpoint.told
    if known and "architecture" in told and (known.alike or not known.architecture):
        built = known.architecture or told["architecture"]
        known = replace(known, architecture=built, arguments=told["arguments"])
    if known is None and checkpoint.layout.silent:
        asked = "put its config.json beside it, or name a model that is built alike with like="
        raise ValueError(f"{path}: the layout of {checkpoint.layout.name}; {asked}")
    known = known or (Known(**told) if told else _UNKNOWN)
    known = with_preprocessing(path, known, preprocessing)
    if known.config:
        _check_preprocessing(path, known.config)
    _check_head(checkpoint, known)
    build = _build if known.architecture else _build_plain
    net, own_size = build(checkpoint, known, num_heads, grid)
    left_out = checkpoint.fill(net)
    net.pretrained_cfg = net.default_cfg = dict(known.config)
    square = ("a square patch grid",) if own_size and grid is None else ()
    return model_of(name, net, known.assumed + square, ", ".join(left_out), known.variant)


def with_preprocessing(where: object, known: Known, asked: str | None) -> Known:
    """The same with the preprocessing that is asked for, or the first that is known.

    Raises ValueError where the one that is asked for is not known, and where a file beside the
    weights says of its own otherwise than the catalogue.
    """
    variants = {"timm": known.config} if known.variant == "timm" else {}
    variants |= recipes(known.row)
    if asked is not None and asked not in variants:
        there = f"that of {', '.join(variants)}" if variants else "its own"
        raise ValueError(f"{where}: preprocessing={asked!r} is not known of it, only {there}")
    recorded = variants.get(known.variant, {})
    both = [key for key in _SEEN if key in recorded and key in known.config]
    said, wanted = [{key: _fixed(of[key]) for key in both} for of in (known.config, recorded)]
    if said != wanted:
        told = f"its preprocessing is {said}, and the catalogue's {wanted}"
        raise ValueError(f"{where}: {told}; give it another name")
    chosen = asked or next(iter(variants), "")
    assumed = tuple(each for each in known.assumed if not (chosen and each == IMAGENET))
    config = {**known.config, **variants.get(chosen, {})}
    return replace(known, config=config, variant=chosen, assumed=assumed)


def _fixed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _build_plain(checkpoint: Checkpoint, known: Known, asked: Any, grid: Any) -> tuple[Any, bool]:
    """A plain vision transformer, by the shapes of a file, and whether its grid is a guess."""
    path, tensors = checkpoint.path, checkpoint.tensors
    if "norm_pre.weight" in tensors and not known.arguments:
        # Such models differ in activation, eps and preprocessing.
        raise ValueError(f"{path}: a LayerNorm before all blocks, as in CLIP; name its like=")
    if asked is None and known.num_heads is None and _PLAIN in known.assumed:
        # Whoever passes the number of heads then says the rest by it.
        untold = "the number of heads, the activation, eps, or whether blocks normalise first"
        remedy = f"pass num_heads= if the rest is {_PLAIN}, or name a model built alike with like="
        raise ValueError(f"{path}: its tensors do not tell {untold}; {remedy}")
    given = checkpoint.arguments(_agreed(path, known.num_heads, asked), grid or known.grid)
    given |= known.arguments
    kind = "deit_tiny_distilled_patch16_224" if "dist_token" in tensors else "vit_tiny_patch16_224"
    return _meta(path, kind, given), not (known.square or known.grid)


def _build(checkpoint: Checkpoint, known: Known, asked: Any, grid: Any) -> tuple[Any, bool]:
    """A timm architecture, and whether in the size of the file's own grid."""
    path, tensors, kind = checkpoint.path, checkpoint.tensors, known.architecture
    depth = checkpoint.depth()
    if known.arguments.get("depth", depth) != depth:
        raise ValueError(f"{path}: {depth} blocks, but config.json says another depth")
    given: dict[str, Any] = {**known.arguments, "num_classes": checkpoint.classes}
    given |= {"global_pool": "avg"} if "fc_norm.weight" in tensors else {}
    net = _meta(path, kind, given)
    check_module(kind, net)
    own = net.state_dict()
    others = {k for k in own if k not in tensors or own[k].shape != tensors[k].shape}
    check_blocks(net, kind)
    heads, width = net.blocks[0].attn.num_heads, len(net.patch_embed.proj.weight)
    heads = _agreed(path, heads if width == checkpoint.width else None, asked)
    of_grid = ("pos_embed", checkpoints.TABLE)
    own_size = grid is not None or any(k.endswith(of_grid) for k in others & tensors.keys())
    sizes: dict[str, Any] = {}
    if known.alike and others and isinstance(net, VisionTransformer):
        sizes = checkpoint.arguments(heads, grid)
    elif own_size:
        embeds = not getattr(net, "no_embed_class", False)
        sizes["img_size"], _ = checkpoint.image_size(net.num_prefix_tokens, grid, (embeds,))
    given |= sizes
    net = _meta(path, kind, given) if sizes else net
    if any(name not in own for name, _ in net.named_buffers()):
        checkpoint.check(net)
        net = timm.create_model(kind, **given)  # meta has no numbers for what no file holds
    return net, own_size


def _agreed(path: Path, known: int | None, asked: int | None) -> int:
    """The number of heads that is known or asked for; refuses where they differ or both lack."""
    if known is None and asked is None:
        raise ValueError(f"{path}: its tensors do not tell the number of heads; pass num_heads=")
    if known is not None and asked not in (None, known):
        raise ValueError(f"{path}: num_heads={asked}, but the model has {known}; leave it out")
    return asked or known or 0


def _meta(path: Path, kind: str, given: Mapping[str, Any]) -> Any:
    """A timm architecture without memory for its tensors."""
    if is_model_in_modules(kind, ["vision_transformer", "deit"]) and "distilled" not in kind:
        given = {**given, "weight_init": "skip"}  # to draw them takes longer than all the rest
    try:
        with torch.device("meta"):
            return timm.create_model(kind, **given)
    except Exception as error:  # whatever an architecture makes of arguments that do not fit
        raise ValueError(f"{path}: timm can't build its {kind} ({error})") from error


def _of_file(path: Path, name: str) -> Known | None:
    """What a `config.json` beside a file says, else the file's name; refuses where they differ."""
    said, named = _of_config(path.with_name("config.json")), _of_name(name)
    if said and named and said.architecture not in ("", named.architecture):
        raise ValueError(f"{path}: config.json is for {said.architecture}; say which with like=")
    return replace(said, row=named.row) if said and named else said or named


def _of_metadata(said: dict[str, Any]) -> Known | None:
    """What our own safetensors files say."""
    checked = options.count("num_heads", said.get("num_heads", 1))
    return Known(**said | {"num_heads": checked}, square=True) if said else None


def of_known_name(what: str, name: Any) -> Known:
    """What the name of an embedded model or one of timm's tells; ValueError for any other."""
    known = _of_name(name) if isinstance(name, str) else None
    if known is None or (known.architecture and "." in name and known.assumed):
        kind = "no name" if what else "no file or folder, and no name"
        raise ValueError(f"{what}{name!r}: {kind} of timm's or of an embedded model{hint(name)}")
    return known


def _of_name(name: str) -> Known | None:
    """What a name tells: the catalogue's, timm's ARCHITECTURE.TAG, or one with a tag of yours.

    None for any other.
    """
    path, row = embedded(name), entry(name)
    if path is not None:
        return _of_metadata(checkpoints.read(path).metadata)
    if row and not row["timm"]:
        return _of_row(row)
    kind, _, tag = (row["timm"] if row else name).partition(".")
    if not is_model(kind):
        return None
    try:
        config = get_pretrained_cfg(f"{kind}.{tag}" if tag else kind)
    except RuntimeError:  # timm knows no such tag
        config, tag = get_pretrained_cfg(kind), ""
    if config is None:
        return Known(kind, row=row)
    quick = f"{kind.replace('_clip_', '_clip_quickgelu_')}.{tag}"
    if tag and "_clip_" in kind and "quickgelu" not in kind and is_model_pretrained(quick):
        raise ValueError(f"{name!r}: trained with QuickGELU, which {kind} has not; say {quick!r}")
    assumed = () if tag else (f"preprocessing of timm's {kind}.{config.tag}",)
    return Known(kind, config=config.to_dict(), assumed=assumed, row=row, variant="timm")


def _of_row(row: Row) -> Known:
    """What the catalogue says of a model that timm has not."""
    arguments = {
        "act_layer": getattr(timm.layers, row["activation"]),
        "norm_layer": partial(torch.nn.LayerNorm, eps=row["eps"]),
    }
    return Known(arguments=arguments, num_heads=row["heads"], square=True, row=row)


def _of_config(path: Path) -> Known | None:
    """What a config.json of timm's or transformers' says; None where there is none of theirs."""
    if not path.is_file():
        return None
    try:
        said = json.loads(path.read_text("utf-8"))
        if "model_type" in said and "architecture" not in said:
            return _of_transformers(path, said)
        kind, config = said.get("architecture"), said.get("pretrained_cfg", said)
        if kind is None:
            return None
        arguments, tag = dict(said.get("model_args") or {}), dict(config).get("tag", "")
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        words = f"not a configuration of timm's or transformers' ({error}); mend it"
        raise ValueError(f"{path}: {words}") from error
    if not is_model(str(kind)):
        raise ValueError(f"{path}: timm knows no architecture {kind!r}; pass like=")
    unknown = sorted(arguments.keys() - _ARGUMENTS)
    if unknown:
        raise ValueError(f"{path}: model_args holds {', '.join(unknown)}, no options of a model")
    _of_name(f"{kind}.{tag}" if tag else kind)  # refuses what timm has under two activations
    return Known(kind, arguments, config, variant="timm")


def _of_transformers(path: Path, said: Mapping[str, Any]) -> Known:
    """What a transformers folder says, with the preprocessing where it is there."""
    beside = path.with_name("preprocessor_config.json")
    if not beside.is_file():
        return Known(**said_of_model(said), assumed=(IMAGENET,))
    config = said_of_pictures(json.loads(beside.read_text("utf-8")))
    return Known(**said_of_model(said), config=config, variant="paper")


def _check_head(checkpoint: Checkpoint, known: Known) -> None:
    """Raises ValueError for another classifier than that of the catalogue's model it is called."""
    classes = checkpoint.classes
    own = known.config.get("num_classes", classes)
    if known.row and not known.alike and classes not in (0, own):
        told = f"head.weight is of {classes} classes, and {known.row['name']} has {own}"
        raise ValueError(f"{checkpoint.path}: {told}; give it another name, or name it with like=")


def _check_preprocessing(where: object, config: Any) -> None:
    """Raises ValueError for preprocessing from which timm can make no numbers."""
    try:
        data = resolve_data_config(pretrained_cfg=config) | {"input_size": (3, 8, 8)}
        options.number("crop_pct", data["crop_pct"], 0.1, 10.0, closed=True)  # of any size of image
        shown = create_transform(**data)
        if not shown(Image.new("RGB", (8, 8))).isfinite().all():
            raise ValueError("its mean and std give no numbers")
    except Exception as error:  # whatever timm makes of it
        raise ValueError(f"{where}: no preprocessing of timm's ({error}); mend it") from error

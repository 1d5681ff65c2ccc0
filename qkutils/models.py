"""Models: the catalogue, and `load`, which takes a name, a file, a folder or a timm module."""

from __future__ import annotations

import qkutils._torchvision

import copy
import difflib
import hashlib
import inspect
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config, resolve_model_data_config
from timm.layers import PatchEmbed
from timm.models import get_pretrained_cfg, is_model, is_model_pretrained
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.transforms import Compose

from qkutils import checkpoints, options, store
from qkutils.checkpoints import EMBED, Checkpoint, Grid
from qkutils.heads import Heads, check_blocks, is_timms, read_heads

WEIGHTS_VARIABLE = "QKUTILS_WEIGHTS"
_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar", ".npz"}
_SNAPSHOT = ("model.safetensors", "pytorch_model.bin")  # the hub's names, in the order they count
# Attributes of modules that no output depends on.
_PASSING = {"training", "fused_attn", "grad_checkpointing", "p", "drop_prob", "weight_init_mode"}
_EMBEDDED = Path(str(resources.files("qkutils").joinpath("weights")))
_ARGUMENTS = set(inspect.signature(VisionTransformer).parameters)  # of a config.json's model_args
_ASSUMED = "GELU, eps 1e-6, blocks that normalise first"
_PLAIN = "vit_tiny_patch16_224"  # built in any size
_IMAGENET = "ImageNet preprocessing"


@dataclass(frozen=True)
class Model:
    """A vision transformer in eval mode with what is needed to feed it and to read its tokens."""

    name: str
    net: Any  # a timm module, whose attributes no type checker can know
    transform: Compose
    grid: Grid
    prefix_tokens: int
    facts: dict[str, str] = field(default_factory=dict)
    _kept: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images it takes, in pixels."""
        height, width = self.net.patch_embed.img_size
        return int(height), int(width)

    @property
    def prefix_names(self) -> list[str]:
        """What its prefix tokens are called, in their order."""
        named = {"cls_token": "class token", "dist_token": "distillation token"}
        names = [text for name, text in named.items() if getattr(self.net, name, None) is not None]
        registers = [f"register {n}" for n in range(self.prefix_tokens - len(names))]
        return (names + registers)[: self.prefix_tokens]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.net.parameters()).device

    @property
    def assumed(self) -> str:
        """What was assumed when it was loaded, because its file could not tell."""
        return self.facts.get("assumed", "")

    @property
    def heads(self) -> Heads:
        """Its heads, read again only where their weights have changed."""
        check_blocks(self.net, self.name)
        parts = [part for block in self.net.blocks for part in (block.attn, block.norm1)]
        key: list = [_mark(t) for part in parts for t in part.state_dict().values()]
        key += [[vars(part).get(name) for part in parts] for name in ("num_heads", "scale", "eps")]
        if self._kept.get("key") != key:
            _refuse_not_finite(self.name, self.net.blocks)
            self._kept["heads"] = read_heads(self.net, self.name)
            self._kept["key"] = key
        return self._kept["heads"]

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of what its attention scores depend on."""
        return self.heads.fingerprint

    @property
    def identity(self) -> str:
        """Sixteen hexadecimal digits of all that its outputs for a picture depend on.

        Every tensor, what the architecture has beside tensors, patch grid, and preprocessing.
        """
        place = (self.grid, self.prefix_tokens, repr(self.transform))
        digest = hashlib.sha256(repr((place, *_structure(self.net))).encode())
        for name, tensor in (*self.net.named_parameters(), *self.net.named_buffers()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


AnyModel = str | Path | nn.Module | Model


def _mark(tensor: Tensor) -> float:
    """A number that a change of a tensor changes, also one that autograd is not told of."""
    rows = tensor.detach().float().reshape(len(tensor) if tensor.ndim else 1, -1)
    down, along = [torch.linspace(1, 2, n, device=rows.device) for n in rows.shape]
    return float(down.double() @ (rows @ along).double())


def _structure(net: nn.Module) -> list[tuple]:
    """What a network computes beside its tensors: classes, numbers such as eps, and hooks."""
    found: list[tuple] = []
    for name, module in net.named_modules():
        kept = (bool, int, float, str, tuple, type(None))
        facts = {k: v for k, v in vars(module).items() if isinstance(v, kept) and k[0] != "_"}
        numbers = sorted((k, repr(v)) for k, v in facts.items() if k not in _PASSING)
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        names = [getattr(hook, "__qualname__", type(hook).__qualname__) for hook in hooks]
        found.append((name, type(module).__qualname__, numbers, names))
    return found


def at_hand() -> list[str]:
    """List the catalogue's models that `load` can load without a network.

    Embedded models come first.  Then come those in the folder that QKUTILS_WEIGHTS names.

    Returns
    -------
    list
        Their names, in alphabetical order within each of the two groups.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.models.at_hand()[:3]
    ['tiny-dino', 'tiny-dino-s1', 'tiny-dino-s2']
    """
    folders = [_EMBEDDED]
    if os.environ.get(WEIGHTS_VARIABLE):
        folders.append(Path(os.environ[WEIGHTS_VARIABLE]))
    found = [sorted(p.stem for p in folder.glob("*.safetensors")) for folder in folders]
    known = {entry["name"] for entry in _entries()}
    return [n for n in dict.fromkeys(name for names in found for name in names) if n in known]


@cache
def _entries() -> list[dict[str, Any]]:
    """Rows of the catalogue; an entry with several seeds becomes a row for each of them."""
    text = resources.files("qkutils").joinpath("catalogue.toml").read_text("utf-8")
    rows = []
    for entry in tomllib.loads(text)["model"]:
        entry.setdefault("fingerprint", "")
        seeds = entry.pop("seeds", None)
        if seeds is None:
            rows.append(entry | {"seed": pd.NA})
            continue
        for seed in seeds:
            name = entry["name"] + (f"-s{seed}" if seed else "")
            rows.append(entry | {"name": name, "seed": seed})
    return rows


def catalogue() -> pd.DataFrame:
    """List the models of the book and of the paper with their facts.

    Returns
    -------
    pd.DataFrame
        One row for each model, by its name.  The columns say the `paper`'s name for it, the
        `objective` of its training, the `source` of its tensors, a `note`, the `fingerprint` of its
        weights where it is fixed, and the `seed` where there are several.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.catalogue().loc["tiny-supervised", ["objective", "source"]].tolist()
    ['classification', 'embedded']
    """
    return pd.DataFrame(_entries()).set_index("name").astype({"seed": "Int64"})


def family() -> pd.DataFrame:
    """Arrange the names of the embedded models by objective and seed.

    Returns
    -------
    pd.DataFrame
        Names of models.  Rows are objectives, called by the first seed's name without `tiny-`.
        Columns are seeds.  What has not been trained is missing.

    Examples
    --------
    >>> import qkutils as qk
    >>> table = qk.models.family()
    >>> table.loc["dino"].tolist()
    ['tiny-dino', 'tiny-dino-s1', 'tiny-dino-s2']
    """
    embedded = [row for row in _entries() if row["source"] == "embedded"]
    table = pd.DataFrame(embedded)
    table["trained_for"] = table.name.str.removeprefix("tiny-").str.replace(
        r"-s\d+$", "", regex=True
    )
    order = table.trained_for.unique()
    return table.pivot(index="trained_for", columns="seed", values="name").loc[order]


def load(
    model: AnyModel,
    *,
    num_heads: int | None = None,
    grid: Grid | None = None,
    like: str | None = None,
    state_dict: str | None = None,
    device: str | int | torch.device | None = None,
) -> Model:
    """Load a model by name, from a checkpoint file or snapshot folder, or from a timm module.

    A name is looked for among the embedded models, then as NAME.safetensors in the folder that
    QKUTILS_WEIGHTS names, then on the hub through timm.  What a file's tensors can't tell comes
    from `like`, from a `config.json` of timm's beside it, or from its name where that is timm's;
    what is assumed beyond that stands in `facts["assumed"]`.

    Parameters
    ----------
    model
        A name, a path, a timm module, which is not copied but put in eval mode with its gradients
        off, or a model that is loaded already.
    num_heads
        For files and folders: the number of heads.
    grid
        For files and folders: rows and columns of patches.
    like
        For files and folders: the timm name of a model that is built alike, with the same
        activation, eps and preprocessing.
    state_dict
        For files and folders: which of several state dicts to take.
    device
        Where to put it; default: where it is.  A network that is elsewhere is copied.

    Raises
    ------
    ValueError
        For what is unknown, can't be treated, or can't be told.
    FileNotFoundError
        For tensors that are nowhere.
    RuntimeError
        For a GPU that is not there.

    Examples
    --------
    >>> model = load("tiny-supervised")
    >>> model.grid, model.heads.w_q.shape
    ((8, 8), torch.Size([8, 4, 24, 96]))
    """
    place = _device(device)
    given: dict[str, Any] = {
        "num_heads": num_heads,
        "grid": grid,
        "like": like,
        "state_dict": state_dict,
    }
    path = _as_path(model)
    if path is not None:
        return _placed(_from_path(path, **given), place)
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}={value!r}: only a checkpoint file needs it; leave it out")
    if isinstance(model, Model):
        _check_module(model.name, model.net)
        return _placed(model, place)
    if isinstance(model, nn.Module):
        return _placed(_wrap(type(model).__name__, model), place)
    if not isinstance(model, str):
        raise ValueError(
            f"model: {type(model).__name__} is none; pass a name, a checkpoint file, a timm module "
            "or a loaded model"
        )
    return _placed(_by_name(model), place)


def _as_path(model: object) -> Path | None:
    """The file or folder that is meant; None for a name and for what is no path."""
    if not isinstance(model, str | Path):
        return None
    path = Path(os.path.expanduser(model))
    meant = isinstance(model, Path) or path.suffix.lower() in _SUFFIXES or os.path.isfile(path)
    if meant or (model and os.path.isdir(path) and _known(str(model)) is None):
        return path
    return None


def _device(device: Any) -> torch.device | None:
    """The CPU or a GPU that is there; None where none is asked for."""
    if device is None:
        return None
    try:
        number = isinstance(device, int) and not isinstance(device, bool)
        place = torch.device(f"cuda:{device}" if number else device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r}: it is 'cpu' or 'cuda'") from error
    if place.type not in ("cpu", "cuda") or isinstance(device, bool):
        raise ValueError(f"device={device!r}: it is 'cpu' or 'cuda'")
    if place.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"device={str(device)!r} was asked for, but torch sees no GPU; use device='cpu', or "
            "install a CUDA build of torch and check the driver"
        )
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise RuntimeError(f"device={device!r}: torch sees {torch.cuda.device_count()} GPUs")
    return place


def _placed(model: Model, place: torch.device | None) -> Model:
    """The model on a device; a network that is elsewhere is copied, not moved."""
    here = model.device
    if place is None or (place.type == here.type and place.index in (None, here.index)):
        return model
    return replace(model, net=copy.deepcopy(model.net).to(place))


def _check_module(name: str, net: Any) -> None:
    """Raises ValueError for a module that is no plain timm vision transformer as it stands."""
    kind = f"{name} ({type(net).__name__})"
    if any(hasattr(m, "_orig_mod") or m._compiled_call_impl for m in net.modules()):
        raise ValueError(f"{kind}: is compiled; pass the module as it was before")
    if isinstance(getattr(net, "module", None), nn.Module):
        raise ValueError(f"{kind}: wraps a module; pass its `.module`")
    grid = getattr(getattr(net, "patch_embed", None), "grid_size", None)
    if grid is None or not hasattr(net, "blocks"):
        raise ValueError(
            f"{kind} is not a vision transformer with one patch grid and a list of blocks; pass a "
            "plain timm vision transformer"
        )
    if type(net.patch_embed) is not PatchEmbed or not isinstance(net.patch_embed.proj, nn.Conv2d):
        stem = type(net.patch_embed).__name__
        raise ValueError(
            f"{kind}: {stem} is not timm's PatchEmbed, one convolution over patches; hybrid stems "
            "can't be treated"
        )
    if net.patch_embed.proj.stride != net.patch_embed.patch_size:
        raise ValueError(
            f"{kind}: its patches overlap; undo the change of `patch_embed.proj.stride`"
        )
    for method in ("__call__", "forward", "forward_features", "_pos_embed"):
        if hasattr(net, method) and not is_timms(type(net), method):
            raise ValueError(
                f"{kind}: `{method}` is not timm's, so its tokens or attention may be others; load "
                "its state dict into timm's class and pass that"
            )
    for part, module in net.named_modules():
        replaced = [k for k, v in vars(module).items() if callable(v) and hasattr(type(module), k)]
        if replaced:
            raise ValueError(
                f"{kind}: `{replaced[0]}` of {part or 'the module'} was replaced on the instance; "
                "pass the module without the change"
            )
    net.eval()


def _check_tensors(name: str, net: nn.Module) -> None:
    """Raises ValueError for tensors that are not there, not float32, or not finite."""
    parameters = dict(net.named_parameters())
    for key, tensor in (parameters | dict(net.named_buffers())).items():
        if tensor.is_meta:
            raise ValueError(f"{name}: {key} is on the meta device, without numbers; load weights")
        if type(tensor) not in (nn.Parameter, Tensor, nn.Buffer) or tensor.is_quantized:
            raise ValueError(f"{name}: {key} is {type(tensor).__name__}; undo the quantisation")
        real = tensor.is_floating_point() or tensor.is_complex()
        if tensor.dtype != torch.float32 and (key in parameters or real):
            held = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"{name}: {key} is {held}; pass the module as `.float()` makes it")
    for key, module in net.named_modules():
        if "quantized" in type(module).__module__:
            raise ValueError(f"{name}: {key} is quantised; pass the module as it was before")
    _refuse_not_finite(name, net)


def _refuse_not_finite(name: str, net: nn.Module) -> None:
    for key, tensor in (*net.named_parameters(), *net.named_buffers()):
        floating = tensor.numel() and tensor.is_floating_point()
        if floating and not torch.stack(tensor.aminmax()).isfinite().all():
            raise ValueError(
                f"{name}: {key} holds NaN or infinity; the checkpoint is damaged or its training "
                "diverged: fetch it again, or take an earlier one"
            )


def _wrap(name: str, net: Any, assumed: tuple[str, ...] = (), left_out: str = "") -> Model:
    """Checks a timm module; reads grid, prefix tokens and preprocessing off it, and its heads."""
    _check_module(name, net)
    _check_tensors(name, net)
    net.requires_grad_(False)
    config = resolve_model_data_config(net)
    if not (getattr(net, "pretrained_cfg", None) or {}).get("mean") and _IMAGENET not in assumed:
        assumed = (*assumed, _IMAGENET)
    config["input_size"] = (3, *net.patch_embed.img_size)  # the module's own, if built otherwise
    transform = create_transform(**config, is_training=False)
    entry = next((e for e in _entries() if e["name"] == name), {"objective": "unknown"})
    facts = entry | {"assumed": "; ".join(assumed), "left_out": left_out}
    prefix = int(getattr(net, "num_prefix_tokens", 0))
    rows, columns = net.patch_embed.grid_size
    model = Model(name, net, transform, (rows, columns), prefix, facts)
    found = model.fingerprint  # reading the heads refuses what the algebra does not cover
    if entry.get("fingerprint") not in (None, "", found):
        raise ValueError(
            f"{name}: its weights have the fingerprint {found}, but those of that name "
            f"{entry['fingerprint']}: another checkpoint; give the file its own name"
        )
    return model


@dataclass(frozen=True)
class _Known:
    """What is known of a checkpoint beside its tensors."""

    architecture: str = ""  # of timm; none: a plain vision transformer
    arguments: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None  # preprocessing, in timm's words
    num_heads: int | None = None
    assumed: tuple[str, ...] = ()


def _embedded(name: str) -> Path | None:
    """The file of an embedded model; None for any other name."""
    path = _EMBEDDED / f"{name}.safetensors"
    return path if os.path.isfile(path) else None


def _known(name: str) -> _Known | None:
    """What a name tells: an embedded model's, timm's ARCHITECTURE.TAG, or one with a tag of yours.

    None for any other.
    """
    embedded = _embedded(name)
    if embedded is not None:
        return _of_metadata(checkpoints.read(embedded).metadata)
    kind, _, tag = name.partition(".")
    if not kind or not is_model(kind):
        return None
    try:
        config = get_pretrained_cfg(name)
        assumed: tuple[str, ...] = ()
    except RuntimeError:  # timm knows no such tag
        config, tag = get_pretrained_cfg(kind), ""
    if not tag and config is not None:
        assumed = (f"preprocessing of timm's {kind}.{config.tag}",)
    if tag and "_clip_" in kind and "quickgelu" not in kind:
        other = f"{kind.replace('_clip_', '_clip_quickgelu_')}.{tag}"
        if is_model_pretrained(other):
            raise ValueError(
                f"{name!r}: trained with QuickGELU, which timm's {kind} has not; say {other!r}"
            )
    return _Known(kind, {}, None if config is None else config.to_dict(), None, assumed)


def _of_metadata(said: Mapping[str, Any]) -> _Known | None:
    """What our own safetensors files say."""
    if not said:
        return None
    _check_preprocessing("its metadata", said["config"])
    return _Known(config=said["config"], num_heads=options.count("num_heads", said["num_heads"]))


def _check_preprocessing(where: object, config: Any) -> None:
    """Raises ValueError for preprocessing from which timm can make no numbers."""
    try:
        shown = create_transform(**resolve_data_config(pretrained_cfg=config))
        finite = bool(shown(Image.new("RGB", (8, 8))).isfinite().all())
    except Exception as error:  # whatever timm makes of it
        raise ValueError(f"{where}: no preprocessing of timm's ({error}); mend it") from error
    if not finite:
        raise ValueError(f"{where}: its mean and std give no numbers; mend it")


def _of_config(path: Path) -> _Known | None:
    """What a `config.json` of timm's says; None where there is none, or of another library."""
    if not path.is_file():
        return None
    try:
        said = json.loads(path.read_text("utf-8"))
        kind, config = said.get("architecture"), said.get("pretrained_cfg", said)
        if kind is None:
            return None
        arguments, tag = dict(said.get("model_args") or {}), dict(config).get("tag", "")
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: not a configuration of timm's ({error}); mend it") from error
    _check_preprocessing(path, config)
    if not is_model(str(kind)):
        raise ValueError(f"{path}: timm knows no architecture {kind!r}; pass like=")
    unknown = sorted(arguments.keys() - _ARGUMENTS)
    if unknown:
        raise ValueError(f"{path}: model_args holds {', '.join(unknown)}, no options of a model")
    _known(f"{kind}.{tag}" if tag else kind)  # refuses a name that timm has under two activations
    return _Known(kind, arguments, config)


def _in_folder(folder: Path) -> Path:
    """The checkpoint of a snapshot folder."""
    try:
        found = [folder / name for name in _SNAPSHOT if (folder / name).exists()]
        others = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)
    except PermissionError as error:
        raise PermissionError(
            f"{folder}: this user may not read it; change its permissions"
        ) from error
    if not found and len(others) != 1:
        names = ", ".join(p.name for p in others) or "no checkpoint file"
        raise ValueError(f"{folder}: a folder with {names}; pass one checkpoint file")
    return (found or others)[0]


def _from_path(
    path: Path,
    num_heads: Any = None,
    grid: Any = None,
    like: Any = None,
    state_dict: Any = None,
) -> Model:
    """The model of a checkpoint file or a snapshot folder."""
    heads = None if num_heads is None else options.count("num_heads", num_heads)
    if grid is not None:
        rows, columns = grid if isinstance(grid, tuple | list) and len(grid) == 2 else (grid, None)
        grid = options.count("grid", rows), options.count("grid", columns)
    path = _in_folder(path) if path.is_dir() else path
    name = _title(path)
    known = _like(like) if like is not None else None
    checkpoint = checkpoints.read(path, state_dict)
    net: Any
    known = known or _of_config_or_name(path, name) or _of_metadata(checkpoint.metadata)
    known = known or _Known(assumed=(_ASSUMED, _IMAGENET))
    if known.architecture:
        net, sized = _build(checkpoint, known, heads, grid, like is not None)
    else:
        net, sized = _build_plain(checkpoint, known, heads, grid), not known.num_heads
    left_out = checkpoints.fill(net, checkpoint)
    net.pretrained_cfg = net.default_cfg = dict(known.config or {})
    assumed = known.assumed + (("a square patch grid",) if sized and grid is None else ())
    return _wrap(name, net, assumed, ", ".join(left_out))


def _title(path: Path) -> str:
    """What a file's model is called: the file's name, or its folder's where many are named so."""
    if path.name in _SNAPSHOT:
        return path.absolute().parent.name
    while path.suffix.lower() in _SUFFIXES:
        path = path.with_suffix("")
    return path.name


def _like(name: Any) -> _Known:
    known = _known(name) if isinstance(name, str) else None
    if known is None or (known.architecture and name.partition(".")[2] and known.assumed):
        raise ValueError(
            f"like={name!r}: it is a name that timm has or an embedded model's{_hint(name)}"
        )
    return known


def _of_config_or_name(path: Path, name: str) -> _Known | None:
    """What a `config.json` beside a file says, else the file's name; refuses where they differ."""
    said, named = _of_config(path.with_name("config.json")), _known(name)
    if said and named and said.architecture != named.architecture:
        raise ValueError(
            f"{path}: config.json beside it is for {said.architecture}; say what it is with like="
        )
    return said or named


def _build_plain(
    checkpoint: Checkpoint, known: _Known, num_heads: int | None, grid: Grid | None
) -> nn.Module:
    """A plain vision transformer, by the shapes of a file's tensors."""
    if "norm_pre.weight" in checkpoint.tensors:
        raise ValueError(
            f"{checkpoint.path}: a LayerNorm before its blocks, as in CLIP, leaves activation, eps "
            "and preprocessing open; name a timm model that is built alike with like="
        )
    given = checkpoints.arguments(checkpoint, _agreed(checkpoint, known.num_heads, num_heads), grid)
    distilled = "dist_token" in checkpoint.tensors
    return _meta(checkpoint, "deit_tiny_distilled_patch16_224" if distilled else _PLAIN, given)


def _agreed(checkpoint: Checkpoint, known: int | None, asked: int | None) -> int:
    """The number of heads that is known or asked for; refuses where they differ or both lack."""
    if known is None and asked is None:
        raise ValueError(
            f"{checkpoint.path}: its tensors do not tell the number of heads; pass num_heads="
        )
    if known is not None and asked not in (None, known):
        raise ValueError(
            f"{checkpoint.path}: num_heads={asked}, but the model has {known} heads; leave it out"
        )
    return asked or known or 0


def _build(
    checkpoint: Checkpoint, known: _Known, num_heads: int | None, grid: Grid | None, alike: bool
) -> tuple[nn.Module, bool]:
    """A timm architecture, and whether in the size of the file's own grid.

    Where it is only alike, all its sizes are the file's.
    """
    tensors, kind = checkpoint.tensors, known.architecture
    depth = checkpoints.check_shapes(checkpoint)
    if known.arguments.get("depth", depth) != depth:
        raise ValueError(f"{checkpoint.path}: {depth} blocks, but config.json says another depth")
    given: dict[str, Any] = {**known.arguments, "num_classes": checkpoints.classes(tensors)}
    given |= {"global_pool": "avg"} if "fc_norm.weight" in tensors else {}
    net = _meta(checkpoint, kind, given)
    _check_module(kind, net)
    own = {key: tensor.shape for key, tensor in net.state_dict().items()}
    same = {key for key, shape in own.items() if key in tensors and tensors[key].shape == shape}
    _, heads, _, width = read_heads(net, kind).w_q.shape
    heads = _agreed(checkpoint, heads if width == tensors[EMBED].shape[0] else None, num_heads)
    sized = grid is not None or "pos_embed" in own.keys() & tensors.keys() - same
    if alike and same != own.keys() and isinstance(net, VisionTransformer):
        given |= checkpoints.arguments(checkpoint, heads, grid)
    elif sized:
        embeds = not getattr(net, "no_embed_class", False)
        rows, columns = net.patch_embed.patch_size
        shape, _ = checkpoints.find_grid(checkpoint, net.num_prefix_tokens, 0, grid, embeds)
        given["img_size"] = (shape[0] * rows, shape[1] * columns)
    net = _meta(checkpoint, kind, given)
    if any(name not in own for name, _ in net.named_buffers()):
        net = timm.create_model(kind, **given)  # meta has no numbers for what no file holds
    return net, sized


def _meta(checkpoint: Checkpoint, kind: str, given: Mapping[str, Any]) -> Any:
    """A timm architecture without memory for its tensors."""
    try:
        with torch.device("meta"):
            return timm.create_model(kind, **given)
    except Exception as error:  # whatever an architecture makes of arguments that do not fit
        raise ValueError(f"{checkpoint.path}: timm can't build its {kind} ({error})") from error


def _by_name(name: str) -> Model:
    embedded = _embedded(name)
    if embedded is not None:
        return _from_path(embedded)
    _refuse_unknown(name)
    folder = os.environ.get(WEIGHTS_VARIABLE, "")
    path = Path(folder) / f"{name}.safetensors"
    if folder and os.path.isfile(path):
        return _from_path(path)
    return _wrap(name, _from_hub(name, folder))


def _hint(name: object) -> str:
    known = [e["name"] for e in _entries()] + timm.list_models() + timm.list_pretrained()
    close = difflib.get_close_matches(str(name)[:100], known, n=3)
    return f"; did you mean {', '.join(close)}?" if close else "; see qkutils.catalogue()"


def _refuse_unknown(name: str) -> None:
    """Raises ValueError for a name that nobody knows, or that timm can't fetch."""
    entry = next((e for e in _entries() if e["name"] == name or name == e["paper"] != ""), None)
    if entry and entry["source"] != "timm":
        raise ValueError(
            f"{name!r}: timm does not hold the tensors of {entry['name']!r} ({entry['note']}); "
            "put them into a timm module and pass that"
        )
    if entry and entry["name"] != name:
        raise ValueError(f"{name!r} is the paper's name; load it as {entry['name']!r}")
    try:
        if is_model(name) and get_pretrained_cfg(name) is not None:
            _known(name)
            return
    except RuntimeError as error:
        raise ValueError(f"{name!r}: timm knows no such weights: {error}") from error
    raise ValueError(
        f"{name!r} is no embedded model, no timm model, no file and no folder{_hint(name)}"
    )


def _from_hub(name: str, folder: str) -> nn.Module:
    """Fetches a timm model from the hub, or says where it was looked for and how to get it."""
    with torch.device("meta"):  # its architecture without its tensors
        _check_module(name, timm.create_model(name))
    try:
        return timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's client raises some ten unrelated classes when offline
        looked = f"{folder}/{name}.safetensors" if folder else f"{WEIGHTS_VARIABLE} (not set)"
        raise FileNotFoundError(
            f"{name}: not an embedded model; not in {looked}; and the hub gave nothing "
            f"({type(error).__name__}: {error}).  With a network, fetch it once with: "
            f"qkutils fetch {name}"
        ) from error


def fetch(name: str, folder: Path) -> Path:
    """Fetch a model from the hub and keep it as NAME.safetensors in a folder.

    `load` finds it there by its name, without a network, where QKUTILS_WEIGHTS names the folder.

    Parameters
    ----------
    name
        A name that timm has, such as `vit_base_patch16_224.augreg_in21k`.
    folder
        Where the file goes; it is made where it is missing.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        For an embedded model, which is there already, and for a name that timm can't fetch.
    FileNotFoundError
        Where the hub gives nothing, as without a network.
    OSError
        Where the file can't be written, or another process writes it.

    Examples
    --------
    >>> import qkutils as qk
    >>> from pathlib import Path
    >>> qk.models.fetch("tiny-supervised", Path("weights"))
    Traceback (most recent call last):
    ValueError: 'tiny-supervised': is embedded, nothing has to be fetched; load it by its name
    """
    if _embedded(name) is not None:
        raise ValueError(f"{name!r}: is embedded, nothing has to be fetched; load it by its name")
    _refuse_unknown(name)
    path = folder / f"{name}.safetensors"
    with store.locked(path), store.writing(path) as temporary:
        save_file(_from_hub(name, str(folder)).state_dict(), temporary)
    return path

"""A model: a timm module that is let in, with what is needed to feed it and to read its tokens."""

from __future__ import annotations

import qkutils._torchvision

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from timm.data import create_transform, resolve_model_data_config
from timm.layers import PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.transforms import Compose

from qkutils import options
from qkutils.checkpoints import Grid
from qkutils.heads import Heads, check_blocks, is_timms, read_heads
from qkutils.models._catalogue import Row, entry

IMAGENET = "ImageNet preprocessing"
_PLAIN = (bool, int, float, str, tuple, type(None))
# Attributes of modules that no output depends on.
_PASSING = {"training", "fused_attn", "grad_checkpointing", "p", "drop_prob", "weight_init_mode"}


@dataclass(frozen=True)
class Network:
    """A module of blocks, and the heads in them."""

    name: str
    net: Any  # a module, whose attributes no type checker can know
    facts: dict[str, Any] = field(default_factory=dict, kw_only=True)
    _kept: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    @property
    def token_count(self) -> int:
        """How many tokens an image becomes; ValueError for what takes no images."""
        raise ValueError(f"{self.name}: takes no images; join it to its encoder by predicting()")

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
        """Its heads, read again only where their weights have changed.

        All that computes asks for them: raises ValueError where torch's default device would take
        new tensors away from the CPU.
        """
        if (default := torch.get_default_device()).type != "cpu":
            remedy = "compute within `with torch.device('cpu'):`, wherever the model is"
            raise ValueError(f"{self.name}: torch's default device is {default}; {remedy}")
        check_blocks(self.net, self.name)
        parts = [part for block in self.net.blocks for part in (block.attn, block.norm1)]
        shared = getattr(self.net, "rel_pos_bias", None) or nn.Module()
        read = (t for p in (*parts, shared) for t in (*p.parameters(), *p.buffers()))
        key: list = [_mark(t) for t in read]
        key += [[vars(part).get(name) for part in parts] for name in ("num_heads", "scale", "eps")]
        if self._kept.get("key") != key:
            check_finite(self.name, self.net)
            self._kept["heads"] = read_heads(self.net, self.name)
            self._kept["key"] = key
        return self._kept["heads"]

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of what its attention scores depend on."""
        return self.heads.fingerprint


@dataclass(frozen=True)
class Model(Network):
    """A vision transformer in eval mode with what is needed to feed it and to read its tokens."""

    transform: Compose
    grid: Grid
    prefix_tokens: int

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images it takes, in pixels."""
        height, width = self.net.patch_embed.img_size
        return int(height), int(width)

    @property
    def token_count(self) -> int:
        """How many tokens an image becomes."""
        rows, columns = self.grid
        return self.prefix_tokens + rows * columns

    @property
    def prefix_names(self) -> list[str]:
        """What its prefix tokens are called, in their order."""
        named = {"cls_token": "class token", "dist_token": "distillation token"}
        names = [text for name, text in named.items() if getattr(self.net, name, None) is not None]
        registers = [f"register {n}" for n in range(self.prefix_tokens - len(names))]
        return (names + registers)[: self.prefix_tokens]

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


def _mark(tensor: Tensor) -> float:
    """A number that a change of a tensor changes, also one that autograd is not told of."""
    rows = tensor.detach().float().reshape(len(tensor) if tensor.ndim else 1, -1)
    ends = zip(rows.shape, (2, 3), strict=True)  # not alike: a transposed matrix is another one
    like: Any = {"dtype": rows.dtype, "device": rows.device}
    down, along = [torch.linspace(1, end, n, **like) for n, end in ends]
    return float(down.double() @ (rows @ along).double())


def _structure(net: nn.Module) -> list[tuple]:
    """What a network computes beside its tensors: classes, numbers such as eps, and hooks."""
    found: list[tuple] = []
    for name, module in net.named_modules():
        facts = {k: getattr(v, "__qualname__", v) for k, v in vars(module).items() if k[0] != "_"}
        numbers = sorted(
            (k, repr(v)) for k, v in facts.items() if isinstance(v, _PLAIN) and k not in _PASSING
        )
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        found.append((name, type(module).__qualname__, numbers, list(map(_said_of, hooks))))
    return found


def _said_of(hook: Any) -> tuple:
    """What a hook computes, as far as its name, its code and the values in it tell."""
    if isinstance(hook, partial):
        return (_said_of(hook.func), repr(hook.args), repr(hook.keywords))
    name, code = getattr(hook, "__qualname__", type(hook).__qualname__), b""
    values = [cell.cell_contents for cell in getattr(hook, "__closure__", None) or ()]
    if hasattr(hook, "__code__"):
        code = hook.__code__.co_code
        values += [*hook.__code__.co_consts, *hook.__code__.co_names]
    tensors = [v.tolist() for v in values if isinstance(v, Tensor)]
    return (name, code, [repr(v) for v in values if isinstance(v, _PLAIN)], tensors)


def check_module(name: str, net: Any) -> None:
    """Raises ValueError for a module that is no plain timm vision transformer as it stands."""
    for fault in _faults(net):
        raise ValueError(f"{name} ({type(net).__name__}): {fault}")


def _faults(net: Any) -> Iterator[str]:
    """What is wrong with a module, the gravest first; the later ones hold for what passes these."""
    if any(hasattr(m, "_orig_mod") or m._compiled_call_impl for m in net.modules()):
        yield "is compiled; pass the module as it was before"
    if isinstance(getattr(net, "module", None), nn.Module):
        yield "wraps a module; pass its `.module`"
    stem: Any = getattr(net, "patch_embed", None)
    if getattr(stem, "grid_size", None) is None or not hasattr(net, "blocks"):
        yield "is not a vision transformer of blocks; pass a plain timm vision transformer"
    if type(stem) is not PatchEmbed or not isinstance(stem.proj, nn.Conv2d):
        yield f"{type(stem).__name__} is not timm's PatchEmbed, one convolution over patches"
    if stem.proj.stride != stem.patch_size:
        yield "its patches overlap; undo the change of `patch_embed.proj.stride`"
    for part in ("pos_drop", "patch_drop", "norm_pre", "blocks"):  # which hand the patches on
        kind = type(getattr(net, part, None))
        if kind is not type(None) and not is_timms(kind):
            yield f"{part} is {kind.__name__}, not timm's; pass it as it was"
    for method in ("__call__", "forward", "forward_features", "_pos_embed"):
        if hasattr(net, method) and not is_timms(type(net), method):
            yield f"`{method}` is not timm's; load its state dict into timm's class and pass that"
    for part, module in net.named_modules():
        if "quantized" in type(module).__module__:
            yield f"{part} is quantised; pass the module as it was before"
        for key, value in vars(module).items():
            if callable(value) and hasattr(type(module), key):
                yield f"`{key}` of {part or 'it'} was replaced on the instance; pass it as it was"


def check_tensors(name: str, net: nn.Module) -> None:
    """Raises ValueError for tensors that are not there, not plain, or not float32."""
    parameters = dict(net.named_parameters())
    for key, tensor in (parameters | dict(net.named_buffers())).items():
        if tensor.is_meta:
            raise ValueError(f"{name}: {key} is on the meta device, without numbers; load weights")
        plain = type(tensor) in (nn.Parameter, Tensor, nn.Buffer) and not tensor.is_quantized
        if not plain or tensor.layout != torch.strided:
            kind = f"a {type(tensor).__name__} of {tensor.layout}"
            raise ValueError(f"{name}: {key} is {kind}; pass the module with plain tensors")
        real = tensor.is_floating_point() or tensor.is_complex()
        if tensor.dtype != torch.float32 and (key in parameters or real):
            held = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"{name}: {key} is {held}; pass the module as `.float()` makes it")


def check_finite(name: str, net: nn.Module) -> None:
    """Raises ValueError for tensors with NaN or infinity."""
    for key, tensor in (*net.named_parameters(), *net.named_buffers()):
        floating = tensor.numel() and tensor.is_floating_point()
        if floating and not torch.stack(tensor.aminmax()).isfinite().all():
            raise ValueError(f"{name}: {key} holds NaN or infinity; take an undamaged checkpoint")


def model_of(
    name: str, net: Any, assumed: tuple[str, ...] = (), left_out: str = "", variant: str = ""
) -> Model:
    """Checks a timm module; reads grid, prefix tokens and preprocessing off it, and its heads.

    `variant` says whose preprocessing that is, of those that are known for the name.
    """
    check_module(name, net)
    check_tensors(name, net)
    check_finite(name, net)
    net.eval().requires_grad_(False)
    if not (getattr(net, "pretrained_cfg", None) or {}).get("mean") and IMAGENET not in assumed:
        assumed = (*assumed, IMAGENET)
    row = entry(name)
    said = {"assumed": "; ".join(assumed), "left_out": left_out, "preprocessing": variant}
    facts = {"objective": "unknown", **row, "name": name, **said}
    facts["image_size"] = net.patch_embed.img_size
    prefix = int(getattr(net, "num_prefix_tokens", 0))
    rows, columns = net.patch_embed.grid_size
    model = Model(name, net, _transform(net), (rows, columns), prefix, facts=facts)
    found = model.fingerprint  # reading the heads refuses what the algebra does not cover
    _check_recorded(name, net, row, found)
    return model


def _check_recorded(name: str, net: Any, row: Row, fingerprint: str) -> None:
    """Raises ValueError where a model differs from what the catalogue says of its name."""
    if not row or not row["activation"]:
        return
    block = net.blocks[0]
    found = {
        "heads": (block.attn.num_heads, [row["heads"]]),
        "eps": (block.norm1.eps, [row["eps"], row["eps_hub"]]),
        "activation": (type(block.mlp.act).__name__, [row["activation"]]),
        "fingerprint": (fingerprint, [row["fingerprint"] or fingerprint]),
    }
    wrong = [
        f"{what} {own}, not {recorded[0]}"
        for what, (own, recorded) in found.items()
        if own not in recorded
    ]
    if wrong:
        told = f"{', '.join(wrong)}, as the catalogue has it of that name"
        raise ValueError(f"{name}: {told}; give the file another name")


def _transform(net: Any) -> Compose:
    """How a picture becomes what a module takes, at the size that it has now."""
    config = resolve_model_data_config(net)
    config["input_size"] = (3, *net.patch_embed.img_size)
    return create_transform(**config, is_training=False)


def at_size(model: Model, size: Any) -> Model:
    """The model for images of another size, a side or height and width: a copy.

    Its positions are resampled as timm does it.  Raises ValueError for a size that is not whole
    patches, and for a model that has no position of its own for each patch.
    """
    sides = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
    height, width = (options.count("image_size", side) for side in sides)
    if (height, width) == model.image_size:
        return model
    where, (rows, columns) = f"{model.name}: image_size={size!r}", model.net.patch_embed.patch_size
    if height % rows or width % columns:
        raise ValueError(f"{where}: not whole patches of {rows} × {columns}; take a multiple")
    net = copy.deepcopy(model.net)
    if not isinstance(net, VisionTransformer | Eva) or net.pos_embed is None:
        raise ValueError(f"{where}: it has no position for each patch to resample; leave it out")
    net.set_input_size((height, width))
    facts = model.facts | {"image_size": (height, width)}
    grid = net.patch_embed.grid_size
    return replace(model, net=net, transform=_transform(net), grid=grid, facts=facts)

"""The one vision transformer of a file, told by names and shapes of its tensors."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qkutils.checkpoints._clip import OPENAI, TRANSFORMERS
from qkutils.checkpoints._dinov2 import DINOV2
from qkutils.checkpoints._files import KINDS, Tensors, read_tensors
from qkutils.checkpoints._google import GOOGLE
from qkutils.checkpoints._layouts import EMBED, TIMM, Layout
from qkutils.checkpoints._transformers import VIT

Grid = tuple[int, int]

LAYOUTS = (DINOV2, TIMM, VIT, TRANSFORMERS, OPENAI, GOOGLE)  # in the order in which they are tried
MOST_BLOCKS = 500  # far above what anyone trains
_FC1 = "blocks.0.mlp.fc1.weight"
_DIMENSIONS = {EMBED: 4, "embed.weight": 2, "pos_embed": 3, _FC1: 2, "reg_token": 3}
_PLAIN = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_INERT = re.compile("|".join(KINDS["inert"]))


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one vision transformer under timm's names, and what else its file says.

    `metadata` is what our own files say, `told` what its layout tells.
    """

    path: Path
    tensors: Tensors
    left_out: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    layout: Layout = TIMM
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """The width of the residual stream."""
        return self.tensors[EMBED].shape[0]

    @property
    def classes(self) -> int:
        """How many classes its own head tells apart; 0 where it has no plain one."""
        head = self.tensors.get("head.weight")
        whole = "dist_token" not in self.tensors or "head_dist.weight" in self.tensors
        return len(head) if head is not None and head.shape[1:] == (self.width,) and whole else 0

    def depth(self) -> int:
        """The number of blocks, by the highest.

        Raises ValueError for more than anyone trains, and for tensors with other dimensions than in
        any vision transformer: both before anything is built.
        """
        for key in (key for key in _DIMENSIONS if key in self.tensors):
            shape = tuple(self.tensors[key].shape)
            if len(shape) != _DIMENSIONS[key] or 0 in shape:
                raise self.mismatch(f"{key} of shape {shape}")
        found = [re.match(r"blocks\.(0|[1-9][0-9]{0,5})\.", key) for key in self.tensors]
        depth = max((int(match[1]) + 1 for match in found if match), default=0)
        if not 0 < depth <= MOST_BLOCKS:
            raise self.mismatch(f"{depth} blocks")
        return depth

    def arguments(self, num_heads: int, grid: Grid | None) -> dict[str, Any]:
        """What timm's VisionTransformer is to be called with, read off the tensors' shapes."""
        tensors, depth, width = self.tensors, self.depth(), self.width
        if _FC1 not in tensors:
            raise self.mismatch(f"{_FC1} is missing")
        if width % num_heads:
            raise ValueError(f"num_heads={num_heads}: does not divide the width {width}")
        registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
        distilled, fc_norm = "dist_token" in tensors, "fc_norm.weight" in tensors
        prefix = ("cls_token" in tensors) + distilled + registers
        # Positions without the class token's can be a square by chance: 14 · 16 + 1 = 15 · 15.
        readings = (True, False) if prefix and (grid or registers) else (True,)
        img_size, embeds_prefix = self.image_size(prefix, grid, readings)
        return {
            "img_size": img_size,
            "patch_size": tuple(tensors[EMBED].shape[2:]),
            "in_chans": tensors[EMBED].shape[1],
            "embed_dim": width,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": (tensors[_FC1].shape[0] + 0.5) / width,
            "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
            "proj_bias": "blocks.0.attn.proj.bias" in tensors,
            "qk_norm": "blocks.0.attn.q_norm.weight" in tensors,
            "init_values": 1e-5 if "blocks.0.ls1.gamma" in tensors else None,
            "class_token": "cls_token" in tensors,
            "reg_tokens": registers,
            "no_embed_class": not embeds_prefix,
            "pre_norm": "norm_pre.weight" in tensors,
            "fc_norm": fc_norm,
            "global_pool": "avg" if fc_norm or "cls_token" not in tensors else "token",
            "num_classes": self.classes,
        }

    def image_size(
        self, prefix: int, grid: Grid | None, readings: tuple[bool, ...]
    ) -> tuple[tuple[int, int], bool]:
        """Height and width in pixels, and whether prefix tokens have positions of their own.

        `readings`: which of the two to try.
        """
        if "pos_embed" not in self.tensors:
            raise self.mismatch("pos_embed is missing")
        positions, found = self.tensors["pos_embed"].shape[1], []
        for embeds_prefix in readings:
            patches = positions - prefix * embeds_prefix
            rows, columns = grid or (math.isqrt(max(patches, 0)),) * 2
            if 0 < rows * columns == patches:
                height, width = self.tensors[EMBED].shape[2:]
                found.append(((rows * height, columns * width), embeds_prefix))
        if len(found) != 1:
            told = f"{positions} positions, of patches and perhaps of {prefix} prefix tokens"
            raise ValueError(f"{self.path}: {told}; pass grid=(rows, columns), not {grid}")
        return found[0]

    def fill(self, net: nn.Module) -> tuple[str, ...]:
        """Gives a module the tensors, in float32; returns what else the file holds.

        Raises ValueError where they are not the module's, or are not plain floating-point numbers.
        """
        tensors, own = self.tensors, net.state_dict()
        extra = tensors.keys() - own.keys()
        named = {
            "missing": own.keys() - tensors.keys(),
            "unknown": {key for key in extra if not _INERT.fullmatch(key.partition(".")[0])},
            "of another shape": {
                key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape
            },
        }
        reasons = [f"{_few(keys)} {what}" for what, keys in named.items() if keys]
        if reasons:
            raise self.mismatch("; ".join(reasons))
        net.load_state_dict({key: self._plain(key) for key in own}, assign=True)
        return self.left_out + tuple(sorted({key.partition(".")[0] for key in extra}))

    def _plain(self, key: str) -> Tensor:
        """A float32 copy of its own, which no later change of the file reaches."""
        tensor = self.tensors[key]
        if tensor.dtype not in _PLAIN:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"{self.path}: {key} holds {kind}: quantised; save it unquantised")
        strided = tensor.layout == torch.strided and not tensor.is_meta
        if not strided or tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
            raise ValueError(f"{self.path}: {key} claims more numbers than it holds; save it again")
        return tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)

    def mismatch(self, reason: str) -> ValueError:
        """What is wrong with the tensors, with the name of their layout where that is known."""
        for family in KINDS["layout"]:
            if any(re.search(family["keys"], key) for key in self.tensors):
                remedy = family.get("remedy", KINDS["remedy"])
                words = f"the layout of {family['family']}, which is not read; {remedy}"
                return ValueError(f"{self.path}: {words}")
        near = (each for each in LAYOUTS if any(map(each.knows, self.tensors)))
        layout = self.layout if self.layout is not TIMM else next(near, TIMM)
        words = f"no whole transformer in the layout of {layout.name}: {reason}; first keys are"
        words += f" {sorted(self.tensors)[:3]}; take the whole file, or pass a timm module"
        return ValueError(f"{self.path}: {words}")


def read(path: Path, state_dict: str | None = None, layout: Layout | None = None) -> Checkpoint:
    """Read the one vision transformer of a file, or the one that `state_dict` names.

    `layout`: the only one to look for; without, each that a vision transformer may have.

    Raises
    ------
    FileNotFoundError, PermissionError
        For a file that is not there or that this user may not read.
    ValueError
        For a file that is cut short or of another kind, made of pickled objects, or that holds no
        vision transformer in a layout that is known, or several.
    """
    found, metadata = read_tensors(path)
    tried = (layout,) if layout else LAYOUTS
    layout = next((each for each in tried if each.prefixes(found)), layout or TIMM)
    prefix = _choose(Checkpoint(path, found, layout=layout), state_dict)
    inside = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    outside = {_beside(key, prefix) for key in found if not key.startswith(prefix)}
    inert = re.compile(f"{_INERT.pattern}|{layout.beside}")
    unknown = [name for name in outside if not inert.fullmatch(name)]
    if unknown and state_dict is None:
        raise ValueError(
            f"{path}: beside the transformer it holds {_few(unknown)}, which may change what it "
            f"computes; if not, pass state_dict={prefix.rstrip('.')!r}"
        )
    told = layout.tell(inside)
    try:
        inside = layout.in_timm(inside)
    except (KeyError, IndexError, RuntimeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path}: no whole model in the layout of {layout.name} ({said})"
        ) from error
    return Checkpoint(path, inside, tuple(sorted(outside)), metadata, layout, told)


def _choose(whole: Checkpoint, wanted: str | None) -> str:
    """The prefix of the one state dict in a file, or of the one that is wanted."""
    prefixes = chosen = whole.layout.prefixes(whole.tensors)
    if not prefixes:
        raise whole.mismatch(f"{whole.layout.embed} is missing")
    if wanted is not None:
        exact = [prefix for prefix in prefixes if prefix.rstrip(".") == wanted]
        chosen = exact or [prefix for prefix in prefixes if prefix.startswith(f"{wanted}.")]
    if len(chosen) != 1:
        names = ", ".join(repr(prefix.rstrip(".")) for prefix in prefixes)
        raise ValueError(f"{whole.path}: pass state_dict= one of {names}, not {wanted!r}")
    return chosen[0]


def _beside(key: str, prefix: str) -> str:
    """What a tensor outside of the chosen state dict belongs to: where its name departs."""
    parts, chosen = key.split("."), prefix.split(".")
    common = len(os.path.commonprefix([parts, chosen]))
    return parts[min(common, len(parts) - 1)]


def _few(keys: Iterable[str]) -> str:
    chosen = sorted(keys)
    return ", ".join(chosen[:4]) + (f" and {len(chosen) - 4} more" if len(chosen) > 4 else "")

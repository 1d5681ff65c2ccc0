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

from qkutils.checkpoints._beit import BEIT
from qkutils.checkpoints._clip import OPENAI, TRANSFORMERS
from qkutils.checkpoints._dinov2 import DINOV2
from qkutils.checkpoints._files import KINDS, Tensors, read_tensors
from qkutils.checkpoints._google import GOOGLE
from qkutils.checkpoints._layouts import EMBED, FC1, TABLE, TIMM, Layout, depth_of
from qkutils.checkpoints._transformers import VIT

Grid = tuple[int, int]

# In the order in which they are tried.
LAYOUTS = (DINOV2, BEIT, TIMM, VIT, TRANSFORMERS, OPENAI, GOOGLE)
MOST_BLOCKS = 500  # far above what anyone trains
_DIMENSIONS = {EMBED: 4, "embed.weight": 2, "pos_embed": 3, FC1: 2, "reg_token": 3}
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
        depth = depth_of(self.tensors)
        if not 0 < depth <= MOST_BLOCKS:
            raise self.mismatch(f"{depth} blocks")
        return depth

    def arguments(self, num_heads: int, grid: Grid | None) -> dict[str, Any]:
        """What timm's VisionTransformer is to be called with, read off the tensors' shapes."""
        tensors, depth, width = self.tensors, self.depth(), self.width
        if FC1 not in tensors:
            raise self.mismatch(f"{FC1} is missing")
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
            "mlp_ratio": (tensors[FC1].shape[0] + 0.5) / width,
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
        tables = [len(tensor) for key, tensor in self.tensors.items() if key.endswith(TABLE)]
        if "pos_embed" not in self.tensors and tables:
            return self._size_by_displacements(tables[0] - 3, grid), True
        if "pos_embed" not in self.tensors:
            raise self.mismatch(
                "pos_embed is missing, as in models with rotary or relative positions"
            )
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

    def _size_by_displacements(self, count: int, grid: Grid | None) -> tuple[int, int]:
        """Height and width in pixels of a grid with so many displacements between patches."""
        side = (math.isqrt(max(count, 0)) + 1) // 2
        rows, columns = grid or (side, side)
        if (2 * rows - 1) * (2 * columns - 1) != count:
            told = f"{count} displacements between patches; pass grid=(rows, columns), not {grid}"
            raise ValueError(f"{self.path}: {told}")
        height, width = self.tensors[EMBED].shape[2:]
        return rows * height, columns * width

    def fill(self, net: nn.Module) -> tuple[str, ...]:
        """Gives a module the tensors, in float32; returns what else the file holds.

        Raises ValueError where they are not the module's, or are not plain floating-point numbers,
        and where what the module computes by itself is not what the file holds of it.
        """
        self.check(net)
        tensors, own, computed = self.tensors, net.state_dict(), dict(net.named_buffers())
        extra = tensors.keys() - own.keys()
        for key in sorted(extra & computed.keys()):
            if not _is_there(tensors[key]) or not tensors[key].equal(computed[key]):
                raise self.mismatch(f"{key} of other numbers than timm's")
        net.load_state_dict({key: self._plain(key) for key in own}, assign=True)
        beside = {key.partition(".")[0] for key in extra - computed.keys()}
        return self.left_out + tuple(sorted(beside))

    def check(self, net: nn.Module) -> None:
        """Raises ValueError where a module, which may be without memory, has other tensors."""
        tensors, own = self.tensors, net.state_dict()
        extra = tensors.keys() - own.keys() - dict(net.named_buffers()).keys()
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
        for key in own:
            self._check_plain(key)

    def _check_plain(self, key: str) -> None:
        """Raises ValueError for a tensor that is not of plain numbers, all of them in the file."""
        tensor = self.tensors[key]
        if tensor.dtype not in _PLAIN:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"{self.path}: {key} holds {kind}: quantised; save it unquantised")
        size = tensor.numel() * tensor.itemsize
        if not _is_there(tensor) or size > tensor.untyped_storage().nbytes():
            raise ValueError(f"{self.path}: {key} claims more numbers than it holds; save it again")

    def _plain(self, key: str) -> Tensor:
        """A float32 copy of its own, which no later change of the file reaches."""
        form = torch.contiguous_format
        return self.tensors[key].to(torch.float32, copy=True, memory_format=form)

    def family(self) -> str:
        """Whose layout these tensors have that is not read, and what to do; empty for no known."""
        for each in KINDS["changed"] + KINDS["layout"] * (self.layout is TIMM):
            if any(re.search(each["keys"], key) for key in self.tensors):
                remedy = each.get("remedy", KINDS["remedy"])
                return f"the layout of {each['family']}, which is not read; {remedy}"
        return ""

    def mismatch(self, reason: str) -> ValueError:
        """What is wrong with the tensors, with the name of their layout where that is known."""
        if family := self.family():
            return ValueError(f"{self.path}: {family}")
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
    try:
        told, inside = layout.tell(inside), layout.in_timm(inside)
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
        asked = {k: v for k, v in whole.tensors.items() if k.startswith(f"{wanted}.")}
        if family := Checkpoint(whole.path, asked).family():
            raise ValueError(f"{whole.path}: state_dict={wanted!r} has {family}")
        names = ", ".join(repr(prefix.rstrip(".")) for prefix in prefixes)
        raise ValueError(f"{whole.path}: pass state_dict= one of {names}, not {wanted!r}")
    return chosen[0]


def _is_there(tensor: Tensor) -> bool:
    """Whether a tensor lies in memory, number beside number."""
    return tensor.layout == torch.strided and not tensor.is_meta


def _beside(key: str, prefix: str) -> str:
    """What a tensor outside of the chosen state dict belongs to: where its name departs."""
    parts, chosen = key.split("."), prefix.split(".")
    common = len(os.path.commonprefix([parts, chosen]))
    return parts[min(common, len(parts) - 1)]


def _few(keys: Iterable[str]) -> str:
    chosen = sorted(keys)
    return ", ".join(chosen[:4]) + (f" and {len(chosen) - 4} more" if len(chosen) > 4 else "")

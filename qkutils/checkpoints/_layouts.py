"""Layouts: how other libraries name a vision transformer's tensors, and what timm calls them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from qkutils.checkpoints._files import Tensors

EMBED = "patch_embed.proj.weight"  # every vision transformer in timm's layout has one
FC1 = "blocks.0.mlp.fc1.weight"
TABLE = "relative_position_bias_table"  # what such a tensor's name ends with


def _same(tensors: Tensors) -> Tensors:
    return tensors


def _nothing(_: Tensors) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Layout:
    """One library's names of tensors, relative to what stands before all names of a model.

    `embed` names the patch projection, which tells the layout, with `sign` where other layouts have
    it too.  `rules` are patterns of whole names and what stands for them in timm; the first that
    fits counts, and a name that none fits stays.  Queries, keys and values that are apart are
    called `attn.q`, `attn.k` and `attn.v`.  `change` puts right what names can't.  `beside` are
    names of what else such a file holds.  `tell` gives what is known of a model by its layout;
    where `silent`, that is in a config.json beside the file.
    """

    name: str
    embed: str = EMBED
    sign: str = ""
    rules: tuple[tuple[str, str], ...] = ()
    change: Callable[[Tensors], Tensors] = _same
    tell: Callable[[Tensors], dict[str, Any]] = _nothing
    beside: str = ""
    silent: bool = False

    def prefixes(self, names: Iterable[str]) -> list[str]:
        """What stands before the names of each vision transformer of this layout."""
        names = list(names)
        ends = [n.removesuffix(self.embed) for n in names if f".{n}".endswith(f".{self.embed}")]
        signed = not self.sign or any(re.search(self.sign, name) for name in names)
        return sorted(ends) if signed else []

    def knows(self, name: str) -> bool:
        """Whether a tensor of a block is called so, whatever stands before."""
        return any(r"\d" in rule and re.search(rule, name) for rule, _ in self.rules)

    def in_timm(self, tensors: Tensors) -> Tensors:
        """The same tensors under timm's names."""
        found = {self._renamed(name): tensor for name, tensor in tensors.items()}
        return joined(self.change(found))

    def _renamed(self, name: str) -> str:
        matches = ((re.fullmatch(pattern, name), new) for pattern, new in self.rules)
        return next((match.expand(new) for match, new in matches if match), name)


def joined(tensors: Tensors) -> Tensors:
    """Queries, keys and values of each block in one tensor; where one lacks, all are left out."""
    found = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.*\.attn\.)([qkv])\.(weight|bias)", name)
        parts = [f"{match[1]}{part}.{match[3]}" for part in "qkv"] if match else []
        if not match:
            found[name] = tensor
        elif match[2] == "q" and all(part in tensors for part in parts):
            found[f"{match[1]}qkv.{match[3]}"] = torch.cat([tensors[part] for part in parts])
    return found


def depth_of(names: Iterable[str]) -> int:
    """The number of blocks, by the highest."""
    found = (re.match(r"blocks\.(0|[1-9][0-9]{0,5})\.", name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def with_class_position(tensors: Tensors) -> Tensors:
    """Registers have no positions: the class token's position goes into the token, as in timm."""
    if "reg_token" not in tensors or not {"cls_token", "pos_embed"} <= tensors.keys():
        return tensors
    own, rest = tensors["pos_embed"][:, :1], tensors["pos_embed"][:, 1:]
    return tensors | {"cls_token": tensors["cls_token"] + own, "pos_embed": rest}


def batched(tensors: Tensors) -> Tensors:
    """Class token and positions with the leading dimensions that timm gives them."""
    shapes = {"cls_token": (1, 1, -1), "pos_embed": (1, *tensors["pos_embed"].shape[-2:])}
    return tensors | {name: tensors[name].reshape(shape) for name, shape in shapes.items()}


TIMM = Layout("timm")

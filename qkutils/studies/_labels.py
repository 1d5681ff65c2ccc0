"""Labels: what every patch of some pictures shows, beside a coarser label that it refines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Labels:
    """A label for every patch of every scene, −1 for none, beside the coarser one it refines."""

    names: tuple[str, ...]
    fine: Int[Tensor, "scene row column"]
    base: Int[Tensor, "scene row column"]
    coarse: int  # how many coarser labels there are

    def to(self, device: torch.device) -> Labels:
        """The same on another device."""
        return Labels(self.names, self.fine.to(device), self.base.to(device), self.coarse)


def some(labels: Labels, scene: Tensor) -> Labels:
    """The labels of some scenes, in this order."""
    return Labels(labels.names, labels.fine[scene], labels.base[scene], labels.coarse)


def misplaced(labels: Labels, generator: torch.Generator) -> Labels:
    """The labels of other scenes at the same places: the same labels, which mean nothing here.

    A scene's labels stay together, so that the patches of one object do not count as many cases,
    and where they stand stays, so that a projection of mere place gains nothing.  Places, which are
    alike in all scenes, are moved round the grid instead, in each scene by another step.
    """
    count, rows, columns = labels.fine.shape
    if (labels.fine != labels.fine[:1]).any():
        return some(labels, torch.randperm(count, generator=generator))
    down, right = (torch.randint(n, (count, 1, 1), generator=generator) for n in (rows, columns))
    row = (torch.arange(rows)[:, None] + down) % rows
    column = (torch.arange(columns) + right) % columns
    at = (torch.arange(count)[:, None, None], row, column)
    return Labels(labels.names, labels.fine[at], labels.base[at], labels.coarse)

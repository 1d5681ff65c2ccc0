"""I-JEPA's predictor, and networks that see some patches of an image."""

from __future__ import annotations

import qkutils._torchvision

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from qkutils import checkpoints, options
from qkutils.models._loading import AnyModel, load, placed
from qkutils.models._model import Model, Network, check_finite, check_tensors

Images = Float[Tensor, "image channel height width"]


@dataclass(frozen=True)
class Predictor(Network):
    """I-JEPA's predictor: heads for all that needs weights alone."""


@dataclass(frozen=True)
class Masked(Network):
    """A network that runs on images of which it sees some patches.

    `kinds` says of each of its tokens what it stands for, and `patches` for which patch of the
    image, counted in reading order; -1 for a prefix token.
    """

    kinds: tuple[str, ...]
    patches: tuple[int, ...]

    @property
    def token_count(self) -> int:
        """How many tokens an image becomes."""
        return len(self.patches)


def predictor(path: str | Path, *, num_heads: int) -> Predictor:
    """Load I-JEPA's predictor from the authors' file.

    It belongs to the file's `encoder`, which `load(path, state_dict="encoder")` gives.

    Parameters
    ----------
    path
        The whole file, or one with the predictor alone.
    num_heads
        As many as the encoder has: 16 in the authors' ViT-H.

    Returns
    -------
    Predictor
        `decompose` and all else that needs weights alone take it as a model.  `predicting` joins it
        to its encoder.

    Raises
    ------
    ValueError
        For a file without a whole predictor, and for a number of heads that does not fit.
    FileNotFoundError
        For a file that is not there.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.models.predictor("IN1K-vit.h.14-300e.pth.tar", num_heads=16)
    Traceback (most recent call last):
    FileNotFoundError: IN1K-vit.h.14-300e.pth.tar: there is no such file; check the path
    """
    path, num_heads = Path(path).expanduser(), options.count("num_heads", num_heads)
    checkpoint = checkpoints.read(path, layout=checkpoints.PREDICTOR)
    depth, tensors = checkpoint.depth(), checkpoint.tensors
    if "pos_embed" not in tensors:
        raise checkpoint.mismatch("pos_embed is missing")
    width, d_encoder = tensors["embed.weight"].shape
    if width % num_heads:
        raise ValueError(f"num_heads={num_heads}: does not divide the width {width}")
    with torch.device("meta"):
        net = _Predictor(width, d_encoder, tensors["pos_embed"].shape[1], depth, num_heads)
    left_out = ", ".join(checkpoint.fill(net))
    name = f"predictor of {checkpoints.title(path)}"
    check_tensors(name, net)
    check_finite(name, net)
    net.eval().requires_grad_(False)
    assumed = "GELU, eps 1e-6, blocks that normalise first"  # as in the authors' code
    return Predictor(name, net, facts={"name": name, "assumed": assumed, "left_out": left_out})


class _Predictor(nn.Module):
    """The authors' predictor, in timm's blocks."""

    def __init__(
        self, width: int, d_encoder: int, patches: int, depth: int, num_heads: int
    ) -> None:
        super().__init__()
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.embed = nn.Linear(d_encoder, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, patches, width))
        blocks = (Block(width, num_heads, qkv_bias=True, norm_layer=norm) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = norm(width)
        self.proj = nn.Linear(width, d_encoder)

    def forward(
        self, seen: Float[Tensor, "image context d_encoder"], context: list[int], target: list[int]
    ) -> Float[Tensor, "image target d_encoder"]:
        """What the encoder would make of the target, by what it makes of the context."""
        known = self.embed(seen) + self.pos_embed[:, context]
        wanted = self.mask_token + self.pos_embed[:, target]
        x = torch.cat([known, wanted.expand(len(seen), -1, -1)], 1)
        return self.proj(self.norm(self.blocks(x))[:, len(context) :])


def masked(model: AnyModel, context: Sequence[int]) -> Masked:
    """Let a model see some patches of every image.

    The other patches are dropped when positions have been added, before the first block.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    context
        The patches that it sees, counted in reading order from 0.

    Returns
    -------
    Masked
        `observed_attention`, `rebuild_attention` and `token_factors` take it as a model.  Their
        results say of each token its patch, and its kind: a prefix token's name, or `context`.

    Raises
    ------
    ValueError
        For patches that are not there or named twice, and for another module than timm's
        VisionTransformer.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> corner = qk.models.masked("tiny-supervised", [0, 1, 8, 9])
    >>> attention = qk.observed_attention(corner, torch.zeros(1, 3, 64, 64))
    >>> attention.key_kind.values.tolist()
    ['class token', 'context', 'context', 'context', 'context']
    >>> attention.key_patch.values.tolist()
    [-1, 0, 1, 8, 9]
    """
    loaded = load(model)
    rows, columns = loaded.grid
    chosen = options.indices("context", context, rows * columns)
    if not isinstance(loaded.net, VisionTransformer):
        kind = type(loaded.net).__name__
        raise ValueError(f"{loaded.name}: {kind} is not timm's VisionTransformer; pass one")
    prefix = loaded.prefix_names
    kept = [*range(len(prefix)), *(len(prefix) + patch for patch in chosen)]
    kinds = (*prefix, *["context"] * len(chosen))
    patches = (*[-1] * len(prefix), *chosen)
    net = _Masked(loaded.net, kept)
    return Masked(loaded.name, net, kinds, patches, facts=loaded.facts)


class _Masked(nn.Module):
    """A vision transformer without some of its tokens."""

    def __init__(self, encoder: VisionTransformer, kept: list[int]) -> None:
        super().__init__()
        self.encoder, self.kept = encoder, kept
        self.patch_embed, self.blocks = encoder.patch_embed, encoder.blocks

    def forward(self, images: Images) -> Float[Tensor, "image token d_model"]:
        """Its last tokens, after the last norm."""
        x = self.encoder._pos_embed(self.patch_embed(images))[:, self.kept]
        return self.encoder.norm(self.blocks(self.encoder.norm_pre(x)))


def predicting(
    predictor: Predictor, encoder: AnyModel, context: Sequence[int], target: Sequence[int]
) -> Masked:
    """Join I-JEPA's predictor to its encoder: the encoder sees a context, a target is predicted.

    Each target is a sequence of its own.

    Parameters
    ----------
    predictor
        What `predictor` gave.
    encoder
        The `encoder` of the same file, as `load` takes it.
    context
        The patches that the encoder sees, counted in reading order from 0.
    target
        The patches that are predicted.

    Returns
    -------
    Masked
        The predictor, which takes the encoder's images.  `observed_attention`, `rebuild_attention`
        and `token_factors` take it as a model.  Its tokens are first the `context`, then the
        `target`.

    Raises
    ------
    ValueError
        For patches that are not there, named twice, or in both, and for another encoder than the
        predictor's.

    Examples
    --------
    >>> import qkutils as qk
    >>> path, context, target = "IN1K-vit.h.14-300e.pth.tar", range(128), range(192, 256)
    >>> predictor = qk.models.predictor(path, num_heads=16)  # doctest: +SKIP
    >>> encoder = qk.load(path, state_dict="encoder", num_heads=16)  # doctest: +SKIP
    >>> qk.models.predicting(predictor, encoder, context, target)  # doctest: +SKIP
    """
    loaded = load(encoder)
    seeing, (rows, columns) = masked(loaded, context), loaded.grid
    chosen = options.indices("target", target, rows * columns)
    both = sorted({*chosen} & {*seeing.patches})
    if both:
        raise ValueError(f"target: patches {both} are in the context, too; leave them out of one")
    _check_fit(predictor, loaded)
    net = _Predicting(placed(predictor, loaded.device).net, seeing.net, chosen)
    kinds = (*seeing.kinds, *["target"] * len(chosen))
    return Masked(predictor.name, net, kinds, (*seeing.patches, *chosen), facts=predictor.facts)


def _check_fit(predictor: Predictor, encoder: Model) -> None:
    """Raise ValueError where an encoder can't be the predictor's."""
    _, heads, _, width = encoder.heads.w_q.shape
    net, (rows, columns) = predictor.net, encoder.grid
    sizes = {
        "prefix tokens": (encoder.prefix_tokens, 0),
        "patches": (rows * columns, net.pos_embed.shape[1]),
        "channels": (width, net.embed.in_features),
        "heads": (heads, predictor.heads.w_q.shape[1]),
    }
    for what, (has, wanted) in sizes.items():
        if has != wanted:
            raise ValueError(
                f"encoder: {encoder.name} has {has} {what}, and {predictor.name} needs {wanted}; "
                "load both from one file, with one num_heads="
            )


class _Predicting(nn.Module):
    """A predictor on what its encoder makes of some patches."""

    def __init__(self, predictor: _Predictor, seeing: _Masked, target: list[int]) -> None:
        super().__init__()
        self.predictor, self.seeing, self.target = predictor, seeing, target
        self.patch_embed, self.blocks = seeing.patch_embed, predictor.blocks

    def forward(self, images: Images) -> Float[Tensor, "image target d_encoder"]:
        """What it predicts."""
        return self.predictor(self.seeing(images), self.seeing.kept, self.target)

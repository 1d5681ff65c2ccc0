"""Passes: the one forward pass through a model, and every hook on a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from qkutils.heads import Heads
from qkutils.models import Model

MISS_LIMIT = 1e-3  # of a layer's largest value: far above rounding, far below any change of use

Watch = Callable[[int, Tensor], Any]


@contextmanager
def watching(
    model: Model,
    *,
    tokens: Watch | None = None,
    queries: Watch | None = None,
    keys: Watch | None = None,
    attention: Watch | None = None,
    change: Watch | None = None,
    parameters: Mapping[str, Tensor] | None = None,
    precision: torch.dtype = torch.float32,
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield a function that runs the model on images and hands on what it computes inside.

    On the first images that it gets, it checks that the model attends as its weights say.

    Parameters
    ----------
    model
        What `load` gave.  It is as it was when the context ends.
    tokens
        Called with each layer and its residual stream [image, token, d_model] at the block's input.
    queries, keys
        Called with each layer and its finished queries or keys [image, head, token, d_head], where
        the attention hands them through `q_norm` and `k_norm`.
    attention
        Called with each layer and its attention [image, head, query, key].
    change
        Called as `queries` is.  What it gives back takes their place, and nothing is checked.
    parameters
        Tensors that stand in for the model's own of the same names.
    precision
        Below float32, the products of the pass are rounded to it, and nothing is checked.

    Yields
    ------
    Callable
        It takes images and gives the model's output.

    Raises
    ------
    ValueError
        Where images are not what the model takes, where tokens are not prefix and patch grid, and
        where the attention of the first images is not that of the weights.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> model, seen = qk.load("tiny-supervised"), []
    >>> with qk.passes.watching(model, attention=lambda layer, a: seen.append(a.shape)) as run:
    ...     output = run(torch.zeros(1, 3, 64, 64))
    >>> len(seen), seen[0]
    (8, torch.Size([1, 4, 65, 65]))
    """
    check = change is None and precision == torch.float32
    with ExitStack() as stack:
        for layer, block in enumerate(model.net.blocks):
            watches = {"q_norm": change or _silent(queries), "k_norm": _silent(keys)}
            stack.enter_context(_hooked(model, layer, block, tokens, watches))
        seen = stack.enter_context(_showing(model, attention)) if attention else None

        def forward(images: Tensor) -> Tensor:
            nonlocal check
            check_images(model, images)
            rounded = torch.autocast(model.device.type, precision, precision != torch.float32)
            with torch.inference_mode(), full_precision(), rounded, ExitStack() as first:
                if check:
                    first.enter_context(_proving(model))
                given = dict(parameters or {})
                out = functional_call(model.net, given, (images.to(model.device),))
            check = False
            if seen is not None:
                _refuse_unseen(model, seen)
            return out

        yield forward


@contextmanager
def streaming(model: Model) -> Iterator[Callable[[Tensor, Watch], None]]:
    """Yield a function that runs the model on images and hands each layer's tokens to a visitor.

    It is one pass over many batches, so that only the first of them is checked: see `watching`.

    Parameters
    ----------
    model
        What `load` gave.

    Yields
    ------
    Callable
        It takes images and a visitor.  It calls the visitor with each layer and its residual stream
        [image, token, d_model] at the block's input.

    Raises
    ------
    ValueError
        What `watching` raises.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> sizes = []
    >>> with qk.passes.streaming(qk.load("tiny-supervised")) as run:
    ...     for batch in torch.zeros(6, 3, 64, 64).split(4):
    ...         run(batch, lambda layer, x: sizes.append(len(x)))
    >>> sizes[0], sizes[-1], len(sizes)
    (4, 2, 16)
    """
    visitor: list[Watch] = []

    def hand_on(layer: int, x: Tensor) -> None:
        visitor[0](layer, x)

    with watching(model, tokens=hand_on) as forward:

        def run(images: Tensor, visit: Watch) -> None:
            visitor[:] = [visit]
            forward(images)

        yield run


def visit_layers(
    model: Model,
    images: Float[Tensor, "image channel height width"],
    visit: Callable[[int, slice, Tensor], None],
    batch_size: int = 32,
) -> None:
    """Run the model on images and call a visitor for each layer and batch.

    Parameters
    ----------
    model
        What `load` gave.
    images
        As the model takes them.
    visit
        Called with the layer, the slice of the images that are in the batch, and x, the residual
        stream [image, token, d_model] at the block's input.
    batch_size
        How many images pass the model together.

    Raises
    ------
    ValueError
        What `watching` raises.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> found = {}
    >>> def visit(layer, which, x):
    ...     found[layer] = x.shape
    >>> qk.passes.visit_layers(qk.load("tiny-supervised"), torch.zeros(2, 3, 64, 64), visit)
    >>> len(found), found[0]
    (8, torch.Size([2, 65, 96]))
    """
    check_images(model, images)
    with streaming(model) as run:
        for start in range(0, len(images), batch_size):
            which = slice(start, min(start + batch_size, len(images)))
            run(images[which], partial(_visit_at, visit, which))


def _silent(watch: Watch | None) -> Watch | None:
    """The same, giving nothing back, so that a hook changes nothing."""
    return None if watch is None else lambda layer, values: watch(layer, values) and None


def _visit_at(visit: Callable, which: slice, layer: int, x: Tensor) -> None:
    visit(layer, which, x)


@contextmanager
def _hooked(
    model: Model,
    layer: int,
    block: Any,
    tokens: Watch | None,
    watches: Mapping[str, Watch | None],
) -> Iterator[None]:
    """Watch one block: its number of tokens always, the rest as asked for."""

    def before(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        _refuse_other_tokens(model, layer, args[0])
        if tokens is not None:
            tokens(layer, args[0])

    handles = [block.register_forward_pre_hook(before)]
    for name, watch in watches.items():
        if watch is not None and hasattr(block.attn, name):
            hand_on = partial(_hand_on, watch, layer)
            handles.append(getattr(block.attn, name).register_forward_hook(hand_on))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hand_on(watch: Watch, layer: int, _: nn.Module, __: Any, out: Tensor) -> Any:
    return watch(layer, out)


def _refuse_other_tokens(model: Model, layer: int, x: Tensor) -> None:
    rows, columns = model.grid
    if x.ndim != 3 or x.shape[1] != model.prefix_tokens + rows * columns:
        raise ValueError(
            f"{model.name}, layer {layer}: tokens of shape {tuple(x.shape)}, but {rows} × "
            f"{columns} patches and {model.prefix_tokens} prefix tokens are expected; without "
            "prompts, masking or dropped patches, and with `num_prefix_tokens` set, it can be "
            "treated"
        )


@contextmanager
def _showing(model: Model, attention: Watch) -> Iterator[list[int]]:
    """Hand on each layer's attention, which the fused kernel never shows; list the layers seen."""
    seen: list[int] = []

    def keep(layer: int, weights: Tensor) -> None:
        seen.append(layer)
        attention(layer, weights)

    blocks = list(model.net.blocks)
    fused = [block.attn.fused_attn for block in blocks]
    handles = [
        block.attn.attn_drop.register_forward_pre_hook(partial(_keep_all, keep, n))
        for n, block in enumerate(blocks)
    ]
    try:
        for block in blocks:
            block.attn.fused_attn = False
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        for block, was in zip(blocks, fused, strict=True):
            block.attn.fused_attn = was


def _keep_all(keep: Watch, layer: int, _: nn.Module, args: tuple) -> None:
    keep(layer, args[0])


def _refuse_unseen(model: Model, seen: list[int]) -> None:
    """Raise ValueError where a layer never showed its attention; start anew for the next images."""
    missing = set(range(len(model.net.blocks))) - set(seen)
    seen.clear()
    if missing:
        raise ValueError(
            f"{model.name}, layers {sorted(missing)}: the forward pass never shows its attention; "
            "its attention is computed by other code than timm's: pass a plain timm module"
        )


@contextmanager
def _proving(model: Model) -> Iterator[None]:
    """Check after one pass that each layer's heads gave what their weights say on its first image.

    Compared is what the heads read from the values, before the output projection: it depends on
    queries, keys, values and the softmax, and every kernel shows it.
    """
    given: dict[int, Tensor] = {}
    read: dict[int, Tensor] = {}
    handles = []
    for layer, block in enumerate(model.net.blocks):
        after = getattr(block.attn, "norm", None) or block.attn.proj
        for module, into in ((block, given), (after, read)):
            keep = partial(_keep_first, into, layer)
            handles.append(module.register_forward_pre_hook(keep))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    heads = model.heads
    for layer, x in given.items():
        wanted = _reading(heads, layer, x)
        _refuse_other_attention(model.name, layer, read.get(layer), wanted)


def _keep_first(into: dict[int, Tensor], layer: int, _: nn.Module, args: tuple) -> None:
    into[layer] = args[0][:1].float()


def _reading(
    heads: Heads, layer: int, x: Float[Tensor, "1 token d_model"]
) -> Float[Tensor, "1 token read"]:
    """What all heads of a layer read from the values, side by side."""
    normalised = normalise(x, heads.ln_eps) * heads.ln_gain[layer] + heads.ln_shift[layer]
    query, key, value = (
        torch.einsum("itd,hed->ihte", normalised, getattr(heads, f"w_{p}")[layer])
        + getattr(heads, f"b_{p}")[layer][:, None]
        for p in "qkv"
    )
    attention = (query @ key.mT * heads.scale).softmax(-1)
    return (attention @ value).transpose(1, 2).flatten(2)


def _refuse_other_attention(name: str, layer: int, found: Tensor | None, wanted: Tensor) -> None:
    if found is None or found.shape != wanted.shape:
        raise ValueError(
            f"{name}, layer {layer}: its attention is computed by other code than timm's; pass a "
            "plain timm module"
        )
    miss = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))
    if not miss <= MISS_LIMIT:
        raise ValueError(
            f"{name}, layer {layer}: it attends otherwise than its weights say (by {miss:.2g} of "
            "the largest value).  Is an adapter, a mask or another forward at work?  Merge it into "
            "the weights, or pass the plain timm module"
        )


def check_images(model: Model, images: Any) -> None:
    """Raise ValueError where images are missing or are not what the model takes."""
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) == 0:
        kind = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(
            f"images: {kind}; at least one image is needed, as a tensor [image, channel, height, "
            "width]; model.transform makes it from a picture"
        )
    wanted = (model.net.patch_embed.proj.weight.shape[1], *model.image_size)
    if tuple(images.shape[1:]) != wanted or images.dtype != torch.float32:
        raise ValueError(
            f"images of {tuple(images.shape[1:])} numbers in {images.dtype}: {model.name} takes "
            f"{wanted} (channel, height, width) in torch.float32; model.transform resizes, crops "
            "and normalises"
        )
    if not images.isfinite().all():
        raise ValueError("images hold NaN or infinity; look at how they were read")


@contextmanager
def full_precision() -> Iterator[None]:
    """Turn off TF32, which rounds a GPU's float32 products to ten bits; restore it after."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def normalise(x: Float[Tensor, "*at d_model"], eps: float) -> Float[Tensor, "*at d_model"]:
    """LayerNorm's normalised token z, before its gain and shift."""
    return nn.functional.layer_norm(x, x.shape[-1:], eps=eps)

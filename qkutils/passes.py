"""Passes: the one forward pass through a model, and every hook on a network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from math import isfinite
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from qkutils.heads import Heads
from qkutils.models import Network

MISS_LIMIT = 1e-3  # of a layer's largest value: far above rounding, far below any change of use

Watch = Callable[[int, Tensor], Any]
What = Literal["tokens", "queries", "keys", "attention"]


@contextmanager
def watching(
    model: Network,
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
    check, wanted = change is None and precision == torch.float32, model.token_count
    seen: set[int] = set()
    with _Hooks() as hooks:
        for layer, block in enumerate(model.net.blocks):
            q_norm, k_norm = (getattr(block.attn, name, None) for name in ("q_norm", "k_norm"))
            hooks.on_input(block, layer, partial(_refuse_other_tokens, model.name, wanted))
            hooks.on_input(block, layer, tokens)
            hooks.on_output(q_norm, layer, queries)
            hooks.on_output(q_norm, layer, change, replaces=True)
            hooks.on_output(k_norm, layer, keys)
            if attention is not None:  # the fused kernel never shows it
                hooks.callback(setattr, block.attn, "fused_attn", block.attn.fused_attn)
                block.attn.fused_attn = False
                hooks.on_input(block.attn.attn_drop, layer, attention)
                hooks.on_input(block.attn.attn_drop, layer, lambda at, _: seen.add(at))

        def forward(images: Tensor) -> Tensor:
            nonlocal check
            check_images(model, images)
            seen.clear()
            given, on_device = dict(parameters or {}), images.to(model.device)
            rounded = torch.autocast(model.device.type, precision, precision != torch.float32)
            first = partial(functional_call, model.net, given, (on_device[:1],))
            proof = _proving(model, first) if check else nullcontext()
            with torch.inference_mode(), full_precision(), rounded, proof:
                out = functional_call(model.net, given, (on_device,))
            check = False
            if attention is not None:
                _refuse_unseen(model, seen)
            return out

        yield forward


class _Rest(nn.Module):
    """A network from one of its blocks on."""

    net: Any

    def __init__(self, net: Any, layer: int) -> None:
        super().__init__()
        self.net, self.layer = net, layer

    def forward(self, x: Tensor) -> Tensor:
        return self.net.forward_head(self.net.norm(self.net.blocks[self.layer :](x)))


@contextmanager
def resuming(
    model: Network,
    layer: int,
    *,
    keys: Watch | None = None,
    change: Watch | None = None,
    parameters: Mapping[str, Tensor] | None = None,
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield a function that runs the model from the input of one block on.

    It takes the residual stream there.  `keys` and `change` are those of `watching`, at this block
    alone; nothing is checked.
    """
    rest, attn = _Rest(model.net, layer), model.net.blocks[layer].attn
    given = {f"net.{name}": tensor for name, tensor in (parameters or {}).items()}
    with _Hooks() as hooks:
        hooks.on_output(attn.q_norm, layer, change, replaces=True)
        hooks.on_output(attn.k_norm, layer, keys)

        def forward(x: Tensor) -> Tensor:
            with torch.inference_mode(), full_precision():
                return functional_call(rest, given, (x,))

        yield forward


@contextmanager
def streaming(model: Network, what: What = "tokens") -> Iterator[Callable[[Tensor, Watch], None]]:
    """Yield a function that runs the model on images and hands each layer's tokens to a visitor.

    It is one pass over many batches, so that only the first of them is checked: see `watching`.

    Parameters
    ----------
    model
        What `load` gave.
    what
        Which of the watches of `watching` the visitor is.

    Yields
    ------
    Callable
        It takes images and a visitor.  It calls the visitor with each layer and its tokens, or
        what else is asked for.

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
    visitor: Watch

    def hand_on(layer: int, x: Tensor) -> None:
        visitor(layer, x)

    def run(images: Tensor, visit: Watch) -> None:
        nonlocal visitor
        visitor = visit
        forward(images)

    watch: Any = {what: hand_on}
    with watching(model, **watch) as forward:
        yield run


def visit_layers(
    model: Network,
    images: Float[Tensor, "image channel height width"],
    visit: Callable[[int, slice, Tensor], None],
    batch_size: int = 32,
    what: What = "tokens",
) -> None:
    """Run the model on images and call a visitor for each layer and batch.

    Parameters
    ----------
    model
        What `load` gave.
    images
        As the model takes them.
    visit
        Called with the layer, the slice of the images that are in the batch, and what is asked for.
    batch_size
        How many images pass the model together.
    what
        One of the watches of `watching`.  `tokens` is the residual stream [image, token, d_model]
        at the block's input.

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
    with streaming(model, what) as run:
        check_images(model, images)
        for start in range(0, len(images), batch_size):
            which = slice(start, min(start + batch_size, len(images)))
            run(images[which], partial(_visit_at, visit, which))


def _visit_at(visit: Callable, which: slice, layer: int, values: Tensor) -> None:
    visit(layer, which, values)


class _Hooks(ExitStack):
    """Watches on modules, which are called with their layer and go when the context ends."""

    def on_input(self, module: nn.Module, layer: int, watch: Watch | None) -> None:
        """Hand on what a module gets, which nothing that the watch gives back changes."""
        if watch is None:
            return

        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            watch(layer, args[0])

        self.enter_context(module.register_forward_pre_hook(hook))

    def on_output(
        self, module: nn.Module | None, layer: int, watch: Watch | None, replaces: bool = False
    ) -> None:
        """Hand on what a module gives, where it is there; what the watch gives may replace it."""
        if module is None or watch is None:
            return

        def hook(_: nn.Module, __: Any, out: Tensor) -> Tensor | None:
            given = watch(layer, out)
            return given if replaces else None

        self.enter_context(module.register_forward_hook(hook))


def _refuse_other_tokens(name: str, wanted: int, layer: int, x: Tensor) -> None:
    if x.ndim != 3 or x.shape[1] != wanted:
        raise ValueError(
            f"{name}, layer {layer}: tokens of {tuple(x.shape)}, not {wanted} (prefix, "
            "patches); undo prompts, masking and dropped patches, or set `num_prefix_tokens`"
        )


@contextmanager
def _proving(model: Network, run_first: Callable[[], Any]) -> Iterator[None]:
    """Check in one pass that each layer's heads give what their weights say on its first image.

    Compared is what the heads read from the values, before the output projection: it depends on
    queries, keys, values and the softmax, and every kernel shows it.  Where somebody's hooks are on
    the network, `run_first` has to give the same tokens of that image without them.
    """
    heads, wanted = model.heads, dict[int, Tensor]()
    proved: set[int] = set()
    tokens: dict[int, Tensor] = {}

    def predict(layer: int, x: Tensor) -> None:
        tokens[layer] = x[:1].float()
        wanted[layer] = _reading(heads, layer, tokens[layer])

    def compare(layer: int, found: Tensor) -> None:
        x = wanted.pop(layer, None)
        if x is None or x.shape != found[:1].shape:
            return
        miss = _miss(found[:1], x)
        if not isfinite(miss):
            raise ArithmeticError(f"{model.name}, layer {layer}: numbers that are not finite")
        if miss > MISS_LIMIT:
            raise ValueError(
                f"{model.name}, layer {layer}: it attends otherwise than its weights say (by "
                f"{miss:.2g} of the largest value); merge adapters into the weights, remove masks, "
                "or pass the plain timm module"
            )
        proved.add(layer)

    with _Hooks() as hooks:
        for layer, block in enumerate(model.net.blocks):
            hooks.on_input(block, layer, predict)
            hooks.on_input(getattr(block.attn, "norm", None) or block.attn.proj, layer, compare)
        yield
    _refuse_unseen(model, proved)
    if any(_whose(hook) == "other" for part in model.net.modules() for hook in _hooks_of(part)):
        _refuse_moved(model.name, tokens, _tokens_without_hooks(model.net, run_first))


def _miss(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a part of the largest value that is wanted."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


def _hooks_of(module: nn.Module) -> list[Any]:
    return [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]


def _whose(hook: Any) -> str:
    """Whether a hook is a watch of this module's, torch's, which renew a weight, or another's."""
    known = {__name__: "ours", "torch.nn.utils": "torch's"}
    return next((known[each] for each in known if hook.__module__.startswith(each)), "other")


def _tokens_without_hooks(net: Any, run: Callable[[], Any]) -> dict[int, Tensor]:
    """Tokens of every layer in a run in which no hook is called but those that renew weights."""
    found: dict[int, Tensor] = {}
    with _Hooks() as hooks:
        for module in net.modules():
            for name in ("_forward_hooks", "_forward_pre_hooks"):
                all_hooks = getattr(module, name)
                kept = {key: hook for key, hook in all_hooks.items() if _whose(hook) == "torch's"}
                hooks.callback(setattr, module, name, all_hooks)
                setattr(module, name, OrderedDict(kept))
        for layer, block in enumerate(net.blocks):
            hooks.on_input(block, layer, found.__setitem__)
        run()
    return found


def _refuse_moved(name: str, tokens: dict[int, Tensor], plain: dict[int, Tensor]) -> None:
    """Raise ValueError where tokens are not those of the plain network."""
    for layer, x in plain.items():
        miss = _miss(tokens[layer], x)
        if not miss < MISS_LIMIT:
            raise ValueError(
                f"{name}, layer {layer}: a hook moves or changes its tokens (by {miss:.2g} of the "
                "largest value); remove it, or put what it does into the weights"
            )


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
    attention = heads.logits(layer, query @ key.mT).softmax(-1)
    return (attention @ value).transpose(1, 2).flatten(2)


def _refuse_unseen(model: Network, seen: set[int]) -> None:
    """Raise ValueError where the pass never came to what only timm's own attention does."""
    missing = sorted(set(range(len(model.net.blocks))) - seen)
    if missing:
        raise ValueError(
            f"{model.name}, layers {missing}: other code than timm's computes its attention, and "
            "hides it; pass a plain timm module"
        )


def check_images(model: Network, images: Any) -> None:
    """Raise ValueError where images are missing or are not what the model takes."""
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) == 0:
        kind = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(
            f"images: {kind}; a tensor [image, channel, height, width] of at least one is needed; "
            "model.transform makes it from a picture"
        )
    stem = model.net.patch_embed
    wanted = (stem.proj.weight.shape[1], *stem.img_size)
    if tuple(images.shape[1:]) != wanted or images.dtype != torch.float32:
        raise ValueError(
            f"images of {tuple(images.shape[1:])} numbers in {images.dtype}: {model.name} takes "
            f"{wanted} (channel, height, width) in torch.float32, as model.transform gives them"
        )
    if not torch.stack(images.aminmax()).isfinite().all():
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

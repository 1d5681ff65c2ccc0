"""Scanning: one streaming pass over images that fills an atlas."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from qkutils import models
from qkutils.gallery.atlas import STATISTICS, Atlas, load, save
from qkutils.gallery.projections import Layer, Projections, prepare, watching
from qkutils.gallery.sources import Pictures, batches, pictures_of
from qkutils.heads import Convention
from qkutils.models import Model
from qkutils.modes import AnyModel
from qkutils.tokens import normalise

SINK_WEIGHT, SINK_QUERIES = 0.5, 0.9  # a sink gets this attention from this share of queries


def scan(
    model: AnyModel,
    images: Any,
    k: int = 8,
    convention: Convention = "exact",
    *,
    statistics: Sequence[str] = (),
    keys: Sequence[str] | None = None,
    batch_size: int = 16,
    workers: int = 2,
    out: str | Path | None = None,
    save_every: float = 60.0,
    progress: bool = True,
) -> xr.Dataset:
    """The k optimal images of every mode, in both signs, from one pass over `images`.

    `images`: a folder, a tensor, or a sequence of pictures, tensors or records with an `image`
    (see `pictures_of`).  The result holds over (layer, head, mode, sign, rank) the `score`, which
    is max_i s(x_i·u) · max_j s(x_j·v) over patches with both maxima positive, the `image`, a number
    that `key` names, and the patches of the two maxima, in reading order.  Prefix tokens are no
    patches.  Scores that agree to a part in 10⁵ tie, and the key decides.  Files that can't be
    read are left out, with a warning, and the reason stands in `fault`.

    `statistics` may name `variance` (what each mode adds to the variance of the logits over keys:
    σ²·mean_i (x_i·u)²·Var_j(x_j·v)/d_head over all tokens, mean over images; and the same of κ),
    `anisotropy` (mean cosine between the centre tokens of different images) and `sinks` (share of
    images in which 90 % of queries put at least half their attention on one token, and on a prefix
    token; slower, as it needs the attention itself).

    With `out`, the state is saved beside it every `save_every` seconds; a scan that was cut off
    goes on from there, and the finished atlas is written to `out`, or read from it if it is there.
    The result depends neither on `batch_size`, nor on `workers`, nor on the order of images, as
    far as the forward pass itself does not: on a CPU we have found it to the last bit.

    Raises ValueError for bad options and where no image can be read.  Paper figures 1, 4, S5–S16.
    """
    check(k, statistics, batch_size)
    loaded = models.load(model)
    pictures = pictures_of(images, loaded, keys)
    projections = prepare(loaded, convention)
    atlas = Atlas.empty(projections, pictures.keys, k, statistics)
    result = _resume(atlas, out)
    if result is None:
        partial = None if out is None else _partial(out)
        _run(projections, pictures, atlas, batch_size, workers, partial, save_every, progress)
        result = atlas.dataset()
        report_faults(result)
        if out is not None:
            save(result, out)
    if out is not None:
        _partial(out).unlink(missing_ok=True)
    return result


def check(k: int, statistics: Sequence[str], batch_size: int) -> None:
    """Raises ValueError for options that no scan can have."""
    if k < 1 or batch_size < 1:
        raise ValueError(f"k={k}, batch_size={batch_size}: both are at least 1")
    if isinstance(statistics, str) or not set(statistics) <= set(STATISTICS):
        raise ValueError(f"statistics={statistics!r}: a list that may hold {', '.join(STATISTICS)}")


def _partial(out: str | Path) -> Path:
    """Where the state of an unfinished scan is kept."""
    return Path(out).with_name(Path(out).name + ".partial")


def _resume(atlas: Atlas, out: str | Path | None) -> xr.Dataset | None:
    """Gives a finished atlas back, or takes over what an earlier scan had found.

    Raises ValueError where the file is of another scan.
    """
    if out is None:
        return None
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    found = next((p for p in (Path(out), _partial(out)) if p.is_file()), None)
    if found is None:
        return None
    stored, wanted = load(found), atlas.dataset()
    differ = [n for n, v in wanted.attrs.items() if not np.array_equal(stored.attrs.get(n, ""), v)]
    if list(stored.key.values) != atlas.keys:
        differ.append("images")
    if differ:
        raise ValueError(
            f"{found} is of another scan (other {', '.join(differ)}); remove it, or name another"
        )
    if found == Path(out):
        return stored
    earlier = Atlas.of(stored)
    atlas.done, atlas.faults, atlas.sums = earlier.done, earlier.faults, earlier.sums
    atlas.best, atlas.patches = earlier.best, earlier.patches
    return None


def _run(
    projections: Projections,
    pictures: Pictures,
    atlas: Atlas,
    batch_size: int,
    workers: int,
    partial: Path | None,
    save_every: float,
    progress: bool,
) -> None:
    """Adds every image that is not done to the atlas, saving it between batches."""
    todo = [n for n, done in enumerate(atlas.done) if not done and not atlas.faults[n]]
    start = len(atlas.keys) - len(todo)
    bar = tqdm(total=len(atlas.keys), initial=start, desc="images", disable=not progress)
    saved = time.monotonic()
    with bar, reading(projections, atlas) as read:
        for numbers, images, faults in batches(pictures, todo, batch_size, workers):
            if images is not None:
                read(torch.tensor(numbers), images)
            atlas.done[numbers] = True
            for number, why in faults.items():
                atlas.faults[number] = why
            bar.update(len(numbers) + len(faults))
            if partial is not None and time.monotonic() - saved >= save_every:
                save(atlas.dataset(), partial)
                saved = time.monotonic()


@contextmanager
def reading(projections: Projections, atlas: Atlas):
    """A function that runs the model on numbered images and adds them to the atlas."""
    numbers = torch.empty(0, dtype=torch.int64)
    prefix = projections.model.prefix_tokens

    def visit(index: int, query: Tensor, key: Tensor) -> None:
        layer = projections.layers[index]
        patches = (query[:, :, prefix:], key[:, :, prefix:])
        atlas.offer(index, numbers.to(query.device), layer, *patches)
        if "logit_variance" in atlas.sums:
            scale = projections.heads.scale
            of_modes, of_salience = logit_variances(layer, query, key, scale)
            atlas.sums["logit_variance"].add(index, of_modes)
            atlas.sums["salience_variance"].add(index, of_salience)

    def visit_tokens(index: int, x: Tensor) -> None:
        atlas.sums["direction"].add(index, centre_directions(projections, x))

    def run(which: Tensor, images: Tensor) -> None:
        nonlocal numbers
        numbers = which
        forward(images)

    with ExitStack() as stack:
        if "sink" in atlas.sums:
            stack.enter_context(_watching_sinks(projections.model, atlas))
        tokens = visit_tokens if "direction" in atlas.sums else None
        forward = stack.enter_context(watching(projections, visit, tokens))
        yield run


def logit_variances(
    layer: Layer,
    query: Float[Tensor, "image head token mode"],
    key: Float[Tensor, "image head token mode"],
    scale: float,
) -> tuple[Float[Tensor, "image head mode"], Float[Tensor, "image head"]]:
    """Variance over keys that each mode adds to the logits, mean over queries; and that of κ."""
    query = query - layer.query_offset[:, None]
    key = key - key.mean(2, keepdim=True)
    power = query.square_().mean(2)
    of_salience = (key @ layer.salience[:, :, None]).square().mean((2, 3))
    strength = scale * layer.sigma.to(layer.root) / layer.root.square()
    return power * key.square_().mean(2) * strength**2, of_salience * scale**2


def centre_directions(
    projections: Projections, x: Float[Tensor, "image token d_model"]
) -> Float[Tensor, "image d_model"]:
    """The centre token's direction: of x in `paper`, of the normalised token in `exact`.

    A grid of even size has no one centre: the mean over the two or four in the middle is taken.
    """
    model = projections.model
    grid = x[:, model.prefix_tokens :].float().unflatten(1, model.grid)
    middle = grid[:, *(slice((n - 1) // 2, n // 2 + 1) for n in model.grid)].flatten(1, 2)
    if projections.convention == "exact":
        middle = normalise(middle, projections.heads.ln_eps)
    return torch.nn.functional.normalize(middle.mean(1).double(), dim=-1)


@contextmanager
def _watching_sinks(model: Model, atlas: Atlas):
    """Counts, while it lasts, the images in which a head's queries meet on one token."""
    blocks = list(model.net.blocks)
    fused = [block.attn.fused_attn for block in blocks]

    def count(index: int, attention: Tensor) -> None:
        meeting = (attention >= SINK_WEIGHT).float().mean(2)
        share, token = meeting.max(-1)
        sink = share >= SINK_QUERIES
        atlas.sums["sink"].add(index, sink)
        atlas.sums["sink_on_prefix"].add(index, sink & (token < model.prefix_tokens))

    hooks = [
        block.attn.attn_drop.register_forward_pre_hook(lambda _, args, n=n: count(n, args[0]))
        for n, block in enumerate(blocks)
    ]
    try:
        for block in blocks:  # the fused kernel never shows its attention
            block.attn.fused_attn = False
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for block, was in zip(blocks, fused, strict=True):
            block.attn.fused_attn = was


def report_faults(atlas: xr.Dataset) -> None:
    """Warns of images that could not be read; raises ValueError where none could."""
    named = zip(atlas.key.values, atlas.fault.values, strict=True)
    broken = [(key, why) for key, why in named if why]
    if not broken:
        return
    first = f"the first {broken[0][0]!r} ({broken[0][1]})"
    if not atlas.done.any():
        raise ValueError(f"none of {len(broken)} images can be read, {first}")
    message = f"{len(broken)} images can't be read and are left out, {first}; `fault` says why"
    warnings.warn(message, stacklevel=3)


def scan_shard(
    model: str,
    images: str,
    keys: Sequence[str],
    k: int,
    convention: Convention,
    options: dict[str, Any],
) -> xr.Dataset:
    """The atlas of some pictures of a folder, reported to nobody: one worker's part of a scan."""
    loaded = models.load(model)
    pictures = pictures_of(images, loaded).some(keys)
    projections = prepare(loaded, convention)
    atlas = Atlas.empty(projections, pictures.keys, k, options["statistics"])
    batch_size, workers = options["batch_size"], options["workers"]
    _run(projections, pictures, atlas, batch_size, workers, None, 0.0, False)
    return atlas.dataset()

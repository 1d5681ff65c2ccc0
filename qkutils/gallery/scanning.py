"""Scanning: streaming passes over images that fill an atlas."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from qkutils import models
from qkutils.gallery.atlas import STATISTICS, Atlas, load, renumber, save
from qkutils.gallery.projections import Projections, prepare, watching
from qkutils.gallery.sources import Pictures, batches, pictures_of
from qkutils.gallery.statistics import centre_directions, logit_variances, sinks
from qkutils.heads import Convention
from qkutils.modes import AnyModel

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Manner:
    """How a pass goes over its pictures, which does not change what it finds."""

    batch_size: int = 16
    workers: int = 2
    save_every: float = 60.0
    progress: bool = True


def scan(
    model: AnyModel,
    images: Any,
    k: int = 8,
    convention: Convention = "exact",
    *,
    statistics: Sequence[str] = (),
    keys: Sequence[str] | None = None,
    precision: Precision = "float32",
    overfetch: int = 2,
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

    `precision="bfloat16"` is for many images on a GPU: a first pass in half precision fetches
    `overfetch` times k candidates for every mode, and a second one ranks all pictures that are a
    candidate of some mode again in float32.  It gains nothing where these are nearly all pictures:
    the attribute `ranked_again` counts them, and `from_candidates` is the share of places held by
    candidates of the mode itself.  Statistics are then those of the first pass.

    With `out`, the state is saved beside it every `save_every` seconds; a scan that was cut off
    goes on from there, and the finished atlas is written to `out`, or read from it if it is there.
    The result depends neither on `batch_size`, nor on `workers`, nor on the order of images, as
    far as the forward pass itself does not: on a CPU we have found it to the last bit.

    Raises ValueError for bad options and where no image can be read.  Paper figures 1, 4, S5–S16.
    """
    check(k, statistics, batch_size, precision, overfetch)
    loaded = models.load(model)
    pictures = pictures_of(images, loaded, keys)
    projections = prepare(loaded, convention)
    manner = Manner(batch_size, workers, save_every, progress)
    path = None if out is None else Path(out)
    if precision == "float32":
        return one_pass(projections, pictures, k, statistics, manner, path)
    return _two_passes(projections, pictures, k, statistics, overfetch, manner, path)


def check(
    k: int,
    statistics: Sequence[str],
    batch_size: int,
    precision: str = "float32",
    overfetch: int = 1,
) -> None:
    """Raises ValueError for options that no scan can have."""
    if min(k, batch_size, overfetch) < 1:
        raise ValueError(
            f"k={k}, batch_size={batch_size}, overfetch={overfetch}: each is at least 1"
        )
    if isinstance(statistics, str) or not set(statistics) <= set(STATISTICS):
        raise ValueError(f"statistics={statistics!r}: a list that may hold {', '.join(STATISTICS)}")
    if precision not in get_args(Precision):
        raise ValueError(f"precision={precision!r}: {' or '.join(get_args(Precision))}")


def one_pass(
    projections: Projections,
    pictures: Pictures,
    k: int,
    statistics: Sequence[str] = (),
    manner: Manner = Manner(),
    out: Path | None = None,
) -> xr.Dataset:
    """What a single pass over the pictures finds, in the precision of the projections."""
    atlas = Atlas.empty(projections, pictures.keys, k, statistics)
    result = _resume(atlas, out)
    if result is None:
        partial = None if out is None else _beside(out, "partial")
        _run(projections, pictures, atlas, manner, partial)
        result = atlas.dataset()
        report_faults(result)
        if out is not None:
            save(result, out)
    if out is not None:
        _beside(out, "partial").unlink(missing_ok=True)
    return result


def _two_passes(
    projections: Projections,
    pictures: Pictures,
    k: int,
    statistics: Sequence[str],
    overfetch: int,
    manner: Manner,
    out: Path | None,
) -> xr.Dataset:
    """Candidates of every mode in half precision, and all their pictures again in float32."""
    atlas = Atlas.empty(projections, pictures.keys, k, statistics)
    atlas.fixed.attrs["candidates"] = f"bfloat16, {overfetch} × {k}"
    states = [None if out is None else _beside(out, end) for end in ("candidates", "again")]
    result = _resume(atlas, out) if out is not None and out.is_file() else None
    if result is None:
        rough = replace(projections, precision=torch.bfloat16)
        first = one_pass(rough, pictures, overfetch * k, statistics, manner, states[0])
        chosen = np.unique(first.image.values[first.image.values >= 0])
        some = pictures.some([pictures.keys[n] for n in chosen])
        again = one_pass(projections, some, k, (), manner, states[1])
        result = _restored(atlas, first, again)
        if out is not None:
            save(result, out)
    for state in states:
        if state is not None:
            state.unlink(missing_ok=True)
    return result


def _restored(atlas: Atlas, first: xr.Dataset, again: xr.Dataset) -> xr.Dataset:
    """The second pass's places among all pictures, with what the first one knows of these."""
    before, after = Atlas.of(first), Atlas.of(again)
    number = {key: n for n, key in enumerate(before.keys)}
    places = torch.tensor([number[key] for key in after.keys])
    atlas.best, atlas.patches = renumber(after.best, places), after.patches
    atlas.done, atlas.faults, atlas.sums = before.done, before.faults, before.sums
    for place, why in zip(places.tolist(), after.faults, strict=True):
        atlas.faults[place] = why
    result = atlas.dataset()
    held = result.image.values[..., None]
    own = (held == first.image.values[..., None, :]).any(-1)
    share = own[held[..., 0] >= 0].mean()
    return result.assign(ranked_again=len(places), from_candidates=share)


def _beside(out: Path, end: str) -> Path:
    return out.with_name(f"{out.name}.{end}")


def _resume(atlas: Atlas, out: Path | None) -> xr.Dataset | None:
    """Gives a finished atlas back, or takes over what an earlier scan had found.

    Raises ValueError where the file is of another scan.
    """
    if out is None:
        return None
    out.parent.mkdir(parents=True, exist_ok=True)
    found = next((p for p in (out, _beside(out, "partial")) if p.is_file()), None)
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
    if found == out:
        return stored
    earlier = Atlas.of(stored)
    atlas.done, atlas.faults, atlas.sums = earlier.done, earlier.faults, earlier.sums
    atlas.best, atlas.patches = earlier.best, earlier.patches
    return None


def _run(
    projections: Projections,
    pictures: Pictures,
    atlas: Atlas,
    manner: Manner,
    partial: Path | None,
) -> None:
    """Adds every image that is not done to the atlas, saving it between batches."""
    todo = [n for n, done in enumerate(atlas.done) if not done and not atlas.faults[n]]
    start = len(atlas.keys) - len(todo)
    bar = tqdm(total=len(atlas.keys), initial=start, desc="images", disable=not manner.progress)
    saved = time.monotonic()
    with bar, reading(projections, atlas) as read:
        for numbers, images, faults in batches(pictures, todo, manner.batch_size, manner.workers):
            if images is not None:
                read(torch.tensor(numbers), images)
            atlas.done[numbers] = True
            for number, why in faults.items():
                atlas.faults[number] = why
            bar.update(len(numbers) + len(faults))
            if partial is not None and time.monotonic() - saved >= manner.save_every:
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
            of_modes, of_salience = logit_variances(layer, query.float(), key.float(), scale)
            atlas.sums["logit_variance"].add(index, of_modes)
            atlas.sums["salience_variance"].add(index, of_salience)

    def visit_tokens(index: int, x: Tensor) -> None:
        atlas.sums["direction"].add(index, centre_directions(projections, x))

    def run(which: Tensor, images: Tensor) -> None:
        nonlocal numbers
        numbers = which
        forward(images)

    def visit_attention(index: int, attention: Tensor) -> None:
        for name, each in zip(("sink", "sink_on_prefix"), sinks(attention, prefix), strict=True):
            atlas.sums[name].add(index, each)

    tokens = visit_tokens if "direction" in atlas.sums else None
    attention = visit_attention if "sink" in atlas.sums else None
    with watching(projections, visit, tokens, attention) as forward:
        yield run


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
    manner = Manner(options["batch_size"], options["workers"], progress=False)
    _run(projections, pictures, atlas, manner, None)
    return atlas.dataset()

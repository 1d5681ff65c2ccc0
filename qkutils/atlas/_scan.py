"""Scanning: streaming passes over images that fill an atlas."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from qkutils import models, options, store
from qkutils.atlas._measures import centre_directions, logit_variances, sinks
from qkutils.atlas._state import STATISTICS, Atlas, decode, open_atlas, renumber, save
from qkutils.gauge import Projections, prepare, watching
from qkutils.heads import CONVENTIONS, Convention
from qkutils.models import AnyModel
from qkutils.pictures._stream import Pictures, batches, digests, pictures_of

Precision = Literal["float32", "bfloat16"]


STATES = ("partial", "candidates", "again")  # what stands beside an atlas until it is whole


@dataclass(frozen=True)
class Manner:
    """How a pass goes over its pictures, which does not change what it finds."""

    batch_size: int = 16
    workers: int = 2
    save_every: float = 60.0
    progress: bool = True

    def __post_init__(self) -> None:
        options.count("batch_size", self.batch_size)
        options.count("workers", self.workers)
        options.number("save_every", self.save_every, 0.0, closed=True)


def scan(
    model: AnyModel,
    images: Any,
    *,
    k: int = 8,
    convention: Convention = "exact",
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
    """Find the k optimal images of every mode, in both signs, in one pass over images.

    The score of an image is max_i s(x_i·u) · max_j s(x_j·v), where s is the sign.  Both maxima run
    over patches.  An image counts only where both are positive.  Prefix tokens are no patches.
    Scores that agree to a part in 10⁵ tie; then the key decides.

    Files that can't be read are left out, with a warning.  The reason stands in `fault`.

    The result does not depend on `batch_size`, on `workers` or on the order of the images, as far
    as the forward pass itself does not.  On a CPU we have found it equal to the last bit.  Paper
    figures 1, 4, S5–S16.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    images
        A folder, a tensor, or a sequence of pictures, tensors or records with an `image`: see
        `pictures_of`.
    k
        How many images to keep for each mode and sign.
    convention
        `exact`: the modes act on LayerNorm's normalised token, as the model computes.  `paper`:
        they act on the raw residual stream, as in the paper.
    statistics
        Which statistics to compute as well.

        `variance`: what each mode adds to the variance of the logits over keys.  It is
        σ²·mean_i (x_i·u)²·Var_j(x_j·v)/d_head over all tokens, mean over images.  The same is
        computed for κ.

        `anisotropy`: the mean cosine between the centre tokens of different images.

        `sinks`: the share of images in which 90 % of queries put at least half their attention on
        one token, and the share in which this is a prefix token.  It is slower: it needs the
        attention itself.
    keys
        Names for the pictures of a tensor or a sequence, in place of their numbers.
    precision
        `float32`, or `bfloat16` for many images on a GPU.  With `bfloat16`, a first pass in half
        precision fetches candidates for every mode.  A second pass in float32 ranks again all
        pictures that are a candidate of some mode.  The statistics are those of the first pass.
        Nothing is gained where nearly all pictures are candidates.
    overfetch
        With `bfloat16`, the first pass fetches `overfetch` times k candidates for every mode.
    batch_size
        How many images pass the model together.
    workers
        How many threads read pictures.
    out
        A file for the atlas.  While the scan runs, its state is saved beside this file.  A scan
        that was cut off goes on from there.  The finished atlas is written to `out`, or read from
        it if it is there.

        With `out`, pictures are known again by their content.  A picture that could not be read and
        has been mended since is read.
    save_every
        Seconds between two savings of the state.
    progress
        Whether to show a progress bar.

    Returns
    -------
    xr.Dataset
        Over (layer, head, mode, sign, rank): the `score`, the `image`, a number that `key` names,
        and `query_patch` and `key_patch`, the patches of the two maxima in reading order.  With
        `bfloat16`, `ranked_again` counts the pictures of the second pass, and `from_candidates` is
        the share of places held by candidates of the mode itself.

    Raises
    ------
    ValueError
        For bad options, and where no image can be read.  With `out`, also where a picture has
        changed, or where model, preprocessing or options differ from those of the file; it names
        what differs.
    BlockingIOError
        Where another scan of the same `out` is running.
    OSError
        Where `out` can't be written.
    ArithmeticError
        Where projections are not finite.

    Examples
    --------
    >>> import qkutils as qk
    >>> atlas = qk.scan("tiny-supervised", qk.world.pictures(0, 0, 8), k=2, progress=False)
    >>> dict(atlas.image.sizes)
    {'layer': 8, 'head': 4, 'mode': 24, 'sign': 2, 'rank': 2}
    >>> best = atlas.sel(layer=3, head=1, mode=0, sign=1)
    >>> atlas.key.values[best.image].tolist()
    ['00000002', '00000003']
    """
    check(k, convention, statistics, precision, overfetch)
    manner = Manner(batch_size, workers, save_every, progress)
    path = None if out is None else Path(out)
    if path is not None and not path.is_file():
        store.check_writable(path)
    loaded = models.load(model)
    pictures = pictures_of(images, loaded, keys)
    projections = prepare(loaded, convention)
    if precision == "float32":
        return one_pass(projections, pictures, k, statistics, manner, path)
    return _two_passes(projections, pictures, k, statistics, overfetch, manner, path)


def check(
    k: int,
    convention: str,
    statistics: Sequence[str],
    precision: str = "float32",
    overfetch: int = 1,
) -> None:
    """Raises ValueError for options that no scan can have."""
    options.count("k", k)
    options.choice("convention", convention, CONVENTIONS)
    options.choices("statistics", statistics, STATISTICS)
    options.choice("precision", precision, get_args(Precision))
    options.count("overfetch", overfetch)


def one_pass(
    projections: Projections,
    pictures: Pictures,
    k: int,
    statistics: Sequence[str] = (),
    manner: Manner = Manner(),
    out: Path | None = None,
) -> xr.Dataset:
    """What a single pass over the pictures finds, in the precision of the projections."""
    empty = Atlas.empty(projections, pictures.keys, k, statistics)
    run = partial(_run, projections, pictures, manner)
    return _kept(empty, pictures, manner, out, run)


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
    candidates = f"bfloat16, {overfetch} × {k}"
    empty = Atlas.empty(projections, pictures.keys, k, statistics, candidates)
    states = [None if out is None else _beside(out, end) for end in ("candidates", "again")]

    def run(_: Atlas, __: Path | None) -> Atlas:
        rough = replace(projections, precision=torch.bfloat16)
        first = one_pass(rough, pictures, overfetch * k, statistics, manner, states[0])
        chosen = np.unique(first.image.values[first.image.values >= 0])
        some = pictures.some([pictures.keys[n] for n in chosen])
        return _restored(empty, first, one_pass(projections, some, k, (), manner, states[1]))

    return _kept(empty, pictures, manner, out, run)


def _restored(empty: Atlas, first: xr.Dataset, again: xr.Dataset) -> Atlas:
    """The second pass's places among all pictures, with what the first one knows of these."""
    before, after = Atlas.of(first), Atlas.of(again)
    number = {key: n for n, key in enumerate(before.keys)}
    places = torch.tensor([number[key] for key in after.keys])
    best = renumber(after.best, places)
    for place, why in zip(places.tolist(), after.faults, strict=True):
        before.faults[place] = why
    held = decode(best)[1][..., None].numpy()
    own = (held == first.image.values[..., None, :]).any(-1)
    share = own[held[..., 0] >= 0].mean()
    fixed = empty.fixed.assign(ranked_again=len(places), from_candidates=share)
    return replace(before, best=best, patches=after.patches, fixed=fixed)


def _beside(out: Path, end: str) -> Path:
    return out.with_name(f"{out.name}.{end}")


def _kept(
    empty: Atlas,
    pictures: Pictures,
    manner: Manner,
    out: Path | None,
    run: Callable[[Atlas, Path | None], Atlas],
) -> xr.Dataset:
    """The atlas in a file; `run` makes it whole where it is not, going on from what is there."""
    if out is None:
        return _reported(run(empty, None))
    begun, *states = (_beside(out, end) for end in STATES)
    atlas = _begun(empty, pictures, manner, out)
    whole = out.is_file() and not atlas.todo()
    if whole and not any(state.exists() for state in (begun, *states)):
        return atlas.dataset()
    with store.locked(out):
        if not whole:
            start = atlas if out.is_file() else _begun(empty, pictures, manner, begun)
            atlas = run(start, begun)
            save(_reported(atlas), out)
        for state in (begun, *states):
            state.unlink(missing_ok=True)
    return atlas.dataset()


def _begun(empty: Atlas, pictures: Pictures, manner: Manner, path: Path) -> Atlas:
    """What an earlier scan left in a file, with the pictures that are mended since to be read.

    Raises ValueError where the file is damaged, of another scan, or of other pictures.
    """
    if not path.is_file():
        return empty
    stored = open_atlas(path)
    store.check_identity(path, store.identity_of(stored), store.identity_of(empty.fixed))
    atlas = Atlas.of(stored)
    _refuse(path, sorted({*atlas.keys} ^ {*empty.keys}), "are new or missing")
    read = [n for n, fault in enumerate(atlas.faults) if atlas.done[n] or fault]
    found = digests(pictures, read, manner.workers)
    changed = [n for n, digest in found if digest != atlas.digests[n]]
    whole = [atlas.keys[n] for n in changed if not atlas.faults[n]]
    _refuse(path, whole, "have changed since")
    for number in changed:
        atlas.faults[number], atlas.done[number] = "", False
    return atlas


def _refuse(path: Path, keys: list[str], why: str) -> None:
    if keys:
        raise ValueError(
            f"{path}: is of other images; {len(keys)} {why}, the first {keys[0]!r}; name another "
            "file, or remove this one"
        )


def _run(
    projections: Projections,
    pictures: Pictures,
    manner: Manner,
    atlas: Atlas,
    begun: Path | None,
) -> Atlas:
    """Adds every image that is still to be read to the atlas, saving it between batches."""
    todo = atlas.todo()
    start = len(atlas.keys) - len(todo)
    bar = tqdm(total=len(atlas.keys), initial=start, desc="images", disable=not manner.progress)
    saved = time.monotonic()
    with bar, reading(projections, atlas) as read:
        for batch in batches(pictures, todo, manner.batch_size, manner.workers):
            if batch.images is not None:
                read(torch.tensor(batch.numbers), batch.images)
            atlas.note(batch)
            bar.update(len(batch.digests))
            if begun is not None and time.monotonic() - saved >= manner.save_every:
                save(atlas.dataset(), begun)
                saved = time.monotonic()
    return atlas


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


def _reported(atlas: Atlas) -> xr.Dataset:
    result = atlas.dataset()
    report_faults(result)
    return result


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
    statistics: Sequence[str],
    manner: Manner,
) -> xr.Dataset:
    """The atlas of some pictures of a folder, reported to nobody: one worker's part of a scan."""
    loaded = models.load(model)
    pictures = pictures_of(images, loaded).some(keys)
    projections = prepare(loaded, convention)
    atlas = Atlas.empty(projections, pictures.keys, k, statistics)
    return _run(projections, pictures, manner, atlas, None).dataset()

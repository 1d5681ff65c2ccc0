"""Scanning: streaming passes over images that fill an atlas."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import xarray as xr
from tqdm import tqdm

from qkutils import models, options, store
from qkutils.atlas._reading import reading
from qkutils.atlas._state import PLACES, STATISTICS, Atlas, empty, todo
from qkutils.atlas._whole import merge, open_atlas, save
from qkutils.gauge import Projections, prepare
from qkutils.heads import CONVENTIONS, Convention
from qkutils.models import AnyModel
from qkutils.pictures._stream import Pictures, batches, digests, pictures_of

Precision = Literal["float32", "bfloat16"]
STATES = ("partial", "candidates", "again")  # what stands beside an atlas until it is whole


@dataclass(frozen=True)
class Asked:
    """What a scan is asked for; from `batch_size` on, it changes nothing in what is found."""

    k: int = 8
    convention: Convention = "exact"
    statistics: Sequence[str] = ()
    precision: Precision = "float32"
    overfetch: int = 2
    batch_size: int = 16
    workers: int = 2
    save_every: float = 60.0
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("k", "overfetch", "batch_size", "workers"):
            options.count(name, getattr(self, name), 1, 10**6)
        options.choice("convention", self.convention, CONVENTIONS)
        options.choices("statistics", self.statistics, STATISTICS)
        options.choice("precision", self.precision, get_args(Precision))
        options.number("save_every", self.save_every, 0.0, closed=True)
        options.flag("progress", self.progress)


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
        computed for κ, and not for a position bias, which is the same in all images.

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
    asked = Asked(
        k, convention, statistics, precision, overfetch, batch_size, workers, save_every, progress
    )
    path = None if out is None else Path(out)
    if path is not None and not path.is_file():
        for each in (path, *(_beside(path, end) for end in STATES)):
            store.check_writable(each)
    loaded = models.load(model)
    pictures = pictures_of(images, loaded, keys)
    passes = one_pass if precision == "float32" else _two_passes
    return passes(prepare(loaded, convention), pictures, asked, path)


def one_pass(
    projections: Projections, pictures: Pictures, asked: Asked, out: Path | None = None
) -> xr.Dataset:
    """What a single pass over the pictures finds, in the precision of the projections."""
    start = empty(projections, pictures.keys, asked.k, asked.statistics)
    return _kept(start, pictures, asked, out, partial(_filled, projections, pictures, asked))


def _two_passes(
    projections: Projections, pictures: Pictures, asked: Asked, out: Path | None
) -> xr.Dataset:
    """Candidates of every mode in half precision, and all their pictures again in float32."""
    candidates = f"bfloat16, {asked.overfetch} × {asked.k}"
    start = empty(projections, pictures.keys, asked.k, asked.statistics, candidates)
    states = [None if out is None else _beside(out, end) for end in STATES[1:]]

    def run(_: xr.Dataset, __: Path | None) -> xr.Dataset:
        rough = replace(projections, precision=torch.bfloat16)
        more = replace(asked, k=asked.overfetch * asked.k)
        first = one_pass(rough, pictures, more, states[0])
        chosen = np.unique(first.image.values[first.image.values >= 0])
        some = pictures.some([pictures.keys[n] for n in chosen])
        again = one_pass(projections, some, replace(asked, statistics=()), states[1])
        return _restored(first, again).assign_attrs(start.attrs)

    return _kept(start, pictures, asked, out, run)


def _restored(first: xr.Dataset, again: xr.Dataset) -> xr.Dataset:
    """The second pass's places among all pictures, with what the first one knows of these."""
    number = {key: n for n, key in enumerate(first.key.values)}
    places = np.array([number[key] for key in again.key.values], dtype=np.int32)
    image = again.image.copy(data=np.where(again.image >= 0, places[again.image.values], -1))
    own = (image.values[..., None] == first.image.values[..., None, :]).any(-1)
    found = first.drop_dims("rank").assign(again[list(PLACES)]).assign(image=image)
    found.fault.values[places] = again.fault.values
    share = own[image.values >= 0].mean()
    return found.assign(ranked_again=len(places), from_candidates=share)


def _beside(out: Path, end: str) -> Path:
    return out.with_name(f"{out.name}.{end}")


def _kept(
    start: xr.Dataset,
    pictures: Pictures,
    asked: Asked,
    out: Path | None,
    fill: Callable[[xr.Dataset, Path | None], xr.Dataset],
) -> xr.Dataset:
    """The atlas in a file; `fill` makes it whole where it is not, going on from what is there."""
    if out is None:
        return reported(fill(start, None))
    states = [_beside(out, end) for end in STATES]
    atlas = _begun(start, pictures, asked, out)
    whole = out.is_file() and not todo(atlas)
    if whole and not any(state.exists() for state in states):
        return atlas
    with store.locked(out):
        if not whole:
            if not out.is_file():
                atlas = _begun(start, pictures, asked, states[0])
            atlas = reported(fill(atlas, states[0]))
            save(atlas, out)
        for state in states:
            state.unlink(missing_ok=True)
    return atlas


def _begun(start: xr.Dataset, pictures: Pictures, asked: Asked, path: Path) -> xr.Dataset:
    """What an earlier scan left in a file, with the pictures that are mended since to be read.

    Raises ValueError where the file is damaged, of another scan, or of other pictures.
    """
    if not path.is_file():
        return start
    atlas = open_atlas(path)
    store.check_identity(path, store.identity_of(atlas), store.identity_of(start))
    keys, done, fault = (atlas[name].values for name in ("key", "done", "fault"))
    _refuse(path, sorted({*keys} ^ {*start.key.values}), "are new or missing")
    read = np.flatnonzero(done | (fault != "")).tolist()
    found = digests(pictures, read, asked.workers)
    changed = [n for n, digest in found.items() if digest != atlas.digest.values[n]]
    _refuse(path, [keys[n] for n in changed if not fault[n]], "have changed since")
    fault[changed], done[changed] = "", False
    return atlas


def _refuse(path: Path, keys: list[str], why: str) -> None:
    if keys:
        raise ValueError(
            f"{path}: is of other images; {len(keys)} {why}, the first {keys[0]!r}; name another "
            "file, or remove this one"
        )


def _filled(
    projections: Projections,
    pictures: Pictures,
    asked: Asked,
    start: xr.Dataset,
    begun: Path | None,
) -> xr.Dataset:
    """The atlas after every image that was still to be read; it is saved between batches."""
    rest, saved = todo(start), time.monotonic()
    atlas, total = Atlas(start, projections.model.device), len(pictures.keys)
    bar = tqdm(total=total, initial=total - len(rest), desc="images", disable=not asked.progress)
    with bar, reading(projections, atlas) as read:
        for batch in batches(pictures, rest, asked.batch_size, asked.workers):
            if batch.images is not None:
                read(batch.numbers, batch.images)
            atlas.note(batch)
            bar.update(len(batch.digests))
            if begun is not None and time.monotonic() - saved >= asked.save_every:
                save(atlas.dataset(), begun)
                saved = time.monotonic()
    return atlas.dataset()


def reported(atlas: xr.Dataset) -> xr.Dataset:
    """The same, after a warning of images that could not be read; ValueError where none could."""
    named = zip(atlas.key.values, atlas.fault.values, strict=True)
    if broken := [f"{key!r} ({why})" for key, why in named if why]:
        if not atlas.done.any():
            raise ValueError(f"none of {len(broken)} images can be read, the first {broken[0]}")
        told = f"{len(broken)} images can't be read and are left out, the first {broken[0]}"
        warnings.warn(f"{told}; `fault` says why", stacklevel=3)
    return atlas


def scan_shard(model: str, images: str, keys: Sequence[str], asked: Asked) -> xr.Dataset:
    """The atlas of some pictures of a folder, reported to nobody: one worker's part of a scan."""
    loaded = models.load(model)
    pictures = pictures_of(images, loaded).some(keys)
    projections = prepare(loaded, asked.convention)
    start = empty(projections, pictures.keys, asked.k, asked.statistics)
    return _filled(projections, pictures, asked, start, None)


def scan_on(
    client: Any,
    model: str,
    images: str,
    *,
    k: int = 8,
    convention: Convention = "exact",
    statistics: Sequence[str] = (),
    shard_size: int = 1000,
    batch_size: int = 16,
    workers: int = 2,
) -> xr.Dataset:
    """Scan a folder on the workers of a `distributed.Client`.

    The folder is scanned in shards.  Where a worker dies, another one computes its shard again.
    Shards merge exactly, so the result is that of one `scan`, as far as the workers' forward passes
    agree.

    Parameters
    ----------
    client
        A `distributed.Client`.
    model
        A name or a file, as the workers see it.
    images
        A folder, as the workers see it.
    k, convention, statistics
        As for `scan`.
    shard_size
        How many pictures a worker gets at a time.
    batch_size
        How many images pass the model together.
    workers
        How many threads read pictures, on each worker.

    Returns
    -------
    xr.Dataset
        What `scan` gives.

    Raises
    ------
    ImportError
        Where Dask is not installed.
    ValueError
        As `scan` does.
    """
    try:
        from distributed import as_completed
    except ImportError as error:
        raise ImportError("scan_on needs Dask: pip install 'qkutils[dask]'") from error
    asked = Asked(k, convention, statistics, batch_size=batch_size, workers=workers, progress=False)
    options.count("shard_size", shard_size)
    keys = pictures_of(images, models.load(model)).keys
    shards = [keys[n : n + shard_size] for n in range(0, len(keys), shard_size)]
    futures = [client.submit(scan_shard, model, images, each, asked, pure=False) for each in shards]
    merged: list[xr.Dataset] = []
    done = as_completed(futures, with_results=True)
    for future, atlas in tqdm(done, total=len(futures), desc="shards"):
        merged = [merge(*merged, atlas)]
        future.release()
    return reported(merged[0])

"""Clusters: a scan in shards on the workers of a Dask client, merged as they come in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr
from tqdm import tqdm

from qkutils import models, options
from qkutils.atlas._scan import Asked, reported, scan_shard
from qkutils.atlas._whole import merge
from qkutils.heads import Convention
from qkutils.pictures._stream import pictures_of


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

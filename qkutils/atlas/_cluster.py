"""Clusters: a scan in shards on the workers of a Dask client, merged as they come in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr
from tqdm import tqdm

from qkutils import models, options
from qkutils.atlas._scan import Manner, check, report_faults, scan_shard
from qkutils.atlas._state import merge
from qkutils.heads import Convention
from qkutils.pictures._stream import pictures_of


def scan_on(
    client: Any,
    model: str,
    images: str,
    k: int = 8,
    convention: Convention = "exact",
    *,
    statistics: Sequence[str] = (),
    shard_size: int = 1000,
    batch_size: int = 16,
    workers: int = 2,
) -> xr.Dataset:
    """What `scan` gives for a folder, computed by the workers of a `distributed.Client`.

    `model` is a name or a file and `images` a folder, both as the workers see them.  The shard of
    a worker that dies is computed again by another one.  Shards merge exactly, so the result is
    that of one scan, as far as the workers' forward passes agree.  Raises ImportError where Dask
    is not installed, ValueError as `scan` does.
    """
    try:
        from distributed import as_completed
    except ImportError as error:
        raise ImportError("scan_on needs Dask: pip install 'qkutils[dask]'") from error
    check(k, convention, statistics)
    options.count("shard_size", shard_size)
    manner = Manner(batch_size, workers, progress=False)
    keys = pictures_of(images, models.load(model)).keys
    shards = [keys[n : n + shard_size] for n in range(0, len(keys), shard_size)]
    futures = [
        client.submit(
            scan_shard, model, images, shard, k, convention, statistics, manner, pure=False
        )
        for shard in shards
    ]
    merged: list[xr.Dataset] = []
    done = as_completed(futures, with_results=True)
    for future, atlas in tqdm(done, total=len(futures), desc="shards"):
        merged = [merge(*merged, atlas)]
        future.release()
    report_faults(merged[0])
    return merged[0]

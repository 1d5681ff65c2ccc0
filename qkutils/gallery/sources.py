"""Sources: the pictures of a folder, a data set or a tensor, by key, decoded ahead in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from qkutils.data.reading import Reading
from qkutils.data.sources import open_picture, picture_files, upright
from qkutils.models import Model
from qkutils.passes import check_images


@dataclass(frozen=True)
class Pictures:
    """Pictures in the order of their keys, each made a tensor only when it is asked for."""

    keys: list[str]
    read: Callable[[int], Tensor]

    def some(self, keys: Sequence[str]) -> Pictures:
        """Those of these keys only."""
        wanted = set(keys)
        chosen = [n for n, key in enumerate(self.keys) if key in wanted]
        return Pictures([self.keys[n] for n in chosen], lambda n: self.read(chosen[n]))


def pictures_of(images: Any, model: Model, keys: Sequence[str] | None = None) -> Pictures:
    """The pictures of a folder (keyed by path), of a tensor, or of a sequence (keyed by number).

    A sequence holds pictures, tensors, or records with an `image`, such as `Sample`.  `keys` names
    the pictures of a tensor or sequence otherwise; a `Reading` brings its own.  Raises ValueError
    for keys that do not fit.
    """
    if isinstance(images, Pictures):
        return images
    if isinstance(images, str | Path):
        return _of_folder(Path(images), model, keys)
    if isinstance(images, Tensor):
        check_images(model, images)
    if isinstance(images, Reading) and keys is None:
        keys = images.keys
    names = [f"{n:08d}" for n in range(len(images))] if keys is None else [str(k) for k in keys]
    if len(names) != len(images) or len(set(names)) != len(names) or not names:
        raise ValueError(
            f"keys: {len(set(names))} different ones for {len(images)} images; each needs its own"
        )
    order = sorted(range(len(names)), key=names.__getitem__)
    return Pictures([names[n] for n in order], lambda n: _tensor(images[order[n]], model))


def _of_folder(folder: Path, model: Model, keys: Sequence[str] | None) -> Pictures:
    if keys is not None:
        raise ValueError("keys: a folder's pictures are keyed by their paths; leave it out")
    files = {path.relative_to(folder).as_posix(): path for path in picture_files(folder)}
    names = sorted(files)
    return Pictures(names, lambda n: _tensor(open_picture(files[names[n]]), model))


def _tensor(item: Any, model: Model) -> Tensor:
    """One item of a data set as the model takes it; raises ValueError for what it can't take."""
    item = getattr(item, "image", item)
    image = model.transform(upright(item)) if isinstance(item, PIL.Image.Image) else item
    if not isinstance(image, Tensor):
        raise ValueError(
            f"{type(image).__name__} is not a picture: a PIL image, a tensor [channel, height, "
            "width], or a record with an `image` is needed"
        )
    check_images(model, image[None])
    return image


def batches(
    pictures: Pictures, numbers: Sequence[int], size: int, workers: int
) -> Iterator[tuple[list[int], Tensor | None, dict[int, str]]]:
    """Numbers and images in batches, with the reasons for which pictures could not be read.

    Threads decode at most two batches ahead, so memory does not grow with the number of pictures.
    """
    decoded = _decoded(pictures, numbers, workers, 2 * size)
    while batch := list(islice(decoded, size)):
        good = [(n, image) for n, image, _ in batch if image is not None]
        stack = torch.stack([image for _, image in good]) if good else None
        yield [n for n, _ in good], stack, {n: why for n, _, why in batch if why}


Decoded = tuple[int, Tensor | None, str]


def _decoded(
    pictures: Pictures, numbers: Sequence[int], workers: int, ahead: int
) -> Iterator[Decoded]:
    """Each picture and what is wrong with it (""), in the order of the numbers."""

    def decode(n: int) -> Decoded:
        try:
            return n, pictures.read(n), ""
        except Exception as error:  # decoders raise whatever a broken file makes them raise
            return n, None, f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(max(workers, 1), "decode") as pool:
        waiting: deque[Future[Decoded]] = deque()
        rest = iter(numbers)
        try:
            while True:
                for n in islice(rest, max(ahead - len(waiting), 0)):
                    waiting.append(pool.submit(decode, n))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

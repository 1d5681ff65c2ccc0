"""Sources: the pictures of a folder, a data set or a tensor, by key, decoded ahead in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from qkutils.models import Model
from qkutils.passes import check_images
from qkutils.pictures._folders import picture_files
from qkutils.pictures._opening import open_file, open_picture, shown, upright
from qkutils.records import Records
from qkutils.store import digest


def _itself(_: int, item: Any) -> Any:
    return item


@dataclass(frozen=True)
class Pictures:
    """Pictures in the order of their keys, each made a tensor only when it is asked for.

    `item` gives what the source holds (a file's bytes, a picture, a tensor), by which a picture is
    known again; `decode` makes the model's tensor of a number's item.
    """

    keys: list[str]
    item: Callable[[int], Any]
    decode: Callable[[int, Any], Tensor] = _itself

    def read(self, number: int) -> Tensor:
        """One picture as the model takes it."""
        return self.decode(number, self.item(number))

    def some(self, keys: Sequence[str]) -> Pictures:
        """Those of these keys only; raises ValueError for a key that is not there."""
        wanted = set(keys)
        if missing := sorted(wanted - set(self.keys)):
            raise ValueError(f"keys: {len(missing)} are of no picture, the first {missing[0]!r}")
        chosen = [n for n, key in enumerate(self.keys) if key in wanted]
        return Pictures(
            [self.keys[n] for n in chosen],
            lambda n: self.item(chosen[n]),
            lambda n, item: self.decode(chosen[n], item),
        )


def pictures_of(images: Any, model: Model, keys: Sequence[str] | None = None) -> Pictures:
    """Name the pictures of a folder, a tensor or a sequence, each decoded when it is asked for.

    Parameters
    ----------
    images
        A folder, whose pictures are keyed by their paths in it.  Or a tensor, or a sequence of
        pictures, tensors, or records with an `image`, such as `Sample`: these are keyed by number.
        Or what `pictures_of` gave, which comes back as it is.
    model
        What `load` gave: its transform makes tensors of pictures.
    keys
        Names for the pictures of a tensor or a sequence, in place of numbers.  A data set brings
        its own.

    Returns
    -------
    Pictures
        In the order of their keys.

    Raises
    ------
    FileNotFoundError
        For a folder that is missing or holds no picture.
    ValueError
        For keys that do not fit, for a source of another kind or without pictures, and for a tensor
        that the model does not take.

    Examples
    --------
    >>> import qkutils as qk
    >>> model, scenes = qk.load("tiny-supervised"), qk.world.pictures(0, 0, 3)
    >>> pictures = qk.pictures_of(scenes, model, keys=["c", "a", "b"])
    >>> pictures.keys, pictures.read(0).shape
    (['a', 'b', 'c'], torch.Size([3, 64, 64]))
    """
    if isinstance(images, Pictures):
        return images
    if isinstance(images, str | Path):
        return _of_folder(Path(images), model, keys)
    if isinstance(images, Tensor):
        check_images(model, images)
    if not hasattr(images, "__len__") or not hasattr(images, "__getitem__"):
        raise ValueError(
            f"images={images!r}: a folder, a tensor or a sequence of pictures is needed"
        )
    if isinstance(images, Records) and keys is None:
        keys = images.keys
    names = _names(keys, len(images))
    order = sorted(range(len(names)), key=names.__getitem__)
    return Pictures(
        [names[n] for n in order],
        lambda n: _content(images[order[n]]),
        lambda _, item: _tensor(item, model),
    )


def _names(keys: Any, count: int) -> list[str]:
    if count == 0:
        raise ValueError("images: there are none; give at least one")
    if keys is None:
        return [f"{n:08d}" for n in range(count)]
    if not isinstance(keys, Iterable):
        raise ValueError(f"keys={keys!r}: a list of names is needed, one for each of the images")
    names = [str(key) for key in keys]
    if len(names) != count or len(set(names)) != count:
        raise ValueError(
            f"keys: {len(set(names))} different ones for {count} images; each needs its own"
        )
    return names


def _of_folder(folder: Path, model: Model, keys: Sequence[str] | None) -> Pictures:
    if keys is not None:
        raise ValueError("keys: a folder's pictures are keyed by their paths; leave it out")
    files = picture_files(folder)
    names = list(files)

    def read(n: int) -> bytes:
        with open_file(files[names[n]]) as file:
            return file.read()

    def decode(n: int, item: bytes) -> Tensor:
        return _tensor(open_picture(BytesIO(item), name=shown(files[names[n]])), model)

    return Pictures(names, read, decode)


def _content(item: Any) -> Any:
    """What is seen of one item of a sequence: its tensor, or its picture, upright."""
    item = getattr(item, "image", item)
    return upright(item) if isinstance(item, PIL.Image.Image) else item


def _tensor(item: Any, model: Model) -> Tensor:
    """One picture or tensor as the model takes it; raises ValueError for what it can't take."""
    image = model.transform(item) if isinstance(item, PIL.Image.Image) else item
    if not isinstance(image, Tensor):
        raise ValueError(
            f"{type(image).__name__} is not a picture: a PIL image, a tensor [channel, height, "
            "width], or a record with an `image` is needed"
        )
    check_images(model, image[None])
    return image


@dataclass(frozen=True)
class Batch:
    """Pictures that are read: numbers and images of the good ones, faults of the others, digests.

    `digests` are of all of them that could be opened: by these a picture is known again.
    """

    numbers: list[int]
    images: Tensor | None
    faults: dict[int, str]
    digests: dict[int, str]


def batches(pictures: Pictures, numbers: Sequence[int], size: int, workers: int) -> Iterator[Batch]:
    """Pictures in batches, with the reasons for which some could not be read.

    Threads decode at most two batches ahead, so memory does not grow with the number of pictures.
    """
    decoded = _ahead(partial(_decoded, pictures), numbers, workers, 2 * size)
    while batch := list(islice(decoded, size)):
        good = [(n, each.image) for n, each in batch if each.image is not None]
        stack = torch.stack([image for _, image in good]) if good else None
        faults = {n: each.fault for n, each in batch if each.fault}
        yield Batch([n for n, _ in good], stack, faults, {n: each.digest for n, each in batch})


def digests(pictures: Pictures, numbers: Sequence[int], workers: int) -> Iterator[tuple[int, str]]:
    """Each picture's number and digest, "" where it can't be opened; nothing is decoded."""

    def look(number: int) -> str:
        try:
            return digest(pictures.item(number))
        except Exception:  # whatever a source raises for what it can't open
            return ""

    return _ahead(look, numbers, workers, 4 * workers)


@dataclass(frozen=True)
class _Decoded:
    digest: str = ""
    image: Tensor | None = None
    fault: str = ""


def _decoded(pictures: Pictures, number: int) -> _Decoded:
    """One picture, and what is wrong with it."""
    known = ""
    try:
        item = pictures.item(number)
        known = digest(item)
        return _Decoded(known, pictures.decode(number, item))
    except Exception as error:  # decoders raise whatever a broken file makes them raise
        return _Decoded(known, fault=f"{type(error).__name__}: {error}")


def _ahead(
    act: Callable[[int], Any], numbers: Sequence[int], workers: int, ahead: int
) -> Iterator[tuple[int, Any]]:
    """Each number with what is made of it, in their order, made in threads a little ahead."""
    with ThreadPoolExecutor(workers, "pictures") as pool:
        waiting: deque[tuple[int, Future]] = deque()
        rest = iter(numbers)
        try:
            while True:
                for n in islice(rest, max(ahead - len(waiting), 0)):
                    waiting.append((n, pool.submit(act, n)))
                if not waiting:
                    return
                number, future = waiting.popleft()
                yield number, future.result()
        finally:
            for _, future in waiting:
                future.cancel()

"""Sources: the pictures of a folder, a data set or a tensor, as a model takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from qkutils import options
from qkutils.models import Model
from qkutils.passes import check_images
from qkutils.pictures._folders import picture_files
from qkutils.pictures._opening import open_file, open_picture, shown, upright
from qkutils.records import Records
from qkutils.store import digest

Source = str | Path | Tensor | Sequence


def pictures(source: Source, count: int) -> list[Image.Image]:
    """Take some pictures of a source, spread evenly over it, in their own size.

    Parameters
    ----------
    source
        A folder, or a sequence of pictures, or of records with an `image`.
    count
        How many pictures to take.

    Returns
    -------
    list
        PIL images, the right way up, in the order of the source.

    Raises
    ------
    FileNotFoundError
        For a folder that is missing or holds no picture.
    ValueError
        For a file that can't be read, and for a source of fewer pictures.

    Examples
    --------
    >>> import qkutils as qk
    >>> [picture.size for picture in qk.pictures.pictures(qk.world.pictures(0, 0, 8), count=2)]
    [(64, 64), (64, 64)]
    """
    return [_picture(seen(each)) for each in _spread(source, count)]


def images(
    source: Source, model: Model, count: int = 16
) -> Float[Tensor, "image channel height width"]:
    """Take some pictures of a source through the model's own resize, crop and normalisation.

    The pictures are spread evenly over the source.

    Parameters
    ----------
    source
        A folder; a sequence of pictures, records with an `image`, or tensors; or one tensor of
        images that are ready.
    model
        What `load` gave.
    count
        How many pictures to take.

    Returns
    -------
    Tensor
        Over [image, channel, height, width], as the model takes them.

    Raises
    ------
    FileNotFoundError
        For a folder that is missing or holds no picture.
    ValueError
        For a file that can't be read, for a source of fewer pictures, and for tensors that the
        model does not take.

    Examples
    --------
    >>> import qkutils as qk
    >>> model = qk.load("tiny-supervised")
    >>> qk.pictures.images(qk.world.pictures(0, 0, 8), model, count=2).shape
    torch.Size([2, 3, 64, 64])
    """
    return torch.stack([ready(seen(each), model) for each in _spread(source, count)])


def _spread(source: Any, count: Any) -> list:
    """`count` items of a source, spread evenly over it."""
    count = options.count("count", count)
    if isinstance(source, str | Path) and str(source):
        items: Any = Records(list(picture_files(Path(source)).values()), open_picture)
    elif isinstance(source, Sequence | Tensor) and not isinstance(source, str):
        items = source
    else:
        raise ValueError(f"source={source!r}: a folder or a sequence of pictures is needed")
    if len(items) < count:
        raise ValueError(f"count={count}: the source has {len(items)} pictures; ask for fewer")
    return [items[n * len(items) // count] for n in range(count)]


def seen(item: Any) -> Any:
    """What is seen of one item of a sequence: its tensor, or its picture, upright."""
    item = getattr(item, "image", item)
    return upright(item) if isinstance(item, Image.Image) else item


def _picture(item: Any) -> Image.Image:
    if not isinstance(item, Image.Image):
        raise ValueError(
            f"{type(item).__name__} is not a picture: a PIL image or a record with one is needed"
        )
    return item


def ready(item: Any, model: Model) -> Float[Tensor, "channel height width"]:
    """A picture or a tensor as the model takes it; raises ValueError for what it can't take."""
    image = item if isinstance(item, Tensor) else model.transform(_picture(item))
    check_images(model, image[None])
    return image


def visible(
    model: Model, images: Float[Tensor, "image channel height width"]
) -> Float[np.ndarray, "image height width channel"]:
    """Show images as a person sees them.

    The model's normalisation is undone.  Its resize and crop are kept.

    Parameters
    ----------
    model
        What `load` gave.
    images
        As the model takes them.

    Returns
    -------
    np.ndarray
        Over [image, height, width, channel], from 0 (black) to 1 (white).

    Examples
    --------
    >>> import qkutils as qk
    >>> model = qk.load("tiny-supervised")
    >>> images = qk.pictures.images(qk.world.pictures(0, 0, 2), model, count=2)
    >>> seen = qk.pictures.visible(model, images)
    >>> seen.shape, bool(seen.min() >= 0 and seen.max() <= 1)
    ((2, 64, 64, 3), True)
    """
    check_images(model, images)
    last = model.transform.transforms[-1]
    mean, std = (torch.as_tensor(v, device="cpu").view(-1, 1, 1) for v in (last.mean, last.std))
    return (images * std + mean).clamp(0, 1).movedim(1, -1).numpy()


@dataclass(frozen=True)
class Pictures:
    """Pictures in the order of their keys, each made a tensor only when it is asked for.

    `item` gives what the source holds (a file's bytes, a picture, a tensor), by which a picture is
    known again; `decode` makes the model's tensor of a number's item.
    """

    keys: list[str]
    item: Callable[[int], Any]
    decode: Callable[[int, Any], Tensor] = lambda _, item: item

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
    if isinstance(images, Path) or (isinstance(images, str) and images):
        return _of_folder(Path(images), model, keys)
    if isinstance(images, Tensor):
        check_images(model, images)
    options.sequence("images", images)
    if isinstance(images, Records) and keys is None:
        keys = images.keys
    names = _names(keys, len(images))
    order = sorted(range(len(names)), key=names.__getitem__)
    return Pictures(
        [names[n] for n in order],
        lambda n: seen(images[order[n]]),
        lambda _, item: ready(item, model),
    )


def _names(keys: Any, count: int) -> list[str]:
    if count == 0:
        raise ValueError("images: there are none; give at least one")
    if keys is None:
        return [f"{n:08d}" for n in range(count)]
    if not isinstance(keys, Sequence | np.ndarray):
        raise ValueError(f"keys={keys!r}: a list of names is needed, one for each of the images")
    names = [str(key) for key in keys]
    if not len(set(names)) == len(names) == count:
        raise ValueError(f"keys: {len(set(names))} different ones for {count} images; name each")
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
        return ready(open_picture(BytesIO(item), name=shown(files[names[n]])), model)

    return Pictures(names, read, decode)


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
        good = {n: image for n, _, image, _ in batch if image is not None}
        stack = torch.stack(list(good.values())) if good else None
        faults = {n: fault for n, *_, fault in batch if fault}
        yield Batch(list(good), stack, faults, {n: known for n, known, *_ in batch})


def digests(pictures: Pictures, numbers: Sequence[int], workers: int) -> dict[int, str]:
    """Each picture's digest by its number, "" where it can't be opened; nothing is decoded."""
    undecoded = replace(pictures, decode=lambda *_: torch.empty(0))
    found = batches(undecoded, numbers, workers, workers)
    return {n: known for batch in found for n, known in batch.digests.items()}


def _decoded(pictures: Pictures, number: int) -> tuple[int, str, Tensor | None, str]:
    """A picture's number and digest, its tensor, and what is wrong with it."""
    known = ""
    try:
        item = pictures.item(number)
        known = digest(item)
        return number, known, pictures.decode(number, item), ""
    except Exception as error:  # decoders raise whatever a broken file makes them raise
        return number, known, None, f"{type(error).__name__}: {error}"


def _ahead(
    act: Callable[[int], Any], numbers: Sequence[int], workers: int, ahead: int
) -> Iterator[Any]:
    """What is made of each number, in their order, made in threads a little ahead."""
    rest = iter(numbers)
    with ThreadPoolExecutor(workers, "pictures") as pool:
        waiting: deque[Future] = deque(pool.submit(act, n) for n in islice(rest, ahead))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(act, n) for n in islice(rest, 1))
        finally:
            pool.shutdown(cancel_futures=True)

"""Loading: a model from its name, a checkpoint file or folder, a module, or the hub."""

from __future__ import annotations

import qkutils._torchvision

import copy
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import timm
import torch
from safetensors.torch import save
from torch import nn

from qkutils import checkpoints, options, store
from qkutils.checkpoints import Grid
from qkutils.models import _hub as hub
from qkutils.models._catalogue import WEIGHTS_VARIABLE, Row, embedded, entries, entry, kept
from qkutils.models._from_file import Known, model_of_file, of_known_name, with_preprocessing
from qkutils.models._model import Model, Network, at_size, check_module, check_tensors, model_of

AnyModel = str | Path | nn.Module | Network
Placed = TypeVar("Placed", bound=Network)
Preprocessing = Literal["timm", "authors", "paper"]


def load(
    model: AnyModel,
    *,
    num_heads: int | None = None,
    grid: Grid | None = None,
    like: str | None = None,
    state_dict: str | None = None,
    preprocessing: Preprocessing | None = None,
    image_size: int | tuple[int, int] | None = None,
    device: str | int | torch.device | None = None,
) -> Model:
    """Load a model by name, from a checkpoint file or snapshot folder, or from a timm module.

    A name is looked for among the embedded models, then in the folder that QKUTILS_WEIGHTS names,
    then in the hub's cache and on the hub.  What a file's tensors can't tell comes from `like`,
    from a `config.json` of timm's or transformers' beside it, or from its name, as timm or the
    catalogue knows it.  What is assumed beyond that stands in `facts["assumed"]`.

    Parameters
    ----------
    model
        A name, a path, a timm module, which is not copied but put in eval mode with its gradients
        off, or a model that is loaded already.
    num_heads
        For files and folders: the number of heads.  Of a file that nothing else is known of it also
        says that it has GELU, eps 1e-6 and blocks that normalise first; for any other, use `like`.
    grid
        For files and folders: rows and columns of patches.
    like
        For files and folders: the timm name of a model that is built alike, with the same
        activation, eps and preprocessing.
    state_dict
        For files and folders: which of several state dicts to take.
    preprocessing
        For names, files and folders: timm's, that of the authors' own evaluation, or that of the
        paper's code, as far as `qkutils.catalogue` knows them.  Default: timm's where timm has the
        model, else the first that is known, else the file's own.  `facts["preprocessing"]` says
        which it is.
    image_size
        For images of another size: a side, or height and width, in pixels.  The positions of a copy
        are resampled as timm does it.  Default: what the catalogue names, else the model's own.
    device
        Where to put it; default: where it is.  A network that is elsewhere is copied.

    Raises
    ------
    ValueError
        For what is unknown, can't be treated, or can't be told, and for a file that says otherwise
        than the catalogue.
    FileNotFoundError
        For tensors that are nowhere, or that the hub does not give.
    OSError
        For a disk that is full.
    RuntimeError
        For a GPU that is not there.

    Examples
    --------
    >>> model = load("tiny-supervised")
    >>> model.grid, model.heads.w_q.shape
    ((8, 8), torch.Size([8, 4, 24, 96]))
    """
    place = _device(device)
    if preprocessing is not None:
        options.choice("preprocessing", preprocessing, get_args(Preprocessing))
    given: Any = dict(num_heads=num_heads, grid=grid, like=like, state_dict=state_dict)
    asked = [f"{name}={value!r}" for name, value in given.items() if value is not None]
    path = _as_path(model)
    if path is None and asked:
        raise ValueError(f"{', '.join(asked)}: only a checkpoint file needs it; leave it out")
    if preprocessing is not None and not isinstance(model, str | Path):
        raise ValueError(f"preprocessing={preprocessing!r}: a module has its own; leave it out")
    with torch.device("cpu"):  # whatever the default device is
        if path is not None:
            loaded = model_of_file(path, **given, preprocessing=preprocessing)
        elif isinstance(model, Model):
            check_module(model.name, model.net)
            check_tensors(model.name, model.net)
            model.net.eval()
            loaded = model
        elif isinstance(model, nn.Module):
            loaded = model_of(type(model).__name__, model)
        elif isinstance(model, str):
            loaded = _by_name(model, preprocessing)
        else:
            told = f"{type(model).__name__} is none; pass a name, a file, a timm module or a Model"
            raise ValueError(f"model: {told}")
        if image_size is None and isinstance(model, str | Path):
            image_size = entry(loaded.name).get("image_size") or None
        sized = loaded if image_size is None else at_size(loaded, image_size)
    return placed(sized, place)


def network(model: AnyModel) -> Network:
    """A predictor or a masked model as it is; any other model as `load` gives it."""
    return load(model) if isinstance(model, Model) or not isinstance(model, Network) else model


def _as_path(model: object) -> Path | None:
    """The file or folder that is meant; None for a name and for what is no path."""
    if not isinstance(model, str | Path):
        return None
    path = Path(os.path.expanduser(model))
    suffixed = path.suffix.lower() in checkpoints.SUFFIXES
    if isinstance(model, Path) or suffixed or os.path.isfile(path):
        return path
    named = embedded(model) or timm.is_model(model.partition(".")[0])
    return path if model and os.path.isdir(path) and not named else None


def _device(device: Any) -> torch.device | None:
    """The CPU or a GPU that is there; None where none is asked for."""
    if device is None:
        return None
    place = torch.device(text := options.device(device))
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if place.type == "cuda" and (place.index or 0) >= there:
        remedy = "use device='cpu', or install a CUDA build of torch and check the driver"
        raise RuntimeError(f"device={text!r}: torch sees {there or 'no'} GPU; {remedy}")
    return place


def placed(model: Placed, place: torch.device | None) -> Placed:
    """The model on a device; a network that is elsewhere is copied, not moved."""
    here = model.device
    if place is None or (place.type == here.type and place.index in (None, here.index)):
        return model
    return replace(model, net=copy.deepcopy(model.net).to(place))


def _by_name(name: str, preprocessing: str | None) -> Model:
    if path := embedded(name):
        return model_of_file(path, name, preprocessing=preprocessing)
    known = _known(name)
    path = kept(name)
    if path is None:
        _refuse_by_hand(name, known.row, os.environ.get(WEIGHTS_VARIABLE))
        path = hub.snapshot(name) if _is_hubs(name, known.row) else None
    if path is not None:
        return model_of_file(path, name, preprocessing=preprocessing)
    known = with_preprocessing(name, known, preprocessing)
    net: Any = _from_timm(name, known.row)
    net.pretrained_cfg = net.default_cfg = dict(known.config)
    return model_of(name, net, variant=known.variant)


def _known(name: str) -> Known:
    """What is known of a name; raises ValueError for one of which nothing is, or no weights."""
    table = entries()
    for own in table.index[table.paper == (name or None)]:
        raise ValueError(f"{name!r} is the paper's name; load it as {own!r}")
    known = of_known_name("", name)
    if not known.config and not known.row:
        raise ValueError(f"{name!r}: timm has no weights of it; put some into a module, pass that")
    return known


def _refuse_by_hand(name: str, row: Row, folder: str | Path | None) -> None:
    """Raises FileNotFoundError, which says what to do, for a file that only a person can get."""
    if row.get("source") == "person":
        where = folder or f"a folder, and set {WEIGHTS_VARIABLE} to it"
        told = f"get {row['file']} from {row['page']}, and put it under that name into {where}"
        raise FileNotFoundError(f"{name}: nothing fetches it but a person; {told}")


def _is_hubs(name: str, row: Row) -> bool:
    """Whether a name is a repository's, whose files are read as they are."""
    return bool(row) and name == row["hub"]


def _from_timm(name: str, row: Row) -> nn.Module:
    """Fetches a timm model from the hub, or says where it was looked for and how to get it."""
    tag = row.get("timm", name)
    with torch.device("meta"):  # its architecture without its tensors
        check_module(name, timm.create_model(tag))
    try:
        return timm.create_model(tag, pretrained=True)
    except Exception as error:  # the hub's client raises some ten unrelated classes when offline
        raise hub.refusal(name, error) from error


def fetch(name: str, folder: str | Path) -> Path:
    """Fetch a model from the hub and keep it in a folder.

    `load` finds it there by its name, without a network, where QKUTILS_WEIGHTS names the folder.  A
    model of timm's becomes NAME.safetensors, a repository of the hub a folder NAME.

    Parameters
    ----------
    name
        A name that timm has, such as `vit_base_patch16_224.augreg_in21k`, or a repository of the
        catalogue, such as `google/vit-base-patch32-384`.
    folder
        Where it goes; it is made where it is missing.

    Returns
    -------
    Path
        The file or folder.

    Raises
    ------
    ValueError
        For an embedded model, which is there already, and for a name that nobody knows.
    FileNotFoundError
        Where the hub gives nothing, as without a network, and for what only a person can get.
    OSError
        Where it can't be written, or another process writes it.

    Examples
    --------
    >>> import qkutils as qk
    >>> from pathlib import Path
    >>> qk.models.fetch("tiny-supervised", Path("weights"))
    Traceback (most recent call last):
    ValueError: 'tiny-supervised': is embedded, nothing has to be fetched; load it by its name
    """
    if embedded(name) is not None:
        raise ValueError(f"{name!r}: is embedded, nothing has to be fetched; load it by its name")
    row, folder = _known(name).row, Path(folder)
    _refuse_by_hand(name, row, folder)
    if _is_hubs(name, row):
        store.check_writable(folder / name / hub.CONFIG)
        return _copied(hub.snapshot(name).parent, folder / name)
    path = folder / f"{name}.safetensors"
    with store.locked(path):
        return store.write(path, save(_from_timm(name, row).state_dict()))


def _copied(snapshot: Path, folder: Path) -> Path:
    """A copy of a snapshot of the hub; its weights come last."""
    for name in (*hub.BESIDE, *hub.WEIGHTS):
        if (snapshot / name).is_file():
            with store.writing(folder / name) as temporary:
                shutil.copyfile(snapshot / name, temporary)
    return folder

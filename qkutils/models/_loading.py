"""Loading: a model from its name, a checkpoint file or folder, a module, or the hub."""

from __future__ import annotations

import qkutils._torchvision

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import timm
import torch
from safetensors.torch import save
from torch import nn

from qkutils import checkpoints, options, store
from qkutils.checkpoints import Grid
from qkutils.models._catalogue import WEIGHTS_VARIABLE, embedded, entries
from qkutils.models._from_file import model_of_file, of_known_name
from qkutils.models._model import Model, Network, check_module, check_tensors, model_of

AnyModel = str | Path | nn.Module | Network
Placed = TypeVar("Placed", bound=Network)


def load(
    model: AnyModel,
    *,
    num_heads: int | None = None,
    grid: Grid | None = None,
    like: str | None = None,
    state_dict: str | None = None,
    device: str | int | torch.device | None = None,
) -> Model:
    """Load a model by name, from a checkpoint file or snapshot folder, or from a timm module.

    A name is looked for among the embedded models, then as NAME.safetensors in the folder that
    QKUTILS_WEIGHTS names, then on the hub through timm.  What a file's tensors can't tell comes
    from `like`, from a `config.json` of timm's or transformers' beside it, or from its name;
    what is assumed beyond that stands in `facts["assumed"]`.

    Parameters
    ----------
    model
        A name, a path, a timm module, which is not copied but put in eval mode with its gradients
        off, or a model that is loaded already.
    num_heads
        For files and folders: the number of heads.
    grid
        For files and folders: rows and columns of patches.
    like
        For files and folders: the timm name of a model that is built alike, with the same
        activation, eps and preprocessing.
    state_dict
        For files and folders: which of several state dicts to take.
    device
        Where to put it; default: where it is.  A network that is elsewhere is copied.

    Raises
    ------
    ValueError
        For what is unknown, can't be treated, or can't be told.
    FileNotFoundError
        For tensors that are nowhere.
    RuntimeError
        For a GPU that is not there.

    Examples
    --------
    >>> model = load("tiny-supervised")
    >>> model.grid, model.heads.w_q.shape
    ((8, 8), torch.Size([8, 4, 24, 96]))
    """
    place = _device(device)
    given = {"num_heads": num_heads, "grid": grid, "like": like, "state_dict": state_dict}
    asked = [f"{name}={value!r}" for name, value in given.items() if value is not None]
    path = _as_path(model)
    if path is None and asked:
        raise ValueError(f"{', '.join(asked)}: only a checkpoint file needs it; leave it out")
    if path is not None:
        loaded = model_of_file(path, **given)
    elif isinstance(model, Model):
        check_module(model.name, model.net)
        check_tensors(model.name, model.net)
        model.net.eval()
        loaded = model
    elif isinstance(model, nn.Module):
        loaded = model_of(type(model).__name__, model)
    elif isinstance(model, str):
        loaded = _by_name(model)
    else:
        kind = type(model).__name__
        raise ValueError(f"model: {kind} is none; pass a name, a file, a timm module or a Model")
    return placed(loaded, place)


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


def _by_name(name: str) -> Model:
    path, folder = embedded(name), os.environ.get(WEIGHTS_VARIABLE)
    if path is None:
        _check_fetchable(name)
        there = Path(folder or "") / f"{name}.safetensors"
        path = there if folder and there.is_file() else None
    return model_of_file(path) if path else model_of(name, _from_hub(name))


def _check_fetchable(name: str) -> None:
    """Raises ValueError for a name that nobody knows, or that timm can't fetch."""
    table = entries()
    for own, entry in table[(table.index == name) | (table.paper == (name or None))].iterrows():
        if entry.source != "timm":
            raise ValueError(f"{own!r}: {entry.note}; put its tensors into a timm module")
        if own != name:
            raise ValueError(f"{name!r} is the paper's name; load it as {own!r}")
    if not of_known_name("", name).config:
        raise ValueError(f"{name!r}: timm has no weights of it; put some into a module, pass that")


def _from_hub(name: str) -> nn.Module:
    """Fetches a timm model from the hub, or says where it was looked for and how to get it."""
    with torch.device("meta"):  # its architecture without its tensors
        check_module(name, timm.create_model(name))
    try:
        return timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's client raises some ten unrelated classes when offline
        folder = os.environ.get(WEIGHTS_VARIABLE)
        looked = f"{folder}/{name}.safetensors" if folder else f"{WEIGHTS_VARIABLE} (not set)"
        raise FileNotFoundError(
            f"{name}: not in {looked}, and the hub gave nothing ({type(error).__name__}: {error}); "
            f"with a network, fetch it once with: qkutils fetch {name}"
        ) from error


def fetch(name: str, folder: str | Path) -> Path:
    """Fetch a model from the hub and keep it as NAME.safetensors in a folder.

    `load` finds it there by its name, without a network, where QKUTILS_WEIGHTS names the folder.

    Parameters
    ----------
    name
        A name that timm has, such as `vit_base_patch16_224.augreg_in21k`.
    folder
        Where the file goes; it is made where it is missing.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        For an embedded model, which is there already, and for a name that timm can't fetch.
    FileNotFoundError
        Where the hub gives nothing, as without a network.
    OSError
        Where the file can't be written, or another process writes it.

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
    _check_fetchable(name)
    path = Path(folder) / f"{name}.safetensors"
    with store.locked(path):
        return store.write(path, save(_from_hub(name).state_dict()))

"""Models: the catalogue, and `load`, which takes a name, a file or a timm module."""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config
from timm.models import get_pretrained_cfg, is_model
from torch import Tensor, nn
from torchvision.transforms import Compose

from qkutils import checkpoints
from qkutils.tiny import architecture

WEIGHTS_VARIABLE = "QKUTILS_WEIGHTS"
_FILE_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl"}


@dataclass(frozen=True)
class Model:
    """A vision transformer in eval mode with what is needed to feed it and to read its tokens."""

    name: str
    net: Any  # a timm module, whose attributes no type checker can know
    transform: Compose
    grid: tuple[int, int]
    prefix_tokens: int
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Sixteen hexadecimal digits of all its tensors, its grid and its preprocessing."""
        hasher = hashlib.sha256(f"{self.net} {self.grid} {self.transform}".encode())
        for name, tensor in self.net.state_dict().items():
            hasher.update(name.encode())
            hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return hasher.hexdigest()[:16]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images it takes, in pixels."""
        height, width = self.net.patch_embed.img_size
        return int(height), int(width)

    @property
    def prefix_names(self) -> list[str]:
        """What its prefix tokens are called, in their order."""
        named = {"cls_token": "class token", "dist_token": "distillation token"}
        names = [text for name, text in named.items() if getattr(self.net, name, None) is not None]
        registers = [f"register {n}" for n in range(self.prefix_tokens - len(names))]
        return (names + registers)[: self.prefix_tokens]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.net.parameters()).device


def at_hand() -> list[str]:
    """Catalogue names that `load` can load with no network, embedded models first."""
    weights = resources.files("qkutils.tiny").joinpath("weights")
    folders = [Path(str(weights))]
    if os.environ.get(WEIGHTS_VARIABLE):
        folders.append(Path(os.environ[WEIGHTS_VARIABLE]))
    found = [sorted(p.stem for p in folder.glob("*.safetensors")) for folder in folders]
    known = {entry["name"] for entry in _entries()}
    return [n for n in dict.fromkeys(name for names in found for name in names) if n in known]


@cache
def _entries() -> list[dict[str, Any]]:
    """Rows of the catalogue; an entry with several seeds becomes a row for each of them."""
    text = resources.files("qkutils").joinpath("catalogue.toml").read_text("utf-8")
    rows = []
    for entry in tomllib.loads(text)["model"]:
        seeds = entry.pop("seeds", None)
        if seeds is None:
            rows.append(entry | {"seed": pd.NA})
            continue
        trained_for = entry["name"].removeprefix("tiny-")
        for seed in seeds:
            name = architecture.published_name(trained_for, seed)
            rows.append(entry | {"name": name, "seed": seed})
    return rows


def catalogue() -> pd.DataFrame:
    """The models of the book and of the paper, one row each, with their facts."""
    return pd.DataFrame(_entries()).set_index("name").astype({"seed": "Int64"})


def family() -> pd.DataFrame:
    """Names of the embedded models, objectives as rows and seeds as columns; taught in chapter 4.

    The row index is the first seed's name without `tiny-`; what has not been trained is missing.
    """
    embedded = [row for row in _entries() if row["source"] == "embedded"]
    table = pd.DataFrame(embedded)
    table["trained_for"] = table.name.str.removeprefix("tiny-").str.replace(
        r"-s\d+$", "", regex=True
    )
    order = table.trained_for.unique()
    return table.pivot(index="trained_for", columns="seed", values="name").loc[order]


def load(
    model: str | Path | nn.Module | Model,
    num_heads: int | None = None,
    device: str | torch.device | None = None,
) -> Model:
    """Loads a model by name, from a checkpoint file, or from a timm module; taught in chapter 1.

    A name is looked for among the embedded models, then as NAME.safetensors in the folder that
    QKUTILS_WEIGHTS names, then on the hub through timm.  `num_heads` is for files whose shapes do
    not tell it.  What is loaded already stays on its device unless `device` names one; a timm
    module is not copied, but put in eval mode with its gradients off.  Raises ValueError for what
    is unknown or can't be treated, FileNotFoundError for tensors that are nowhere, RuntimeError for
    a GPU that is not there.
    """
    place = _device(device)
    path = Path(model) if isinstance(model, str | Path) else None
    in_file = path is not None and (path.suffix in _FILE_SUFFIXES or path.is_file())
    if num_heads is not None and not in_file:
        raise ValueError(f"num_heads={num_heads}: only a checkpoint file needs it; leave it out")
    if isinstance(model, Model):
        return model if place is None else replace(model, net=model.net.to(place))
    if isinstance(model, nn.Module):
        return _wrap(type(model).__name__, model, place)
    if path is not None and in_file:
        return _from_file(path, num_heads, place)
    return _by_name(str(model), place)


def _device(device: str | torch.device | None) -> torch.device | None:
    if device is None:
        return None
    place = torch.device(device)
    if place.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"device={str(device)!r} was asked for, but torch sees no GPU; use device='cpu', or "
            "install a CUDA build of torch and check the driver"
        )
    return place


def _check_kind(name: str, net: Any) -> None:
    """Raises ValueError for a module that is no transformer over one grid of patches."""
    grid = getattr(getattr(net, "patch_embed", None), "grid_size", None)
    if grid is None or not hasattr(net, "blocks"):
        raise ValueError(
            f"{name} ({type(net).__name__}) is not a vision transformer with one patch grid and a "
            "list of blocks; pass a plain timm vision transformer"
        )


def _wrap(name: str, net: Any, device: torch.device | None) -> Model:
    """Reads grid, prefix tokens and preprocessing off a timm module."""
    _check_kind(name, net)
    net = net.eval().requires_grad_(False)
    net = net if device is None else net.to(device)
    config = resolve_model_data_config(net)
    config["input_size"] = (3, *net.patch_embed.img_size)  # the module's own, if built otherwise
    transform = create_transform(**config, is_training=False)
    facts = next((e for e in _entries() if e["name"] == name), {"objective": "unknown"})
    prefix = int(getattr(net, "num_prefix_tokens", 0))
    rows, columns = net.patch_embed.grid_size
    return Model(name, net, transform, (rows, columns), prefix, facts)


def _from_file(path: Path, num_heads: int | None, device: torch.device | None) -> Model:
    """A checkpoint file: by its name where that is a timm model's, else by its tensors' shapes."""
    tensors = checkpoints.read_tensors(path)
    if path.suffix == ".safetensors" and is_model(path.stem) and num_heads is None:
        return _wrap(path.stem, _fill(path.stem, tensors, path), device)
    return _wrap(path.stem, checkpoints.build_from_shapes(tensors, num_heads, path), device)


def _fill(name: str, tensors: dict[str, Tensor], path: Path) -> nn.Module:
    """The timm architecture of this name with these tensors."""
    net = timm.create_model(name)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path}: its tensors are not those of timm's {name}: {error}") from error
    return net


def _by_name(name: str, device: torch.device | None) -> Model:
    embedded = resources.files("qkutils.tiny").joinpath("weights", f"{name}.safetensors")
    if embedded.is_file():
        return _embedded(name, Path(str(embedded)), device)
    _refuse_unknown(name)
    folder = os.environ.get(WEIGHTS_VARIABLE, "")
    path = Path(folder) / f"{name}.safetensors"
    if folder and path.is_file():
        return _wrap(name, _fill(name, checkpoints.read_tensors(path), path), device)
    return _wrap(name, _from_hub(name, folder), device)


def _embedded(name: str, path: Path, device: torch.device | None) -> Model:
    """An embedded model; its file holds half precision, its module computes in float32."""
    tensors = {key: tensor.float() for key, tensor in load_file(path).items()}
    net = architecture.build(classes=len(tensors.get("head.bias", ())))
    net.load_state_dict(tensors)
    return _wrap(name, net, device)


def _refuse_unknown(name: str) -> None:
    """Raises ValueError for a name that nobody knows, or that timm can't fetch."""
    entry = next((e for e in _entries() if e["name"] == name or name == e["paper"] != ""), None)
    if entry and entry["source"] != "timm":
        raise ValueError(
            f"{name!r}: timm does not hold the tensors of {entry['name']!r} ({entry['note']}); "
            "put them into a timm module and pass that"
        )
    if entry and entry["name"] != name:
        raise ValueError(f"{name!r} is the paper's name; load it as {entry['name']!r}")
    try:
        if is_model(name) and get_pretrained_cfg(name) is not None:
            return
    except RuntimeError as error:
        raise ValueError(f"{name!r}: timm knows no such weights: {error}") from error
    known = [e["name"] for e in _entries()] + timm.list_models() + timm.list_pretrained()
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {', '.join(close)}?" if close else "see qkutils.catalogue()"
    raise ValueError(f"{name!r} is neither an embedded model, nor a timm model, nor a file; {hint}")


def _from_hub(name: str, folder: str) -> nn.Module:
    """Fetches a timm model from the hub, or says where it was looked for and how to get it."""
    with torch.device("meta"):  # its architecture without its tensors
        _check_kind(name, timm.create_model(name))
    try:
        return timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's client raises some ten unrelated classes when offline
        looked = f"{folder}/{name}.safetensors" if folder else f"{WEIGHTS_VARIABLE} (not set)"
        raise FileNotFoundError(
            f"{name}: not an embedded model; not in {looked}; and the hub gave nothing "
            f"({type(error).__name__}: {error}).  With a network, fetch it once with: "
            f"python -m qkutils fetch {name}"
        ) from error


def fetch(name: str, folder: Path) -> Path:
    """Fetches a model from the hub and keeps it as NAME.safetensors in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path, partial = folder / f"{name}.safetensors", folder / f"{name}.partial"
    _refuse_unknown(name)
    save_file(_from_hub(name, str(folder)).state_dict(), partial)
    os.replace(partial, path)
    return path

"""Checkpoint files: told by their content, read without running code, and made into modules."""

from __future__ import annotations

import qkutils._torchvision

import json
import math
import os
import pickle
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

Grid = tuple[int, int]
Tensors = dict[str, Tensor]

METADATA = "qkutils"  # where our own safetensors files say what tensors can't
MOST_TENSORS, MOST_BLOCKS = 10_000, 500  # far above what anyone trains
_PLAIN = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
EMBED = "patch_embed.proj.weight"  # every vision transformer in timm's layout has one
_DIMENSIONS = {EMBED: 4, "pos_embed": 3, "blocks.0.mlp.fc1.weight": 2, "reg_token": 3}
_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch's old files begin

# Files of other kinds: how they begin, what they are, and what to do.
_FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer, not the file it stands for; run `git lfs pull`",
    b"\x89HDF": "an HDF5 file, as Keras writes them; load the timm model of the same weights",
    b"\x93NUMPY": "one NumPy array, not a checkpoint; save the model's state dict",
    b"GGUF": "a GGUF file; fetch the same weights as safetensors",
    b"\x1f\x8b": "compressed with gzip; unpack it and load what is inside",
    b"BZh": "compressed with bzip2; unpack it and load what is inside",
    b"\xfd7zXZ": "compressed with xz; unpack it and load what is inside",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it and load what is inside",
    b"{": "JSON, such as the index of a checkpoint in parts; save the checkpoint in one file",
    b"<": "a web page; fetch the file again from its download address",
    b"\x80": "a pickle of Python objects, which could run code when read; where you trust it, load "
    "it yourself and save its state dict with safetensors",
}
_TIMM = "load the same weights by their name in timm, or put them into a timm module and pass it"
# Layouts of other libraries: keys that tell them, what they are, and what to do.
_FAMILIES = (
    (r"lora_|\.base_layer\.", "adapters beside their base", "merge them and save the state dict"),
    (
        r"parametrizations\.|weight_(orig|g|v)$",
        "weights under a parametrization or pruning mask",
        "make it permanent and save the state dict",
    ),
    (
        r"_packed_params|zero_point|[a-z_]*scale$|\.SCB$|quant|absmax",
        "quantised weights",
        "save them as they were before",
    ),
    (
        r"relative_position|rel_pos_bias",
        "SimMIM, BEiT or Swin, which add a relative position bias to scores",
        "the book's algebra has no such bias: take another model",
    ),
    (r"attention\.attention\.query", "transformers' ViT, DeiT, DINO or I-JEPA", _TIMM),
    (r"attention\.[qkvo]_proj", "transformers 5 in memory", _TIMM),
    (r"self_attn\.[qkv]_proj|embeddings\.class_emb", "transformers' CLIP or SigLIP", _TIMM),
    (r"resblocks\.\d", "OpenAI's CLIP and open_clip", _TIMM),
    (r"encoderblock_\d", "Google's JAX files", _TIMM),
    (r"predictor_(blocks|embed)", "I-JEPA's predictor", "load its encoder"),
    (r"register_tokens|blocks\.\d+\.\d+\.", "DINOv2's own files", _TIMM),
    (r"encoder_layer_\d|conv_proj\.", "torchvision", _TIMM),
    (r"patch_embed\.projection|\.ln1\.", "mmpretrain", _TIMM),
    (r"attn\.(q_proj|k_proj|q_bias)|mlp\.w1", "timm's EVA or BEiT", "name it with like="),
)
# What training leaves beside a transformer, and no layer's attention depends on.
_INERT = re.compile(
    r"(cls_|dino_|ibot_|projection_|prediction_)?heads?|head_dist|fc|classifier|pre_logits"
    r"|mask_token|decoder\w*|predictor|projector|attn_pool|opt|optimizers?(_states)?|callbacks"
    r"|(lr_)?schedulers?|\w*scaler|amp|\w*loss|criterion|\w*rng_states?|queue\w*|text\w*|logit_\w+"
)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one vision transformer, as its file has them, and what else the file says."""

    path: Path
    tensors: Tensors
    left_out: tuple[str, ...]
    metadata: dict[str, Any]


def read(path: Path, state_dict: str | None = None) -> Checkpoint:
    """Read the one vision transformer of a file, or the one that `state_dict` names.

    Raises
    ------
    FileNotFoundError, PermissionError
        For a file that is not there or that this user may not read.
    ValueError
        For a file that is cut short or of another kind, made of pickled objects, or that holds no
        vision transformer in timm's layout, or several.
    """
    metadata: dict[str, Any] = {}
    kind = _kind(path)
    if kind == "safetensors":
        found, metadata = _read_safetensors(path)
    else:
        found = _flatten(_read_torch(path, kind == "zip"))
    if not found:
        raise ValueError(f"{path}: holds no named tensors; save the model's state dict")
    if len(found) > MOST_TENSORS:
        raise ValueError(
            f"{path}: {len(found)} tensors are more than any vision transformer has; save the "
            "model's state dict alone"
        )
    prefix = _choose(found, state_dict, path)
    inside = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    outside = {_beside(key, prefix) for key in found if not key.startswith(prefix)}
    unknown = sorted(name for name in outside if not _INERT.fullmatch(name))
    if unknown and state_dict is None:
        raise ValueError(
            f"{path}: beside the transformer it holds {', '.join(unknown[:6])}, which may change "
            f"what it computes; if not, pass state_dict={prefix.rstrip('.')!r}"
        )
    return Checkpoint(path, inside, tuple(sorted(outside)), metadata)


def _kind(path: Path) -> str:
    """What a file is, by its content: safetensors, zip or old; raises for anything else."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"{path}: not a regular file; pass a checkpoint file")
        with path.open("rb") as file:
            head = file.read(512)
    except PermissionError as error:
        raise PermissionError(f"{path}: this user may not read it; mend its permissions") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{path}: there is no such file; check the path") from error
    except OSError as error:
        raise OSError(f"{path}: can't be read ({error.strerror}); check the path") from error
    if not head:
        raise ValueError(f"{path}: is empty; fetch it again")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1e8:
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path)
        return "zip"
    if head.startswith(_MAGIC):
        return "old"
    foreign = (words for magic, words in _FOREIGN.items() if head.lstrip().startswith(magic))
    words = next(foreign, "not a checkpoint of safetensors or torch; fetch it again")
    if head[257:262] == b"ustar":
        words = "a tar archive; unpack it and load what is inside"
    raise ValueError(f"{path}: {words}")


def _check_zip(path: Path) -> None:
    """Raises ValueError for an archive that is not torch's, and for one that would swell."""
    try:
        with ZipFile(path) as archive:
            members = archive.infolist()
    except (BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise ValueError(
            f"{path}: not a complete torch checkpoint ({error}); fetch it again"
        ) from error
    names = {member.filename.rpartition("/")[2] for member in members}
    if names and all(name.endswith(".npy") for name in names):
        raise ValueError(
            f"{path}: a NumPy archive, as Google publishes its models; give it to the "
            "load_pretrained of a timm module, and pass that"
        )
    if "constants.pkl" in names:
        raise ValueError(
            f"{path}: TorchScript, which is a program; save the state dict of the model it was "
            "made from"
        )
    if "data.pkl" not in names:
        raise ValueError(f"{path}: a zip archive, no checkpoint; unpack it and load what is inside")
    compressed = any(member.compress_type != ZIP_STORED for member in members)
    if compressed or sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError(
            f"{path}: its archive is packed, which torch.save never does; save the state dict again"
        )
    if len(members) > MOST_TENSORS:
        raise ValueError(
            f"{path}: {len(members)} parts are more than any vision transformer has; save the "
            "model's state dict alone"
        )


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            if len(names) > MOST_TENSORS:
                return dict.fromkeys(names, torch.empty(0)), {}
            said = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            if said and set(said) != {"num_heads", "config"}:
                raise ValueError(f"its metadata {METADATA!r} is not ours")
            return {name: file.get_tensor(name) for name in names}, said
    except (SafetensorError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a complete safetensors file ({error}); fetch it again"
        ) from error


def _read_torch(path: Path, zipped: bool) -> object:
    mapped = zipped and path.suffix != ".safetensors"  # which torch would not read as its own
    try:
        with path.open("rb") as file:
            source: Any = path if mapped else file
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch's safe unpickler meets foreign bytes with many classes
        objects = _pickled_objects(path, error)
        if not objects:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"{path}: not a complete torch checkpoint ({reason}); fetch it again"
            ) from error
        raise ValueError(
            f"{path}: beside tensors it holds pickled Python objects ({', '.join(objects)}), which "
            "could run code when read; where you trust it, load it yourself and save its state "
            "dict with safetensors"
        ) from error


def _pickled_objects(path: Path, error: Exception) -> list[str]:
    """Names of what a file wants to import; an old file has only the first, in the error."""
    if not isinstance(error, pickle.UnpicklingError):
        return []
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # whatever its pickle makes of the disassembler
        return re.findall(r"GLOBAL (\S+)", str(error))[:1]


def _flatten(state: object) -> Tensors:
    """Every tensor in nested dicts, under its dotted name; each dict once."""
    found: Tensors = {}
    seen: set[int] = set()
    queue: list[tuple[str, object]] = [("", state)]
    for name, value in queue:  # grows while it is read: the outer dicts come first
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            queue += [(f"{name}.{k}" if name else str(k), each) for k, each in value.items()]
    return found


def _choose(found: Tensors, wanted: str | None, path: Path) -> str:
    """The prefix of the one state dict in a file, or of the one that is wanted."""
    keys = [key for key in found if f".{key}".endswith(f".{EMBED}")]
    prefixes = sorted(key.removesuffix(EMBED) for key in keys)
    if not prefixes:
        raise _mismatch(path, found, [f"no tensor is called {EMBED}"])
    names = ", ".join(repr(prefix.rstrip(".")) for prefix in prefixes)
    if wanted is not None:
        exact = [prefix for prefix in prefixes if prefix.rstrip(".") == wanted]
        within = [prefix for prefix in prefixes if prefix.startswith(f"{wanted}.")]
        prefixes = exact or within
    if len(prefixes) != 1:
        asked = "" if wanted is None else f"state_dict={wanted!r} is not one of them; "
        raise ValueError(
            f"{path}: holds the state dicts {names}; {asked}choose one with state_dict="
        )
    return prefixes[0]


def _beside(key: str, prefix: str) -> str:
    """What a tensor outside of the chosen state dict belongs to: where its name departs."""
    parts, chosen = key.split("."), prefix.split(".")
    common = len(os.path.commonprefix([parts, chosen]))
    return parts[min(common, len(parts) - 1)]


def _mismatch(path: Path, tensors: Tensors, reasons: list[str]) -> ValueError:
    """What is wrong with a file's tensors, with the name of their family where that is known."""
    for keys, family, remedy in _FAMILIES:
        if any(re.search(keys, key) for key in tensors):
            return ValueError(f"{path}: the layout of {family}, which is not read; {remedy}")
    return ValueError(
        f"{path}: not a vision transformer in timm's layout: {'; '.join(reasons)}; first keys are "
        f"{sorted(tensors)[:3]}; pass a timm module instead"
    )


def _few(keys: Any) -> str:
    chosen = sorted(keys)
    return ", ".join(chosen[:4]) + (f" and {len(chosen) - 4} more" if len(chosen) > 4 else "")


def check_shapes(checkpoint: Checkpoint) -> int:
    """The number of blocks.

    Raises ValueError where one is missing or differs from the first, and for tensors with other
    dimensions than in any vision transformer.
    """
    path, tensors = checkpoint.path, checkpoint.tensors
    blocks: dict[int, dict[str, tuple[int, ...]]] = {}
    for key, tensor in tensors.items():
        match = re.fullmatch(r"blocks\.(0|[1-9][0-9]{0,5})\.(.+)", key)
        if match:
            blocks.setdefault(int(match[1]), {})[match[2]] = tuple(tensor.shape)
        if key in _DIMENSIONS and (tensor.ndim != _DIMENSIONS[key] or 0 in tensor.shape):
            raise _mismatch(path, tensors, [f"{key} of shape {tuple(tensor.shape)}"])
    missing = {f"blocks.{n}" for n in range(min(max(blocks, default=0), MOST_BLOCKS) + 1)}
    missing -= {f"blocks.{n}" for n in blocks}
    if missing or len(blocks) > MOST_BLOCKS:
        raise _mismatch(path, tensors, [f"{len(blocks)} blocks, without {_few(missing)}"])
    for n, block in blocks.items():
        odd = {name for name, _ in block.items() ^ blocks[0].items()}
        if odd:
            first = min(odd)
            reason = f"blocks.{n}.{first} is missing, or is not as blocks.0.{first}"
            raise _mismatch(path, tensors, [reason])
    return len(blocks)


def arguments(checkpoint: Checkpoint, num_heads: int, grid: Grid | None) -> dict[str, Any]:
    """What timm's VisionTransformer is to be called with, read off the tensors' shapes."""
    tensors, depth = checkpoint.tensors, check_shapes(checkpoint)
    missing = [key for key in ("pos_embed", "blocks.0.mlp.fc1.weight") if key not in tensors]
    if missing:
        raise _mismatch(checkpoint.path, tensors, [f"{_few(missing)} missing"])
    width, channels, *patch = tensors[EMBED].shape
    if width % num_heads:
        raise ValueError(f"num_heads={num_heads}: does not divide the width {width}")
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    prefix = ("cls_token" in tensors) + ("dist_token" in tensors) + registers
    shape, embeds_prefix = find_grid(checkpoint, prefix, registers, grid)
    fc_norm = "fc_norm.weight" in tensors
    return {
        "img_size": (shape[0] * patch[0], shape[1] * patch[1]),
        "patch_size": tuple(patch),
        "in_chans": channels,
        "embed_dim": width,
        "depth": depth,
        "num_heads": num_heads,
        "mlp_ratio": (tensors["blocks.0.mlp.fc1.weight"].shape[0] + 0.5) / width,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "proj_bias": "blocks.0.attn.proj.bias" in tensors,
        "qk_norm": "blocks.0.attn.q_norm.weight" in tensors,
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in tensors else None,
        "class_token": "cls_token" in tensors,
        "reg_tokens": registers,
        "no_embed_class": not embeds_prefix,
        "pre_norm": "norm_pre.weight" in tensors,
        "fc_norm": fc_norm,
        "global_pool": "avg" if fc_norm or "cls_token" not in tensors else "token",
        "num_classes": classes(tensors),
    }


def classes(tensors: Tensors) -> int:
    """How many classes a file's own head tells apart; 0 where it has no plain one."""
    head, width = tensors.get("head.weight"), tensors[EMBED].shape[0]
    whole = "dist_token" not in tensors or "head_dist.weight" in tensors
    return len(head) if head is not None and head.shape[1:] == (width,) and whole else 0


def find_grid(
    checkpoint: Checkpoint,
    prefix: int,
    registers: int,
    grid: Grid | None,
    embeds_prefix: bool | None = None,
) -> tuple[Grid, bool]:
    """Rows and columns of the patch grid, and whether prefix tokens have positions of their own."""
    positions = checkpoint.tensors["pos_embed"].shape[1]
    readings = [(positions - prefix, True), (positions, False)]
    readings = [r for r in readings if embeds_prefix in (None, r[1])]
    if grid is not None:
        found = [(grid, embeds) for patches, embeds in readings if math.prod(grid) == patches]
    else:
        sides = [(math.isqrt(max(patches, 0)), patches, embeds) for patches, embeds in readings]
        found = [((side, side), embeds) for side, n, embeds in sides if 0 < side * side == n]
    # Positions without the class token's can be a square by chance: 14 · 16 + 1 = 15 · 15.
    by_chance = grid is None and prefix and not registers and embeds_prefix is None
    if not found or (by_chance and not found[0][1]) or (grid is None and len(found) > 1 and prefix):
        asked = "pass grid=(rows, columns)" if grid is None else f"grid={grid} is none"
        raise ValueError(
            f"{checkpoint.path}: {positions} positions do not tell the patch grid, with "
            f"{prefix} prefix tokens that may have their own; {asked}"
        )
    return found[0]


def fill(net: nn.Module, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Gives a module a file's tensors, in float32; returns what else the file holds.

    Raises ValueError where they are not the module's, or are not plain floating-point numbers.
    """
    path, tensors, own = checkpoint.path, checkpoint.tensors, net.state_dict()
    extra = {key for key in tensors if key not in own}
    unknown = {key for key in extra if not _INERT.fullmatch(key.partition(".")[0])}
    missing = own.keys() - tensors.keys()
    wrong = {k for k in own.keys() - missing if own[k].shape != tensors[k].shape}
    named = {"missing": missing, "unknown": unknown, "of another shape": wrong}
    reasons = [f"{_few(keys)} {what}" for what, keys in named.items() if keys]
    if reasons:
        raise _mismatch(path, tensors, reasons)
    net.load_state_dict({key: _plain(tensors[key], key, path) for key in own}, assign=True)
    return checkpoint.left_out + tuple(sorted({key.partition(".")[0] for key in extra}))


def _plain(tensor: Tensor, key: str, path: Path) -> Tensor:
    """A float32 copy of its own, which no later change of the file reaches."""
    if tensor.dtype not in _PLAIN:
        raise ValueError(
            f"{path}: {key} holds {str(tensor.dtype).removeprefix('torch.')}, not floating-point "
            "numbers: quantised, without their scales; save the weights as they were before"
        )
    strided = tensor.layout == torch.strided and not tensor.is_meta
    if not strided or tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        raise ValueError(
            f"{path}: {key} claims {tensor.numel()} numbers, more than it holds; save the model's "
            "state dict again"
        )
    return tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)

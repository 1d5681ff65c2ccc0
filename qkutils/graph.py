"""Graph: a model that computes in its own modes, as a module and as a file that others run."""

from __future__ import annotations

import qkutils._torchvision

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from timm.models import beit
from torch import Tensor, nn

from qkutils import models, onnx_file, options, store
from qkutils.heads import Heads, key_salience
from qkutils.models import AnyModel, Model
from qkutils.onnx_file import Stored
from qkutils.passes import check_images, watching
from qkutils.svd import decompose_layer

Weights = Literal["float32", "half", "int8"]
Images = Float[Tensor, "image channel height width"]
Coordinates = Float[Tensor, "image head token mode"]
OfToken = Float[Tensor, "image head token"]

SMALL = 1024  # numbers: a tensor of no more stays in float32
LARGEST = 2**31 - 2**24  # bytes of tensors in a file of ONNX, with room for all else


@dataclass
class _Switches:
    """What is on inside all softmaxes of a pass, and what its layers bring to them."""

    modes: Any = None
    heads: Any = None
    salience: Any = None
    position_bias: Any = None
    brought: list[tuple[Tensor, ...]] = field(default_factory=list)


class _Attention(nn.Module):
    """One layer's attention with singular vectors for weights: √σ·u of queries, √σ·v of keys."""

    def __init__(self, attn: Any, heads: Heads, layer: int, kappa: Tensor, switches: _Switches):
        super().__init__()
        parts = decompose_layer(heads, layer, "exact")
        sides = parts["sigma"].sqrt()[..., None] * torch.stack([parts["u"], parts["v"]])
        self.layer, self.scale, self.switches = layer, heads.scale, switches
        self.sizes = sides.shape[:3]
        self.turned = _linear(sides.flatten(0, 2))
        self.kappa = _linear(kappa)
        affine = heads.ln_gain[layer], heads.ln_shift[layer]
        self.gain, self.shift = (nn.Parameter(each.clone()) for each in affine)
        self.value = _linear(heads.w_v[layer].flatten(0, 1), heads.b_v[layer].flatten())
        self.norm, self.proj = getattr(attn, "norm", None) or nn.Identity(), attn.proj

    def forward(self, z: Tensor, *_: Any, **__: Any) -> Tensor:
        query, key = self.turned(z).unflatten(-1, self.sizes).permute(2, 0, 3, 1, 4).unbind(0)
        kappa = self.kappa(z).mT
        self.switches.brought.append((query, key, kappa))
        value = self.value(z * self.gain + self.shift)
        value = value.unflatten(-1, (self.sizes[1], -1)).transpose(1, 2)
        read = self.attention(query, key, kappa) @ value
        return self.proj(self.norm(read.transpose(1, 2).flatten(2)))

    def attention(
        self, query: Coordinates, key: Coordinates, kappa: OfToken
    ) -> Float[Tensor, "image head query key"]:
        """The softmax over what is on; a head that is off attends to all tokens alike."""
        on, layer = self.switches, self.layer
        modes, salience = on.modes[layer][:, None], on.salience[layer][:, None]
        scores = (query * modes) @ key.mT + (kappa * salience)[:, :, None]
        logits = scores * self.scale
        if on.position_bias is not None:
            logits = logits + on.position_bias[layer]
        return (logits * on.heads[layer][:, None, None]).softmax(-1)


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    rows, columns = weight.shape
    made = nn.Linear(columns, rows, bias is not None, "meta")
    made.weight = nn.Parameter(weight.float().clone())
    if bias is not None:
        made.bias = nn.Parameter(bias.clone())
    return made


class ModeNetwork(nn.Module):
    """A model whose queries and keys are the coordinates of its tokens on its modes.

    It computes what the model does.  A head's score of two tokens is the sum over modes of query
    times key, and the key's salience κ·z, by which every key is preferred whatever the query.
    Modes, heads and key salience can be switched off inside the softmax.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.  It is copied.

    Raises
    ------
    ValueError
        What `load` raises.

    Examples
    --------
    >>> import qkutils as qk, torch
    >>> network = qk.graph.ModeNetwork("tiny-supervised")
    >>> switches = network.all_on()
    >>> switches["modes"][3, 0, 2:] = 0  # head 0 of layer 3 keeps two modes
    >>> answer, query, key, kappa = network(torch.zeros(1, 3, 64, 64), **switches)
    >>> answer.shape, query.shape, kappa.shape
    (torch.Size([1, 19]), torch.Size([1, 8, 4, 65, 24]), torch.Size([1, 8, 4, 65]))
    """

    mean: Tensor
    std: Tensor
    bias_index: Tensor | None
    bias_table: Tensor | None

    def __init__(self, model: AnyModel) -> None:
        super().__init__()
        loaded = models.load(model)
        heads, switches = loaded.heads, _Switches()
        kappa = torch.stack(key_salience(heads)).sum(0)
        net = copy.deepcopy(loaded.net)
        for layer, block in enumerate(net.blocks):
            block.attn = _Attention(block.attn, heads, layer, kappa[layer], switches)
            block.norm1 = nn.LayerNorm(kappa.shape[-1], heads.ln_eps, elementwise_affine=False)
        self.net, self.sizes, self._switches = net, heads.w_q.shape[:3], switches
        normalise: Any = loaded.transform.transforms[-1]
        for name in ("mean", "std"):
            numbers = torch.as_tensor(getattr(normalise, name), dtype=torch.float32)
            self.register_buffer(name, numbers.view(3, 1, 1).to(loaded.device))
        self._keep_position_bias(heads, loaded.grid)
        self.eval().requires_grad_(False)

    def _keep_position_bias(self, heads: Heads, grid: tuple[int, int]) -> None:
        """Keeps it by the places of two tokens to each other, which are far fewer than pairs."""
        bias = heads.position_bias
        index = None if bias is None else beit.gen_relative_position_index(grid).to(bias.device)
        table = None
        if bias is not None and index is not None:
            table = bias.new_zeros(*bias.shape[:2], int(index.max()) + 1)
            table[:, :, index] = bias
        self.register_buffer("bias_index", index)
        self.register_buffer("bias_table", table)

    def all_on(self) -> dict[str, Tensor]:
        """Switches of `modes` [layer, head, mode], of `heads` and of `salience` [layer, head]."""
        sizes = {"modes": self.sizes, "heads": self.sizes[:2], "salience": self.sizes[:2]}
        return {name: torch.ones(size, device=self.mean.device) for name, size in sizes.items()}

    def forward(
        self,
        image: Images,
        modes: Float[Tensor, "layer head mode"],
        heads: Float[Tensor, "layer head"],
        salience: Float[Tensor, "layer head"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Answers [image, output]; query and key [image, layer, head, token, mode]; κ·z of keys.

        Pixels run from 0 to 1.  In the switches, 0 is off and 1 is on.
        """
        on = self._switches
        on.modes, on.heads, on.salience, on.brought = modes, heads, salience, []
        if self.bias_table is not None:
            on.position_bias = self.bias_table[:, :, self.bias_index]
        answer = self.net((image - self.mean) / self.std)
        query, key, kappa = (torch.stack(each, 1) for each in zip(*on.brought, strict=True))
        return answer, query, key, kappa


@dataclass(frozen=True)
class Exported:
    """A file that `export` wrote: how large it is, and how far its attention lies from the model's.

    `miss` is the largest total variation between the two, of any layer, head and query.
    """

    path: Path
    bytes: int
    miss: float


def export(
    model: AnyModel,
    path: str | Path,
    weights: Weights = "float32",
    images: Images | None = None,
) -> Exported:
    """Write a model as ONNX, so that programs without torch run it, and switch its modes off.

    Inputs, in float32: `image` [image, 3, height, width], any number of images with pixels from 0
    to 1; `modes` [layer, head, mode], `heads` and `salience` [layer, head], which are 1, and 0 for
    what is off inside the softmax.  Outputs: `answer` [image, output]; `query` and `key` [image,
    layer, head, token, mode], each token's coordinates on the modes; `kappa` [image, layer, head,
    token], the salience κ·z of each key.  Attention is the softmax of heads · (scale · (Σ modes
    query key + salience · kappa) + position bias).  The file's metadata, as JSON, say what the
    model is, and how a picture becomes what it takes.

    Parameters
    ----------
    model
        A name, a file, a timm module, or what `load` gave.
    path
        The file to write.
    weights
        How the large tensors are stored; the graph makes float32 of them, and computes in that.
        `half`: in half precision, those of queries, keys and key salience in float32, so that a
        model that was published in half precision, such as an embedded one, is exported exactly.
        `int8`: each matrix in 8 bits, with a scale for every row of outputs; all else in float32.
    images
        Images as the model takes them, for measuring `miss`.  Without, four fixed random pictures,
        smooth between 8 × 8 colours.

    Returns
    -------
    Exported
        The file's path, its size in bytes, and how far its attention lies from the model's.

    Raises
    ------
    ValueError
        What `load` raises, for a predictor and what has no blocks too; for images that the model
        does not take, for a model that gives an answer for every token, for weights too large for
        half precision, and for more than 2 GB.
    ImportError
        Where the extra `export` is not installed.
    OSError
        Where the file can't be written.

    Examples
    --------
    >>> import qkutils as qk
    >>> qk.export("tiny-supervised", "tiny.onnx", weights="int4")
    Traceback (most recent call last):
    ValueError: weights='int4': it is one of 'float32', 'half', 'int8'
    """
    options.choice("weights", weights, get_args(Weights))
    onnx_file.check_extra()
    store.check_writable(path)
    loaded = models.load(model, device="cpu")
    images = _pictures(loaded) if images is None else images
    check_images(loaded, images)
    network = ModeNetwork(loaded)
    stored = _store(network, loaded.name, weights)
    miss = _miss(network, loaded, images)
    inputs = {"image": _pixels(network, _pictures(loaded)), **network.all_on()}
    facts = _facts(loaded, network, inputs) | {"weights": weights, "miss": miss}
    outputs = ("answer", "query", "key", "kappa")
    size = onnx_file.write(path, network, inputs, outputs, facts, stored, any_number="image")
    return Exported(Path(path), size, miss)


def _pictures(model: Model) -> Images:
    """Four random pictures, smooth between 8 × 8 colours, as the model takes them."""
    colours = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = nn.functional.interpolate(colours, model.image_size, mode="bilinear")
    normalise: Any = model.transform.transforms[-1]
    return normalise(pixels)


def _pixels(network: ModeNetwork, images: Images) -> Images:
    return images.to(network.mean.device) * network.std + network.mean


def _facts(model: Model, network: ModeNetwork, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a program has to know of a model to feed it, and of whom its answers are."""
    with torch.inference_mode():
        answer = network(**inputs)[0]
    if answer.ndim != 2:
        told = f"gives answers of {tuple(answer.shape[1:])}; give the module a pooling"
        raise ValueError(f"{model.name}: {told}, as `global_pool='token'`")
    return {
        "name": model.name,
        "fingerprint": model.fingerprint,
        "identity": model.identity,
        "grid": model.grid,
        "prefix_names": model.prefix_names,
        "scale": model.heads.scale,
        "image_size": model.image_size,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "outputs": answer.shape[1],
    }


def _miss(network: ModeNetwork, model: Model, images: Images) -> float:
    """The largest total variation between the attention of a mode network and that of a model."""
    largest, own = 0.0, list[Tensor]()
    with watching(model, attention=lambda _, seen: own.append(seen)) as run:
        for image in images.split(1):
            own.clear()
            run(image)
            with torch.inference_mode():
                _, *brought = network(_pixels(network, image), **network.all_on())
                for layer, (block, seen) in enumerate(zip(network.net.blocks, own, strict=True)):
                    made = block.attn.attention(*(each[:, layer] for each in brought))
                    largest = max(largest, float((made - seen).abs().sum(-1).max()) / 2)
    return largest


# ---- how numbers are stored ----------------------------------------------------------------------


def _store(network: ModeNetwork, name: str, weights: Weights) -> Stored:
    """What is stored of every parameter that is not stored as it is.

    The network computes with what is stored from here on.
    """
    stored: Stored = {}
    for place, parameter in network.named_parameters():
        numbers = _rounded(place, parameter.data, weights) if parameter.numel() > SMALL else ()
        if not numbers:
            continue
        stored[place], parameter.data = numbers, _restored(*numbers)
        if not parameter.isfinite().all():
            remedy = "take weights='float32' or 'int8'"
            raise ValueError(f"{name}: {place} is too large for half precision; {remedy}")
    tensors = dict([*network.named_parameters(), *network.named_buffers()])
    held = ({place: (each,) for place, each in tensors.items()} | stored).values()
    if (size := sum(each.nbytes for numbers in held for each in numbers)) > LARGEST:
        told = f"{size / 1e9:.1f} GB in {weights}, but a file of ONNX holds 2"
        raise ValueError(f"{name}: {told}; take weights='half' or 'int8'")
    return stored


def _rounded(place: str, values: Tensor, weights: Weights) -> tuple[Tensor, ...]:
    """What is stored of a parameter; nothing where that is the parameter as it is."""
    if weights == "half" and not place.endswith((".turned.weight", ".kappa.weight")):
        return (values.half(),)
    matrix = values.ndim > 1 and place.endswith(".weight")
    if weights == "int8" and matrix and not place.endswith(".kappa.weight"):
        largest = values.abs().amax([*range(1, values.ndim)], keepdim=True)
        scale = largest.clamp(min=1e-30) / 127
        return (values / scale).round().to(torch.int8), scale
    return ()


def _restored(values: Tensor, scale: Tensor | None = None) -> Tensor:
    """What the graph makes of what is stored."""
    return values.float() if scale is None else values.float() * scale

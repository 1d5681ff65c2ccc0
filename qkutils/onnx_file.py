"""ONNX files: what a module computes, written for programs that know neither torch nor qkutils."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qkutils import store

Stored = dict[str, tuple[Tensor, ...]]  # by parameter: its numbers, and in int8 their scale

OPSET = 20  # the first with GELU


def check_extra() -> None:
    """Raises ImportError where what writes ONNX is not installed."""
    try:
        for name in ("onnx", "onnxscript"):
            import_module(name)
    except ImportError as error:
        told = "exporting needs onnx and onnxscript: pip install 'qkutils[export]'"
        raise ImportError(told) from error


def write(
    path: str | Path,
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    facts: Mapping[str, Any],
    stored: Stored | None = None,
    any_number: str = "",
) -> int:
    """Write what a module computes as a file of ONNX, and return its size in bytes.

    `inputs` are examples by the names of its arguments, `any_number` the one of any length, `facts`
    the metadata, `stored` what stands for some parameters.
    """
    check_extra()
    shapes: Any = {n: {0: torch.export.Dim(n)} if n == any_number else {} for n in inputs}
    with warnings.catch_warnings():  # which torch gives itself
        warnings.filterwarnings("ignore", r"`isinstance\(treespec", FutureWarning)
        program: Any = torch.onnx.export(
            module,
            kwargs=dict(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamic_shapes=shapes if any_number else None,
            custom_translation_table={torch.ops.aten.hypot.default: _hypot},
            optimize=not stored,  # else parameters stay as they are, under their names
            verbose=False,
        )
    made = program.model
    for name, numbers in (stored or {}).items():
        _replace(made.graph, name, numbers)
    for node in made.graph:
        node.metadata_props.clear()  # where in our code it stands
    made.metadata_props.clear()
    made.metadata_props.update({name: json.dumps(fact) for name, fact in facts.items()})
    content = program.model_proto.SerializeToString()
    store.write(path, content)
    return len(content)


def _hypot(one: Any, other: Any) -> Any:
    """What torch's own exporter does not know."""
    from onnxscript import opset20 as op

    return op.Sqrt(op.Add(op.Mul(one, one), op.Mul(other, other)))


def _replace(graph: Any, name: str, numbers: tuple[Tensor, ...]) -> None:
    """Put what is stored of a parameter into a graph, and what makes the parameter of it."""
    import onnx_ir as ir

    values = [
        ir.Value(name=f"{name}.{part}", const_value=ir.tensor(each.numpy()))
        for part, each in zip(("stored", "scale"), numbers, strict=False)
    ]
    nodes = [ir.node("Cast", values[:1], {"to": ir.DataType.FLOAT})]
    if values[1:]:
        nodes.append(ir.node("Mul", [nodes[0].outputs[0], values[1]]))
    ir.convenience.replace_all_uses_with(graph.initializers.pop(name), nodes[-1].outputs[0])
    for value in values:
        graph.register_initializer(value)
    graph.insert_before(graph[0], nodes)

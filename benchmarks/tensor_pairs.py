"""Which tensor of trtcompile's graph is which tensor of an ONNX file, by structure and not by name.

Both are walked in their topological order. Of each, the tensors of the kinds below are listed, and
the two lists must agree entry by entry: in kind, in shape, and for weighted operators in the
weights, batch norms folded. Anything else is an error that shows both lists; nothing is guessed.
Operators of other kinds are passed over. In VGG16 on 32x32 images that is the average pooling of a
1x1 map, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule

from trtcompile.node_info import layer_name

aten = torch.ops.aten

_KIND_OF_ATEN = {
    aten.convolution.default: "convolution",
    aten.relu.default: "relu",
    aten.max_pool2d.default: "max_pool",
    aten.view.default: "flatten",
    aten.reshape.default: "flatten",
    aten.linear.default: "linear",
}
_KIND_OF_ONNX = {
    "Conv": "convolution",
    "Relu": "relu",
    "MaxPool": "max_pool",
    "Flatten": "flatten",
    "Reshape": "flatten",
    "Gemm": "linear",
}
# Batch norms are folded in FP32 by one side and in FP64 by the other.
WEIGHT_TOLERANCE = 1e-4


class PairingError(ValueError):
    """The two graphs do not have the same structure."""


@dataclass(frozen=True, eq=False)
class NamedTensor:
    """A tensor of a graph.

    Attributes:
        name: its name in that graph.
        kind: what computes it, or ``"input"``.
        shape: its shape.
        weight: the weight of the operator that computes it, if that has one.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    weight: np.ndarray | None = None

    def __str__(self) -> str:
        return f"{self.kind} {list(self.shape)} {self.name}"


def tensors_of_graph(graph_module: GraphModule) -> list[NamedTensor]:
    """The tensors of a lowered FP32 graph, by the names of calibration tables."""
    found = []
    for node in graph_module.graph.nodes:
        kind = "input" if node.op == "placeholder" else _KIND_OF_ATEN.get(node.target)
        if kind is None:
            continue
        weight = None
        if kind in ("convolution", "linear"):
            weight = getattr(graph_module, str(node.args[1].target)).detach().cpu().numpy()
        shape = tuple(int(size) for size in node.meta["val"].shape)
        found.append(NamedTensor(layer_name(node), kind, shape, weight))
    return found


def tensors_of_onnx(onnx_file: bytes) -> list[NamedTensor]:
    """The tensors of an ONNX file, by its names, which TensorRT's calibration cache uses."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(onnx_file)).graph
    shapes = {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    constants = {constant.name: constant for constant in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    found = [NamedTensor(name, "input", shapes[name]) for name in inputs]
    for node in graph.node:
        kind = _KIND_OF_ONNX.get(node.op_type)
        if kind is None:
            continue
        name = node.output[0]
        weight = None
        if kind in ("convolution", "linear"):
            weight = numpy_helper.to_array(constants[node.input[1]])
            attributes: dict[str, Any] = {a.name: a.i for a in node.attribute}
            if kind == "linear" and not attributes.get("transB"):
                weight = weight.T
        found.append(NamedTensor(name, kind, shapes.get(name, ()), weight))
    return found


def pair(ours: Sequence[NamedTensor], theirs: Sequence[NamedTensor]) -> list[tuple[str, str, str]]:
    """Pairs the tensors of two graphs.

    Returns:
        ``(kind, our name, their name)`` for every tensor.

    Raises:
        PairingError: the lists differ in length, or an entry in kind, shape, or weights.
    """
    for index in range(max(len(ours), len(theirs))):
        problem = _difference(ours[index : index + 1], theirs[index : index + 1])
        if problem is not None:
            raise PairingError(
                f"tensor {index} differs in {problem}.\nours:\n{_listing(ours, index)}\n"
                f"theirs:\n{_listing(theirs, index)}"
            )
    return [(a.kind, a.name, b.name) for a, b in zip(ours, theirs, strict=True)]


def _difference(ours: Sequence[NamedTensor], theirs: Sequence[NamedTensor]) -> str | None:
    if len(ours) != len(theirs):
        return "being there at all"
    a, b = ours[0], theirs[0]
    if a.kind != b.kind:
        return "kind"
    if a.shape != b.shape:
        return "shape"
    if (a.weight is None) != (b.weight is None):
        return "having a weight"
    if a.weight is not None and b.weight is not None:
        if a.weight.shape != b.weight.shape:
            return "the shape of the weight"
        if np.abs(a.weight - b.weight).max() > WEIGHT_TOLERANCE * np.abs(a.weight).max():
            return "the weight"
    return None


def _listing(tensors: Sequence[NamedTensor], marked: int) -> str:
    lines = [f"{'>' if i == marked else ' '} {i:3} {t}" for i, t in enumerate(tensors)]
    return "\n".join(lines)

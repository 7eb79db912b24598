"""Pairs tensors with those of the ONNX file that a cache was made from, by weights and structure; names do not matter.

Convolutions and linear layers are recognized by their weights, which tie their inputs and results together. From
there, operators of one kind with the same inputs have the same result.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from trtcompile.errors import CalibrationError, SettingsError
from trtcompile.ptq.movement import moved_values, only_moves

aten = torch.ops.aten

# Norms are folded in FP32 by the exporter, and in FP64 by us.
_TOLERANCE = 1e-4

_KINDS: Mapping[Any, frozenset[str]] = {
    aten.adaptive_avg_pool2d.default: frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"}),
    aten.add.Tensor: frozenset({"Add"}),
    aten.addcmul.default: frozenset({"BatchNormalization"}),
    aten.avg_pool2d.default: frozenset({"AveragePool"}),
    aten.cat.default: frozenset({"Concat"}),
    aten.hardtanh.default: frozenset({"Clip"}),
    aten.leaky_relu.default: frozenset({"LeakyRelu"}),
    aten.max_pool2d.default: frozenset({"MaxPool"}),
    aten.mean.dim: frozenset({"ReduceMean", "GlobalAveragePool"}),
    aten.mul.Tensor: frozenset({"Mul"}),
    aten.relu.default: frozenset({"Relu"}),
    aten.sigmoid.default: frozenset({"Sigmoid"}),
    aten.sub.Tensor: frozenset({"Sub"}),
    aten.tanh.default: frozenset({"Tanh"}),
}

_RESHAPES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


@dataclass(frozen=True, eq=False)
class _Layer:
    """A convolution or product with a constant.

    Attributes:
        weight: as PyTorch has it; a norm behind is folded if ``result`` is the norm's.
        data: the tensor that is multiplied.
        result: the layer's result, bias included.
    """

    weight: np.ndarray[Any, Any]
    data: str
    result: str


class OnnxGraph:
    """The nodes and constants of an ONNX file.

    Args:
        path: the file; weights may lie in files beside it.

    Raises:
        SettingsError: the package ``onnx`` is not installed.
        CalibrationError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            onnx = importlib.import_module("onnx")
        except ImportError as error:
            raise SettingsError(
                "onnx_file needs the package onnx, which is not installed. Install it: pip install onnx."
            ) from error
        try:
            self.graph = onnx.load(str(path)).graph
        except Exception as error:  # protobuf's errors have no common type
            raise CalibrationError(
                f"The ONNX file {str(path)!r} cannot be read: {error}. Give the file that the cache was made from."
            ) from error
        self._to_array = onnx.numpy_helper.to_array
        self._initializers = {constant.name: constant for constant in self.graph.initializer}
        self.producers = {output: node for node in self.graph.node for output in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.graph.node:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)

    @property
    def inputs(self) -> list[str]:
        """The names of the graph's inputs, without constants."""
        return [value.name for value in self.graph.input if value.name not in self._initializers]

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The value of a constant, also of one that passes through transpositions; None if it is none."""
        if name in self._initializers:
            return np.asarray(self._to_array(self._initializers[name]))
        node = self.producers.get(name)
        if node is None or node.op_type not in ("Constant", "Identity", "Transpose"):
            return None
        attributes = {a.name: a for a in node.attribute}
        if node.op_type == "Constant":
            value = attributes.get("value")
            return None if value is None else np.asarray(self._to_array(value.t))
        source = self.constant(node.input[0])
        if source is None or node.op_type == "Identity":
            return source
        return np.transpose(source, list(attributes["perm"].ints) if "perm" in attributes else None)

    def data_of(self, node: Any) -> list[str]:
        """The inputs of a node that are not constant, each once."""
        return [n for n in dict.fromkeys(node.input) if n and self.constant(n) is None]

    def layers(self) -> Iterator[_Layer]:
        """Every layer with a constant weight; twice, without and with its norm, if a norm follows."""
        for node in self.graph.node:
            weight = self._weight(node)
            if weight is None:
                continue
            layer = _Layer(weight, node.input[0], self._after_bias(node))
            yield layer
            normed = self._after_norm(layer, node)
            if normed is not None:
                yield normed

    def _weight(self, node: Any) -> np.ndarray[Any, Any] | None:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            return None
        weight = self.constant(node.input[1])
        if weight is None or node.op_type in ("Conv", "ConvTranspose"):
            return weight
        is_transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return weight if is_transposed else np.swapaxes(weight, -1, -2) if weight.ndim > 1 else None

    def _after_bias(self, node: Any) -> str:
        """A product's result, after the addition of a constant vector if that is its only reader."""
        result: str = node.output[0]
        reader = self._only_reader(result)
        if node.op_type == "MatMul" and reader is not None and reader.op_type == "Add":
            other = next((name for name in reader.input if name != result), result)
            bias = self.constant(other)
            if bias is not None and bias.ndim == 1:
                return str(reader.output[0])
        return result

    def _after_norm(self, layer: _Layer, node: Any) -> _Layer | None:
        norm = self._only_reader(layer.result)
        if norm is None or norm.op_type != "BatchNormalization":
            return None
        scale, variance = self.constant(norm.input[1]), self.constant(norm.input[4])
        if scale is None or variance is None:
            return None
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        factors = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
        axis = 1 if node.op_type == "ConvTranspose" else 0
        if layer.weight.shape[axis] != len(factors):
            return None
        shape = [-1 if dimension == axis else 1 for dimension in range(layer.weight.ndim)]
        return _Layer(layer.weight * factors.reshape(shape), layer.data, str(norm.output[0]))

    def _only_reader(self, name: str) -> Any:
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 else None


def pair_with_onnx(
    graph_module: GraphModule, onnx_graph: OnnxGraph
) -> tuple[dict[Node, tuple[str, str]], list[str]]:
    """Finds the tensors of an ONNX file that a lowered graph's nodes compute.

    Args:
        graph_module: the lowered graph.
        onnx_graph: the file.

    Returns:
        Node -> the tensor's name, and how it was found; and notes: the layers whose weights the file does not have.
    """
    pairs: dict[Node, tuple[str, str]] = {}
    notes = []
    layers = list(onnx_graph.layers())
    groups = _same_weights(graph_module, layers)
    for nodes, candidates in groups:
        if len(nodes) != len(candidates):
            names = ", ".join(str(node.meta.get("tensor_name", node.name)) for node in nodes)
            notes.append(
                f"{names}: the ONNX file has {len(candidates)} layers with these weights, not {len(nodes)}."
            )
            continue
        for node, layer in zip(nodes, candidates, strict=True):
            pairs[node] = (layer.result, "the result of the layer with the same weights")
            data = node.args[0]
            if isinstance(data, Node):
                reader = node.meta.get("tensor_name", node.name)
                pairs.setdefault(
                    data, (layer.data, f"read by {reader}, the layer with the same weights")
                )
    _spread_backward(graph_module, onnx_graph, pairs)
    _spread_forward(graph_module, onnx_graph, pairs)
    return pairs, notes


def _same_weights(
    graph_module: GraphModule, layers: list[_Layer]
) -> list[tuple[list[Node], list[_Layer]]]:
    """Layers of the graph with one weight, and those of the file with the same weight."""
    groups: list[tuple[np.ndarray[Any, Any], list[Node], list[_Layer]]] = []
    for node in graph_module.graph.nodes:
        if node.target not in (aten.convolution.default, aten.linear.default):
            continue
        source = node.args[1]
        if not isinstance(source, Node) or source.op != "get_attr":
            continue
        weight = getattr(graph_module, str(source.target)).detach().cpu().numpy()
        known = next((group for group in groups if _is_same(group[0], weight)), None)
        if known is None:
            groups.append((weight, [node], [one for one in layers if _is_same(weight, one.weight)]))
        else:
            known[1].append(node)
    return [(nodes, found) for _, nodes, found in groups]


def _is_same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    if a.shape != b.shape:
        return False
    return bool(np.abs(a - b).max(initial=0) <= _TOLERANCE * np.abs(a).max(initial=0))


def _spread_backward(
    graph_module: GraphModule, onnx_graph: OnnxGraph, pairs: dict[Node, tuple[str, str]]
) -> None:
    """Pairs the only input of paired operators of one kind, and what is only reshaped to a paired tensor."""
    for node in reversed(graph_module.graph.nodes):
        if node not in pairs:
            continue
        tensor = pairs[node][0]
        while _reshapes(node):
            (node,) = moved_values(node)
        producer = onnx_graph.producers.get(tensor)
        while producer is not None and producer.op_type in _RESHAPES:
            tensor = producer.input[0]
            producer = onnx_graph.producers.get(tensor)
        if producer is None or producer.op_type not in _KINDS.get(node.target, frozenset()):
            continue
        pairs.setdefault(node, (tensor, "same operator in front of the same tensor"))
        sources, data = _data_of(node), onnx_graph.data_of(producer)
        if len(sources) == len(data) == 1:
            pairs.setdefault(sources[0], (data[0], "read by the same operator"))


def _reshapes(node: Node) -> bool:
    names = ("reshape", "view", "transpose", "permute", "squeeze", "unsqueeze", "clone")
    name = getattr(node.target, "__name__", "")
    return name.startswith(names) and only_moves(node) and len(list(moved_values(node))) == 1


def _spread_forward(
    graph_module: GraphModule, onnx_graph: OnnxGraph, pairs: dict[Node, tuple[str, str]]
) -> None:
    """Pairs the results of operators of one kind whose inputs are paired, in the order of the graph."""
    for node in graph_module.graph.nodes:
        kinds = _KINDS.get(node.target)
        sources = _data_of(node)
        if kinds is None or node in pairs or any(source not in pairs for source in sources):
            continue
        tensors = {pairs[source][0] for source in sources}
        readers = [r for r in onnx_graph.readers.get(min(tensors), []) if r.op_type in kinds]
        results = [r.output[0] for r in readers if set(onnx_graph.data_of(r)) == tensors]
        if len(results) == 1:
            pairs[node] = (results[0], "same operator on the same tensors")


def _data_of(node: Node) -> list[Node]:
    """The inputs of a node that are not constant; of a concatenation that lowering has nested, of all its levels."""
    sources = [source for source in node.all_input_nodes if source.op != "get_attr"]
    if node.target is not aten.cat.default:
        return sources
    levels = [_data_of(s) if s.target is aten.cat.default else [s] for s in sources]
    return list(dict.fromkeys(source for level in levels for source in level))

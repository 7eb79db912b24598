"""Which tensor of trtcompile's graph is which tensor of an ONNX file, by the operators that read them.

``tensor_pairs.py`` walks two chains side by side. Here the order does not matter, so that branches,
concatenations, and operators that one side writes otherwise are no hindrance: a convolution or
linear layer of one side is that of the other which has the same weights, so what the one reads is
what the other reads. Average pools have no weights and are paired in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensor_pairs import WEIGHT_TOLERANCE, PairingError
from torch.fx import GraphModule

from trtcompile.node_info import layer_name

aten = torch.ops.aten
_KIND_OF_ATEN = {
    aten.convolution.default: "convolution",
    aten.linear.default: "linear",
    aten.adaptive_avg_pool2d.default: "average_pool",
    aten.avg_pool2d.default: "average_pool",
}
_KIND_OF_ONNX = {
    "Conv": "convolution",
    "Gemm": "linear",
    "MatMul": "linear",
    "AveragePool": "average_pool",
    "GlobalAveragePool": "average_pool",
}


@dataclass(frozen=True, eq=False)
class Reader:
    """An operator that reads a tensor which may be quantized.

    Attributes:
        kind: ``"convolution"``, ``"linear"``, or ``"average_pool"``.
        reads: name of its data input.
        writes: name of its result.
        weight: of convolutions and linear layers, output channels first.
    """

    kind: str
    reads: str
    writes: str
    weight: np.ndarray | None = None


def readers_of_graph(graph_module: GraphModule) -> list[Reader]:
    """The readers of a lowered FP32 graph, by the names of calibration tables."""
    found = []
    for node in graph_module.graph.nodes:
        kind = _KIND_OF_ATEN.get(node.target)
        if kind is None:
            continue
        weight = None
        if kind != "average_pool":
            if node.args[1].op != "get_attr":
                continue  # a product of two results
            weight = getattr(graph_module, str(node.args[1].target)).detach().cpu().numpy()
        elif node.args[0].meta["val"].shape[2:].numel() == 1:
            continue  # changes nothing
        found.append(Reader(kind, layer_name(node.args[0]), layer_name(node), weight))
    return found


def readers_of_onnx(onnx_file: bytes) -> list[Reader]:
    """The readers of an ONNX file, by its names, which TensorRT's calibration cache uses."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(onnx_file)).graph
    sizes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    constants = {constant.name: constant for constant in graph.initializer}
    found = []
    for node in graph.node:
        kind = _KIND_OF_ONNX.get(node.op_type)
        if kind is None or (kind != "average_pool" and node.input[1] not in constants):
            continue
        weight = None
        if kind != "average_pool":
            weight = numpy_helper.to_array(constants[node.input[1]])
            attributes: dict[str, Any] = {a.name: a.i for a in node.attribute}
            if kind == "linear" and not attributes.get("transB"):
                weight = weight.T
        elif all(size == 1 for size in sizes.get(node.input[0], [0])[2:]):
            continue
        found.append(Reader(kind, node.input[0], node.output[0], weight))
    return found


def pair_readers(ours: Sequence[Reader], theirs: Sequence[Reader]) -> list[tuple[str, str, str]]:
    """Pairs what the same operators read, and what the same convolutions write.

    Returns:
        ``(kind of the reader or writer, our name, their name)``, each of our names once.

    Raises:
        PairingError: an operator has no counterpart or several, or the numbers of average pools
            differ.
    """
    pairs: dict[str, tuple[str, str, str]] = {}
    for mine, other in (*_by_weight(ours, theirs), *_in_order(ours, theirs)):
        pairs.setdefault(mine.reads, (f"read by {mine.kind}", mine.reads, other.reads))
        if mine.kind == "convolution":
            pairs.setdefault(mine.writes, ("convolution", mine.writes, other.writes))
    return list(pairs.values())


def _by_weight(ours: Sequence[Reader], theirs: Sequence[Reader]) -> list[tuple[Reader, Reader]]:
    left = [reader for reader in theirs if reader.weight is not None]
    found = []
    for mine in (reader for reader in ours if reader.weight is not None):
        same = [other for other in left if _is_same(mine, other)]
        if len(same) != 1:
            shape = [] if mine.weight is None else list(mine.weight.shape)
            raise PairingError(
                f"{mine.kind} {mine.writes} {shape} has {len(same)} counterparts with its weights."
            )
        left.remove(same[0])
        found.append((mine, same[0]))
    if left:
        names = ", ".join(reader.writes for reader in left)
        raise PairingError(f"the operators of {names} have no counterpart.")
    return found


def _in_order(ours: Sequence[Reader], theirs: Sequence[Reader]) -> list[tuple[Reader, Reader]]:
    mine, others = (
        [reader for reader in side if reader.kind == "average_pool"] for side in (ours, theirs)
    )
    if len(mine) != len(others):
        raise PairingError(f"{len(mine)} average pools on one side, {len(others)} on the other.")
    return list(zip(mine, others, strict=True))


def _is_same(a: Reader, b: Reader) -> bool:
    if a.weight is None or b.weight is None or a.kind != b.kind or a.weight.shape != b.weight.shape:
        return False
    return bool(np.abs(a.weight - b.weight).max() <= WEIGHT_TOLERANCE * np.abs(a.weight).max())


def with_group_mates(
    pairs: Sequence[tuple[str, str, str]], groups: Sequence[Sequence[str]], names: Sequence[str]
) -> dict[str, str]:
    """For each of our names that has no pair, one that has and shares its scale; the rest are left out."""
    paired = {ours for _, ours, _ in pairs}
    group_of = {name: group for group in groups for name in group}
    mates = {}
    for name in names:
        if name not in paired:
            mate = next((other for other in group_of.get(name, ()) if other in paired), None)
            if mate is not None:
                mates[name] = mate
    return mates


def renamed(onnx_file: bytes, names: Mapping[str, str]) -> bytes:
    """The file with other names of tensors.

    Args:
        onnx_file: its content.
        names: old name to new name.

    Raises:
        PairingError: a new name is there already, for another tensor.
    """
    import onnx

    model = onnx.load_model_from_string(onnx_file)
    graph = model.graph
    there = {name for node in graph.node for name in (*node.input, *node.output)} - set(names)
    if taken := there & set(names.values()):
        raise PairingError(f"the file has other tensors named {', '.join(sorted(taken))}.")
    for node in graph.node:
        for side in (node.input, node.output):
            for index, name in enumerate(side):
                side[index] = names.get(name, name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    return bytes(model.SerializeToString())

"""Where Q/DQ go: which values are quantized, for which readers, and which of them share one scale.

The rules follow what TensorRT fuses (its "Explicit Quantization" guide): all inputs of a weighted operator, the
residual branch of an addition, nothing on biases, and one scale on both sides of operators that only move values,
so that TensorRT can move Q across them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch.fx import GraphModule, Node

from trtcompile.node_info import layer_name
from trtcompile.ptq.movement import moved_values, only_moves

aten = torch.ops.aten

#: Operators that TensorRT runs on INT8 when both sides are quantized.
AVERAGING = frozenset({aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default})


@dataclass(frozen=True)
class WeightedOperator:
    """An operator that will multiply in INT8.

    Attributes:
        node: the operator.
        weight: the ``get_attr`` node of its weight.
        weight_axis: the output-channel axis, which gets a scale for each channel.
    """

    node: Node
    weight: Node
    weight_axis: int


@dataclass
class Placement:
    """What to quantize.

    Attributes:
        weighted: operators that multiply in INT8.
        readers: for each quantized value, the nodes that read it through Q/DQ.
        groups: quantized values that share a scale.
        reasons: for each quantized value, why.
        skipped: for each weighted operator that stays in floating point, why.
    """

    weighted: list[WeightedOperator] = field(default_factory=list)
    readers: dict[Node, list[Node]] = field(default_factory=dict)
    groups: list[tuple[Node, ...]] = field(default_factory=list)
    reasons: dict[Node, str] = field(default_factory=dict)
    skipped: dict[Node, str] = field(default_factory=dict)

    def quantize(self, value: Node, reader: Node, reason: str) -> None:
        """Puts Q/DQ between a value and one of its readers."""
        readers = self.readers.setdefault(value, [])
        if reader not in readers:
            readers.append(reader)
        self.reasons.setdefault(value, reason)


def place(graph_module: GraphModule, taken: Collection[Node]) -> Placement:
    """Decides where Q/DQ go in a lowered FP32 graph.

    Args:
        graph_module: the lowered graph, batch norms folded.
        taken: the operators that TensorRT takes; what PyTorch runs stays in floating point.
    """
    placement = Placement()
    for node in graph_module.graph.nodes:
        if node.target in (aten.convolution.default, aten.linear.default):
            _place_weighted(node, taken, placement)
    quantized = {weighted.node for weighted in placement.weighted}
    depths = _depths(graph_module)
    for node in graph_module.graph.nodes:
        if node.target is aten.add.Tensor and node in taken:
            _place_residual(node, quantized, depths, placement)
    for node in graph_module.graph.nodes:
        if node.target in AVERAGING and node in taken:
            _place_averaging(node, placement)
    for value in list(placement.readers):
        _place_chain_start(value, taken, placement)
    placement.groups = _groups(graph_module, list(placement.readers))
    return placement


def _place_weighted(node: Node, taken: Collection[Node], placement: Placement) -> None:
    data, weight = node.args[0], node.args[1]
    reason = _reason_to_skip(node, data, weight, taken)
    if reason is not None:
        placement.skipped[node] = reason
        return
    assert isinstance(data, Node) and isinstance(weight, Node)
    transposed = node.target is aten.convolution.default and bool(node.args[6])
    placement.weighted.append(WeightedOperator(node, weight, 1 if transposed else 0))
    placement.quantize(data, node, f"input of {layer_name(node)}")


def _reason_to_skip(
    node: Node, data: object, weight: object, taken: Collection[Node]
) -> str | None:
    if node not in taken:
        return "it runs in PyTorch"
    if not isinstance(weight, Node) or weight.op != "get_attr":
        return "its weight is computed by the model"
    if not isinstance(data, Node) or data.op == "get_attr":
        return "its input is a constant"
    if data.meta["val"].dtype != torch.float32:
        return f"its input is {data.meta['val'].dtype}, not float32"
    if node.target is aten.convolution.default and node.args[6] and node.args[8] != 1:
        return "a grouped transposed convolution has no single output-channel axis"
    return None


def _place_residual(
    node: Node, quantized: set[Node], depths: dict[Node, int], placement: Placement
) -> None:
    """Quantizes what is added to a convolution's result, so that the convolution can add it in its epilogue.

    Of two convolutions that meet in an addition, the one at the end of the longer path keeps it; the other one's
    result (a projection shortcut) is the residual. A transformer's residual stream follows linear layers, is not
    touched, and must not be: it carries the large values that INT8 would lose.
    """
    a, b = node.args[0], node.args[1]
    if not isinstance(a, Node) or not isinstance(b, Node) or a is b:
        return
    candidates = [
        (main, residual)
        for main, residual in ((a, b), (b, a))
        if main in quantized
        and main.target is aten.convolution.default
        and set(main.users) == {node}
        and _is_same_shape(main, residual)
    ]
    if not candidates:
        return
    main, residual = max(candidates, key=lambda pair: depths[pair[0]])
    if residual.op == "get_attr" or residual.meta["val"].dtype != torch.float32:
        return
    placement.quantize(residual, node, f"residual added to {layer_name(main)}")


def _place_averaging(node: Node, placement: Placement) -> None:
    """Quantizes the input of an average pool whose result is quantized anyway.

    Otherwise the layer in front would have to write floating point, and an addition in front could not be part of
    its convolution.
    """
    source = node.args[0]
    if isinstance(source, Node) and _is_floating(source) and _leads_to_quantized(node, placement):
        placement.quantize(source, node, f"input of {layer_name(node)}, whose result is quantized")


def _leads_to_quantized(node: Node, placement: Placement) -> bool:
    if node in placement.readers:
        return True
    return any(only_moves(user) and _leads_to_quantized(user, placement) for user in node.users)


def _place_chain_start(value: Node, taken: Collection[Node], placement: Placement) -> None:
    """Quantizes a value already where it is computed, before operators that only move it to where it is read.

    TensorRT can move Q backward itself, but not from a region of matrix products into one of convolutions. Quantizing
    twice with one scale gives the same values as once; so only where nothing reads the value in floating point.
    """
    if set(value.users) != set(placement.readers[value]):
        return
    reader = value
    while only_moves(reader) and reader in taken:
        moved = list(moved_values(reader))
        if len(moved) != 1:
            return
        (source,) = moved
        if len(source.users) != 1 or not _is_floating(source):
            return
        if not only_moves(source):
            placement.quantize(source, reader, f"start of the way to {layer_name(value)}")
            return
        reader = source


def _is_floating(node: Node) -> bool:
    value = node.meta.get("val")
    return (
        node.op != "get_attr" and isinstance(value, torch.Tensor) and value.dtype == torch.float32
    )


def _is_same_shape(a: Node, b: Node) -> bool:
    """A broadcast operand (a bias, a gate) is not a residual."""
    shapes = [
        n.meta["val"].shape if isinstance(n.meta.get("val"), torch.Tensor) else None for n in (a, b)
    ]
    return (
        shapes[0] is not None
        and shapes[1] is not None
        and list(map(str, shapes[0])) == list(map(str, shapes[1]))
    )


def _depths(graph_module: GraphModule) -> dict[Node, int]:
    depths: dict[Node, int] = {}
    for node in graph_module.graph.nodes:
        depths[node] = 1 + max((depths[n] for n in node.all_input_nodes), default=0)
    return depths


def _groups(graph_module: GraphModule, quantized: list[Node]) -> list[tuple[Node, ...]]:
    """Joins quantized values that commuting operators connect."""
    parent: dict[Node, Node] = {}

    def root(node: Node) -> Node:
        while parent.setdefault(node, node) is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for node in graph_module.graph.nodes:
        if only_moves(node):
            for source in moved_values(node):
                parent[root(source)] = root(node)
    groups: dict[Node, list[Node]] = {}
    members_of_interest = set(quantized)
    for node in graph_module.graph.nodes:
        if node in members_of_interest:
            groups.setdefault(root(node), []).append(node)
    return [tuple(members) for members in groups.values()]

"""``Padding``: further channels of zeros for convolutions, and what they change behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from trtcompile.lowering.constants import add_constant
from trtcompile.node_info import is_dequantize, is_qdq, is_quantize
from trtcompile.products import operands
from trtcompile.ptq.placement.operators import ACTIVATIONS, AVERAGING, CONVOLUTION, LINEAR
from trtcompile.scale_shift import scaled_value

aten = torch.ops.aten

#: What computes each channel from the same channel, or from nothing else.
_BY_CHANNEL = frozenset({*ACTIVATIONS, *AVERAGING, aten.max_pool2d.default})
_RESHAPES = frozenset({aten.reshape.default, aten.view.default})
#: Key of ``node.meta`` of a wider tensor, with the positions of the channels that it had.
_POSITIONS = "positions_of_channels"


@dataclass(frozen=True)
class Channels:
    """Where channels are in a wider tensor.

    Attributes:
        positions: for each channel, its index in the wider tensor.
        size: the number of channels of the wider tensor; those that have no position do not matter.
    """

    positions: tuple[int, ...]
    size: int

    def spread(self, value: Tensor, axis: int, fill: float = 0.0) -> Tensor:
        """A copy of a tensor with its slices along an axis at their positions, and ``fill`` elsewhere."""
        shape = list(value.shape)
        shape[axis] = self.size
        wide = value.new_full(shape, fill)
        wide.index_copy_(axis, torch.tensor(self.positions, device=value.device), value.detach())
        return wide


def without_padding(node: Node, value: Tensor) -> Tensor:
    """The value that a node has in a graph, without the channels that ``Padding`` has added."""
    positions = node.meta.get(_POSITIONS)
    if positions is None:
        return value
    return value.index_select(1, torch.tensor(positions, device=value.device))


class Padding:
    """A change of a graph, which is planned as a whole before any of it is made.

    Args:
        graph_module: a graph with its Q/DQ, of FP32 data.
    """

    def __init__(self, graph_module: GraphModule) -> None:
        self._graph_module = graph_module
        self._widened: dict[Node, Channels] = {}
        self._values: dict[Node, Channels] = {}
        self._changes: list[Callable[[], None]] = []

    def widen(self, value: Node, size: int) -> bool:
        """Plans further channels for the convolution that a value has its channels from; False if there is none."""
        node = value
        while node.target is not CONVOLUTION:
            if not (_is_by_channel(node) or is_qdq(node)):
                return False
            node = node.all_input_nodes[0]
        if not _has_widening_weight(node):
            return False
        self._widened[node] = Channels(tuple(range(value.meta["val"].shape[1])), size)
        return True

    def reaches_readers(self) -> bool:
        """Plans what follows; False if something reads a wider tensor to which its further channels would matter."""
        return all(map(self._plan, self._graph_module.graph.nodes))

    def apply(self) -> None:
        """Makes the change."""
        for change in self._changes:
            change()
        for node, channels in self._values.items():
            shape = list(node.meta["val"].shape)
            shape[1] = channels.size
            node.meta["val"] = node.meta["val"].new_empty(shape)
            node.meta[_POSITIONS] = channels.positions
        for node in list(self._graph_module.graph.nodes):
            if node.op == "get_attr" and not node.users:
                self._graph_module.graph.erase_node(node)

    def _plan(self, node: Node) -> bool:
        wide = [source for source in node.all_input_nodes if source in self._values]
        if wide and not self._reads(node, wide):
            return False
        if node in self._widened:
            channels = self._widened[node]
            self._values[node] = channels
            self._changes.append(lambda: self._widen_output(node, channels))
        return True

    def _reads(self, node: Node, wide: list[Node]) -> bool:
        """Plans how a node reads wider tensors; False if it cannot."""
        channels = self._values[wide[0]]
        if node.target is aten.cat.default:
            return self._concatenates(node)
        if len(wide) != 1:
            return False
        if node.target in (CONVOLUTION, LINEAR):
            return self._multiplies(node, wide[0], channels)
        if scaled_value(node) is wide[0]:
            if any(n.op != "get_attr" for n in node.all_input_nodes if n is not wide[0]):
                return False
            self._changes.append(lambda: self._spread_constants(node, channels))
        elif node.target in _RESHAPES:
            if not self._flattens(node, wide[0], channels):
                return False
        elif not (_is_by_channel(node) or _has_one_scale(node)):
            return False
        self._values[node] = channels
        return True

    def _concatenates(self, node: Node) -> bool:
        if len(node.args) < 2 or node.args[1] != 1:
            return False
        positions: list[int] = []
        size = 0
        for source in node.args[0]:  # type: ignore[union-attr]
            assert isinstance(source, Node)
            count = source.meta["val"].shape[1]
            part = self._values.get(source) or Channels(tuple(range(count)), count)
            positions += [size + position for position in part.positions]
            size += part.size
        self._values[node] = Channels(tuple(positions), size)
        return True

    def _multiplies(self, node: Node, data: Node, channels: Channels) -> bool:
        if operands(node)[0] is not data or not _has_widening_weight(node):
            return False
        if node.target is LINEAR and data.meta["val"].dim() != 2:
            return False
        self._changes.append(lambda: self._replace_weight(node, 1, channels))
        return True

    def _flattens(self, node: Node, data: Node, channels: Channels) -> bool:
        """Whether a node makes (N, C) of (N, C, 1, 1), with C as a number."""
        before, after, sizes = data.meta["val"].shape, node.meta["val"].shape, node.args[1]
        if len(after) != 2 or any(size != 1 for size in before[2:]) or after[1] != before[1]:
            return False
        assert isinstance(sizes, (list, tuple))
        if isinstance(sizes[1], Node):
            return False
        if sizes[1] != -1:
            self._changes.append(lambda: node.update_arg(1, [sizes[0], channels.size]))
        return True

    def _widen_output(self, node: Node, channels: Channels) -> None:
        self._replace_weight(node, 0, channels)
        bias = node.args[2]
        if isinstance(bias, Node):
            node.update_arg(2, self._spread(bias, 0, channels, before=node))

    def _replace_weight(self, node: Node, axis: int, channels: Channels) -> None:
        weight = operands(node)[1]
        assert isinstance(weight, Node)
        if weight.op == "get_attr":
            node.update_arg(1, self._spread(weight, axis, channels, before=node))
            return
        quantize = weight.args[0]
        assert isinstance(quantize, Node)
        constant, *arguments = quantize.args
        if axis == 0 and isinstance(arguments[0], Node):
            scales, zero_points = arguments[:2]
            arguments[0] = self._spread(scales, 0, channels, before=quantize, fill=1.0)
            arguments[1] = self._spread(zero_points, 0, channels, before=quantize)
        constant = self._spread(constant, axis, channels, before=quantize)
        quantize.args = (constant, *arguments)
        weight.args = (quantize, *arguments)
        for one in (quantize, weight):
            one.meta["val"] = one.meta["val"].new_empty(constant.meta["val"].shape)

    def _spread_constants(self, node: Node, channels: Channels) -> None:
        for index in (0, 2):
            node.update_arg(index, self._spread(node.args[index], 0, channels, before=node))

    def _spread(
        self, constant: Any, axis: int, channels: Channels, *, before: Node, fill: float = 0.0
    ) -> Node:
        value = getattr(self._graph_module, str(constant.target))
        wide = channels.spread(value, axis, fill)
        name = f"{str(constant.target).replace('.', '_')}_aligned"
        return add_constant(self._graph_module, name, wide, before=before)


def _has_widening_weight(node: Node) -> bool:
    """Whether a layer's weight can get channels: of a linear layer, or of a convolution that is plain.

    It is a constant, as it is or behind Q/DQ by output channel that nothing else reads.
    """
    if node.target is CONVOLUTION and (node.args[6] or node.args[8] != 1):  # transposed, grouped
        return False
    weight = operands(node)[1]
    assert isinstance(weight, Node)
    if weight.op == "get_attr":
        return True
    if not is_dequantize(weight) or len(weight.users) != 1:
        return False
    quantize = weight.args[0]
    if not isinstance(quantize, Node) or not is_quantize(quantize) or len(quantize.users) != 1:
        return False
    constants = [n for n in quantize.all_input_nodes if n.op == "get_attr"]
    # Weight, scales, and zero-points; without the latter two there is one scale.
    if constants != quantize.all_input_nodes:
        return False
    return len(constants) == 1 or bool(quantize.args[3] == 0)


def _is_by_channel(node: Node) -> bool:
    return node.target in _BY_CHANNEL


def _has_one_scale(node: Node) -> bool:
    """Whether a node quantizes or dequantizes a whole tensor with one scale."""
    return is_qdq(node) and len(node.all_input_nodes) == 1

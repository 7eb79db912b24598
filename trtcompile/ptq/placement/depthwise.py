"""Depthwise and other grouped convolutions, whose INT8 kernels of TensorRT write nothing but INT8."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx import Node

from trtcompile.node_info import is_quantize, layer_name
from trtcompile.products import operands
from trtcompile.ptq.placement.decisions import Placement
from trtcompile.ptq.placement.operators import CONVOLUTION, is_weighted
from trtcompile.ptq.placement.rule import LeavesOut, Situation

aten = torch.ops.aten

#: The kernels of this size have an epilogue for SiLU.
_KERNEL_WITH_SILU = [3, 3]


def lacks_int8_kernel(node: Node) -> bool:
    """Whether a node is a grouped convolution whose result something reads that cannot read INT8."""
    return _reader_without(node, is_weighted) is not None


def lacks_quantized_result(node: Node) -> bool:
    """The same of a graph that has its Q/DQ: something else than Q reads the result."""
    return _reader_without(node, is_quantize) is not None


def without_int8_result(node: Node, placement: Placement) -> str | None:
    """Why a grouped convolution has no result in INT8 after all, now that its readers are decided; None if it has."""
    return _why_without(node, placement.weighted.__contains__)


def _reader_without(node: Node, reads_int8: Callable[[Node], bool]) -> Node | None:
    """Of a grouped convolution, the first reader of its result that reads no INT8."""
    if node.target is not CONVOLUTION or node.args[8] == 1:
        return None
    return next((user for user in _result(node).users if not reads_int8(user)), None)


def _result(node: Node) -> Node:
    """The value that the kernel writes: behind a ReLU, or a SiLU for which it has an epilogue."""
    users = list(node.users)
    if len(users) == 1 and _is_relu(users[0]):
        return users[0]
    product = _silu(node)
    return node if product is None or _kernel(node) != _KERNEL_WITH_SILU else product


def _is_relu(node: Node) -> bool:
    if node.target in (aten.hardtanh.default, aten.clamp.default):
        return bool(len(node.args) > 1 and node.args[1] == 0)
    return node.target is aten.relu.default


def _silu(node: Node) -> Node | None:
    """The product of a value and its sigmoid, if nothing else reads either."""
    sigmoid = next((user for user in node.users if user.target is aten.sigmoid.default), None)
    if sigmoid is None or len(node.users) != 2 or len(sigmoid.users) != 1:
        return None
    (product,) = sigmoid.users
    is_silu = product.target is aten.mul.Tensor and product in node.users
    return product if is_silu else None


def _kernel(node: Node) -> list[int]:
    weight = operands(node)[1]
    assert isinstance(weight, Node)
    return list(weight.meta["val"].shape[2:])


def _why(node: Node, situation: Situation) -> str | None:
    return _why_without(node, is_weighted)


def _why_without(node: Node, reads_int8: Callable[[Node], bool]) -> str | None:
    reader = _reader_without(node, reads_int8)
    if reader is None:
        return None
    name = layer_name(reader) if reader.op == "call_function" else "the model's output"
    return f"its result goes to {name}, which reads no INT8"


GROUPED = LeavesOut(
    name="grouped convolution",
    matches="depthwise and other grouped convolutions whose result, behind a ReLU (or, with 3x3 kernels, a SiLU), is "
    "read by anything but INT8 convolutions and linear layers",
    reason="TensorRT's INT8 kernels for them write INT8 alone. Where that is not asked for, TensorRT 10.6 dequantized "
    "the weights at run time and computed wrong numbers: SQNR 4 dB for a 3x3 one with Hardswish, -2 dB for a 5x5 one "
    "with SiLU, where the simulations have 35 and 27 dB. With ReLU, 3x3, 5x5, and 7x7 are right.",
    why=_why,
)

"""Depthwise convolutions, for which TensorRT has an INT8 kernel of one size."""

from __future__ import annotations

import torch
from torch.fx import Node

from trtcompile.products import operands
from trtcompile.ptq.placement.operators import CONVOLUTION
from trtcompile.ptq.placement.rule import LeavesOut, Situation

_KERNEL = [3, 3]


def lacks_int8_kernel(node: Node) -> bool:
    """Whether a node is a depthwise convolution with another kernel than 3x3."""
    if node.target is not CONVOLUTION or node.args[8] == 1:
        return False
    _, of_a_group, *kernel = _weight_shape(node)
    return of_a_group == 1 and kernel != _KERNEL


def _weight_shape(node: Node) -> torch.Size:
    weight = operands(node)[1]
    assert isinstance(weight, Node)
    return weight.meta["val"].shape  # type: ignore[no-any-return]


def _without_kernel(node: Node, situation: Situation) -> str | None:
    if not lacks_int8_kernel(node):
        return None
    return f"its kernel is {'x'.join(map(str, _weight_shape(node)[2:]))}"


DEPTHWISE = LeavesOut(
    name="depthwise kernel",
    matches="depthwise convolutions whose kernel is not 3x3",
    reason="For 5x5, TensorRT 10.6 has no INT8 kernel: it dequantized the weights at run time and computed wrong "
    "numbers (SQNR -2 dB, where the simulation has 27 dB). Those of 3x3 are right; other sizes were not measured.",
    why=_without_kernel,
)

"""Convolutions of one pixel: the squeeze and excitation that make a gate for each channel."""

from __future__ import annotations

from torch.fx import Node

from trtcompile.products import operands, opt_shape
from trtcompile.ptq.placement.operators import CONVOLUTION
from trtcompile.ptq.placement.rule import LeavesOut, Situation


def _one_pixel(node: Node, situation: Situation) -> str | None:
    data = operands(node)[0] if node.target is CONVOLUTION else None
    if not isinstance(data, Node):
        return None
    shape = opt_shape(data)
    return f"its input is {shape}" if all(size == 1 for size in shape[2:]) else None


ONE_PIXEL = LeavesOut(
    name="one pixel",
    matches="convolutions of one pixel, such as those that make the gates of squeeze and excitation",
    reason="Their work is nothing beside the Q that they and the pool in front would need: blocks of EfficientNet with "
    "INT8 gates took 4 % longer.",
    why=_one_pixel,
)

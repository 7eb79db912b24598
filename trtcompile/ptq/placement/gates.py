"""Convolutions of one pixel: the squeeze and excitation that make a gate for each channel."""

from __future__ import annotations

from torch.fx import Node

from trtcompile.ptq.placement.operators import CONVOLUTION, factors
from trtcompile.ptq.placement.rule import LeavesOut, Situation, sizes


def _one_pixel(node: Node, situation: Situation) -> str | None:
    data = factors(node)[0] if node.target is CONVOLUTION else None
    if not isinstance(data, Node):
        return None
    shape = sizes(data)
    return f"its input is {shape}" if all(size == 1 for size in shape[2:]) else None


ONE_PIXEL = LeavesOut(
    name="one pixel",
    matches="convolutions of one pixel, such as those that make the gates of squeeze and excitation",
    reason="Their work is nothing beside the Q that they and the pool in front would need: blocks of EfficientNet with "
    "INT8 gates took 4 % longer.",
    why=_one_pixel,
)

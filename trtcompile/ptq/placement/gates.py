"""Convolutions of one pixel: the squeeze and excitation that make a gate for each channel."""

from __future__ import annotations

from torch.fx import Node

from trtcompile.products import operands, opt_shape
from trtcompile.ptq.placement.operators import AVERAGING, CONVOLUTION
from trtcompile.ptq.placement.rule import LeavesOut, Situation
from trtcompile.ptq.placement.written import computed_by, is_written_by_int8_product


def _one_pixel(node: Node, situation: Situation) -> str | None:
    data = operands(node)[0] if node.target is CONVOLUTION else None
    if not isinstance(data, Node):
        return None
    shape = opt_shape(data)
    if any(size != 1 for size in shape[2:]) or _is_int8_already(data, situation):
        return None
    return f"its input is {shape}, which no INT8 product writes"


def _is_int8_already(value: Node, situation: Situation) -> bool:
    """Whether Q costs nothing: the last layers for small images are no gates, though they see one pixel as well."""
    source = computed_by(value)
    return source.target not in AVERAGING and is_written_by_int8_product(source, situation)


ONE_PIXEL = LeavesOut(
    name="one pixel",
    matches="convolutions of one pixel that no INT8 product computes, such as those that make the gates of squeeze and "
    "excitation",
    reason="Their work is nothing beside the Q that they and the pool in front would need: blocks of EfficientNet with "
    "INT8 gates took 4 % longer.",
    why=_one_pixel,
)

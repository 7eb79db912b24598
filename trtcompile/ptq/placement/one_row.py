"""Linear layers of one row, which FP16 kernels for vectors compute faster unless the weight is large."""

from __future__ import annotations

import math

from torch.fx import Node

from trtcompile.products import operands, opt_shape
from trtcompile.ptq.placement.chains import leads_to
from trtcompile.ptq.placement.operators import LINEAR
from trtcompile.ptq.placement.rule import LeavesOut, Situation
from trtcompile.ptq.placement.written import computed_by, is_written_by_int8_product

#: Of larger weights INT8 saves more time, in reading half the bytes, than its kernel costs.
_LARGE = 1 << 22


def _one_row(node: Node, situation: Situation) -> str | None:
    if not (situation.spec.uses_int8 and situation.prefers_faster_fp16):
        return None
    if node.target is not LINEAR or math.prod(opt_shape(node)[:-1]) != 1 or _is_large(node):
        return None
    data = operands(node)[0]
    assert isinstance(data, Node)
    if _is_written_by_int8_convolution(data, situation) or leads_to(node, LINEAR, _is_large):
        return None
    return f"one row of {opt_shape(data)[-1]} values becomes {opt_shape(node)[-1]}"


def _is_written_by_int8_convolution(value: Node, situation: Situation) -> bool:
    """Whether Q costs nothing, and its absence something: a pool in between would read and write more bytes."""
    source = computed_by(value)
    return source.target is not LINEAR and is_written_by_int8_product(source, situation)


def _is_large(linear: Node) -> bool:
    data, _ = operands(linear)
    assert isinstance(data, Node)
    return opt_shape(linear)[-1] * opt_shape(data)[-1] >= _LARGE


ONE_ROW = LeavesOut(
    name="one row",
    matches="with FP16, linear layers of one row whose input no INT8 convolution computes, and that lead to none with "
    f"{_LARGE} weights or more, which they have not either (`int8_only_where_faster`)",
    reason="A matrix times a vector is its reading, and FP16 has kernels for that: four layers with 1024 inputs and "
    "outputs took 1.25 times as long in INT8, with 4096 0.80 times, and with eight rows 0.91 and 0.79 times. "
    "Behind two large INT8 layers, a last one with 10 or 100 outputs in FP16 made all three take 0.73 times as long, "
    "and with eight rows 0.99 times; behind an INT8 convolution and a pool 1.03 to 1.05 times.",
    why=_one_row,
)

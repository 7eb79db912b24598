"""Chains of light convolutions that INT8 would not make faster, because their input would need a Q of its own."""

from __future__ import annotations

import math

from torch.fx import Node

from trtcompile.products import multiply_adds, operands, opt_shape
from trtcompile.ptq.placement.chains import leads_to
from trtcompile.ptq.placement.operators import CONVOLUTION
from trtcompile.ptq.placement.rule import LeavesOut, Situation
from trtcompile.ptq.placement.written import can_be_written_in_int8

#: Of an H200: a kernel takes 2 us at least, and its memory moves 4.8 TB/s.
_KERNEL_SECONDS = 2e-6
_SECONDS_FOR_VALUE = 3 / 4.8e12  # Q reads 2 bytes and writes 1
#: For each multiply-add: of ResNet-50 at batch 32, with 131e9 of them, INT8 saved 312 us.
_SECONDS_SAVED = 312e-6 / 131e9


def _costs_more_than_it_saves(node: Node, situation: Situation) -> str | None:
    if not (situation.prefers_faster_fp16 and _is_light(node)):
        return None
    data = operands(node)[0]
    assert isinstance(data, Node)
    if can_be_written_in_int8(data, situation) or leads_to(
        node, CONVOLUTION, lambda user: not _is_light(user)
    ):
        return None
    work, values = multiply_adds(node), math.prod(opt_shape(data))
    if work * _SECONDS_SAVED > _KERNEL_SECONDS + values * _SECONDS_FOR_VALUE:
        return None
    return f"{work:.3g} multiply-adds for {values:.3g} values that no INT8 convolution writes"


def _is_light(node: Node) -> bool:
    """Whether a node is a 1x1 or depthwise convolution."""
    weight = operands(node)[1] if node.target is CONVOLUTION else None
    if not isinstance(weight, Node):
        return False
    _, of_a_group, *kernel = weight.meta["val"].shape
    is_depthwise = bool(of_a_group == 1 and node.args[8] != 1)
    return is_depthwise or all(size == 1 for size in kernel)


PAYOFF = LeavesOut(
    name="costs more than it saves",
    matches="with FP16, 1x1 and depthwise convolutions whose input no INT8 convolution computes, and that lead to no "
    "others, if their multiply-adds are few (`int8_only_where_faster`)",
    reason="Where the kernel in front cannot write INT8, Q is a kernel that reads and writes the whole input: blocks "
    "of EfficientNet took 1.4 times as long in INT8, blocks of MobileNet-v2 with FP16 depthwise convolutions 1.9 "
    "times.",
    why=_costs_more_than_it_saves,
)

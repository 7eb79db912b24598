"""Convolutions of so few channels that INT8 kernels, which compute 32 at a time, are slower than FP16's."""

from __future__ import annotations

import math

from torch.fx import Node

from trtcompile.products import operands, opt_shape
from trtcompile.ptq.placement.chains import leads_to
from trtcompile.ptq.placement.operators import CONVOLUTION
from trtcompile.ptq.placement.rule import LeavesOut, Situation
from trtcompile.ptq.placement.written import is_written_by_int8_product

#: FP16 kernels compute 8 channels at a time.
_FEW = 8
#: Of smaller images the time is that of the launches, in INT8 as in FP16.
_LEAST_PIXELS = 1 << 15


def _few_channels(node: Node, situation: Situation) -> str | None:
    if not situation.prefers_faster_fp16 or node.target is not CONVOLUTION or not _has_few(node):
        return None
    batch, channels, *size = opt_shape(node)
    pixels = batch * math.prod(size)
    if pixels < _LEAST_PIXELS or leads_to(node, CONVOLUTION, lambda user: not _has_few(user)):
        return None
    data = operands(node)[0]
    assert isinstance(data, Node)
    if is_written_by_int8_product(data, situation):
        return None
    return f"{opt_shape(data)[1]} channels become {channels}, at {pixels} pixels"


def _has_few(convolution: Node) -> bool:
    """Whether a convolution is of the kind that was measured: of images, not transposed, without groups."""
    data, _ = operands(convolution)
    assert isinstance(data, Node)
    transposed, groups = convolution.args[6], convolution.args[8]
    if transposed or groups != 1 or len(opt_shape(data)) != 4:
        return False
    return max(opt_shape(data)[1], opt_shape(convolution)[1]) <= _FEW


FEW_CHANNELS = LeavesOut(
    name="few channels",
    matches=f"with FP16, 2-D convolutions of at most {_FEW} channels, whose input no INT8 convolution computes, and "
    f"that lead to none with more, if they compute at least {_LEAST_PIXELS} pixels (`int8_only_where_faster`)",
    reason="INT8 kernels compute 32 channels at a time, FP16 kernels 8: six 3x3 convolutions of 224 x 224 pixels took "
    "1.12 times as long in INT8 with 4 channels, 1.41 times with 8, 1.03 times with 16, and 0.74 times with 32.",
    why=_few_channels,
)

"""Overlapping blocks added up to images: gathers, as TensorRT has no layer for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

#: The most places that enter an engine as constants.
_LARGEST_TABLE = 2**22


def _supports_col2im(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    output_size = given["output_size"]
    if any(not isinstance(size, int) for size in (*output_size, given["self"].shape[-1])):
        return "the size of the image is only known at run time"
    if not node.meta["val"].dtype.is_floating_point:
        return f"it adds up floating-point blocks, not {node.meta['val'].dtype}"
    places = math.prod(output_size) * math.prod(given["kernel_size"])
    if places > _LARGEST_TABLE:
        return f"it has a table of up to {places} places, more than {_LARGEST_TABLE}"
    return None


def _places(
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> torch.Tensor:
    """[terms, elements of the image]: which elements of the blocks are added up, the number of all for none."""
    height, width = (size + 2 * pad for size, pad in zip(output_size, padding, strict=True))
    # Unfolding the elements' numbers says to which of them each element of a block goes.
    numbers = torch.arange(height * width, dtype=torch.float64).reshape(1, 1, height, width)
    goes_to = aten.im2col(numbers, kernel_size, dilation, [0, 0], stride).flatten().long()
    order = goes_to.argsort(stable=True)
    count = torch.bincount(goes_to, minlength=height * width)
    rank = torch.arange(len(order)) - (count.cumsum(0) - count)[goes_to[order]]
    table = torch.full((max(int(count.max()), 1), height * width), len(order))
    table[rank, goes_to[order]] = order
    image = table.reshape(-1, height, width)
    top, left = padding
    return image[:, top : height - top, left : width - left].flatten(1)


@converter(aten.col2im.default, supports=_supports_col2im)
def aten_col2im(
    net: Network,
    self: TensorLike,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> ITensor:
    """col2im(Tensor self, SymInt[2] output_size, int[2] kernel_size, int[2] dilation, ...) -> Tensor"""
    x = net.tensor(self)
    *batch, features, blocks = net.all_sizes(x)
    channels = features // math.prod(kernel_size)
    flat = net.reshape(x, [*batch, channels, math.prod(kernel_size) * blocks])
    flat = net.pad(
        flat, [0] * net.rank(flat), [*[0] * (net.rank(flat) - 1), 1]
    )  # a zero at the end
    total: ITensor | None = None
    for places in _places(output_size, kernel_size, dilation, padding, stride):
        part = net.gather(flat, places.to(torch.int32), -1)
        total = (
            part if total is None else net.elementwise(total, part, trt.ElementWiseOperation.SUM)
        )
    return net.reshape(total, [*batch, channels, *output_size])

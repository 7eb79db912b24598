"""Where the largest or smallest element is."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter

aten = torch.ops.aten


def extreme(net: Network, x: ITensor, operation: str, dim: int) -> tuple[ITensor, ITensor]:
    """The value and the index (INT64) of the first largest (MAX) or smallest (MIN) element; sizes stay, as 1.

    The first NaN goes before all numbers, as in PyTorch. TopK leaves the order of equal values and of NaN open.
    """
    reduction, binary = trt.ReduceOperation, trt.ElementWiseOperation
    value = net.reduce(x, getattr(reduction, operation), [dim], True)
    hit = net.elementwise(x, value, binary.EQUAL)
    if net.dtype_of(x).is_floating_point:
        nan = net.isnan(x)
        count = net.reduce(net.cast(nan, torch.int32), reduction.MAX, [dim], True)
        has_nan = net.cast(count, torch.bool)
        hit = net.elementwise(
            nan,
            net.elementwise(hit, net.unary(has_nan, trt.UnaryOperation.NOT), binary.AND),
            binary.OR,
        )
        value = net.select(has_nan, math.nan, value, net.dtype_of(x))
    size = net.size(x, dim)
    along = [-1 if d == dim % net.rank(x) else 1 for d in range(net.rank(x))]
    positions = net.reshape(net.arange(size, dtype=torch.int32), along)
    last = net.cast(net.shape_tensor([net.size_math(size, 1, "SUB")]), torch.int32)
    last = net.reshape(last, [1] * net.rank(x))
    first = net.reduce(net.select(hit, positions, last), reduction.MIN, [dim], True)
    return value, net.cast(first, torch.int64)


def _of_dim(operation: str) -> Callable[[Network, TensorLike, int, bool], tuple[ITensor, ITensor]]:
    def convert(net: Network, self: TensorLike, dim: int, keepdim: bool) -> tuple[ITensor, ITensor]:
        dtype = net.result_dtypes[0]
        x = net.tensor(self, torch.int32 if dtype == torch.bool else dtype)
        if net.rank(x) == 0:
            return net.cast(x, dtype), net.tensor(0, torch.int64)
        value, index = extreme(net, x, operation, dim)
        if not keepdim:
            value, index = net.squeeze(value, [dim]), net.squeeze(index, [dim])
        return net.cast(value, dtype), index

    return convert


converter(aten.max.dim)(_of_dim("MAX"))
converter(aten.min.dim)(_of_dim("MIN"))


def _argument(operation: str) -> Callable[[Network, TensorLike, int | None, bool], ITensor]:
    def convert(net: Network, self: TensorLike, dim: int | None, keepdim: bool) -> ITensor:
        x = net.tensor(self)
        rank = net.rank(x)
        if rank == 0:
            return net.tensor(0, torch.int64)
        if dim is None:
            _, index = extreme(net, net.reshape(x, [-1]), operation, 0)
            return net.reshape(index, [1] * rank if keepdim else [])
        _, index = extreme(net, x, operation, dim)
        return index if keepdim else net.squeeze(index, [dim])

    return convert


converter(aten.argmax.default)(_argument("MAX"))
converter(aten.argmin.default)(_argument("MIN"))

"""Medians, k-th smallest values, and modes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, Size, TensorLike
from trtcompile.conversion.ops.arg_reduction import extreme
from trtcompile.conversion.ops.indexing import scalar
from trtcompile.conversion.ops.slicing import slice_along
from trtcompile.conversion.ops.sorting import supports_count, top_k
from trtcompile.conversion.registry import converter
from trtcompile.conversion.sizes import highest, lowest
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

#: How many pairs of elements are compared at most to count equal ones.
_MOST_PAIRS = 2**26


def _middle(size: Any) -> Any:
    """How many elements there are up to the median, which is the lower one of two."""
    return (size + 1) // 2


def _supports_median(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    x = given["self"]
    if not x.dim():
        return None
    return supports_count(_middle(x.shape[given["dim"]] if "dim" in given else x.numel()))


def _supports_kth_value(node: Node, spec: CompileSpec) -> str | None:
    return supports_count(arguments_of(node)["k"])


@dataclass(frozen=True)
class _Present:
    """A tensor of which NaN is left out.

    Attributes:
        numbers: it, with infinity for each NaN.
        count: how many numbers there are along the dimension, INT32, of size 1 there.
    """

    numbers: ITensor
    count: ITensor


def _without_nan(net: Network, x: ITensor, dim: int) -> _Present:
    nan = net.isnan(x)
    there = net.cast(net.unary(nan, trt.UnaryOperation.NOT), torch.int32)
    count = net.reduce(there, trt.ReduceOperation.SUM, [dim], True)
    return _Present(net.select(nan, math.inf, x, net.dtype_of(x)), count)


def _at(net: Network, x: ITensor, dim: int, place: ITensor | None, last: Size) -> ITensor:
    """The element at a place for each row, or at the same one for all."""
    if place is None:
        return slice_along(net, x, dim, last, 1)
    return net.gather(x, place, dim, elementwise=True)


def _ordered(
    net: Network, x: ITensor, dim: int, count: Size, *, skips_nan: bool, nan_is_last: bool
) -> list[ITensor]:
    """The ``count``-th smallest element and its index; both keep the dimension, as 1.

    A NaN among the elements is the result, or with ``nan_is_last`` counts as the largest number. With ``skips_nan``
    it is the median of the others that is taken.
    """
    operation = trt.ElementWiseOperation
    last = net.size_math(count, 1, "SUB")
    if not net.dtype_of(x).is_floating_point:
        return [slice_along(net, t, dim, last, 1) for t in top_k(net, x, count, dim, False)]
    # TensorRT leaves the order of NaN open.
    present, place = _without_nan(net, x, dim), None
    if skips_nan:
        before = net.elementwise(present.count, 1, operation.SUB, torch.int32)
        before = net.elementwise(before, 0, operation.MAX, torch.int32)
        place = net.elementwise(before, 2, operation.FLOOR_DIV, torch.int32)
        needed: TensorLike = 1
    else:
        needed = scalar(net, count if nan_is_last else net.size(x, dim))
    value, index = (
        _at(net, t, dim, place, last) for t in top_k(net, present.numbers, count, dim, False)
    )
    is_nan = net.elementwise(present.count, needed, operation.LESS, torch.int32)
    # The first NaN, and the first infinity that is not one.
    _, first_nan = extreme(net, x, "MAX", dim)
    finite = net.select(net.isnan(x), -math.inf, x, net.dtype_of(x))
    _, first_infinity = extreme(net, finite, "MAX", dim)
    is_infinite = net.elementwise(value, math.inf, operation.EQUAL, net.dtype_of(x))
    index = net.select(is_nan, first_nan, net.select(is_infinite, first_infinity, index))
    return [net.select(is_nan, math.nan, value, net.dtype_of(x)), index]


def _along(
    net: Network, self: TensorLike, dim: int, keepdim: bool, k: Size | None, **how: bool
) -> list[ITensor]:
    x = net.tensor(self)
    if net.rank(x) == 0:
        return [x, net.tensor(0, torch.int64)]
    size = net.size(x, dim)
    count = net.size_math(net.size_math(size, 1, "SUM"), 2, "FLOOR_DIV") if k is None else k
    results = _ordered(net, x, dim % net.rank(x), count, **how)
    return results if keepdim else [net.squeeze(t, [dim]) for t in results]


def _median_dim(skips_nan: bool) -> Callable[..., list[ITensor]]:
    def convert(net: Network, self: TensorLike, dim: int, keepdim: bool) -> list[ITensor]:
        return _along(net, self, dim, keepdim, None, skips_nan=skips_nan, nan_is_last=False)

    return convert


def _median(skips_nan: bool) -> Callable[..., ITensor]:
    def convert(net: Network, self: TensorLike) -> ITensor:
        flat = net.reshape(net.tensor(self), [-1])
        return _along(net, flat, 0, False, None, skips_nan=skips_nan, nan_is_last=False)[0]

    return convert


converter(aten.median.dim, supports=_supports_median)(_median_dim(False))
converter(aten.nanmedian.dim, supports=_supports_median)(_median_dim(True))
converter(aten.median.default, supports=_supports_median)(_median(False))
converter(aten.nanmedian.default, supports=_supports_median)(_median(True))


@converter(aten.kthvalue.default, supports=_supports_kth_value)
def aten_kthvalue(
    net: Network, self: TensorLike, k: Size, dim: int, keepdim: bool
) -> list[ITensor]:
    """kthvalue(Tensor self, SymInt k, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor indices)"""
    return _along(net, self, dim, keepdim, k, skips_nan=False, nan_is_last=True)


def _supports_mode(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    x, dim = given["self"], given["dim"]
    if x.dtype == torch.bool:
        return "TensorRT orders no bools"
    if not x.dim():
        return None
    if lowest(x.shape[dim]) < 1:
        return "there is no mode of no elements"
    pairs = highest(x.shape[dim]) * math.prod(highest(size) for size in x.shape)
    if pairs > _MOST_PAIRS:
        return f"it compares {pairs:.0f} pairs of elements, more than {_MOST_PAIRS}"
    return None


@converter(aten.mode.default, supports=_supports_mode)
def aten_mode(net: Network, self: TensorLike, dim: int, keepdim: bool) -> list[ITensor]:
    """mode(Tensor self, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor indices)

    Every element is compared with every other one; the smallest of those that are equal to most is the mode, and its
    last place the index.
    """
    operation, reduction = trt.ElementWiseOperation, trt.ReduceOperation
    x = net.tensor(self)
    dtype, rank = net.dtype_of(x), net.rank(x)
    if rank == 0:
        return [x, net.tensor(0, torch.int64)]
    dim %= rank
    one, other = net.unsqueeze(x, [dim + 1]), net.unsqueeze(x, [dim])
    equal = net.cast(net.elementwise(one, other, operation.EQUAL), torch.int32)
    count = net.squeeze(net.reduce(equal, reduction.SUM, [dim + 1], True), [dim + 1])
    most = net.reduce(count, reduction.MAX, [dim], True)
    is_mode = net.elementwise(count, most, operation.EQUAL)
    above = math.inf if dtype.is_floating_point else torch.iinfo(dtype).max
    value = net.reduce(net.select(is_mode, x, above, dtype), reduction.MIN, [dim], True)
    along = [-1 if d == dim else 1 for d in range(rank)]
    places = net.reshape(net.arange(net.size(x, dim), dtype=torch.int32), along)
    found = net.elementwise(x, value, operation.EQUAL)
    if dtype.is_floating_point:  # no NaN is equal to itself: where there is nothing else, it is NaN
        is_nan = net.elementwise(most, 0, operation.EQUAL, torch.int32)
        value = net.select(is_nan, math.nan, value, dtype)
        found = net.elementwise(found, is_nan, operation.OR)
    index = net.reduce(net.select(found, places, 0, torch.int32), reduction.MAX, [dim], True)
    results = [value, net.cast(index, torch.int64)]
    return results if keepdim else [net.squeeze(t, [dim]) for t in results]

"""Parts of tensors: slices, splits, and reversed order."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

from trtcompile.conversion.network import ITensor, Network, Size
from trtcompile.conversion.registry import converter

aten = torch.ops.aten
_INT64_MAX = 2**63 - 1


def _bound(net: Network, bound: Size, size: Size) -> Size:
    """A slice's bound as Python reads it: from the end if negative, and within the dimension."""
    if not isinstance(bound, int):
        is_negative = net.size_math(
            net.size_math(net.size_math(0, bound, "SUB"), 0, "MAX"), 1, "MIN"
        )
        bound = net.size_math(bound, net.size_math(is_negative, size, "PROD"), "SUM")
        return net.size_math(net.size_math(bound, 0, "MAX"), size, "MIN")
    if bound < 0:
        return net.size_math(net.size_math(size, bound, "SUM"), 0, "MAX")
    return bound if bound == 0 else net.size_math(size, bound, "MIN")


def slice_bounds(
    net: Network, x: ITensor, dim: int, start: Size | None, end: Size | None
) -> tuple[Size, Size]:
    """Where a slice along one dimension starts, and where it ends, both non-negative."""
    size = net.size(x, dim)
    first = 0 if start is None else _bound(net, start, size)
    if end is None or (isinstance(end, int) and end == _INT64_MAX):
        return first, size
    return first, net.size_math(_bound(net, end, size), first, "MAX")


def slice_along(
    net: Network, x: ITensor, dim: int, start: Size, length: Size, step: int = 1
) -> ITensor:
    """``x`` from ``start`` (non-negative) along one dimension."""
    rank = net.rank(x)
    starts: list[Size] = [0] * rank
    steps = [1] * rank
    starts[dim], steps[dim] = start, step
    sizes = [length if d == dim else net.size(x, d) for d in range(rank)]
    return net.slice(x, starts, sizes, steps)


@converter(aten.slice.Tensor)
def aten_slice(
    net: Network, self: ITensor, dim: int, start: Size | None, end: Size | None, step: int
) -> ITensor:
    """slice.Tensor(Tensor(a) self, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) -> Tensor(a)"""
    x = net.tensor(self)
    dim %= net.rank(x)
    first, last = slice_bounds(net, x, dim, start, end)
    length = net.result_shapes[0][dim]
    if not isinstance(length, int):
        reach = net.size_math(net.size_math(last, first, "SUB"), step - 1, "SUM")
        length = net.size_math(reach, step, "FLOOR_DIV")
    return slice_along(net, x, dim, first, length, step)


@converter(aten.select.int)
def aten_select(net: Network, self: ITensor, dim: int, index: Size) -> ITensor:
    """select.int(Tensor(a) self, int dim, SymInt index) -> Tensor(a)"""
    x = net.tensor(self)
    dim %= net.rank(x)
    one = slice_along(net, x, dim, _bound(net, index, net.size(x, dim)), 1)
    return net.squeeze(one, [dim])


@converter(operator.getitem)
def getitem(net: Network, values: Sequence[Any], index: int) -> Any:
    """One output of an operator that has several."""
    return values[index]


@converter(aten.split_with_sizes.default)
def aten_split_with_sizes(
    net: Network, self: ITensor, split_sizes: Sequence[Size], dim: int
) -> list[ITensor]:
    """split_with_sizes(Tensor(a -> *) self, SymInt[] split_sizes, int dim=0) -> Tensor(a)[]"""
    x = net.tensor(self)
    parts: list[ITensor] = []
    start: Size = 0
    for size in split_sizes:
        parts.append(slice_along(net, x, dim % net.rank(x), start, size))
        start = net.size_math(start, size, "SUM")
    return parts


@converter(aten.flip.default)
def aten_flip(net: Network, self: ITensor, dims: Sequence[int]) -> ITensor:
    """flip(Tensor self, int[] dims) -> Tensor"""
    x = net.tensor(self)
    rank = net.rank(x)
    flipped = {d % rank for d in dims} if rank else set[int]()
    if not flipped:
        return x
    sizes = [net.size(x, d) for d in range(rank)]
    starts = [net.size_math(sizes[d], 1, "SUB") if d in flipped else 0 for d in range(rank)]
    return net.slice(x, starts, sizes, [-1 if d in flipped else 1 for d in range(rank)])

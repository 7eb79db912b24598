"""Elements in another order or number: repeats, rolls, windows, diagonals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, Size, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

#: The largest table of places that enters an engine as a constant.
_LARGEST_TABLE = 2**20


def expand(net: Network, x: ITensor, sizes: Sequence[Size]) -> ITensor:
    """``x`` broadcast to ``sizes``."""
    x = net.expand_rank(x, len(sizes))
    steps = [int(known != 1) for known in net.dims(x)]  # a step of 0 repeats the only element
    return net.slice(x, [0] * len(sizes), sizes, steps)


@converter(aten.copy.default)
def aten_copy(net: Network, self: TensorLike, src: TensorLike, non_blocking: bool) -> ITensor:
    """copy(Tensor self, Tensor src, bool non_blocking=False) -> Tensor"""
    source = net.tensor(src, net.result_dtypes[0])
    if net.dims(source) == net.dims(self) and -1 not in net.dims(self):
        return source
    return expand(net, source, net.all_sizes(self))


@converter(aten.repeat.default)
def aten_repeat(net: Network, self: ITensor, repeats: Sequence[Size]) -> ITensor:
    """repeat(Tensor self, SymInt[] repeats) -> Tensor"""
    if not repeats:
        return net.tensor(self)
    x = net.expand_rank(net.tensor(self), len(repeats))
    sizes = [net.size_math(net.size(x, d), times, "PROD") for d, times in enumerate(repeats)]
    return net.slice(x, [0] * len(sizes), sizes, mode="WRAP")


@converter(aten.roll.default)
def aten_roll(net: Network, self: ITensor, shifts: Sequence[Size], dims: Sequence[int]) -> ITensor:
    """roll(Tensor self, SymInt[1] shifts, int[1] dims=[]) -> Tensor"""
    x = net.tensor(self)
    rank = net.rank(x)
    if rank == 0:
        return x
    if not dims:  # the elements in order as one row
        flat = net.reshape(x, [-1])
        rolled = _roll(net, flat, {0: shifts[0]})
        return net.reshape(rolled, [net.size(x, d) for d in range(rank)])
    total: dict[int, Size] = {}
    for shift, dim in zip(shifts, dims, strict=True):
        total[dim % rank] = net.size_math(total.get(dim % rank, 0), shift, "SUM")
    return _roll(net, x, total)


def _roll(net: Network, x: ITensor, shifts: dict[int, Size]) -> ITensor:
    sizes = net.all_sizes(x)
    starts: list[Size] = [0] * len(sizes)
    for dim, shift in shifts.items():
        size = sizes[dim]
        if isinstance(shift, int) and isinstance(size, int):
            starts[dim] = -shift % size if size else 0
        else:
            starts[dim] = net.size_math(0, shift, "SUB")
    return net.slice(x, starts, sizes, mode="WRAP")


def _windows(
    net: Network, x: ITensor, dim: int, count: Size, size: int, step: int, dilation: int
) -> ITensor:
    """``dim`` replaced by two: the windows, and the elements of each, which lie ``dilation`` apart."""
    within = torch.arange(size, dtype=torch.int32) * dilation
    if isinstance(count, int):
        return net.gather(x, torch.arange(count)[:, None] * step + within, dim)
    starts = net.elementwise(
        net.arange(count, dtype=torch.int32), step, trt.ElementWiseOperation.PROD, torch.int32
    )
    starts = net.unsqueeze(starts, [1])
    places = net.elementwise(starts, within, trt.ElementWiseOperation.SUM)
    return net.gather(x, places, dim)


def _window_count(net: Network, length: Size, size: int, step: int, dilation: int) -> Size:
    covered = net.size_math(length, dilation * (size - 1) + 1, "SUB")
    return net.size_math(net.size_math(covered, step, "FLOOR_DIV"), 1, "SUM")


@converter(aten.unfold.default)
def aten_unfold(net: Network, self: ITensor, dimension: int, size: int, step: int) -> ITensor:
    """unfold(Tensor(a) self, int dimension, int size, int step) -> Tensor(a)"""
    x = net.tensor(self)
    if net.rank(x) == 0:
        return expand(net, x, [size])
    dim = dimension % net.rank(x)
    count = _window_count(net, net.size(x, dim), size, step, 1)
    windows = _windows(net, x, dim, count, size, step, 1)
    return net.permute(windows, [d for d in range(net.rank(windows)) if d != dim + 1] + [dim + 1])


@converter(aten.im2col.default)
def aten_im2col(
    net: Network,
    self: ITensor,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> ITensor:
    """im2col(Tensor self, int[2] kernel_size, int[2] dilation, int[2] padding, int[2] stride) -> Tensor"""
    x = net.tensor(self)
    is_batched = net.rank(x) == 4
    x = net.expand_rank(x, 4)
    if any(padding):
        x = net.pad(x, [0, 0, *padding], [0, 0, *padding])
    for dim, axis in (
        (3, 1),
        (2, 0),
    ):  # to batch, channel, row, kernel's row, column, kernel's column
        form = kernel_size[axis], stride[axis], dilation[axis]
        count = _window_count(net, net.size(x, dim), *form)
        x = _windows(net, x, dim, count, *form)
    x = net.permute(x, [0, 1, 3, 5, 2, 4])
    batch, channels, *_, rows, columns = (net.size(x, d) for d in range(6))
    features = net.size_math(channels, math.prod(kernel_size), "PROD")
    sizes = [batch, features, net.size_product([rows, columns])]
    return net.reshape(x, sizes if is_batched else sizes[1:])


def diagonal_last(net: Network, x: ITensor, dim1: int, dim2: int) -> ITensor:
    """``x`` with the two dimensions of a diagonal at the end."""
    dim1, dim2 = dim1 % net.rank(x), dim2 % net.rank(x)
    return net.permute(x, [d for d in range(net.rank(x)) if d not in (dim1, dim2)] + [dim1, dim2])


@converter(aten.diagonal.default)
def aten_diagonal(net: Network, self: ITensor, offset: int, dim1: int, dim2: int) -> ITensor:
    """diagonal(Tensor(a) self, int offset=0, int dim1=0, int dim2=1) -> Tensor(a)"""
    x = diagonal_last(net, net.tensor(self), dim1, dim2)
    *outer, rows, columns = (net.size(x, d) for d in range(net.rank(x)))
    length = net.result_shapes[0][-1]
    if not isinstance(length, int):
        ends = (
            net.size_math(rows, min(offset, 0), "SUM"),
            net.size_math(columns, -max(offset, 0), "SUM"),
        )
        length = net.size_math(net.size_math(*ends, "MIN"), 0, "MAX")
    if isinstance(length, int) and length == 0:
        nothing = net.slice(x, [0] * net.rank(x), [*outer, 0, 0])
        return net.reshape(nothing, [*outer, 0])
    # In row-major order one element of the diagonal follows the other by a row and a column.
    flat = net.reshape(x, [*outer, net.size_product([rows, columns])])
    start = offset if offset >= 0 else net.size_math(columns, -offset, "PROD")
    step = net.size_math(columns, 1, "SUM")
    ones = [1] * len(outer)
    return net.slice(flat, [*([0] * len(outer)), start], [*outer, length], [*ones, step])


def _supports_as_strided(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    value, size, stride = given["self"], given["size"], given["stride"]
    offset = given["storage_offset"] or 0
    if not all(isinstance(n, int) for n in (*value.shape, *size, *stride, offset)):
        return "it reads memory whose layout is only known at run time"
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if not value.is_contiguous() or value.storage_offset() or last >= value.numel():
        return "it reads memory beside the tensor's own, or in another order than the elements'"
    if math.prod(size) > _LARGEST_TABLE:
        return f"it picks more than {_LARGEST_TABLE} elements one by one"
    return None


@converter(aten.as_strided.default, supports=_supports_as_strided)
def aten_as_strided(
    net: Network,
    self: ITensor,
    size: Sequence[int],
    stride: Sequence[int],
    storage_offset: int | None,
) -> ITensor:
    """as_strided(Tensor(a) self, SymInt[] size, SymInt[] stride, SymInt? storage_offset=None) -> Tensor(a)"""
    places = torch.tensor(storage_offset or 0)
    for count, step in zip(size, stride, strict=True):
        places = places[..., None] + torch.arange(count) * step
    return net.gather(net.reshape(net.tensor(self), [-1]), places, 0)


def _keeps_dtype(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    if given["self"].dtype == given["dtype"]:
        return None
    return "TensorRT does not read the bits of one type as another"


@converter(aten.view.dtype, supports=_keeps_dtype)
def aten_view_dtype(net: Network, self: ITensor, dtype: torch.dtype) -> ITensor:
    """view.dtype(Tensor(a) self, ScalarType dtype) -> Tensor(a)"""
    return net.tensor(self)

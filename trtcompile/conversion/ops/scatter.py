"""Elements written at indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, Size, TensorLike
from trtcompile.conversion.ops.indexing import are_adjacent, linear_index, non_negative
from trtcompile.conversion.ops.rearrange import diagonal_last, expand
from trtcompile.conversion.ops.scatter_reduce import add_rows, too_many_pairs
from trtcompile.conversion.ops.slicing import slice_along, slice_bounds
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _scatter(
    net: Network, x: ITensor, index: ITensor, updates: ITensor, mode: str, axis: int = 0
) -> ITensor:
    """TensorRT's Scatter, which takes no bools."""
    dtype = net.dtype_of(x)
    if dtype == torch.bool:
        x, updates = net.cast(x, torch.int32), net.cast(updates, torch.int32)
    layer = net.definition.add_scatter(x, index, updates, getattr(trt.ScatterMode, mode))
    layer = net.layer(layer, "scatter")
    if mode == "ELEMENT":
        layer.axis = axis
    return net.cast(layer.get_output(0), dtype)


def _supports_scatter(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    x, index, dim = given["self"], given["index"], given["dim"]
    sizes = [tensor.shape[dim] if tensor.dim() else 1 for tensor in (x, index)]
    if all(isinstance(size, int) for size in sizes) and sizes[1] > sizes[0]:
        return "it writes some elements more than once, in no defined order"
    return None


def _scatter_elements(
    net: Network, x: ITensor, dim: int, index: TensorLike, src: TensorLike
) -> ITensor:
    """``src`` of the index's shape, or a number, written into ``x``."""
    x, index = net.tensor(x), net.tensor(index, torch.int32)
    sizes = net.all_sizes(index)
    if isinstance(src, (bool, int, float)):
        src = (
            expand(net, net.tensor(src, net.dtype_of(x)), sizes)
            if sizes
            else net.tensor(src, net.dtype_of(x))
        )
    elif net.dims(src) != net.dims(index) or -1 in net.dims(src):
        src = net.slice(net.tensor(src), [0] * len(sizes), sizes)
    src = net.tensor(src)
    if net.rank(x) == 0:
        x, index, src = (net.reshape(value, [1]) for value in (x, index, src))
        return net.reshape(_scatter(net, x, index, src, "ELEMENT"), [])
    if not sizes:
        index, src = net.reshape(index, [1]), net.reshape(src, [1])
    return _scatter(net, x, index, src, "ELEMENT", dim % net.rank(x))


@converter(aten.scatter.src, supports=_supports_scatter)
def aten_scatter_src(
    net: Network, self: ITensor, dim: int, index: TensorLike, src: TensorLike
) -> ITensor:
    """scatter.src(Tensor self, int dim, Tensor index, Tensor src) -> Tensor"""
    return _scatter_elements(net, self, dim, index, src)


@converter(aten.scatter.value, supports=_supports_scatter)
def aten_scatter_value(
    net: Network, self: ITensor, dim: int, index: TensorLike, value: float
) -> ITensor:
    """scatter.value(Tensor self, int dim, Tensor index, Scalar value) -> Tensor"""
    return _scatter_elements(net, self, dim, index, value)


def _mask_dim(indices: Sequence[Any]) -> int | None:
    """Where a mask stands that is the only index."""
    given = [d for d, index in enumerate(indices) if index is not None]
    is_mask = len(given) == 1 and indices[given[0]].dtype == torch.bool
    return given[0] if is_mask else None


def _supports_index_put(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    x, indices, values = given["self"], given["indices"], given["values"]
    if given["accumulate"] and x.dtype == torch.bool:
        return "TensorRT adds no bools"
    dim = _mask_dim(indices)
    if dim is not None:
        rank = x.dim() - indices[dim].dim() + 1
        along = dim - (rank - values.dim())
        if along >= 0 and values.shape[along] != 1:
            return "a mask says where it writes how many of its values, which depends on data"
        return None
    if any(index is not None and index.dtype == torch.bool for index in indices):
        return "it writes to places that a mask and indices name together"
    if given["accumulate"]:
        places = torch.broadcast_shapes(*(index.shape for index in indices if index is not None))
        return too_many_pairs(x.shape, places)
    return None


def _put_where(
    net: Network, x: ITensor, dim: int, mask: ITensor, values: ITensor, accumulate: bool
) -> ITensor:
    """Writes where a mask that covers the dimensions from ``dim`` on is true."""
    after = net.rank(x) - dim - net.rank(mask)
    sizes = net.all_sizes(mask)
    mask = net.reshape(mask, [*sizes, *([1] * after)])
    if net.rank(values) > after:  # one dimension of size 1 stands for those of the mask
        of_values = net.all_sizes(values)
        at = len(of_values) - after - 1
        of_values[at : at + 1] = [1] * len(sizes)
        values = net.reshape(values, of_values)
    if accumulate:
        values = net.elementwise(x, values, trt.ElementWiseOperation.SUM)
    return net.select(mask, values, x)


@converter(aten.index_put.default, supports=_supports_index_put)
@converter(aten._unsafe_index_put.default, supports=_supports_index_put)
def aten_index_put(
    net: Network,
    self: ITensor,
    indices: Sequence[TensorLike | None],
    values: TensorLike,
    accumulate: bool,
) -> ITensor:
    """index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor"""
    x, values = net.tensor(self), net.tensor(values, net.result_dtypes[0])
    dims = [d for d, index in enumerate(indices) if index is not None]
    if any(net.dtype_of(indices[d]) == torch.bool for d in dims):
        return _put_where(net, x, dims[0], net.tensor(indices[dims[0]]), values, accumulate)
    order = dims + [d for d in range(net.rank(x)) if d not in dims]
    sizes = [net.size(x, d) for d in order]
    inner, outer = sizes[: len(dims)], sizes[len(dims) :]
    places = net.tensor(linear_index(net, [indices[d] for d in dims], inner))
    if 0 in net.dims(places) or 0 in net.dims(x):
        return x
    flat = net.reshape(net.permute(x, order), [net.size_product(inner), *outer])
    # PyTorch's values have the indices' dimensions where those stand, or in front if they stand apart.
    rows = _rows(net, values, places, outer, dims[0] if are_adjacent(dims) else 0)
    places = net.reshape(places, [-1])
    if accumulate:
        written = add_rows(net, flat, places, rows)
    else:
        written = _scatter(net, flat, net.unsqueeze(places, [1]), rows, "ND")
    back = sorted(range(len(order)), key=order.__getitem__)
    return net.permute(net.reshape(written, sizes), back)


def _rows(
    net: Network, values: ITensor, places: ITensor, outer: Sequence[Size], before: int
) -> ITensor:
    """Values for each place: broadcast, and the dimensions of the places moved to the front and flattened."""
    count = net.rank(places)
    sizes = [net.size(places, d) for d in range(count)]
    values = expand(net, values, [*outer[:before], *sizes, *outer[before:]])
    middle, last = range(before, before + count), range(before + count, net.rank(values))
    in_front = net.permute(values, [*middle, *range(before), *last])
    return net.reshape(in_front, [net.size_product(sizes), *outer])


@converter(aten.index_fill.int_Scalar)
@converter(aten.index_fill.int_Tensor)
def aten_index_fill(
    net: Network, self: ITensor, dim: int, index: TensorLike, value: TensorLike
) -> ITensor:
    """index_fill(Tensor self, int dim, Tensor index, Scalar or Tensor value) -> Tensor"""
    x = net.tensor(self)
    shape = net.all_sizes(x)
    flat = x if shape else net.reshape(x, [1])
    dim %= net.rank(flat)
    size = net.size(flat, dim)
    places = net.reshape(net.tensor(non_negative(net, index, size)), [1, -1])
    rows = net.unsqueeze(net.arange(size, dtype=torch.int32), [1])
    is_named = net.elementwise(rows, places, trt.ElementWiseOperation.EQUAL)
    counts = net.reduce(net.cast(is_named, torch.int32), trt.ReduceOperation.MAX, [1], False)
    is_row = net.elementwise(counts, 0, trt.ElementWiseOperation.GREATER, torch.int32)
    is_row = net.reshape(is_row, [size, *([1] * (net.rank(flat) - dim - 1))])
    fill = net.tensor(value, net.result_dtypes[0])
    return net.reshape(net.select(is_row, fill, flat), shape)


def _replaced(net: Network, x: ITensor, src: ITensor, dim: int, places: torch.Tensor) -> ITensor:
    """``x`` with ``src`` at known places along ``dim``."""
    size = net.dims(x)[dim]
    origin = torch.arange(size)
    origin[places] = size + torch.arange(len(places))
    return net.gather(net.concat([x, src], dim), origin, dim)


def _supports_slice_scatter(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    bounds = (given["self"].shape[given["dim"]], given["start"], given["end"])
    is_known = all(size is None or isinstance(size, int) for size in bounds)
    if not isinstance(given["step"], int) or (given["step"] != 1 and not is_known):
        return "it writes to every so many elements of a dimension whose size is only known at run time"
    return None


@converter(aten.slice_scatter.default, supports=_supports_slice_scatter)
def aten_slice_scatter(
    net: Network,
    self: ITensor,
    src: ITensor,
    dim: int,
    start: Size | None,
    end: Size | None,
    step: int,
) -> ITensor:
    """slice_scatter(Tensor self, Tensor src, int dim=0, SymInt? start=None, SymInt? end=None, ...) -> Tensor"""
    x, src = net.tensor(self), net.tensor(src, net.result_dtypes[0])
    dim %= net.rank(x)
    first, last = slice_bounds(net, x, dim, start, end)
    if step != 1:
        return _replaced(net, x, src, dim, torch.arange(net.dims(x)[dim])[first:last:step])
    return _overwrite(net, x, src, dim, first, last)


def _overwrite(
    net: Network, x: ITensor, src: ITensor, dim: int, first: Size, last: Size
) -> ITensor:
    """``x`` with ``src`` from ``first`` to ``last`` along ``dim``."""
    rest = net.size_math(net.size(x, dim), last, "SUB")
    parts = [slice_along(net, x, dim, 0, first), src, slice_along(net, x, dim, last, rest)]
    parts = [part for part in parts if net.dims(part)[dim] != 0] or [src]
    return parts[0] if len(parts) == 1 else net.concat(parts, dim)


@converter(aten.select_scatter.default)
def aten_select_scatter(
    net: Network, self: ITensor, src: ITensor, dim: int, index: Size
) -> ITensor:
    """select_scatter(Tensor self, Tensor src, int dim, SymInt index) -> Tensor"""
    x, src = net.tensor(self), net.tensor(src, net.result_dtypes[0])
    dim %= net.rank(x)
    first, _ = slice_bounds(net, x, dim, index, None)
    return _overwrite(net, x, net.unsqueeze(src, [dim]), dim, first, net.size_math(first, 1, "SUM"))


def _supports_diagonal_scatter(node: Node, spec: CompileSpec) -> str | None:
    if not all(isinstance(size, int) for size in arguments_of(node)["self"].shape):
        return "it writes to a diagonal whose size is only known at run time"
    return None


@converter(aten.diagonal_scatter.default, supports=_supports_diagonal_scatter)
def aten_diagonal_scatter(
    net: Network, self: ITensor, src: ITensor, offset: int, dim1: int, dim2: int
) -> ITensor:
    """diagonal_scatter(Tensor self, Tensor src, int offset=0, int dim1=0, int dim2=1) -> Tensor"""
    x, rank = net.tensor(self), net.rank(net.tensor(self))
    last = diagonal_last(net, x, dim1, dim2)
    *outer, rows, columns = net.dims(last)
    places = torch.arange(rows * columns).reshape(rows, columns).diagonal(offset)
    flat = net.reshape(last, [*outer, rows * columns])
    written = _replaced(net, flat, net.tensor(src, net.result_dtypes[0]), rank - 2, places)
    pair = [dim1 % rank, dim2 % rank]
    order = [d for d in range(rank) if d not in pair] + pair
    back = sorted(range(rank), key=order.__getitem__)
    return net.permute(net.reshape(written, [*outer, rows, columns]), back)

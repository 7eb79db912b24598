"""Elements picked by indices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, Size, TensorLike
from trtcompile.conversion.ops.rearrange import expand
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def scalar(net: Network, size: Size) -> TensorLike:
    """A size for arithmetic with indices."""
    return size if isinstance(size, int) else net.reshape(net.cast(size, torch.int32), [])


def non_negative(net: Network, index: TensorLike, size: Size) -> TensorLike:
    """INT32 indices in which none counts from the end; constants stay constants."""
    if isinstance(index, torch.Tensor):
        if isinstance(size, int):
            index = torch.where(index < 0, index + size, index)
        if bool((index >= 0).all()):
            return index.to(torch.int32)
    index = net.tensor(index, torch.int32)
    from_end = net.elementwise(index, scalar(net, size), trt.ElementWiseOperation.SUM, torch.int32)
    is_negative = net.elementwise(index, 0, trt.ElementWiseOperation.LESS, torch.int32)
    return net.select(is_negative, from_end, index)


def linear_index(net: Network, indices: Sequence[TensorLike], sizes: Sequence[Size]) -> TensorLike:
    """One index into flattened dimensions for an index into each of them."""
    result: TensorLike = None
    for index, size in zip(indices, sizes, strict=True):
        index = non_negative(net, index, size)
        if result is None:
            result = index
        elif all(isinstance(value, torch.Tensor) for value in (result, index)) and isinstance(
            size, int
        ):
            result = result * size + index
        else:
            row = net.elementwise(
                result, scalar(net, size), trt.ElementWiseOperation.PROD, torch.int32
            )
            result = net.elementwise(row, index, trt.ElementWiseOperation.SUM, torch.int32)
    return result


def are_adjacent(dims: Sequence[int]) -> bool:
    """Whether the result of advanced indexing has the indices' dimensions in place; else they come first."""
    return dims[-1] - dims[0] == len(dims) - 1


def _has_no_mask(node: Node, spec: CompileSpec) -> str | None:
    indices = arguments_of(node)["indices"]
    if any(index is not None and index.dtype == torch.bool for index in indices):
        return "it picks by a mask, so the shape of its result depends on data"
    return None


@converter(aten.index.Tensor, supports=_has_no_mask)
@converter(aten._unsafe_index.Tensor, supports=_has_no_mask)
def aten_index(net: Network, self: ITensor, indices: Sequence[TensorLike | None]) -> ITensor:
    """index.Tensor(Tensor self, Tensor?[] indices) -> Tensor"""
    x = net.tensor(self)
    dims = [d for d, index in enumerate(indices) if index is not None]
    if not dims:
        return x
    first = dims[0]
    if not are_adjacent(dims):
        x = net.permute(x, dims + [d for d in range(net.rank(x)) if d not in dims])
        first = 0
    sizes = net.all_sizes(x)
    inner = sizes[first : first + len(dims)]
    places = linear_index(net, [indices[d] for d in dims], inner)
    if len(dims) > 1:
        flat = net.size_product(inner)
        x = net.reshape(x, [*sizes[:first], flat, *sizes[first + len(dims) :]])
    return net.gather(x, places, first)


@converter(aten.index_select.default)
def aten_index_select(net: Network, self: ITensor, dim: int, index: TensorLike) -> ITensor:
    """index_select(Tensor self, int dim, Tensor index) -> Tensor"""
    x = net.tensor(self)
    index = net.reshape(net.tensor(index), [-1])
    if net.rank(x) > 0:
        return net.gather(x, index, dim)
    picked = net.gather(net.reshape(x, [1]), index, 0)
    return picked if net.result_shapes[0] else net.reshape(picked, [])


@converter(aten.gather.default)
def aten_gather(
    net: Network, self: ITensor, dim: int, index: TensorLike, sparse_grad: bool
) -> ITensor:
    """gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor"""
    x, index = net.tensor(self), net.tensor(index)
    sizes = net.all_sizes(index)
    if net.rank(x) == 0 or not sizes:
        picked = net.gather(net.reshape(x, [-1]), net.reshape(index, [-1]), 0)
        return net.reshape(picked, sizes)
    dim %= net.rank(x)
    if any(
        net.dims(x)[d] != net.dims(index)[d] or net.dims(x)[d] == -1
        for d in range(len(sizes))
        if d != dim
    ):
        kept = [net.size(x, d) if d == dim else size for d, size in enumerate(sizes)]
        x = net.slice(x, [0] * len(kept), kept)
    return net.gather(x, index, dim, elementwise=True)


@converter(aten.take.default)
def aten_take(net: Network, self: ITensor, index: TensorLike) -> ITensor:
    """take(Tensor self, Tensor index) -> Tensor"""
    flat = net.reshape(net.tensor(self), [-1])
    return net.gather(flat, non_negative(net, index, net.size(flat, 0)), 0)


@converter(aten.take_along_dim.default)
def aten_take_along_dim(
    net: Network, self: ITensor, indices: TensorLike, dim: int | None
) -> ITensor:
    """take_along_dim(Tensor self, Tensor indices, int? dim=None) -> Tensor"""
    x, index = net.tensor(self), net.tensor(indices)
    if dim is None:
        x, index, dim = net.reshape(x, [-1]), net.reshape(index, [-1]), 0
    dim %= net.rank(x)
    of_x, of_index = ([net.size(t, d) for d in range(net.rank(x))] for t in (x, index))
    common = [
        b if isinstance(a, int) and a == 1 else a for a, b in zip(of_x, of_index, strict=True)
    ]
    places = net.tensor(non_negative(net, index, of_x[dim]))
    x = expand(net, x, [*common[:dim], of_x[dim], *common[dim + 1 :]])
    places = expand(net, places, [*common[:dim], of_index[dim], *common[dim + 1 :]])
    return net.gather(x, places, dim, elementwise=True)

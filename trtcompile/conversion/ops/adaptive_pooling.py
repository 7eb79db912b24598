"""Pooling to a given size: window i of n elements for o results is [floor(i*n/o), ceil((i+1)*n/o))."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network
from trtcompile.conversion.ops.pooling import batched, only_values_are_used, pool, unbatched
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _supports_adaptive(
    dims: int, takes_integers: bool
) -> Callable[[Node, CompileSpec], str | None]:
    def supports(node: Node, spec: CompileSpec) -> str | None:
        value, result = node.all_input_nodes[0].meta["val"], node.meta["val"]
        is_pair = isinstance(result, (tuple, list))
        if not takes_integers and not value.dtype.is_floating_point:
            return f"TensorRT averages floating-point tensors, not {value.dtype}"
        out_sizes = (result[0] if is_pair else result).shape[-dims:]
        for size, out in zip(value.shape[-dims:], out_sizes, strict=True):
            is_easy = isinstance(size, int) or str(size) == str(out)
            if not is_easy and not (isinstance(out, int) and out == 1):
                return "adaptive pooling needs spatial sizes that are known when compiling"
        return only_values_are_used(node) if is_pair else None

    return supports


def _adaptive(
    net: Network,
    self: ITensor,
    dims: int,
    kind: str,
    along: Callable[[Network, ITensor, int, int], ITensor],
) -> ITensor:
    """Windows of one size are a pooling layer; others are reduced ``along`` one dimension after the other."""
    rank, out_sizes = net.rank(self), net.result_shapes[0][-dims:]
    x = batched(net, self, dims)
    sizes = net.dims(x)[-dims:]
    if _divides(sizes, out_sizes) and net.dtype_of(x).is_floating_point:
        window = [size // out for size, out in zip(sizes, out_sizes, strict=True)]
        return unbatched(net, pool(net, x, kind, window, window, [0] * dims, out_sizes), rank)
    operation = trt.ReduceOperation.AVG if kind == "AVERAGE" else trt.ReduceOperation.MAX
    single = [d - dims for d, out in enumerate(out_sizes) if _is_known(out, 1)]
    if single:
        x = net.reduce(x, operation, single, True)
    for dim, size, out in zip(range(-dims, 0), sizes, out_sizes, strict=True):
        if dim not in single and size >= 0 and isinstance(out, int) and size != out:
            x = along(net, x, dim, out)
    return unbatched(net, x, rank)


def _divides(sizes: Sequence[int], out_sizes: Sequence[Any]) -> bool:
    return all(
        size > 0 and isinstance(out, int) and out > 0 and size % out == 0
        for size, out in zip(sizes, out_sizes, strict=True)
    )


def _is_known(size: object, number: int) -> bool:
    return isinstance(size, int) and size == number


def _bounds(size: int, output_size: int) -> list[tuple[int, int]]:
    return [
        (i * size // output_size, -((-(i + 1) * size) // output_size)) for i in range(output_size)
    ]


def averaging_matrix(size: int, output_size: int) -> torch.Tensor:
    """The [output_size, size] matrix of adaptive average pooling."""
    matrix = torch.zeros(output_size, size, dtype=torch.float64)
    for i, (start, end) in enumerate(_bounds(size, output_size)):
        matrix[i, start:end] = 1.0 / (end - start)
    return matrix


def _mean_along(net: Network, x: ITensor, dim: int, output_size: int) -> ITensor:
    """Averaging is linear, so windows of unequal size are a matrix product."""
    matrix = net.constant(averaging_matrix(net.dims(x)[dim], output_size).to(net.dtype_of(x)))
    if dim == -1:
        return net.matmul(x, matrix, transpose_b=True)
    if dim == -2:
        return net.matmul(matrix, x)
    order = list(range(net.rank(x)))
    order[dim], order[-1] = order[-1], order[dim]
    pooled = net.matmul(net.permute(x, order), matrix, transpose_b=True)
    return net.permute(pooled, order)


def _max_along(net: Network, x: ITensor, dim: int, output_size: int) -> ITensor:
    """Gathers every window, the shorter ones with their last element repeated."""
    bounds = _bounds(net.dims(x)[dim], output_size)
    longest = max(end - start for start, end in bounds)
    index = [[min(start + i, end - 1) for i in range(longest)] for start, end in bounds]
    axis = dim % net.rank(x)
    gathered = net.gather(x, torch.tensor(index, dtype=torch.int32), axis)
    return net.reduce(gathered, trt.ReduceOperation.MAX, [axis + 1], False)


@converter(aten.adaptive_avg_pool2d.default, supports=_supports_adaptive(2, False))
@converter(aten._adaptive_avg_pool2d.default, supports=_supports_adaptive(2, False))
def aten_adaptive_avg_pool2d(net: Network, self: ITensor, output_size: Sequence[Any]) -> ITensor:
    """adaptive_avg_pool2d(Tensor self, SymInt[2] output_size) -> Tensor"""
    return _adaptive(net, self, 2, "AVERAGE", _mean_along)


@converter(aten._adaptive_avg_pool3d.default, supports=_supports_adaptive(3, False))
def aten__adaptive_avg_pool3d(net: Network, self: ITensor, output_size: Sequence[Any]) -> ITensor:
    """_adaptive_avg_pool3d(Tensor self, SymInt[3] output_size) -> Tensor"""
    return _adaptive(net, self, 3, "AVERAGE", _mean_along)


@converter(aten.adaptive_max_pool2d.default, supports=_supports_adaptive(2, True))
def aten_adaptive_max_pool2d(
    net: Network, self: ITensor, output_size: Sequence[int]
) -> tuple[ITensor, None]:
    """adaptive_max_pool2d(Tensor self, int[2] output_size) -> (Tensor, Tensor)"""
    return _adaptive(net, self, 2, "MAX", _max_along), None


@converter(aten.adaptive_max_pool3d.default, supports=_supports_adaptive(3, True))
def aten_adaptive_max_pool3d(
    net: Network, self: ITensor, output_size: Sequence[int]
) -> tuple[ITensor, None]:
    """adaptive_max_pool3d(Tensor self, int[3] output_size) -> (Tensor, Tensor)"""
    return _adaptive(net, self, 3, "MAX", _max_along), None

"""Cumulative sums, products, and extremes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.conversion.sizes import highest
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

#: Each doubling of the size costs one more pass over the tensor.
_LARGEST_SIZE = 2**20

#: (tensors of earlier elements, those of later ones) to what holds for both together.
Combine = Callable[[list[ITensor], list[ITensor]], list[ITensor]]


def supports_length(largest: float) -> str | None:
    """Whether so many elements can be accumulated."""
    if largest > _LARGEST_SIZE:
        return f"it accumulates over up to {largest:.0f} elements, more than {_LARGEST_SIZE}"
    return None


def _supports_scan(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    value, dim = given["self"], given["dim"]
    return supports_length(highest(value.shape[dim]) if value.dim() else 1)


def scan(
    net: Network,
    tensors: list[ITensor],
    neutral: Sequence[float],
    dim: int,
    largest: float,
    combine: Combine,
) -> list[ITensor]:
    """``result[i] = x[0] op ... op x[i]`` by doubling: after each pass an element holds twice as many.

    TensorRT 10.6 has no layer for it, and a product with a triangular matrix would not be exact for integers.
    ``largest`` is the most elements there can be; ``neutral`` stands for what is before the first of each tensor.
    """
    rank, shift = net.rank(tensors[0]), 1
    sizes = net.all_sizes(tensors[0])
    while shift < largest:
        starts = [-shift if d == dim % rank else 0 for d in range(rank)]
        earlier = [
            net.slice(x, starts, sizes, fill=fill) for x, fill in zip(tensors, neutral, strict=True)
        ]
        tensors = combine(earlier, tensors)
        shift *= 2
    return tensors


def _largest(net: Network, dim: int) -> float:
    return highest(net.result_shapes[0][dim]) if net.result_shapes[0] else 1


def _scan_elementwise(
    net: Network, self: TensorLike, dim: int, operation: str, neutral: int
) -> ITensor:
    dtype = net.result_dtypes[0]
    wide = torch.float32 if dtype.is_floating_point else dtype  # PyTorch accumulates FP16 in FP32
    x = net.cast(net.tensor(self, dtype), wide)

    def combine(earlier: list[ITensor], later: list[ITensor]) -> list[ITensor]:
        kind = getattr(trt.ElementWiseOperation, operation)
        return [net.elementwise(earlier[0], later[0], kind)]

    return net.cast(scan(net, [x], [neutral], dim, _largest(net, dim), combine)[0], dtype)


@converter(aten.cumsum.default, supports=_supports_scan)
def aten_cumsum(net: Network, self: ITensor, dim: int, dtype: torch.dtype | None) -> ITensor:
    """cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    return _scan_elementwise(net, self, dim, "SUM", 0)


@converter(aten.cumprod.default, supports=_supports_scan)
def aten_cumprod(net: Network, self: ITensor, dim: int, dtype: torch.dtype | None) -> ITensor:
    """cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    return _scan_elementwise(net, self, dim, "PROD", 1)


@converter(aten.logcumsumexp.default, supports=_supports_scan)
def aten_logcumsumexp(net: Network, self: ITensor, dim: int) -> ITensor:
    """logcumsumexp(Tensor self, int dim) -> Tensor"""
    operation, wide = trt.ElementWiseOperation, torch.float32

    def combine(earlier: list[ITensor], later: list[ITensor]) -> list[ITensor]:
        """The larger one plus log(1 + exp(-distance)); the distance of two equal infinities is 0."""
        (a,), (b,) = earlier, later
        distance = net.unary(net.elementwise(a, b, operation.SUB), trt.UnaryOperation.ABS)
        distance = net.select(net.elementwise(a, b, operation.EQUAL), 0.0, distance, wide)
        ratio = net.unary(net.unary(distance, trt.UnaryOperation.NEG), trt.UnaryOperation.EXP)
        total = net.elementwise(ratio, 1, operation.SUM, wide)
        more = net.unary(total, trt.UnaryOperation.LOG)
        return [net.elementwise(net.elementwise(a, b, operation.MAX), more, operation.SUM)]

    x = net.tensor(self, wide)
    return net.cast(
        scan(net, [x], [-math.inf], dim, _largest(net, dim), combine)[0], net.result_dtypes[0]
    )


def _running_extreme(operation: str) -> Callable[..., list[ITensor]]:
    """The last largest (or smallest) element so far and its index. A NaN goes before all numbers, as in PyTorch."""

    def convert(net: Network, self: ITensor, dim: int) -> list[ITensor]:
        binary, dtype = trt.ElementWiseOperation, net.result_dtypes[0]
        better = binary.GREATER if operation == "MAX" else binary.LESS
        x = net.tensor(self, torch.int32 if dtype == torch.bool else dtype)
        if net.rank(x) == 0:
            return [net.cast(x, dtype), net.tensor(0, torch.int64)]

        def combine(earlier: list[ITensor], later: list[ITensor]) -> list[ITensor]:
            stays = net.elementwise(earlier[0], later[0], better)
            if dtype.is_floating_point:
                number = net.unary(net.isnan(later[0]), trt.UnaryOperation.NOT)
                nan = net.elementwise(net.isnan(earlier[0]), number, binary.AND)
                stays = net.elementwise(stays, nan, binary.OR)
            return [net.select(stays, a, b) for a, b in zip(earlier, later, strict=True)]

        rank, sizes = net.rank(x), net.all_sizes(x)
        places = net.arange(sizes[dim], dtype=torch.int32)
        places = net.reshape(places, [-1 if d == dim % rank else 1 for d in range(rank)])
        steps = [int(d == dim % rank) for d in range(rank)]  # a step of 0 repeats the only element
        places = net.slice(places, [0] * rank, sizes, steps)
        neutral = [_worst(net, x, operation), 0]
        value, index = scan(net, [x, places], neutral, dim, _largest(net, dim), combine)
        return [net.cast(value, dtype), net.cast(index, torch.int64)]

    return convert


def _worst(net: Network, x: ITensor, operation: str) -> float:
    """What no element loses against."""
    dtype, sign = net.dtype_of(x), -1 if operation == "MAX" else 1
    if dtype.is_floating_point:
        return sign * math.inf
    return torch.iinfo(dtype).min if sign < 0 else torch.iinfo(dtype).max


converter(aten.cummax.default, supports=_supports_scan)(_running_extreme("MAX"))
converter(aten.cummin.default, supports=_supports_scan)(_running_extreme("MIN"))

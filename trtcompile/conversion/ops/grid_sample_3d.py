"""Sampling of volumes at the places of a grid: gathers, as TensorRT's layer samples images only."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, Size, TensorLike
from trtcompile.conversion.ops.indexing import scalar
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

# PyTorch's numbers.
_NEAREST = 1
_ZEROS, _REFLECTION = 0, 2


def _supports_grid_sampler_3d(node: Node, spec: CompileSpec) -> str | None:
    dtype = node.meta["val"].dtype
    return None if dtype.is_floating_point else f"it samples floating-point tensors, not {dtype}"


class _Arithmetic:
    """FP32 arithmetic on network tensors and numbers."""

    def __init__(self, net: Network) -> None:
        self.net = net

    def __call__(self, a: TensorLike, operation: str, b: TensorLike) -> ITensor:
        return self.net.elementwise(
            a, b, getattr(trt.ElementWiseOperation, operation), torch.float32
        )

    def floor(self, x: ITensor) -> ITensor:
        return self.net.unary(x, trt.UnaryOperation.FLOOR)


@dataclass(frozen=True)
class _Neighbor:
    """One of the elements beside a place, along one dimension.

    Attributes:
        index: INT32, within the dimension.
        weight: its part of the result; None for all of it.
        is_inside: whether it is within the dimension, where ``index`` is not moved.
    """

    index: ITensor
    weight: ITensor | None
    is_inside: ITensor


def _place(
    net: Network, x: ITensor, size: Size, padding_mode: int, align_corners: bool
) -> tuple[ITensor, TensorLike]:
    """Where coordinates from -1 to 1 lie in elements, in FP32 and finite, and the last place."""
    of = _Arithmetic(net)
    length = size if isinstance(size, int) else net.cast(scalar(net, size), torch.float32)
    last = size - 1 if isinstance(size, int) else of(length, "SUB", 1)
    from_zero = of(x, "SUM", 1)
    if align_corners:
        place = of(of(from_zero, "PROD", 0.5), "PROD", last)
    else:
        place = of(of(of(from_zero, "PROD", length), "SUB", 1), "PROD", 0.5)
    if padding_mode == _REFLECTION:
        place = _reflected(net, place, last, align_corners)
    # NaN lies outside as everything far away does, or at the first element.
    nowhere = -2.0 if padding_mode == _ZEROS else 0.0
    place = net.select(net.isnan(place), nowhere, place, torch.float32)
    low, high = (-2.0, of(last, "SUM", 2)) if padding_mode == _ZEROS else (0.0, last)
    return of(of(place, "MAX", low), "MIN", high), last


def _reflected(net: Network, place: ITensor, last: TensorLike, align_corners: bool) -> ITensor:
    """Between the first and the last place, or half an element around both: a triangle wave."""
    of = _Arithmetic(net)
    low, span = (0.0, last) if align_corners else (-0.5, of(last, "SUM", 1))
    distance = net.unary(of(place, "SUB", low), trt.UnaryOperation.ABS)
    flips = of.floor(of(distance, "DIV", span))  # over a span of 0 it is NaN, and the first element
    extra = of(distance, "SUB", of(flips, "PROD", span))
    odd = of(flips, "SUB", of(of.floor(of(flips, "PROD", 0.5)), "PROD", 2))
    back = net.elementwise(odd, 0.5, trt.ElementWiseOperation.GREATER, torch.float32)
    return of(net.select(back, of(span, "SUB", extra), extra), "SUM", low)


def _neighbors(net: Network, place: ITensor, last: TensorLike, mode: int) -> list[_Neighbor]:
    of, operation = _Arithmetic(net), trt.ElementWiseOperation
    if mode == _NEAREST:
        found = [(net.unary(place, trt.UnaryOperation.ROUND), None)]
    else:
        first = of.floor(place)
        part = of(place, "SUB", first)
        found = [(first, of(1, "SUB", part)), (of(first, "SUM", 1), part)]
    neighbors = []
    for at, weight in found:
        below = net.elementwise(at, 0, operation.LESS, torch.float32)
        above = net.elementwise(at, last, operation.GREATER, torch.float32)
        outside = net.elementwise(below, above, operation.OR)
        index = net.cast(of(of(at, "MAX", 0), "MIN", last), torch.int32)
        neighbors.append(_Neighbor(index, weight, net.unary(outside, trt.UnaryOperation.NOT)))
    return neighbors


def _sampled(
    net: Network, flat: ITensor, corner: tuple[_Neighbor, ...], sizes: list[Size]
) -> ITensor:
    """One corner's part of each sample, zero outside; ``flat`` is [N, C, D * H * W]."""
    operation = trt.ElementWiseOperation
    index, weight, inside = corner[0].index, corner[0].weight, corner[0].is_inside
    for neighbor, size in zip(corner[1:], sizes[1:], strict=True):
        row = net.elementwise(index, scalar(net, size), operation.PROD, torch.int32)
        index = net.elementwise(row, neighbor.index, operation.SUM)
        inside = net.elementwise(inside, neighbor.is_inside, operation.AND)
        if weight is not None:
            weight = net.elementwise(weight, neighbor.weight, operation.PROD)
    layer = net.layer(net.definition.add_gather(flat, index, 2), "gather")
    layer.num_elementwise_dims = 1  # each volume of the batch has places of its own
    value = layer.get_output(0)
    if weight is not None:
        value = net.elementwise(value, net.unsqueeze(weight, [1]), operation.PROD, torch.float32)
    return net.select(net.unsqueeze(inside, [1]), value, 0.0, torch.float32)


@converter(aten.grid_sampler_3d.default, supports=_supports_grid_sampler_3d)
def aten_grid_sampler_3d(
    net: Network,
    input: TensorLike,
    grid: TensorLike,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> ITensor:
    """grid_sampler_3d(input, grid, int interpolation_mode, int padding_mode, bool align_corners) -> Tensor"""
    x, places = net.tensor(input, torch.float32), net.tensor(grid, torch.float32)
    batch, channels, *sizes = net.all_sizes(x)
    out_batch, *out, _ = net.all_sizes(places)
    count = net.size_product(out)
    places = net.reshape(places, [out_batch, count, 3])
    along: list[list[_Neighbor]] = []
    for dim, size in enumerate(sizes):  # the grid names columns first
        column = net.slice(places, [0, 0, 2 - dim], [out_batch, count, 1])
        column = net.reshape(column, [out_batch, count])
        place, last = _place(net, column, size, padding_mode, align_corners)
        along.append(_neighbors(net, place, last, interpolation_mode))
    flat = net.reshape(x, [batch, channels, net.size_product(sizes)])
    total: ITensor | None = None
    for corner in itertools.product(*along):
        part = _sampled(net, flat, corner, sizes)
        total = (
            part if total is None else net.elementwise(total, part, trt.ElementWiseOperation.SUM)
        )
    return net.cast(net.reshape(total, [batch, channels, *out]), net.result_dtypes[0])

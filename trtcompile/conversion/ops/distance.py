"""Distances of every pair of rows."""

from __future__ import annotations

import math

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.conversion.sizes import highest
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

#: How many differences of elements are computed at most.
_MOST_DIFFERENCES = 2**28


def _too_many(count: float) -> str | None:
    if count > _MOST_DIFFERENCES:
        return f"it computes {count:.0f} differences of elements, more than {_MOST_DIFFERENCES}"
    return None


def _supports_cdist(node: Node, spec: CompileSpec) -> str | None:
    features = arguments_of(node)["x1"].shape[-1]
    return _too_many(math.prod(highest(n) for n in (*node.meta["val"].shape, features)))


def _supports_pdist(node: Node, spec: CompileSpec) -> str | None:
    # PyTorch itself traces it for known numbers of rows only.
    return _too_many(node.meta["val"].shape[0] * highest(arguments_of(node)["self"].shape[1]))


def _distance(net: Network, a: ITensor, b: ITensor, p: float) -> ITensor:
    """The p-norm of the differences along the last dimension, in FP32; of no elements it is 0.

    The Euclidean one is no matrix product, which would cancel for rows that lie close together.
    """
    binary, reduction, wide = trt.ElementWiseOperation, trt.ReduceOperation, torch.float32
    size = net.unary(net.elementwise(a, b, binary.SUB, wide), trt.UnaryOperation.ABS)
    last = [net.rank(size) - 1]
    if p == math.inf:
        return net.reduce(size, reduction.MAX, last, False)
    if p == 0:
        return net.reduce(net.cast(net.truth(size), wide), reduction.SUM, last, False)
    if p == 1:
        return net.reduce(size, reduction.SUM, last, False)
    if p == 2:
        squares = net.elementwise(size, size, binary.PROD)
        return net.unary(net.reduce(squares, reduction.SUM, last, False), trt.UnaryOperation.SQRT)
    powers = net.elementwise(size, float(p), binary.POW, wide)
    return net.elementwise(net.reduce(powers, reduction.SUM, last, False), 1 / p, binary.POW, wide)


@converter(aten._cdist_forward.default, supports=_supports_cdist)
def aten_cdist_forward(
    net: Network, x1: TensorLike, x2: TensorLike, p: float, compute_mode: int | None
) -> ITensor:
    """_cdist_forward(Tensor x1, Tensor x2, float p, int? compute_mode) -> Tensor"""
    first, second = net.tensor(x1), net.tensor(x2)
    rank = max(net.rank(first), net.rank(second))
    first, second = net.expand_rank(first, rank), net.expand_rank(second, rank)
    a, b = net.unsqueeze(first, [rank - 1]), net.unsqueeze(second, [rank - 2])
    return net.cast(_distance(net, a, b, p), net.result_dtypes[0])


@converter(aten._pdist_forward.default, supports=_supports_pdist)
def aten_pdist_forward(net: Network, self: TensorLike, p: float) -> ITensor:
    """_pdist_forward(Tensor self, float p=2) -> Tensor"""
    x = net.tensor(self)
    first, second = torch.triu_indices(net.dims(x)[0], net.dims(x)[0], 1)
    a, b = (net.gather(x, rows, 0) for rows in (first, second))
    return net.cast(_distance(net, a, b, p), net.result_dtypes[0])

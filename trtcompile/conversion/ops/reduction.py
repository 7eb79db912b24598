"""Reductions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network
from trtcompile.conversion.registry import converter

aten = torch.ops.aten


def _reduce(
    net: Network, x: ITensor, operation: str, dim: Sequence[int] | None, keepdim: bool
) -> ITensor:
    dtype = net.result_dtypes[0]
    # TensorRT reduces no bools: their maximum is taken as integers.
    x = net.tensor(x, torch.int32 if dtype == torch.bool else dtype)
    dims = list(dim) if dim else list(range(net.rank(x)))
    return net.cast(net.reduce(x, getattr(trt.ReduceOperation, operation), dims, keepdim), dtype)


@converter(aten.mean.dim)
def aten_mean_dim(
    net: Network, self: ITensor, dim: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None
) -> ITensor:
    """mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    return _reduce(net, self, "AVG", dim, keepdim)


@converter(aten.mean.default)
def aten_mean(net: Network, self: ITensor, dtype: torch.dtype | None) -> ITensor:
    """mean(Tensor self, *, ScalarType? dtype=None) -> Tensor"""
    return _reduce(net, self, "AVG", None, False)


@converter(aten.sum.dim_IntList)
def aten_sum_dim(
    net: Network, self: ITensor, dim: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None
) -> ITensor:
    """sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    return _reduce(net, self, "SUM", dim, keepdim)


@converter(aten.amax.default)
def aten_amax(net: Network, self: ITensor, dim: Sequence[int], keepdim: bool) -> ITensor:
    """amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return _reduce(net, self, "MAX", dim, keepdim)


@converter(aten.amin.default)
def aten_amin(net: Network, self: ITensor, dim: Sequence[int], keepdim: bool) -> ITensor:
    """amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return _reduce(net, self, "MIN", dim, keepdim)

"""Reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, Size, TensorLike
from trtcompile.conversion.registry import converter

aten = torch.ops.aten


def _all_or(net: Network, x: ITensor, dim: Sequence[int] | None) -> list[int]:
    """The dimensions to reduce; none stands for all."""
    return list(dim) if dim else list(range(net.rank(x)))


def _reduce(
    net: Network, x: TensorLike, operation: str, dim: Sequence[int] | None, keepdim: bool
) -> ITensor:
    dtype = net.result_dtypes[0]
    # TensorRT reduces no bools: their maximum is taken as integers.
    x = net.tensor(x, torch.int32 if dtype == torch.bool else dtype)
    dims = _all_or(net, x, dim)
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


@converter(aten.prod.default)
def aten_prod(net: Network, self: ITensor, dtype: torch.dtype | None) -> ITensor:
    """prod(Tensor self, *, ScalarType? dtype=None) -> Tensor"""
    return _reduce(net, self, "PROD", None, False)


@converter(aten.prod.dim_int)
def aten_prod_dim(
    net: Network, self: ITensor, dim: int, keepdim: bool, dtype: torch.dtype | None
) -> ITensor:
    """prod.dim_int(Tensor self, int dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    return _reduce(net, self, "PROD", [dim], keepdim)


@converter(aten.amax.default)
def aten_amax(net: Network, self: ITensor, dim: Sequence[int], keepdim: bool) -> ITensor:
    """amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return _reduce(net, self, "MAX", dim, keepdim)


@converter(aten.amin.default)
def aten_amin(net: Network, self: ITensor, dim: Sequence[int], keepdim: bool) -> ITensor:
    """amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return _reduce(net, self, "MIN", dim, keepdim)


@converter(aten.max.default)
def aten_max(net: Network, self: ITensor) -> ITensor:
    """max(Tensor self) -> Tensor"""
    return _reduce(net, self, "MAX", None, False)


@converter(aten.min.default)
def aten_min(net: Network, self: ITensor) -> ITensor:
    """min(Tensor self) -> Tensor"""
    return _reduce(net, self, "MIN", None, False)


@converter(aten.any.default)
def aten_any(net: Network, self: TensorLike) -> ITensor:
    """any(Tensor self) -> Tensor"""
    return _reduce(net, net.truth(self), "MAX", None, False)


@converter(aten.any.dim)
def aten_any_dim(net: Network, self: TensorLike, dim: int, keepdim: bool) -> ITensor:
    """any.dim(Tensor self, int dim, bool keepdim=False) -> Tensor"""
    return _reduce(net, net.truth(self), "MAX", [dim], keepdim)


@converter(aten.any.dims)
def aten_any_dims(
    net: Network, self: TensorLike, dim: Sequence[int] | None, keepdim: bool
) -> ITensor:
    """any.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor"""
    if dim is not None and not dim:  # unlike elsewhere, no dimensions are none
        return net.truth(self)
    return _reduce(net, net.truth(self), "MAX", dim, keepdim)


def _compute_dtype(net: Network) -> torch.dtype:
    """FP32: squares leave the range of FP16, and PyTorch accumulates in FP32 too."""
    dtype = net.result_dtypes[0]
    return torch.float32 if dtype.is_floating_point else dtype


def _element_count(net: Network, x: ITensor, dims: Sequence[int]) -> TensorLike:
    """How many elements are reduced: a number, or where sizes are dynamic an FP32 scalar."""
    count: Size = 1
    for dim in dims if net.rank(x) else ():
        count = net.size_math(count, net.size(x, dim), "PROD")
    return count if isinstance(count, int) else net.reshape(net.cast(count, torch.float32), [])


def _variance(
    net: Network, x: ITensor, dim: Sequence[int] | None, correction: float | None, keepdim: bool
) -> ITensor:
    operation, reduction = trt.ElementWiseOperation, trt.ReduceOperation
    dims = _all_or(net, x, dim)
    centered = net.elementwise(x, net.reduce(x, reduction.AVG, dims, True), operation.SUB)
    squares = net.elementwise(centered, centered, operation.PROD)
    total = net.reduce(squares, reduction.SUM, dims, keepdim)
    count, lost = _element_count(net, x, dims), 1 if correction is None else correction
    if isinstance(count, int):
        degrees: TensorLike = float(max(count - lost, 0))
    else:
        degrees = net.elementwise(count, lost, operation.SUB, torch.float32)
        degrees = net.elementwise(degrees, 0, operation.MAX, torch.float32)
    return net.elementwise(total, degrees, operation.DIV, torch.float32)


@converter(aten.var.correction)
def aten_var(
    net: Network, self: ITensor, dim: Sequence[int] | None, correction: float | None, keepdim: bool
) -> ITensor:
    """var.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor"""
    x = net.tensor(self, _compute_dtype(net))
    return net.cast(_variance(net, x, dim, correction, keepdim), net.result_dtypes[0])


@converter(aten.var_mean.correction)
def aten_var_mean(
    net: Network, self: ITensor, dim: Sequence[int] | None, correction: float | None, keepdim: bool
) -> tuple[ITensor, ITensor]:
    """var_mean.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> (...)"""
    x = net.tensor(self, _compute_dtype(net))
    mean = net.reduce(x, trt.ReduceOperation.AVG, _all_or(net, x, dim), keepdim)
    variance = _variance(net, x, dim, correction, keepdim)
    return net.cast(variance, net.result_dtypes[0]), net.cast(mean, net.result_dtypes[1])


def _root_of_power_sum(
    net: Network, size: ITensor, order: float, total: Callable[[ITensor], ITensor]
) -> ITensor:
    """``sum(size ** order) ** (1 / order)``"""
    operation = trt.ElementWiseOperation
    if order == 1:
        return total(size)
    if order == 2:
        return net.unary(
            total(net.elementwise(size, size, operation.PROD)), trt.UnaryOperation.SQRT
        )
    powers = net.elementwise(size, float(order), operation.POW, torch.float32)
    return net.elementwise(total(powers), 1 / order, operation.POW, torch.float32)


@converter(aten.linalg_vector_norm.default)
def aten_linalg_vector_norm(
    net: Network,
    self: ITensor,
    ord: float,
    dim: Sequence[int] | None,
    keepdim: bool,
    dtype: torch.dtype | None,
) -> ITensor:
    """linalg_vector_norm(Tensor self, Scalar ord=2, int[1]? dim=None, bool keepdim=False, *, dtype=None) -> Tensor"""
    x = net.tensor(self, _compute_dtype(net))

    def reduce(values: ITensor, operation: str = "SUM") -> ITensor:
        return net.reduce(
            values, getattr(trt.ReduceOperation, operation), _all_or(net, x, dim), keepdim
        )

    size = net.unary(x, trt.UnaryOperation.ABS)
    if math.isinf(ord):
        result = reduce(size, "MAX" if ord > 0 else "MIN")
    elif ord == 0:
        result = reduce(net.cast(net.truth(x), torch.float32))
    else:
        result = _root_of_power_sum(net, size, ord, reduce)
    return net.cast(result, net.result_dtypes[0])

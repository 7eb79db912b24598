"""Unary operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter

aten = torch.ops.aten


_ROUNDING = ("FLOOR", "CEIL", "ROUND")
#: TensorRT 10 has these for FP32 and FP16 only.
_NOT_OF_BFLOAT16 = (
    "ACOS",
    "ACOSH",
    "ASIN",
    "ASINH",
    "ATAN",
    "ATANH",
    "COSH",
    "SINH",
    "TAN",
)


def _unary(operation: str) -> Callable[[Network, TensorLike], ITensor]:
    def convert(net: Network, self: TensorLike) -> ITensor:
        dtype = net.result_dtypes[0]
        x = net.tensor(self, dtype)
        if not dtype.is_floating_point and operation in _ROUNDING:
            return x  # what is whole stays as it is, and TensorRT rounds floating point only
        if dtype == torch.bool:  # of all these, PyTorch has only sign for bools
            return x
        if dtype == torch.bfloat16 and operation in _NOT_OF_BFLOAT16:
            x = net.cast(x, torch.float32)
        return net.cast(net.unary(x, getattr(trt.UnaryOperation, operation)), dtype)

    return convert


_UNARY: tuple[tuple[Any, str], ...] = (
    (aten.exp.default, "EXP"),
    (aten.log.default, "LOG"),
    (aten.sqrt.default, "SQRT"),
    (aten.reciprocal.default, "RECIP"),
    (aten.abs.default, "ABS"),
    (aten.neg.default, "NEG"),
    (aten.sign.default, "SIGN"),
    (aten.sin.default, "SIN"),
    (aten.cos.default, "COS"),
    (aten.tan.default, "TAN"),
    (aten.asin.default, "ASIN"),
    (aten.acos.default, "ACOS"),
    (aten.atan.default, "ATAN"),
    (aten.sinh.default, "SINH"),
    (aten.cosh.default, "COSH"),
    (aten.asinh.default, "ASINH"),
    (aten.acosh.default, "ACOSH"),
    (aten.atanh.default, "ATANH"),
    (aten.erf.default, "ERF"),
    (aten.floor.default, "FLOOR"),
    (aten.ceil.default, "CEIL"),
    (aten.round.default, "ROUND"),
)
for _target, _operation in _UNARY:
    converter(_target)(_unary(_operation))


@converter(aten.rsqrt.default)
def aten_rsqrt(net: Network, self: ITensor) -> ITensor:
    """rsqrt(Tensor self) -> Tensor"""
    root = net.unary(net.tensor(self, net.result_dtypes[0]), trt.UnaryOperation.SQRT)
    return net.unary(root, trt.UnaryOperation.RECIP)


@converter(aten.round.decimals)
def aten_round_decimals(net: Network, self: TensorLike, decimals: int) -> ITensor:
    """round.decimals(Tensor self, *, int decimals) -> Tensor"""
    dtype, operation = net.result_dtypes[0], trt.ElementWiseOperation
    # A negative number of decimals divides first, so that the factor is a whole number, as in PyTorch.
    to, back = (operation.DIV, operation.PROD) if decimals < 0 else (operation.PROD, operation.DIV)
    factor = 10.0 ** abs(decimals)
    scaled = net.elementwise(self, factor, to, dtype)
    return net.elementwise(net.unary(scaled, trt.UnaryOperation.ROUND), factor, back, dtype)


@converter(aten.trunc.default)
def aten_trunc(net: Network, self: TensorLike) -> ITensor:
    """trunc(Tensor self) -> Tensor"""
    dtype = net.result_dtypes[0]
    x = net.tensor(self, dtype)
    if not dtype.is_floating_point:
        return x
    negative = net.elementwise(x, 0, trt.ElementWiseOperation.LESS, dtype)
    up, down = (net.unary(x, op) for op in (trt.UnaryOperation.CEIL, trt.UnaryOperation.FLOOR))
    return net.select(negative, up, down, dtype)


def _logarithm(base: float) -> Callable[[Network, TensorLike], ITensor]:
    def convert(net: Network, self: TensorLike) -> ITensor:
        dtype = net.result_dtypes[0]
        log = net.unary(net.tensor(self, dtype), trt.UnaryOperation.LOG)
        return net.elementwise(log, 1 / math.log(base), trt.ElementWiseOperation.PROD, dtype)

    return convert


converter(aten.log2.default)(_logarithm(2))
converter(aten.log10.default)(_logarithm(10))


@converter(aten.exp2.default)
def aten_exp2(net: Network, self: TensorLike) -> ITensor:
    """exp2(Tensor self) -> Tensor"""
    return net.elementwise(2.0, self, trt.ElementWiseOperation.POW, net.result_dtypes[0])


def polynomial(net: Network, x: ITensor, coefficients: Sequence[float]) -> ITensor:
    """The FP32 polynomial with these coefficients, the constant one first."""
    operation = trt.ElementWiseOperation
    result: TensorLike = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        product = net.elementwise(result, x, operation.PROD, torch.float32)
        result = net.elementwise(product, coefficient, operation.SUM, torch.float32)
    return result


#: Below this, expm1 and log1p are series: exp(x) - 1 and log(1 + x) would cancel. The series' errors are below 2e-8.
_SMALL = 0.25


def _where_small(net: Network, x: ITensor, small: ITensor, large: ITensor) -> ITensor:
    size = net.unary(x, trt.UnaryOperation.ABS)
    is_small = net.elementwise(size, _SMALL, trt.ElementWiseOperation.LESS, torch.float32)
    return net.cast(net.select(is_small, small, large, torch.float32), net.result_dtypes[0])


@converter(aten.expm1.default)
def aten_expm1(net: Network, self: TensorLike) -> ITensor:
    """expm1(Tensor self) -> Tensor"""
    operation, wide = trt.ElementWiseOperation, torch.float32
    x = net.tensor(self, wide)
    taylor = polynomial(net, x, [1 / math.factorial(k) for k in range(1, 9)])
    small = net.elementwise(taylor, x, operation.PROD)
    large = net.elementwise(net.unary(x, trt.UnaryOperation.EXP), 1, operation.SUB, wide)
    return _where_small(net, x, small, large)


@converter(aten.log1p.default)
def aten_log1p(net: Network, self: TensorLike) -> ITensor:
    """log1p(Tensor self) -> Tensor"""
    operation, wide = trt.ElementWiseOperation, torch.float32
    x = net.tensor(self, wide)
    # log(1 + x) = 2 artanh(x / (2 + x)), whose series converges faster than that of the logarithm.
    ratio = net.elementwise(x, net.elementwise(x, 2, operation.SUM, wide), operation.DIV)
    square = net.elementwise(ratio, ratio, operation.PROD)
    series = polynomial(net, square, [2 / (2 * k + 1) for k in range(6)])
    small = net.elementwise(series, ratio, operation.PROD)
    large = net.unary(net.elementwise(x, 1, operation.SUM, wide), trt.UnaryOperation.LOG)
    return _where_small(net, x, small, large)


@converter(aten.isnan.default)
def aten_isnan(net: Network, self: TensorLike) -> ITensor:
    """isnan(Tensor self) -> Tensor"""
    return net.isnan(net.tensor(self))


@converter(aten.isinf.default)
def aten_isinf(net: Network, self: TensorLike) -> ITensor:
    """isinf(Tensor self) -> Tensor"""
    return net.isinf(net.tensor(self))


@converter(aten.isfinite.default)
def aten_isfinite(net: Network, self: TensorLike) -> ITensor:
    """isfinite(Tensor self) -> Tensor"""
    x = net.tensor(self)
    either = net.elementwise(net.isnan(x), net.isinf(x), trt.ElementWiseOperation.OR)
    return net.unary(either, trt.UnaryOperation.NOT)

"""Binary operations with broadcasting and PyTorch's type promotion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter

aten = torch.ops.aten


def _arithmetic(net: Network, a: TensorLike, b: TensorLike, operation: str) -> ITensor:
    dtype = net.result_dtypes[0]
    return net.elementwise(a, b, getattr(trt.ElementWiseOperation, operation), dtype)


def _scaled(net: Network, other: TensorLike, alpha: float) -> TensorLike:
    if alpha == 1:
        return other
    if isinstance(other, (bool, int, float)):
        return other * alpha
    return _arithmetic(net, other, alpha, "PROD")


@converter(aten.add.Tensor)
def aten_add_tensor(net: Network, self: TensorLike, other: TensorLike, alpha: float) -> ITensor:
    """add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    return _arithmetic(net, self, _scaled(net, other, alpha), "SUM")


@converter(aten.add.Scalar)
def aten_add_scalar(net: Network, self: TensorLike, other: float, alpha: float) -> ITensor:
    """add.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor"""
    return _arithmetic(net, self, other * alpha, "SUM")


@converter(aten.sub.Tensor)
def aten_sub_tensor(net: Network, self: TensorLike, other: TensorLike, alpha: float) -> ITensor:
    """sub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    return _arithmetic(net, self, _scaled(net, other, alpha), "SUB")


@converter(aten.sub.Scalar)
def aten_sub_scalar(net: Network, self: TensorLike, other: float, alpha: float) -> ITensor:
    """sub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor"""
    return _arithmetic(net, self, other * alpha, "SUB")


@converter(aten.rsub.Scalar)
def aten_rsub_scalar(net: Network, self: TensorLike, other: float, alpha: float) -> ITensor:
    """rsub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor"""
    return _arithmetic(net, other, _scaled(net, self, alpha), "SUB")


def _binary(operation: str) -> Callable[[Network, TensorLike, TensorLike], ITensor]:
    def convert(net: Network, self: TensorLike, other: TensorLike) -> ITensor:
        return _arithmetic(net, self, other, operation)

    return convert


# (ATen name, overloads, TensorRT operation): the operands take the result's dtype, as PyTorch computes them.
_PROMOTING: tuple[tuple[Any, str], ...] = (
    (aten.mul.Tensor, "PROD"),
    (aten.mul.Scalar, "PROD"),
    (aten.div.Tensor, "DIV"),
    (aten.div.Scalar, "DIV"),
    (aten.maximum.default, "MAX"),
    (aten.minimum.default, "MIN"),
)
for _target, _operation in _PROMOTING:
    converter(_target)(_binary(_operation))


def _power(net: Network, base: TensorLike, exponent: TensorLike) -> ITensor:
    return _arithmetic(net, base, exponent, "POW")


@converter(aten.pow.Tensor_Scalar)
def aten_pow_tensor_scalar(net: Network, self: TensorLike, exponent: float) -> ITensor:
    """pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor"""
    if exponent == 2:  # exact, and the common case in norms
        return _arithmetic(net, self, self, "PROD")
    return _power(net, self, exponent)


@converter(aten.pow.Tensor_Tensor)
def aten_pow_tensor_tensor(net: Network, self: TensorLike, exponent: TensorLike) -> ITensor:
    """pow.Tensor_Tensor(Tensor self, Tensor exponent) -> Tensor"""
    return _power(net, self, exponent)

"""Binary operations with broadcasting and PyTorch's type promotion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.logic import either
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.scale_shift import SCALE_SHIFT, SCALED_RANKS
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

#: Up to this exponent a power is a product: exact for integers, and defined for negative bases.
_LARGEST_PRODUCT = 8


# TensorRT computes on bools with logical operations only.
_OF_BOOLS = {"SUM": "OR", "PROD": "AND", "MAX": "OR", "MIN": "AND"}


def _arithmetic(net: Network, a: TensorLike, b: TensorLike, operation: str) -> ITensor:
    """``a op b`` with both as the result's dtype, as PyTorch promotes them."""
    dtype = net.result_dtypes[0]
    if dtype == torch.bool:
        operation = _OF_BOOLS[operation]
        if operation == "OR":
            return either(net, a, b)
    # PyTorch does not round a Python number to FP16: 1e5 would become infinite, and 1e-8 zero.
    wide = torch.float32 if dtype == torch.float16 and _leaves_fp16((a, b)) else dtype
    result = net.elementwise(a, b, getattr(trt.ElementWiseOperation, operation), wide)
    return net.cast(result, dtype)


def _leaves_fp16(operands: Sequence[TensorLike]) -> bool:
    limits = torch.finfo(torch.float16)
    return any(
        isinstance(value, (int, float))
        and math.isfinite(value)
        and value != 0
        and not limits.smallest_normal <= abs(value) <= limits.max
        for value in operands
    )


def _scaled(net: Network, other: TensorLike, alpha: float) -> TensorLike:
    if alpha == 1:
        return other
    if isinstance(other, (bool, int, float)):
        return other * alpha
    if net.result_dtypes[0] == torch.bool:  # alpha is False; TensorRT 10.6 builds no AND with it
        return net.elementwise(other, other, trt.ElementWiseOperation.XOR)
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


_PROMOTING: tuple[tuple[Any, str], ...] = (
    (aten.mul.Tensor, "PROD"),
    (aten.mul.Scalar, "PROD"),
    (aten.div.Tensor, "DIV"),
    (aten.div.Scalar, "DIV"),
)
for _target, _operation in _PROMOTING:
    converter(_target)(_binary(_operation))


@converter(SCALE_SHIFT)
def aten_addcmul(
    net: Network, self: TensorLike, tensor1: TensorLike, tensor2: TensorLike, value: float
) -> ITensor:
    """addcmul(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor"""
    if value == 1 and not isinstance(tensor1, torch.Tensor):
        by_channel = _by_channel(net, tensor1, shift=self, scale=tensor2)
        if by_channel is not None:
            return by_channel
    product = _arithmetic(net, tensor1, tensor2, "PROD")
    return _arithmetic(net, self, _scaled(net, product, value), "SUM")


def _by_channel(
    net: Network, x: ITensor, *, shift: TensorLike, scale: TensorLike
) -> ITensor | None:
    """``x * scale + shift`` as one layer; None if TensorRT's takes no such factors.

    Only this layer reads and writes INT8 in one kernel. Written as a product and a sum, TensorRT 10.6 makes the same
    layer of it, but dequantizes and quantizes in kernels of their own: a dense block took 1.7 times as long.
    """
    dtype, rank = net.dtype_of(x), net.rank(x)
    if dtype not in (torch.float32, torch.float16) or dtype != net.result_dtypes[0]:
        return None
    factors = [shift, scale]
    expected = (net.dims(x)[1], *[1] * (rank - 2)) if rank in SCALED_RANKS else None
    if not all(isinstance(f, torch.Tensor) and tuple(f.shape) == expected for f in factors):
        return None
    weights = [net.weights(factor.to(dtype)) for factor in factors]
    layer = net.definition.add_scale_nd(
        x, trt.ScaleMode.CHANNEL, *weights, net.no_weights(dtype), 1
    )
    return net.layer(layer, "scale").get_output(0)


def _larger(
    net: Network, a: TensorLike, b: TensorLike, operation: str, passes_nan: bool
) -> ITensor:
    """The larger (MAX) or smaller (MIN) one; of a NaN and a number, the NaN if it passes.

    TensorRT does not say what its MAX and MIN make of NaN.
    """
    dtype = net.result_dtypes[0]
    if not dtype.is_floating_point:
        return _arithmetic(net, a, b, operation)
    a, b = net.tensor(a, dtype), net.tensor(b, dtype)
    order = (
        trt.ElementWiseOperation.GREATER if operation == "MAX" else trt.ElementWiseOperation.LESS
    )
    nan = net.isnan(a if passes_nan else b)
    first = net.elementwise(net.elementwise(a, b, order), nan, trt.ElementWiseOperation.OR)
    # No comparison with NaN holds, so b is taken if it is NaN and passes.
    return net.select(first, a, b)


def _extreme(
    operation: str, passes_nan: bool
) -> Callable[[Network, TensorLike, TensorLike], ITensor]:
    def convert(net: Network, self: TensorLike, other: TensorLike) -> ITensor:
        return _larger(net, self, other, operation, passes_nan)

    return convert


converter(aten.maximum.default)(_extreme("MAX", True))
converter(aten.minimum.default)(_extreme("MIN", True))
converter(aten.fmax.default)(_extreme("MAX", False))
converter(aten.fmin.default)(_extreme("MIN", False))


@converter(aten.clamp.Tensor)
def aten_clamp_tensor(
    net: Network, self: TensorLike, min: TensorLike | None, max: TensorLike | None
) -> ITensor:
    """clamp.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor"""
    result = net.tensor(self, net.result_dtypes[0])
    if min is not None:
        result = _larger(net, result, min, "MAX", passes_nan=True)
    return result if max is None else _larger(net, result, max, "MIN", passes_nan=True)


def _supports_power(node: Node, spec: CompileSpec) -> str | None:
    exponent = node.args[1]
    if node.meta["val"].dtype.is_floating_point or exponent in range(1, _LARGEST_PRODUCT + 1):
        return None
    return (
        f"powers of integers are computed for constant exponents from 1 to {_LARGEST_PRODUCT} only"
    )


def _product(net: Network, x: ITensor, count: int) -> ITensor:
    """The product of ``count`` times ``x``, by squaring."""
    if count == 1:
        return x
    half = _product(net, x, count // 2)
    square = net.elementwise(half, half, trt.ElementWiseOperation.PROD)
    return net.elementwise(square, x, trt.ElementWiseOperation.PROD) if count % 2 else square


@converter(aten.pow.Tensor_Scalar, supports=_supports_power)
def aten_pow_tensor_scalar(net: Network, self: TensorLike, exponent: float) -> ITensor:
    """pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor"""
    x = net.tensor(self, net.result_dtypes[0])
    size = abs(exponent)
    if size == 0.5:
        power = net.unary(x, trt.UnaryOperation.SQRT)
    elif size in range(1, _LARGEST_PRODUCT + 1):
        power = _product(net, x, int(size))
    else:
        return _arithmetic(net, x, exponent, "POW")
    return net.unary(power, trt.UnaryOperation.RECIP) if exponent < 0 else power


def _supports_power_of_scalar(node: Node, spec: CompileSpec) -> str | None:
    return (
        None if node.meta["val"].dtype.is_floating_point else "TensorRT has no powers of integers"
    )


@converter(aten.pow.Scalar, supports=_supports_power_of_scalar)
def aten_pow_scalar(net: Network, self: float, exponent: TensorLike) -> ITensor:
    """pow.Scalar(Scalar self, Tensor exponent) -> Tensor"""
    return _arithmetic(net, self, exponent, "POW")


@converter(aten.pow.Tensor_Tensor, supports=_supports_power)
def aten_pow_tensor_tensor(net: Network, self: TensorLike, exponent: TensorLike) -> ITensor:
    """pow.Tensor_Tensor(Tensor self, Tensor exponent) -> Tensor"""
    return _arithmetic(net, self, exponent, "POW")

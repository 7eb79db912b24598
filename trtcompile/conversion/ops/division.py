"""Division that rounds, remainders, and what depends on the sign or the ratio of two numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter

aten = torch.ops.aten

#: Beyond this a product's parts overflow, and no correction is made.
_LARGEST_SPLIT = 1e30


def _compute_dtype(net: Network) -> torch.dtype:
    """FP32 for floating point, as PyTorch computes: in FP16 most quotients would round to a wrong whole number."""
    dtype = net.result_dtypes[0]
    return torch.float32 if dtype.is_floating_point else dtype


def _operands(net: Network, a: TensorLike, b: TensorLike) -> tuple[ITensor, ITensor]:
    """Both in the type to compute in, through the result's type, as PyTorch promotes."""
    dtype, wide = net.result_dtypes[0], _compute_dtype(net)
    first, second = (
        net.tensor(x, wide if isinstance(x, (bool, int, float)) else dtype) for x in (a, b)
    )
    return net.cast(first, wide), net.cast(second, wide)


def _op(net: Network, a: TensorLike, operation: str, b: TensorLike) -> ITensor:
    """``a op b`` where a Python number takes the type of the other operand."""
    dtype = net.dtype_of(b if isinstance(a, (int, float)) else a)
    return net.elementwise(a, b, getattr(trt.ElementWiseOperation, operation), dtype)


def _abs(net: Network, x: ITensor) -> ITensor:
    return net.unary(x, trt.UnaryOperation.ABS)


def _neg(net: Network, x: ITensor) -> ITensor:
    return net.unary(x, trt.UnaryOperation.NEG)


def _truncated(net: Network, x: ITensor) -> ITensor:
    up, down = (net.unary(x, op) for op in (trt.UnaryOperation.CEIL, trt.UnaryOperation.FLOOR))
    return net.select(_op(net, x, "LESS", 0), up, down)


def _halves(net: Network, x: ITensor) -> tuple[ITensor, ITensor]:
    """``x`` as a sum of two numbers of 12 bits each, products of which are exact in FP32."""
    scaled = _op(net, x, "PROD", 4097.0)
    high = _op(net, scaled, "SUB", _op(net, scaled, "SUB", x))
    return high, _op(net, x, "SUB", high)


def _rest(net: Network, a: ITensor, q: ITensor, b: ITensor) -> ITensor:
    """``a - q * b`` in FP32 with one rounding, where ``q * b`` is near ``a``.

    The product's rounding error is computed by Dekker's method and taken off as well: it is as large as the rest
    where ``a`` is nearly a multiple of ``b``.
    """
    product = _op(net, q, "PROD", b)
    (q1, q2), (b1, b2) = _halves(net, q), _halves(net, b)
    error = _op(net, _op(net, q1, "PROD", b1), "SUB", product)
    for x, y in ((q1, b2), (q2, b1), (q2, b2)):
        error = _op(net, error, "SUM", _op(net, x, "PROD", y))
    splits = _op(net, _abs(net, product), "LESS", _LARGEST_SPLIT)
    splits = _op(net, splits, "AND", _op(net, _abs(net, b), "LESS", _LARGEST_SPLIT))
    error = net.select(splits, error, 0.0, torch.float32)
    return _op(net, _op(net, a, "SUB", product), "SUB", error)


def _fmod(net: Network, a: ITensor, b: ITensor) -> ITensor:
    """The rest of ``a`` by ``b`` with the sign of ``a``; exact for integers, and for quotients up to 2**24."""
    if not net.dtype_of(a).is_floating_point:
        return _op(net, a, "SUB", _op(net, _op(net, a, "DIV", b), "PROD", b))
    x, y = _abs(net, a), _abs(net, b)
    rest = _rest(net, x, net.unary(_op(net, x, "DIV", y), trt.UnaryOperation.FLOOR), y)
    # The quotient may have been rounded to a neighbouring whole number.
    rest = net.select(_op(net, rest, "LESS", 0), _op(net, rest, "SUM", y), rest)
    rest = net.select(_op(net, rest, "LESS", y), rest, _op(net, rest, "SUB", y))
    rest = net.select(_op(net, x, "LESS", y), x, rest)  # also for an infinite divisor
    return net.select(_op(net, a, "LESS", 0), _neg(net, rest), rest)


def _crosses_zero(net: Network, rest: ITensor, b: ITensor) -> ITensor:
    """Whether a rest is not zero and has another sign than the divisor."""
    signs = _op(net, _op(net, rest, "LESS", 0), "XOR", _op(net, b, "LESS", 0))
    return _op(net, signs, "AND", net.truth(rest))


def _remainder(net: Network, a: ITensor, b: ITensor) -> ITensor:
    """The rest of ``a`` by ``b`` with the sign of ``b``, as in Python."""
    rest = _fmod(net, a, b)
    return net.select(_crosses_zero(net, rest, b), _op(net, rest, "SUM", b), rest)


def _floor_divide(net: Network, a: ITensor, b: ITensor) -> ITensor:
    """The greatest whole number up to the exact quotient, as in Python: 1.0 // 0.1 is 9."""
    if not net.dtype_of(a).is_floating_point:
        # Not FLOOR_DIV, which TensorRT computes in FP32: of INT64 it gives 24 bits.
        quotient = _op(net, a, "DIV", b)
        down = _crosses_zero(net, _fmod(net, a, b), b)
        return net.select(down, _op(net, quotient, "SUB", 1), quotient)
    quotient, rest = _op(net, a, "DIV", b), _fmod(net, a, b)
    whole = net.unary(_op(net, _op(net, a, "SUB", rest), "DIV", b), trt.UnaryOperation.ROUND)
    whole = net.select(_crosses_zero(net, rest, b), _op(net, whole, "SUB", 1), whole)
    # Beyond its 24 bits a quotient is whole, and there is no rest. Of infinity, PyTorch gives NaN.
    has_rest = _op(net, _abs(net, quotient), "LESS", 2.0**24)
    whole = net.select(_op(net, has_rest, "OR", net.isinf(a)), whole, quotient)
    return net.select(net.truth(b), whole, quotient)


def _divide(
    net: Network, self: TensorLike, other: TensorLike, rounding_mode: str | None
) -> ITensor:
    dtype = net.result_dtypes[0]
    if rounding_mode == "floor":
        return net.cast(_floor_divide(net, *_operands(net, self, other)), dtype)
    quotient = net.elementwise(self, other, trt.ElementWiseOperation.DIV, dtype)
    if rounding_mode is None or not dtype.is_floating_point:
        return quotient  # that of integers is truncated
    return _truncated(net, quotient)


@converter(aten.div.Tensor_mode)
def aten_div_tensor_mode(
    net: Network, self: TensorLike, other: TensorLike, rounding_mode: str | None
) -> ITensor:
    """div.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor"""
    return _divide(net, self, other, rounding_mode)


@converter(aten.div.Scalar_mode)
def aten_div_scalar_mode(
    net: Network, self: TensorLike, other: float, rounding_mode: str | None
) -> ITensor:
    """div.Scalar_mode(Tensor self, Scalar other, *, str? rounding_mode) -> Tensor"""
    return _divide(net, self, other, rounding_mode)


def _of_two(
    compute: Callable[[Network, ITensor, ITensor], ITensor],
) -> Callable[[Network, TensorLike, TensorLike], ITensor]:
    def convert(net: Network, self: TensorLike, other: TensorLike) -> ITensor:
        return net.cast(compute(net, *_operands(net, self, other)), net.result_dtypes[0])

    return convert


def _is_negative(net: Network, x: ITensor) -> ITensor:
    """Whether the sign bit is set, also that of -0, whose reciprocal is negative infinity."""
    below = _op(net, x, "LESS", 0)
    if not net.dtype_of(x).is_floating_point:
        return below
    inverse = net.unary(x, trt.UnaryOperation.RECIP)
    negative_zero = _op(net, _op(net, inverse, "LESS", 0), "AND", _op(net, x, "EQUAL", 0))
    return _op(net, below, "OR", negative_zero)


def _ordered(net: Network, a: ITensor, b: ITensor) -> tuple[ITensor, ITensor, ITensor]:
    """Whether ``|a| > |b|``, then the smaller and the larger size; NaN stays in one of them."""
    x, y = _abs(net, a), _abs(net, b)
    swapped = _op(net, x, "GREATER", y)
    return swapped, net.select(swapped, y, x), net.select(swapped, x, y)


def _atan2(net: Network, y: ITensor, x: ITensor) -> ITensor:
    steep, low, high = _ordered(net, y, x)
    # 0 / 0 is to be 0, and infinity / infinity 1.
    ratio = _op(net, low, "DIV", net.select(net.truth(high), high, 1.0, torch.float32))
    both = _op(net, net.isinf(low), "AND", net.isinf(high))
    ratio = net.select(both, 1.0, ratio, torch.float32)
    angle = net.unary(ratio, trt.UnaryOperation.ATAN)
    angle = net.select(steep, _op(net, math.pi / 2, "SUB", angle), angle)
    angle = net.select(_is_negative(net, x), _op(net, math.pi, "SUB", angle), angle)
    return net.select(_is_negative(net, y), _neg(net, angle), angle)


def _hypot(net: Network, a: ITensor, b: ITensor) -> ITensor:
    _, low, high = _ordered(net, a, b)
    # Squares of the sizes would overflow; that of their ratio does not. Infinity is not divided by itself.
    plain = _op(net, net.truth(high), "AND", net.unary(net.isinf(high), trt.UnaryOperation.NOT))
    ratio = _op(net, low, "DIV", net.select(plain, high, 1.0, torch.float32))
    square = _op(net, _op(net, ratio, "PROD", ratio), "SUM", 1)
    size = _op(net, high, "PROD", net.unary(square, trt.UnaryOperation.SQRT))
    either = _op(net, net.isinf(a), "OR", net.isinf(b))  # also beside NaN
    return net.select(either, math.inf, size, torch.float32)


def _copysign(net: Network, a: ITensor, b: ITensor) -> ITensor:
    size = _abs(net, a)
    return net.select(_is_negative(net, b), _neg(net, size), size)


_OF_TWO: tuple[tuple[Any, Callable[[Network, ITensor, ITensor], ITensor]], ...] = (
    (aten.fmod.Tensor, _fmod),
    (aten.fmod.Scalar, _fmod),
    (aten.remainder.Tensor, _remainder),
    (aten.remainder.Scalar, _remainder),
    (aten.remainder.Scalar_Tensor, _remainder),
    (aten.atan2.default, _atan2),
    (aten.hypot.default, _hypot),
    (aten.copysign.Tensor, _copysign),
    (aten.copysign.Scalar, _copysign),
)
for _target, _compute in _OF_TWO:
    converter(_target)(_of_two(_compute))


@converter(aten.signbit.default)
def aten_signbit(net: Network, self: TensorLike) -> ITensor:
    """signbit(Tensor self) -> Tensor"""
    x = net.tensor(self)
    return _is_negative(net, net.cast(x, torch.int32) if net.dtype_of(x) == torch.bool else x)

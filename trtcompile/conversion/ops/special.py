"""Special functions that TensorRT has no layer for, as series in FP32."""

from __future__ import annotations

import math

import torch

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.ops.unary import polynomial
from trtcompile.conversion.registry import converter

aten = torch.ops.aten

# M. Giles, "Approximating the erfinv function": series around the middle and in the tails, the constant first.
_ERFINV_MIDDLE = (
    1.50140941,
    0.246640727,
    -0.00417768164,
    -0.00125372503,
    0.00021858087,
    -4.39150654e-06,
    -3.5233877e-06,
    3.43273939e-07,
    2.81022636e-08,
)
_ERFINV_TAIL = (
    2.83297682,
    1.00167406,
    0.00943887047,
    -0.0076224613,
    0.00573950773,
    -0.00367342844,
    0.00134934322,
    0.000100950558,
    -0.000200214257,
)

# Lanczos' approximation of the gamma function (g = 5, six terms; "Numerical Recipes", 6.1).
_LANCZOS_G = 5.0
_LANCZOS = (
    1.000000000190015,
    76.18009172947146,
    -86.50532032941677,
    24.01409824083091,
    -1.231739572450155,
    1.208650973866179e-3,
    -5.395239384953e-6,
)


@converter(aten.erfinv.default)
def aten_erfinv(net: Network, self: TensorLike) -> ITensor:
    """erfinv(Tensor self) -> Tensor"""
    operation, unary, wide = trt.ElementWiseOperation, trt.UnaryOperation, torch.float32
    x = net.tensor(self, wide)
    # The logarithm of 1 - x * x, without the loss near 1. Beyond 1 it is NaN, as it should be.
    below, above = (net.elementwise(1, x, op, wide) for op in (operation.SUB, operation.SUM))
    log = net.unary(net.elementwise(below, above, operation.PROD), unary.LOG)
    w = net.unary(log, unary.NEG)
    middle = polynomial(net, net.elementwise(w, 2.5, operation.SUB, wide), _ERFINV_MIDDLE)
    root = net.unary(net.elementwise(w, 0, operation.MAX, wide), unary.SQRT)
    tail = polynomial(net, net.elementwise(root, 3, operation.SUB, wide), _ERFINV_TAIL)
    is_middle = net.elementwise(w, 5, operation.LESS, wide)
    factor = net.select(is_middle, middle, tail)
    is_end = net.elementwise(net.unary(x, unary.ABS), 1, operation.EQUAL, wide)
    factor = net.select(is_end, math.inf, factor, wide)
    is_outside = net.elementwise(net.unary(x, unary.ABS), 1, operation.GREATER, wide)
    factor = net.select(is_outside, math.nan, factor, wide)
    return net.cast(net.elementwise(factor, x, operation.PROD), net.result_dtypes[0])


def _lgamma_from_half_on(net: Network, x: ITensor) -> ITensor:
    """``(x - 0.5) * (log(t) - 1) - g + log(sqrt(2 pi) * series)`` with ``t = x + g - 0.5``."""
    operation, wide = trt.ElementWiseOperation, torch.float32
    total: TensorLike = _LANCZOS[0]
    for k, coefficient in enumerate(_LANCZOS[1:]):
        shifted = net.elementwise(x, k, operation.SUM, wide)
        part = net.elementwise(coefficient, shifted, operation.DIV, wide)
        total = net.elementwise(total, part, operation.SUM, wide)
    total = net.elementwise(total, math.sqrt(2 * math.pi), operation.PROD, wide)
    t = net.elementwise(x, _LANCZOS_G - 0.5, operation.SUM, wide)
    log = net.unary(t, trt.UnaryOperation.LOG)
    slope = net.elementwise(log, 1, operation.SUB, wide)
    half = net.elementwise(x, 0.5, operation.SUB, wide)
    product = net.elementwise(half, slope, operation.PROD)
    shifted = net.elementwise(product, _LANCZOS_G, operation.SUB, wide)
    return net.elementwise(shifted, net.unary(total, trt.UnaryOperation.LOG), operation.SUM)


@converter(aten.lgamma.default)
def aten_lgamma(net: Network, self: TensorLike) -> ITensor:
    """lgamma(Tensor self) -> Tensor"""
    operation, unary, wide = trt.ElementWiseOperation, trt.UnaryOperation, torch.float32
    x = net.tensor(self, wide)
    is_small = net.elementwise(x, 0.5, operation.LESS, wide)
    mirrored = net.select(is_small, net.elementwise(1, x, operation.SUB, wide), x)
    value = _lgamma_from_half_on(net, mirrored)
    # gamma(x) * gamma(1 - x) = pi / sin(pi x); the sine of the distance to the next whole number is exact at poles.
    rest = net.elementwise(x, net.unary(x, unary.ROUND), operation.SUB)
    sine = net.unary(net.elementwise(rest, math.pi, operation.PROD, wide), unary.SIN)
    log = net.unary(net.unary(sine, unary.ABS), unary.LOG)
    log = net.elementwise(math.log(math.pi), log, operation.SUB, wide)
    reflected = net.elementwise(log, value, operation.SUB)
    result = net.select(is_small, reflected, value)
    infinite = net.isinf(x)
    return net.cast(net.select(infinite, math.inf, result, wide), net.result_dtypes[0])

"""Layers that compute each element by itself: activations, unary, binary, select, scale, cast."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from network_oracle.dtypes import FLOATS, INTEGERS
from network_oracle.layer_view import LayerView
from network_oracle.registry import handles

Tensor = torch.Tensor


def _gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (0.044715 * x**3 + x)))


_ACTIVATIONS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "RELU": lambda x, a, b: x.clamp(min=0),
    "SIGMOID": lambda x, a, b: torch.sigmoid(x),
    "TANH": lambda x, a, b: torch.tanh(x),
    "LEAKY_RELU": lambda x, a, b: torch.where(x >= 0, x, a * x),
    "ELU": lambda x, a, b: torch.where(x >= 0, x, a * torch.expm1(x)),
    "SELU": lambda x, a, b: b * torch.where(x > 0, x, a * torch.expm1(x)),
    "SOFTSIGN": lambda x, a, b: x / (1 + x.abs()),
    "SOFTPLUS": lambda x, a, b: a * torch.logaddexp(b * x, torch.zeros_like(x)),
    "CLIP": lambda x, a, b: x.clamp(max=b).clamp(min=a),
    "HARD_SIGMOID": lambda x, a, b: (a * x + b).clamp(0, 1),
    "SCALED_TANH": lambda x, a, b: a * torch.tanh(b * x),
    "THRESHOLDED_RELU": lambda x, a, b: torch.where(x > a, x, torch.zeros_like(x)),
    "GELU_ERF": lambda x, a, b: 0.5 * x * (1 + torch.erf(math.sqrt(0.5) * x)),
    "GELU_TANH": lambda x, a, b: _gelu_tanh(x),
}


@handles("ACTIVATION", "IActivationLayer")
def activation(view: LayerView) -> Tensor:
    x, kind = view.value(), view.name_of("type")
    if kind not in _ACTIVATIONS:
        raise view.unsupported(f"activation type {kind}.")
    if x.dtype not in FLOATS and kind != "RELU":
        raise view.unsupported(f"activation type {kind} of {x.dtype}.")
    return _ACTIVATIONS[kind](x, view.layer.alpha, view.layer.beta)


@handles("PARAMETRIC_RELU", "IParametricReLULayer", same_type=(0, 1))
def parametric_relu(view: LayerView) -> Tensor:
    x, slopes = view.value(0), view.value(1)
    _check_broadcast(view, x, slopes)
    return torch.where(x >= 0, x, slopes * x)


_FLOAT_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "EXP": torch.exp,
    "LOG": torch.log,
    "SQRT": torch.sqrt,
    "RECIP": torch.reciprocal,
    "SIN": torch.sin,
    "COS": torch.cos,
    "TAN": torch.tan,
    "SINH": torch.sinh,
    "COSH": torch.cosh,
    "ASIN": torch.asin,
    "ACOS": torch.acos,
    "ATAN": torch.atan,
    "ASINH": torch.asinh,
    "ACOSH": torch.acosh,
    "ATANH": torch.atanh,
    "CEIL": torch.ceil,
    "FLOOR": torch.floor,
    "ERF": torch.erf,
    "ROUND": torch.round,  # ties to even
    "ISINF": torch.isinf,
    "ISNAN": torch.isnan,
}
_SIGNED_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "ABS": torch.abs,
    "NEG": torch.neg,
    "SIGN": torch.sign,
}


@handles("UNARY", "IUnaryLayer")
def unary(view: LayerView) -> Tensor:
    x, op = view.value(), view.name_of("op")
    if op == "NOT" and x.dtype == torch.bool:
        return ~x
    if op in _FLOAT_UNARY and x.dtype in FLOATS:
        return _FLOAT_UNARY[op](x)
    if op in _SIGNED_UNARY and (x.dtype in FLOATS or x.dtype in INTEGERS):
        return _SIGNED_UNARY[op](x)
    raise view.unsupported(f"operation {op} of {x.dtype}.")


_ARITHMETIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SUM": torch.add,
    "PROD": torch.mul,
    "MAX": torch.maximum,
    "MIN": torch.minimum,
    "SUB": torch.sub,
    "POW": torch.pow,
    "FLOOR_DIV": lambda a, b: torch.div(a, b, rounding_mode="floor"),
}
_LOGICAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "AND": torch.logical_and,
    "OR": torch.logical_or,
    "XOR": torch.logical_xor,
}
_COMPARISONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "EQUAL": torch.eq,
    "GREATER": torch.gt,
    "LESS": torch.lt,
}


@handles("ELEMENTWISE", "IElementWiseLayer", same_type=None)
def elementwise(view: LayerView) -> Tensor:
    """Binary operations; dimensions of length one are broadcast, ranks must agree."""
    a, b, op = view.value(0), view.value(1), view.name_of("op")
    if a.dim() != b.dim():
        raise view.mismatch(f"its inputs have ranks {a.dim()} and {b.dim()}.")
    if op in _COMPARISONS:
        return _COMPARISONS[op](a, b)
    if a.dtype == torch.bool:
        if op in _LOGICAL:
            return _LOGICAL[op](a, b)
        raise view.unsupported(f"operation {op} of {a.dtype}.")
    if a.dtype in INTEGERS:
        if op in ("DIV", "FLOOR_DIV") and (b == 0).any():
            raise view.unsupported("integer division by zero.")
        if op == "POW":
            raise view.unsupported("integer powers.")
        if op == "DIV":  # as in C++: toward zero
            return torch.div(a, b, rounding_mode="trunc")
    elif op == "DIV":
        return a / b
    if op not in _ARITHMETIC:
        raise view.unsupported(f"operation {op} of {a.dtype}.")
    return _ARITHMETIC[op](a, b)


@handles("SELECT", "ISelectLayer", rounds_to=1, same_type=(1, 2))
def select(view: LayerView) -> Tensor:
    condition, then, otherwise = view.value(0), view.value(1), view.value(2)
    if condition.dtype != torch.bool:
        raise view.mismatch(f"its condition is {condition.dtype}, not bool.")
    if not condition.dim() == then.dim() == otherwise.dim():
        raise view.mismatch("its inputs have different ranks.")
    return torch.where(condition, then, otherwise)


@handles("SCALE", "IScaleLayer")
def scale(view: LayerView) -> Tensor:
    """(x * scale + shift) ** power; an empty coefficient is 1, 0 and 1."""
    x = view.value()
    result = x
    factor, shift, power = (_coefficient(view, name, x) for name in ("scale", "shift", "power"))
    if factor is not None:
        result = result * factor
    if shift is not None:
        result = result + shift
    return result if power is None else torch.pow(result, power)


def _coefficient(view: LayerView, attribute: str, x: Tensor) -> Tensor | None:
    weights = view.weights(attribute)
    if weights is None:
        return None
    mode = view.name_of("mode")
    if mode == "UNIFORM":
        shape = [1] * x.dim()
    elif mode == "CHANNEL":
        axis = view.axis(view.layer.channel_axis, x.dim())
        shape = [size if dim == axis else 1 for dim, size in enumerate(x.shape)]
    elif mode == "ELEMENTWISE":
        axis = view.axis(view.layer.channel_axis, x.dim())
        shape = [size if dim >= axis else 1 for dim, size in enumerate(x.shape)]
    else:
        raise view.unsupported(f"scale mode {mode}.")
    if weights.numel() != math.prod(shape):
        raise view.mismatch(f"{weights.numel()} {attribute} weights for mode {mode}.")
    return weights.float().reshape(shape)


def _check_broadcast(view: LayerView, x: Tensor, other: Tensor) -> None:
    """``other`` must have x's rank, and x's size or 1 in each dimension."""
    if other.dim() != x.dim() or any(
        size not in (1, full) for size, full in zip(other.shape, x.shape, strict=True)
    ):
        raise view.mismatch(f"{tuple(other.shape)} does not broadcast to {tuple(x.shape)}.")


@handles("CAST", "ICastLayer", rounds_to=None)
def cast(view: LayerView) -> Tensor:
    return _convert(view, view.value())


@handles("IDENTITY", "IIdentityLayer", rounds_to=None)
def identity(view: LayerView) -> Tensor:
    source = view.raw[0]
    assert source is not None
    return _convert(view, source)


def _convert(view: LayerView, x: Tensor) -> Tensor:
    """To the declared type: floats to integers truncate, anything non-zero is true."""
    target = view.output_dtypes[0]
    if target in INTEGERS and x.dtype != torch.bool:
        limits = torch.iinfo(target)
        exact = x.double().trunc() if x.is_floating_point() else x.long()
        # As a float, the largest int64 is 2**63, which no longer fits.
        fits = exact < float(2**63) if x.is_floating_point() else exact <= limits.max
        if not (fits & (exact >= limits.min) & (exact <= limits.max)).all():
            raise view.unsupported(f"a value does not fit {target}.")
    return x != 0 if target == torch.bool else x.to(target)

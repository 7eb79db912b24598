"""Activation, ParametricReLU, Unary, ElementWise, Select, Scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from oracle_networks.network_case import (
    Net,
    OracleNetwork,
    Tensor,
    booleans,
    integers,
    signed,
    uniform,
)


def _activation(
    kind: str,
    expect: Callable[[Tensor], Tensor],
    *,
    alpha: float | None = None,
    beta: float | None = None,
    x: Tensor | None = None,
    suffix: str = "",
    refused: Mapping[str, str] | None = None,
) -> OracleNetwork:
    def define(net: Net, x0: Any) -> Any:
        layer = net.network.add_activation(x0, getattr(net.trt.ActivationType, kind))
        if alpha is not None:
            layer.alpha = alpha
        if beta is not None:
            layer.beta = beta
        return layer.get_output(0)

    return OracleNetwork(
        name=f"activation-{kind.lower()}{suffix}",
        inputs=[signed(2, 3, 5) * 3 if x is None else x],
        define=define,
        expect=expect,
        needs=[f"ActivationType.{kind}"],
        refused=refused or {},
    )


_HALVES = torch.arange(-12, 12).reshape(2, 3, 4) / 4  # ties for rounding, zero, both signs

ACTIVATIONS = [
    _activation("RELU", F.relu),
    _activation(
        "RELU",
        F.relu,
        x=integers(-5, 5, 2, 3, 4),
        suffix="-int32",
        refused={"tensorrt": "seen in 10.6: activations take floating point only"},
    ),
    _activation("SIGMOID", F.sigmoid),
    _activation("TANH", F.tanh),
    _activation("LEAKY_RELU", lambda x: F.leaky_relu(x, 0.3), alpha=0.3),
    _activation("LEAKY_RELU", lambda x: F.leaky_relu(x, -0.7), alpha=-0.7, suffix="-negative"),
    _activation("ELU", lambda x: F.elu(x, 1.7), alpha=1.7),
    _activation("SELU", F.selu, alpha=1.6732632423543772, beta=1.0507009873554805),
    _activation("SOFTSIGN", F.softsign),
    _activation("SOFTPLUS", lambda x: 1.5 * torch.log(torch.exp(0.5 * x) + 1), alpha=1.5, beta=0.5),
    _activation("CLIP", lambda x: x.clamp(-1.5, 2.0), alpha=-1.5, beta=2.0),
    _activation("HARD_SIGMOID", F.hardsigmoid, alpha=1 / 6, beta=0.5),
    _activation("SCALED_TANH", lambda x: 1.7 * torch.tanh(0.6 * x), alpha=1.7, beta=0.6),
    _activation(
        "THRESHOLDED_RELU", lambda x: F.threshold(x, 0.5, 0.0), alpha=0.5, x=_HALVES.clone()
    ),
    _activation("GELU_ERF", F.gelu),
    _activation("GELU_TANH", lambda x: F.gelu(x, approximate="tanh")),
]


def _prelu(net: Net, x0: Any, x1: Any) -> Any:
    return net.network.add_parametric_relu(x0, x1).get_output(0)


PARAMETRIC_RELUS = [
    OracleNetwork(
        "parametric_relu-per-channel",
        [signed(2, 3, 4, 5), signed(1, 3, 1, 1)],
        _prelu,
        lambda x, w: F.prelu(x, w.reshape(-1)),
    ),
    OracleNetwork(
        "parametric_relu-elementwise",
        [signed(2, 3, 4), signed(2, 3, 4)],
        _prelu,
        lambda x, w: x.clamp(min=0) + w * x.clamp(max=0),
    ),
]


def _unary(
    op: str, expect: Callable[[Tensor], Tensor], x: Tensor, suffix: str = ""
) -> OracleNetwork:
    def define(net: Net, x0: Any) -> Any:
        return net.network.add_unary(x0, getattr(net.trt.UnaryOperation, op)).get_output(0)

    return OracleNetwork(
        f"unary-{op.lower()}{suffix}", [x], define, expect, needs=[f"UnaryOperation.{op}"]
    )


def _by_numpy(function: Callable[[Any], Any]) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.from_numpy(np.asarray(function(x.numpy())))


_SPECIAL = torch.tensor([[1.0, float("inf"), 0.0], [-float("inf"), float("nan"), -2.0]])

UNARIES = [
    _unary("EXP", _by_numpy(np.exp), signed(3, 4)),
    _unary("LOG", _by_numpy(np.log), uniform(0.1, 5, 3, 4)),
    _unary("SQRT", _by_numpy(np.sqrt), uniform(0.1, 5, 3, 4)),
    _unary("RECIP", lambda x: 1 / x, signed(3, 4).sign() * uniform(0.5, 2, 3, 4)),
    _unary("ABS", _by_numpy(np.abs), signed(3, 4)),
    _unary("ABS", _by_numpy(np.abs), integers(-5, 5, 3, 4), "-int32"),
    _unary("NEG", _by_numpy(np.negative), signed(3, 4)),
    _unary("NEG", _by_numpy(np.negative), integers(-5, 5, 3, 4, dtype=torch.int64), "-int64"),
    _unary("SIN", _by_numpy(np.sin), signed(3, 4)),
    _unary("COS", _by_numpy(np.cos), signed(3, 4)),
    _unary("TAN", _by_numpy(np.tan), uniform(-1.2, 1.2, 3, 4)),
    _unary("SINH", _by_numpy(np.sinh), signed(3, 4)),
    _unary("COSH", _by_numpy(np.cosh), signed(3, 4)),
    _unary("ASIN", _by_numpy(np.arcsin), uniform(-0.9, 0.9, 3, 4)),
    _unary("ACOS", _by_numpy(np.arccos), uniform(-0.9, 0.9, 3, 4)),
    _unary("ATAN", _by_numpy(np.arctan), signed(3, 4) * 2),
    _unary("ASINH", _by_numpy(np.arcsinh), signed(3, 4)),
    _unary("ACOSH", _by_numpy(np.arccosh), uniform(1.2, 4, 3, 4)),
    _unary("ATANH", _by_numpy(np.arctanh), uniform(-0.9, 0.9, 3, 4)),
    _unary("CEIL", _by_numpy(np.ceil), _HALVES.clone()),
    _unary("FLOOR", _by_numpy(np.floor), _HALVES.clone()),
    _unary("ERF", torch.special.erf, signed(3, 4)),
    _unary("NOT", _by_numpy(np.logical_not), booleans(3, 4)),
    _unary("SIGN", _by_numpy(np.sign), _HALVES.clone()),
    _unary("ROUND", _by_numpy(np.rint), _HALVES.clone()),
    _unary("ISINF", _by_numpy(np.isinf), _SPECIAL.clone()),
    _unary("ISNAN", _by_numpy(np.isnan), _SPECIAL.clone()),
]


def _binary(
    op: str,
    expect: Callable[[Tensor, Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    suffix: str = "",
) -> OracleNetwork:
    def define(net: Net, x0: Any, x1: Any) -> Any:
        op_value = getattr(net.trt.ElementWiseOperation, op)
        return net.network.add_elementwise(x0, x1, op_value).get_output(0)

    return OracleNetwork(f"elementwise-{op.lower()}{suffix}", [a, b], define, expect)


def _numpy_binary(function: Callable[[Any, Any], Any]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: torch.from_numpy(np.asarray(function(a.numpy(), b.numpy())))


def _truncated_quotient(a: Tensor, b: Tensor) -> Tensor:
    quotients = [
        int(p / q) for p, q in zip(a.reshape(-1).tolist(), b.reshape(-1).tolist(), strict=True)
    ]
    return torch.tensor(quotients, dtype=a.dtype).reshape(a.shape)


def _nonzero_integers(*shape: int) -> Tensor:
    return integers(1, 4, *shape) * (1 - 2 * integers(0, 2, *shape))


_WIDE, _LOW = (2, 3, 4), (2, 1, 4)

BINARIES = [
    _binary("SUM", _numpy_binary(np.add), signed(*_WIDE), signed(*_WIDE)),
    _binary("SUM", _numpy_binary(np.add), signed(*_LOW), signed(1, 3, 4), "-broadcast"),
    _binary("SUM", _numpy_binary(np.add), integers(-9, 9, *_WIDE), integers(-9, 9, *_LOW), "-int"),
    _binary("PROD", _numpy_binary(np.multiply), signed(*_WIDE), signed(*_LOW)),
    _binary(
        "PROD",
        _numpy_binary(np.multiply),
        integers(-9, 9, 6, dtype=torch.int64),
        integers(-9, 9, 6, dtype=torch.int64),
        "-int64",
    ),
    _binary("MAX", _numpy_binary(np.maximum), signed(*_WIDE), signed(*_LOW)),
    _binary("MAX", _numpy_binary(np.maximum), integers(-9, 9, 6), integers(-9, 9, 6), "-int"),
    _binary("MIN", _numpy_binary(np.minimum), signed(*_WIDE), signed(*_LOW)),
    _binary("SUB", _numpy_binary(np.subtract), signed(*_LOW), signed(*_WIDE)),
    _binary("SUB", _numpy_binary(np.subtract), integers(-9, 9, 6), integers(-9, 9, 6), "-int"),
    _binary("DIV", _numpy_binary(np.divide), signed(*_WIDE), uniform(0.5, 2, *_LOW)),
    _binary("DIV", _truncated_quotient, integers(-9, 9, 3, 6), _nonzero_integers(3, 6), "-int"),
    _binary("POW", _numpy_binary(np.power), uniform(0.2, 3, *_WIDE), signed(*_LOW)),
    _binary(
        "POW",
        _numpy_binary(np.power),
        signed(2, 6),
        torch.tensor([[2.0, 3.0, -1.0, 0.0, 1.0, -2.0]]),
        "-negative-base",
    ),
    _binary(
        "FLOOR_DIV", _numpy_binary(np.floor_divide), signed(*_WIDE) * 5, uniform(0.5, 2, *_LOW)
    ),
    _binary(
        "FLOOR_DIV",
        _numpy_binary(np.floor_divide),
        integers(-9, 9, 3, 6),
        _nonzero_integers(3, 6),
        "-int",
    ),
    _binary("AND", _numpy_binary(np.logical_and), booleans(*_WIDE), booleans(*_LOW)),
    _binary("OR", _numpy_binary(np.logical_or), booleans(*_WIDE), booleans(*_LOW)),
    _binary("XOR", _numpy_binary(np.logical_xor), booleans(*_WIDE), booleans(*_LOW)),
    _binary(
        "EQUAL", _numpy_binary(np.equal), integers(0, 3, *_WIDE), integers(0, 3, *_LOW), "-int"
    ),
    _binary("EQUAL", _numpy_binary(np.equal), _HALVES.clone(), _HALVES.abs()),
    _binary("GREATER", _numpy_binary(np.greater), signed(*_WIDE), signed(*_LOW)),
    _binary("LESS", _numpy_binary(np.less), _HALVES.clone(), _HALVES.flip(0)),
    _binary("LESS", _numpy_binary(np.less), integers(0, 3, *_WIDE), integers(0, 3, *_LOW), "-i32"),
]


def _select(net: Net, x0: Any, x1: Any, x2: Any) -> Any:
    return net.network.add_select(x0, x1, x2).get_output(0)


def _select_expected(condition: Tensor, then: Tensor, otherwise: Tensor) -> Tensor:
    return torch.from_numpy(np.where(condition.numpy(), then.numpy(), otherwise.numpy()))


SELECTS = [
    OracleNetwork(
        "select-equal-shapes",
        [booleans(2, 3, 4), signed(2, 3, 4), signed(2, 3, 4)],
        _select,
        _select_expected,
    ),
    OracleNetwork(
        "select-broadcast",
        [booleans(2, 1, 4), signed(1, 3, 4), signed(2, 3, 1)],
        _select,
        _select_expected,
    ),
    OracleNetwork(
        "select-int32",
        [booleans(2, 5), integers(-9, 9, 2, 5), integers(-9, 9, 2, 5)],
        _select,
        _select_expected,
    ),
]


def _scale(
    name: str,
    mode: str,
    count: int,
    x: Tensor,
    shape: tuple[int, ...],
    *,
    axis: int | None = None,
    use: str = "shift scale power",
    refused: Mapping[str, str] | None = None,
) -> OracleNetwork:
    """``shape`` is how the coefficients broadcast against the input."""
    coefficients: dict[str, Tensor | None] = {
        "shift": uniform(0.1, 1, count) if "shift" in use else None,
        "scale": uniform(0.5, 2, count) if "scale" in use else None,
        "power": uniform(0.5, 2, count) if "power" in use else None,
    }

    def define(net: Net, x0: Any) -> Any:
        weights = [net.weights(coefficients[key]) for key in ("shift", "scale", "power")]
        mode_value = getattr(net.trt.ScaleMode, mode)
        if axis is None:
            return net.network.add_scale(x0, mode_value, *weights).get_output(0)
        return net.network.add_scale_nd(x0, mode_value, *weights, axis).get_output(0)

    def expect(x: Tensor) -> Tensor:
        def shaped(key: str, default: float) -> Tensor:
            value = coefficients[key]
            return torch.tensor(default) if value is None else value.reshape(shape)

        return (x * shaped("scale", 1) + shaped("shift", 0)) ** shaped("power", 1)

    return OracleNetwork(f"scale-{name}", [x], define, expect, refused=refused or {})


SCALES = [
    _scale("uniform", "UNIFORM", 1, uniform(0.1, 2, 2, 3, 4, 5), (1, 1, 1, 1)),
    _scale("channel", "CHANNEL", 3, uniform(0.1, 2, 2, 3, 4, 5), (1, 3, 1, 1)),
    _scale(
        "channel-no-power",
        "CHANNEL",
        3,
        signed(2, 3, 4, 5),
        (1, 3, 1, 1),
        use="shift scale",
    ),
    _scale("channel-shift", "CHANNEL", 3, signed(2, 3, 4, 5), (1, 3, 1, 1), use="shift"),
    _scale(
        "channel-axis-2",
        "CHANNEL",
        4,
        signed(2, 3, 4, 5),
        (1, 1, 4, 1),
        axis=2,
        use="shift scale",
        refused={"tensorrt": "seen in 10.6: add_scale_nd takes channel axis 0 or 1 only"},
    ),
    _scale(
        "channel-5d",
        "CHANNEL",
        3,
        signed(2, 3, 2, 4, 5),
        (1, 3, 1, 1, 1),
        axis=1,
        use="shift scale",
    ),
    _scale("elementwise", "ELEMENTWISE", 60, uniform(0.1, 2, 2, 3, 4, 5), (1, 3, 4, 5)),
]

_ANY = torch.tensor([-float("inf"), -1.0, -0.0, 0.0, 2.5, float("inf"), float("nan")])
_LARGE = torch.tensor([2**40, 2**40 + 1, -(2**40), -(2**40) - 1])  # FP32 does not tell them apart

# What converters rely on where values are not ordinary: NaN, infinity, the sign of zero, and INT64 beyond FP32.
UNUSUAL = [
    *(
        _binary(op, _numpy_binary(f), x[:, None].clone(), x[None].clone(), suffix)
        for suffix, x in (("-nan", _ANY), ("-nan-half", _ANY.half()), ("-int64", _LARGE))
        for op, f in (("EQUAL", np.equal), ("GREATER", np.greater), ("LESS", np.less))
    ),
    _binary("MAX", _numpy_binary(np.maximum), _LARGE.clone(), _LARGE.flip(0), "-int64"),
    _binary("MIN", _numpy_binary(np.minimum), _LARGE.clone(), _LARGE.flip(0), "-int64"),
    _binary(
        "DIV",
        lambda a, b: a / b,
        torch.tensor([1.0, -1.0]),
        torch.tensor([-0.0, 0.0]),
        "-by-zero",
    ),
    _binary("DIV", _truncated_quotient, -_LARGE.abs() - 1, torch.tensor([7, 7, 3, 3]), "-int64"),
    # Not with _LARGE: TensorRT 10.6 computes FLOOR_DIV of INT64 in FP32, and no converter relies on more.
    _binary(
        "FLOOR_DIV",
        _numpy_binary(np.floor_divide),
        torch.tensor([2**20, -(2**20) - 1, 2**20 + 1, -(2**20)]),
        torch.tensor([7, -7, 3, -3]),
        "-int64",
    ),
    _unary("RECIP", lambda x: 1 / x, torch.tensor([0.0, -0.0, float("inf"), 4.0]), "-of-zero"),
    _unary("ISNAN", torch.isnan, _SPECIAL.half(), "-half"),
    _unary("ISINF", torch.isinf, _SPECIAL.half(), "-half"),
    _unary("SIGN", torch.sign, _LARGE.clone(), "-int64"),
    # Near zero these cancel if they are computed from exponentials and logarithms.
    *(
        _unary(op, f, torch.tensor([1e-6, -1e-6, 3e-4, -3e-4, 0.01, -0.01]), "-near-zero")
        for op, f in (("SINH", torch.sinh), ("ASINH", torch.asinh), ("ATANH", torch.atanh))
    ),
    _unary("ASINH", torch.asinh, torch.tensor([-1e4, 1e4, -30.0]), "-large"),
    OracleNetwork(
        "select-int64",
        [torch.tensor([True, False, True, False]), _LARGE.clone(), _LARGE.flip(0)],
        _select,
        _select_expected,
    ),
    OracleNetwork(
        "select-nan-not-taken",
        [
            torch.tensor([False, True]),
            torch.tensor([float("nan"), 1.0]),
            torch.tensor([2.0, float("nan")]),
        ],
        _select,
        _select_expected,
    ),
]

NETWORKS = [*ACTIVATIONS, *PARAMETRIC_RELUS, *UNARIES, *BINARIES, *SELECTS, *SCALES, *UNUSUAL]

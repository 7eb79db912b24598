"""Quantize and Dequantize, alone and around convolutions and products; Cast; Identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
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


def _quantized(
    net: Net, x: Any, scale: Any, axis: int | None = None, to: torch.dtype = torch.int8
) -> Any:
    layer = net.network.add_quantize(x, scale, net.data_type(to))
    if axis is not None:
        layer.axis = axis
    return layer.get_output(0)


def _dequantized(
    net: Net, q: Any, scale: Any, axis: int | None = None, dtype: torch.dtype = torch.float32
) -> Any:
    layer = net.network.add_dequantize(q, scale, net.data_type(dtype))
    if axis is not None:
        layer.axis = axis
    return layer.get_output(0)


def _levels(x: Tensor, scale: Any) -> Any:
    """NumPy's rint rounds ties to even."""
    return np.clip(np.rint(x.float().numpy() / np.asarray(scale, np.float32)), -128, 127)


def _away_from_ties(levels: Tensor, scale: Tensor) -> Tensor:
    """Values within 0.4 steps of the given levels: a rounding error cannot move them."""
    return (levels.float() + uniform(-0.4, 0.4, *levels.shape)) * scale


def _quantize_only(net: Net, x0: Any) -> Any:
    return _quantized(net, x0, net.constant(torch.tensor(0.25)))


def _both(scale: Tensor, axis: int | None = None, dtype: torch.dtype = torch.float32) -> Any:
    def define(net: Net, x0: Any) -> Any:
        constant = net.constant(scale.to(dtype))
        q = _quantized(net, x0, constant, axis)
        return _dequantized(net, q, constant, axis, dtype)

    return define


def _both_expected(scale: Tensor, shape: tuple[int, ...] = ()) -> Callable[[Tensor], Tensor]:
    def expect(x: Tensor) -> Tensor:
        step = scale.to(x.dtype).float().numpy().reshape(shape)
        return torch.from_numpy((_levels(x, step) * step).astype(np.float32)).to(x.dtype)

    return expect


# Every quarter of a step around zero and past both ends: ties, clamping, both signs.
_STEPS = torch.cat([torch.arange(-40, 41) / 4, torch.arange(-530, -490) / 4,
                    torch.arange(490, 530) / 4]).reshape(7, 23) * 0.25  # fmt: skip
_CHANNEL_SCALES = torch.tensor([0.1, 0.02, 0.7])


def _int8_convolution(dtype: torch.dtype, int8_constant: bool, relu: bool) -> OracleNetwork:
    kernel = signed(8, 4, 3, 3)
    w_scale = (kernel.abs().amax((1, 2, 3)) / 127).to(dtype)
    x_scale = torch.tensor(0.03).to(dtype)
    bias = signed(8).to(dtype)
    x = _away_from_ties(integers(-120, 121, 2, 4, 6, 7), x_scale.float()).to(dtype)

    def define(net: Net, x0: Any) -> Any:
        network = net.network
        scale = net.constant(x_scale)
        data = _dequantized(net, _quantized(net, x0, scale), scale, None, dtype)
        per_channel = net.constant(w_scale)
        if int8_constant:
            levels = _levels(kernel, w_scale.float().reshape(-1, 1, 1, 1))
            q = net.constant(torch.from_numpy(levels).to(torch.int8))
        else:
            q = _quantized(net, net.constant(kernel.to(dtype)), per_channel, 0)
        weights = _dequantized(net, q, per_channel, 0, dtype)
        layer = network.add_convolution_nd(data, 8, (3, 3), net.weights(None), net.weights(bias))
        layer.set_input(1, weights)
        layer.padding_nd = (1, 1)
        result = layer.get_output(0)
        if relu:
            result = network.add_activation(result, net.trt.ActivationType.RELU).get_output(0)
        return result

    def expect(x: Tensor) -> Tensor:
        w_step = w_scale.float().reshape(-1, 1, 1, 1)
        source = kernel if int8_constant else kernel.to(dtype)
        w = (torch.from_numpy(_levels(source, w_step)).float() * w_step).to(dtype).float()
        data = torch.from_numpy(_levels(x, x_scale.float())).float() * x_scale.float()
        result = F.conv2d(data.to(dtype).float(), w, bias.float(), padding=1).to(dtype)
        return F.relu(result) if relu else result

    parts = ["convolution", str(dtype).split(".")[1]]
    parts += (["int8-constant"] if int8_constant else []) + (["relu"] if relu else [])
    return OracleNetwork("quantize-" + "-".join(parts), [x], define, expect)


def _int8_product(net: Net, x0: Any, x1: Any) -> Any:
    scale = net.constant(torch.tensor(0.05))
    a, b = (_dequantized(net, _quantized(net, x, scale), scale) for x in (x0, x1))
    op = net.trt.MatrixOperation
    return net.network.add_matrix_multiply(a, op.NONE, b, op.TRANSPOSE).get_output(0)


def _int8_product_expected(a: Tensor, b: Tensor) -> Tensor:
    p, q = (_levels(x, 0.05).astype(np.int64) for x in (a, b))
    return torch.from_numpy((p @ q.T) * 0.05 * 0.05).float()


_E4M3 = torch.float8_e4m3fn
# Every FP8 number, what lies in the middle of two, and what saturates, of both signs, times a scale of 0.25.
_FP8_NUMBERS = torch.from_numpy(
    np.arange(0x7F, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
)
_FP8_EDGES = torch.cat([_FP8_NUMBERS, (_FP8_NUMBERS[:-1] + _FP8_NUMBERS[1:]) / 2,
                        torch.tensor([449.0, 470.0, 1e5])])  # fmt: skip
_FP8_EDGES = torch.cat([_FP8_EDGES, -_FP8_EDGES]).reshape(8, -1) * 0.25


def _fp8(x: Tensor, scale: Any) -> Tensor:
    """To FP8 and back, by NumPy's types."""
    levels = np.clip(x.float().numpy() / np.asarray(scale, np.float32), -448, 448)
    return torch.from_numpy(levels.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale)


def _fp8_both(dtype: torch.dtype) -> Callable[..., Any]:
    def define(net: Net, x0: Any) -> Any:
        scale = net.constant(torch.tensor(0.25))
        return _dequantized(net, _quantized(net, x0, scale, to=_E4M3), scale, dtype=dtype)

    return define


def _fp8_product(per_channel: bool) -> OracleNetwork:
    weight = signed(16, 32)
    amax = weight.abs().amax(1) if per_channel else weight.abs().max()
    w_scale = amax / 448
    axis = 0 if per_channel else None
    step = (w_scale.reshape(-1, 1) if per_channel else w_scale).numpy()
    x = signed(16, 32)

    def define(net: Net, x0: Any) -> Any:
        scale = net.constant(torch.tensor(2.0**-6))
        data = _dequantized(net, _quantized(net, x0, scale, to=_E4M3), scale)
        levels = (weight.numpy() / step).astype(ml_dtypes.float8_e4m3fn)
        q = net.constant(torch.from_numpy(levels.view(np.uint8)).view(_E4M3))
        w = _dequantized(net, q, net.constant(w_scale), axis)
        op = net.trt.MatrixOperation
        return net.network.add_matrix_multiply(data, op.NONE, w, op.TRANSPOSE).get_output(0)

    def expect(x: Tensor) -> Tensor:
        return (_fp8(x, 2.0**-6).double() @ _fp8(weight, step).double().T).float()

    name = "quantize-fp8-product-per-" + ("channel" if per_channel else "tensor")
    # Tensor cores of an H200 keep about 14 bits of a sum of FP8 products (DeepSeek-V3 technical report, 3.3.2).
    return OracleNetwork(name, [x], define, expect, tolerance=2e-3)


def _int4_product(dtype: torch.dtype) -> OracleNetwork:
    levels = integers(-8, 8, 16, 256)
    scales = uniform(0.1, 0.5, 16, 2).to(dtype)

    def define(net: Net, x0: Any) -> Any:
        w = _dequantized(net, net.int4_constant(levels), net.constant(scales), dtype=dtype)
        op = net.trt.MatrixOperation
        return net.network.add_matrix_multiply(x0, op.NONE, w, op.TRANSPOSE).get_output(0)

    def expect(x: Tensor) -> Tensor:
        w = levels.reshape(16, 2, 128) * scales.double().reshape(16, 2, 1)
        return (x.double() @ w.reshape(16, 256).T).to(dtype)

    name = "dequantize-int4-blocks-" + str(dtype).split(".")[1]
    # TensorRT adds up FP16 products in FP16.
    tolerance = 1e-2 if dtype == torch.float16 else None
    return OracleNetwork(name, [signed(8, 256).to(dtype)], define, expect, tolerance=tolerance)


_STEP = torch.tensor(0.05)

QUANTIZATIONS = [
    OracleNetwork(
        "quantize-ties-and-clamping",
        [_STEPS],
        _quantize_only,
        lambda x: torch.from_numpy(_levels(x, 0.25)).to(torch.int8),
    ),
    OracleNetwork(
        "dequantize-per-tensor",
        [_STEPS],
        _both(torch.tensor(0.25)),
        _both_expected(torch.tensor(0.25)),
    ),
    OracleNetwork(
        "dequantize-odd-scale",
        [_away_from_ties(integers(-150, 151, 5, 9), torch.tensor(0.0371))],
        _both(torch.tensor(0.0371)),
        _both_expected(torch.tensor(0.0371)),
    ),
    OracleNetwork(
        "dequantize-per-channel",
        [_away_from_ties(integers(-150, 151, 2, 3, 4, 5), _CHANNEL_SCALES.reshape(3, 1, 1))],
        _both(_CHANNEL_SCALES, axis=1),
        _both_expected(_CHANNEL_SCALES, (1, 3, 1, 1)),
        refused={"tensorrt": "documented: per-channel scales are for weights only"},
    ),
    OracleNetwork(
        "dequantize-half",
        [_STEPS.half()],
        _both(torch.tensor(0.25), dtype=torch.float16),
        _both_expected(torch.tensor(0.25)),
    ),
    OracleNetwork(
        "dequantize-bfloat16",
        [_STEPS.bfloat16()],
        _both(torch.tensor(0.25), dtype=torch.bfloat16),
        _both_expected(torch.tensor(0.25)),
    ),
    _int8_convolution(torch.float32, int8_constant=False, relu=False),
    _int8_convolution(torch.float32, int8_constant=True, relu=True),
    _int8_convolution(torch.float16, int8_constant=False, relu=True),
    OracleNetwork(
        "quantize-matrix-multiply",
        [
            _away_from_ties(integers(-100, 101, 16, 32), _STEP),
            _away_from_ties(integers(-100, 101, 8, 32), _STEP),
        ],
        _int8_product,
        _int8_product_expected,
    ),
    OracleNetwork("quantize-fp8", [_FP8_EDGES], _fp8_both(torch.float32), lambda x: _fp8(x, 0.25)),
    OracleNetwork(
        "quantize-fp8-half",
        [_FP8_EDGES.clamp(-6e4, 6e4).half()],
        _fp8_both(torch.float16),
        lambda x: _fp8(x, 0.25).half(),
    ),
    _fp8_product(per_channel=False),
    _fp8_product(per_channel=True),
    _int4_product(torch.float32),
    _int4_product(torch.float16),
]


def _cast(x: Tensor, to: torch.dtype, expect: Callable[[Tensor], Tensor]) -> OracleNetwork:
    def define(net: Net, x0: Any) -> Any:
        return net.network.add_cast(x0, net.data_type(to)).get_output(0)

    names = [str(dtype).split(".")[1] for dtype in (x.dtype, to)]
    return OracleNetwork(f"cast-{names[0]}-to-{names[1]}", [x], define, expect)


def _numpy_cast(to: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.from_numpy(x.numpy().astype(to))


_FRACTIONS = torch.arange(-9, 9).reshape(3, 6) * 0.7
_PIXELS = integers(0, 256, 3, 6).to(torch.uint8)

CASTS = [
    _cast(signed(3, 4), torch.float16, _numpy_cast(np.float16)),
    _cast(signed(3, 4), torch.bfloat16, lambda x: x.bfloat16()),
    _cast(signed(3, 4).half(), torch.float32, _numpy_cast(np.float32)),
    _cast(_FRACTIONS, torch.int32, lambda x: torch.from_numpy(np.fix(x.numpy())).int()),
    _cast(_FRACTIONS, torch.int64, lambda x: torch.from_numpy(np.fix(x.numpy())).long()),
    _cast(_FRACTIONS, torch.bool, lambda x: x.abs() > 0),
    _cast(integers(-9, 9, 3, 4), torch.float32, _numpy_cast(np.float32)),
    _cast(integers(-9, 9, 3, 4), torch.int64, _numpy_cast(np.int64)),
    _cast(integers(-9, 9, 3, 4, dtype=torch.int64), torch.int32, _numpy_cast(np.int32)),
    _cast(integers(-2, 2, 3, 4), torch.bool, lambda x: x.abs() > 0),
    _cast(booleans(3, 4), torch.float32, _numpy_cast(np.float32)),
    _cast(booleans(3, 4), torch.int32, _numpy_cast(np.int32)),
    _cast(_PIXELS, torch.float32, _numpy_cast(np.float32)),
    _cast(_PIXELS, torch.float16, _numpy_cast(np.float16)),
]


def _identity(net: Net, x0: Any) -> Any:
    return net.network.add_identity(x0).get_output(0)


IDENTITIES = [
    OracleNetwork("identity-float32", [signed(3, 4)], _identity, lambda x: x),
    OracleNetwork("identity-float16", [signed(3, 4).half()], _identity, lambda x: x),
]

NETWORKS = [*QUANTIZATIONS, *CASTS, *IDENTITIES]

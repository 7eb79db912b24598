"""Pointwise activations and softmax."""

from __future__ import annotations

import torch

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network
from trtcompile.conversion.registry import converter

aten = torch.ops.aten

# TensorRT's CLIP needs two finite bounds.
_LOWEST = {torch.float32: -3.4028234663852886e38, torch.float16: -65504.0}


@converter(aten.relu.default)
def aten_relu(net: Network, self: ITensor) -> ITensor:
    """relu(Tensor self) -> Tensor"""
    return net.activation(self, trt.ActivationType.RELU)


@converter(aten.sigmoid.default)
def aten_sigmoid(net: Network, self: ITensor) -> ITensor:
    """sigmoid(Tensor self) -> Tensor"""
    return net.activation(self, trt.ActivationType.SIGMOID)


@converter(aten.tanh.default)
def aten_tanh(net: Network, self: ITensor) -> ITensor:
    """tanh(Tensor self) -> Tensor"""
    return net.activation(self, trt.ActivationType.TANH)


@converter(aten.hardtanh.default)
def aten_hardtanh(net: Network, self: ITensor, min_val: float, max_val: float) -> ITensor:
    """hardtanh(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor"""
    return net.activation(self, trt.ActivationType.CLIP, float(min_val), float(max_val))


@converter(aten.leaky_relu.default)
def aten_leaky_relu(net: Network, self: ITensor, negative_slope: float) -> ITensor:
    """leaky_relu(Tensor self, Scalar negative_slope=0.01) -> Tensor"""
    return net.activation(self, trt.ActivationType.LEAKY_RELU, float(negative_slope))


@converter(aten.clamp.default)
def aten_clamp(net: Network, self: ITensor, min: float | None, max: float | None) -> ITensor:
    """clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor"""
    dtype = net.result_dtypes[0]
    if dtype in _LOWEST:
        low = _LOWEST[dtype] if min is None else float(min)
        high = -_LOWEST[dtype] if max is None else float(max)
        # PyTorch gives max where min > max; CLIP leaves that open.
        low = high if low > high else low  # noqa: FURB136 (`min` is a parameter here)
        return net.activation(self, trt.ActivationType.CLIP, low, high)
    result = net.tensor(self, dtype)
    if min is not None:
        result = net.elementwise(result, min, trt.ElementWiseOperation.MAX, dtype)
    if max is not None:
        result = net.elementwise(result, max, trt.ElementWiseOperation.MIN, dtype)
    return result


def _softmax(net: Network, x: ITensor, dim: int) -> ITensor:
    layer = net.layer(net.definition.add_softmax(x), "softmax")
    layer.axes = 1 << (dim % net.rank(x))
    return layer.get_output(0)


@converter(aten._softmax.default)
def aten__softmax(net: Network, self: ITensor, dim: int, half_to_float: bool) -> ITensor:
    """_softmax(Tensor self, int dim, bool half_to_float) -> Tensor"""
    return _softmax(net, net.tensor(self, net.result_dtypes[0]), dim)


@converter(aten.softmax.int)
def aten_softmax_int(net: Network, self: ITensor, dim: int, dtype: torch.dtype | None) -> ITensor:
    """softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor"""
    return _softmax(net, net.tensor(self, net.result_dtypes[0]), dim)


@converter(aten._log_softmax.default)
def aten__log_softmax(net: Network, self: ITensor, dim: int, half_to_float: bool) -> ITensor:
    """_log_softmax(Tensor self, int dim, bool half_to_float) -> Tensor"""
    x = net.tensor(self, net.result_dtypes[0])
    # x - max - log(sum(exp(x - max))): log of a softmax would underflow.
    shifted = net.elementwise(
        x, net.reduce(x, trt.ReduceOperation.MAX, [dim], True), trt.ElementWiseOperation.SUB
    )
    total = net.reduce(
        net.unary(shifted, trt.UnaryOperation.EXP), trt.ReduceOperation.SUM, [dim], True
    )
    return net.elementwise(
        shifted, net.unary(total, trt.UnaryOperation.LOG), trt.ElementWiseOperation.SUB
    )

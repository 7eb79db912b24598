"""Pointwise activations and softmax."""

from __future__ import annotations

import torch

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter

aten = torch.ops.aten


def _activation(net: Network, x: TensorLike, kind: str) -> ITensor:
    # The dtype is the result's: integers become FP32 first, as in PyTorch.
    return net.activation(net.tensor(x, net.result_dtypes[0]), getattr(trt.ActivationType, kind))


@converter(aten.relu.default)
def aten_relu(net: Network, self: ITensor) -> ITensor:
    """relu(Tensor self) -> Tensor"""
    return _activation(net, self, "RELU")


@converter(aten.sigmoid.default)
def aten_sigmoid(net: Network, self: ITensor) -> ITensor:
    """sigmoid(Tensor self) -> Tensor"""
    return _activation(net, self, "SIGMOID")


@converter(aten.tanh.default)
def aten_tanh(net: Network, self: ITensor) -> ITensor:
    """tanh(Tensor self) -> Tensor"""
    return _activation(net, self, "TANH")


@converter(aten.hardtanh.default)
def aten_hardtanh(net: Network, self: ITensor, min_val: float, max_val: float) -> ITensor:
    """hardtanh(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor"""
    return _clamp(net, self, min_val, max_val)


@converter(aten.leaky_relu.default)
def aten_leaky_relu(net: Network, self: ITensor, negative_slope: float) -> ITensor:
    """leaky_relu(Tensor self, Scalar negative_slope=0.01) -> Tensor"""
    return net.activation(self, trt.ActivationType.LEAKY_RELU, float(negative_slope))


@converter(aten.clamp.default)
def aten_clamp(net: Network, self: ITensor, min: float | None, max: float | None) -> ITensor:
    """clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor"""
    return _clamp(net, self, min, max)


def _clamp(net: Network, x: TensorLike, low: float | None, high: float | None) -> ITensor:
    dtype = net.result_dtypes[0]
    result = net.tensor(x, dtype)
    if low is not None and high is not None and _is_finite_in(dtype, low, high):
        # PyTorch gives the upper bound where they cross; CLIP leaves that open.
        low, high = float(min(low, high)), float(high)
        return net.activation(result, trt.ActivationType.CLIP, low, high)
    if low is not None:
        result = net.elementwise(result, low, trt.ElementWiseOperation.MAX, dtype)
    if high is not None:
        result = net.elementwise(result, high, trt.ElementWiseOperation.MIN, dtype)
    return result


def _is_finite_in(dtype: torch.dtype, *values: float) -> bool:
    """Whether CLIP can take the bounds: it computes on floating point, and ignores bounds that are not finite."""
    return dtype.is_floating_point and all(abs(v) <= torch.finfo(dtype).max for v in values)


def _softmax(net: Network, x: ITensor, dim: int) -> ITensor:
    rank = net.rank(x)
    if rank < 2:  # TensorRT's softmax wants two dimensions
        softmax = _softmax(net, net.expand_rank(x, 2), -1)
        return net.reshape(softmax, [net.size(x, d) for d in range(rank)])
    layer = net.layer(net.definition.add_softmax(x), "softmax")
    layer.axes = 1 << (dim % rank)
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

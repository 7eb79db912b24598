"""Pointwise activations and softmax."""

from __future__ import annotations

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _activation(net: Network, x: TensorLike, kind: str) -> ITensor:
    # The dtype is the result's: integers become FP32 first, as in PyTorch.
    return net.activation(net.tensor(x, net.result_dtypes[0]), getattr(trt.ActivationType, kind))


@converter(aten.relu.default)
def aten_relu(net: Network, self: ITensor) -> ITensor:
    """relu(Tensor self) -> Tensor"""
    dtype = net.result_dtypes[0]
    if not dtype.is_floating_point:  # TensorRT 10 has no activation of integers
        return net.elementwise(self, 0, trt.ElementWiseOperation.MAX, dtype)
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


@converter(aten.hardsigmoid.default)
def aten_hardsigmoid(net: Network, self: ITensor) -> ITensor:
    """hardsigmoid(Tensor self) -> Tensor"""
    return net.activation(self, trt.ActivationType.HARD_SIGMOID, 1 / 6, 0.5)


@converter(aten.hardswish.default)
def aten_hardswish(net: Network, self: ITensor) -> ITensor:
    """hardswish(Tensor self) -> Tensor"""
    gate = net.activation(self, trt.ActivationType.HARD_SIGMOID, 1 / 6, 0.5)
    return net.elementwise(self, gate, trt.ElementWiseOperation.PROD)


@converter(aten.gelu.default)
def aten_gelu(net: Network, self: ITensor, approximate: str) -> ITensor:
    """gelu(Tensor self, *, str approximate='none') -> Tensor"""
    return _activation(net, self, "GELU_TANH" if approximate == "tanh" else "GELU_ERF")


def _supports_elu(node: Node, spec: CompileSpec) -> str | None:
    scales_input = len(node.args) > 3 and node.args[3] != 1
    return "TensorRT's ELU does not scale its input" if scales_input else None


@converter(aten.elu.default, supports=_supports_elu)
def aten_elu(
    net: Network, self: ITensor, alpha: float, scale: float, input_scale: float
) -> ITensor:
    """elu(Tensor self, Scalar alpha=1, Scalar scale=1, Scalar input_scale=1) -> Tensor"""
    if scale == 1:
        return net.activation(self, trt.ActivationType.ELU, float(alpha))
    return net.activation(self, trt.ActivationType.SELU, float(alpha), float(scale))


#: From here on softplus is its argument in FP32, so a threshold as large changes nothing.
_LINEAR_FROM = 17


@converter(aten.softplus.default)
def aten_softplus(net: Network, self: ITensor, beta: float, threshold: float) -> ITensor:
    """softplus(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor"""
    operation, unary, dtype = trt.ElementWiseOperation, trt.UnaryOperation, net.result_dtypes[0]
    x = self if beta == 1 else net.elementwise(self, beta, operation.PROD, dtype)
    # max(x, 0) + log(1 + exp(-|x|)) cannot overflow, and beyond PyTorch's threshold it is x in FP32.
    decay = net.unary(net.unary(net.unary(x, unary.ABS), unary.NEG), unary.EXP)
    tail = net.unary(net.elementwise(decay, 1, operation.SUM, dtype), unary.LOG)
    result = net.elementwise(net.activation(x, trt.ActivationType.RELU), tail, operation.SUM)
    result = result if beta == 1 else net.elementwise(result, beta, operation.DIV, dtype)
    if threshold >= _LINEAR_FROM:
        return result
    return net.select(net.elementwise(x, threshold, operation.GREATER, dtype), self, result)


def _supports_rrelu(node: Node, spec: CompileSpec) -> str | None:
    return "it draws random slopes" if arguments_of(node)["training"] else None


@converter(aten.rrelu.default, supports=_supports_rrelu)
def aten_rrelu(
    net: Network, self: ITensor, lower: float, upper: float, training: bool, generator: object
) -> ITensor:
    """rrelu(Tensor self, Scalar lower=0.125, Scalar upper=0.333, bool training=False, ...) -> Tensor"""
    return net.activation(self, trt.ActivationType.LEAKY_RELU, (lower + upper) / 2)


@converter(aten.prelu.default)
def aten_prelu(net: Network, self: ITensor, weight: TensorLike) -> ITensor:
    """prelu(Tensor self, Tensor weight) -> Tensor"""
    rank = net.rank(self)
    shape = [
        -1 if d == min(1, rank - 1) else 1 for d in range(rank)
    ]  # one slope, or one for each channel
    slopes = net.reshape(net.tensor(weight), shape)
    return net.layer(
        net.definition.add_parametric_relu(self, slopes), "parametric_relu"
    ).get_output(0)


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


def _has_a_maximum(node: Node, spec: CompileSpec) -> str | None:
    shape, dim = node.meta["val"].shape, node.args[1]
    if shape and isinstance(dim, int) and isinstance(shape[dim], int) and shape[dim] == 0:
        return "a dimension of size 0 has no maximum"
    return None


@converter(aten._log_softmax.default, supports=_has_a_maximum)
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

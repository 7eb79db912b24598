"""Layer, group, instance, batch, and root-mean-square normalization."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, Size, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _only_result_is_used(node: Node, spec: CompileSpec) -> str | None:
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return "TensorRT does not give the mean and deviation that are used"
    return _has_elements(node)


def _has_elements(node: Node) -> str | None:
    sizes = node.all_input_nodes[0].meta["val"].shape
    if any(isinstance(size, int) and size == 0 for size in sizes):
        return "it normalizes an empty tensor"
    return None


def _normalize(net: Network, x: ITensor, axes: Sequence[int], eps: float) -> ITensor:
    """(x - mean) / sqrt(variance + eps), the affine part left out."""
    dtype, mask = net.dtype_of(x), sum(1 << axis for axis in axes)
    ones, zeros = (
        net.constant(torch.full([1] * net.rank(x), value, dtype=dtype)) for value in (1.0, 0.0)
    )
    layer = net.layer(net.definition.add_normalization(x, ones, zeros, mask), "normalization")
    layer.epsilon = eps
    return layer.get_output(0)


def _affine(
    net: Network,
    x: ITensor,
    weight: TensorLike | None,
    bias: TensorLike | None,
    shape: Sequence[Size] | None = None,
) -> ITensor:
    """weight * x + bias; both get ``shape``, or are broadcast to the last dimensions."""
    for value, operation in (
        (weight, trt.ElementWiseOperation.PROD),
        (bias, trt.ElementWiseOperation.SUM),
    ):
        if value is not None:
            tensor = net.tensor(value)
            x = net.elementwise(
                x, tensor if shape is None else net.reshape(tensor, shape), operation
            )
    return x


@converter(aten.native_layer_norm.default, supports=_only_result_is_used)
def aten_native_layer_norm(
    net: Network,
    input: ITensor,
    normalized_shape: Sequence[Size],
    weight: TensorLike | None,
    bias: TensorLike | None,
    eps: float,
) -> tuple[ITensor, None, None]:
    """native_layer_norm(input, SymInt[] normalized_shape, weight?, bias?, float eps) -> (Tensor, Tensor, Tensor)"""
    x = net.tensor(input)
    axes = range(net.rank(x) - len(normalized_shape), net.rank(x))
    return _affine(net, _normalize(net, x, axes, eps), weight, bias), None, None


def _normalized_rows(net: Network, x: ITensor, groups: Size, eps: float) -> ITensor:
    """Normalizes over all but the batch and ``groups`` of channels."""
    # Each group is a row of a matrix: what TensorRT's own groups take as scale changed between its versions.
    rows = net.reshape(x, [net.size(x, 0), groups, -1])
    return net.reshape(_normalize(net, rows, [2], eps), net.all_sizes(x))


def _per_channel(net: Network, x: ITensor) -> list[int]:
    """The shape in which one number for each channel is broadcast to ``x``."""
    return [-1, *[1] * (net.rank(x) - 2)]


@converter(aten.native_group_norm.default, supports=_only_result_is_used)
def aten_native_group_norm(
    net: Network,
    input: ITensor,
    weight: TensorLike | None,
    bias: TensorLike | None,
    N: Size,
    C: int,
    HxW: Size,
    group: int,
    eps: float,
) -> tuple[ITensor, None, None]:
    """native_group_norm(input, weight?, bias?, SymInt N, C, HxW, int group, float eps) -> (Tensor, Tensor, Tensor)"""
    x = net.tensor(input)
    normalized = _normalized_rows(net, x, group, eps)
    return _affine(net, normalized, weight, bias, _per_channel(net, x)), None, None


def _with_statistics(
    net: Network,
    x: ITensor,
    mean: TensorLike,
    variance: TensorLike,
    weight: TensorLike | None,
    bias: TensorLike | None,
    eps: float,
) -> ITensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias, with one number for each channel."""
    operation, unary, shape = trt.ElementWiseOperation, trt.UnaryOperation, _per_channel(net, x)
    # The deviation in FP32: FP16 has no number as small as the usual eps.
    total = net.elementwise(variance, eps, operation.SUM, torch.float32)
    deviation = net.cast(net.unary(total, unary.SQRT), net.dtype_of(x))
    centred = net.elementwise(x, net.reshape(net.tensor(mean), shape), operation.SUB)
    normalized = net.elementwise(centred, net.reshape(deviation, shape), operation.DIV)
    return _affine(net, normalized, weight, bias, shape)


def _supports_instance_norm(node: Node, spec: CompileSpec) -> str | None:
    arguments = arguments_of(node)
    if arguments["use_input_stats"] and arguments["running_mean"] is not None:
        return "it updates its running statistics, and an engine has no state"
    dtype = arguments["input"].dtype
    if not dtype.is_floating_point:
        return f"TensorRT normalizes floats, not {dtype}"
    return _has_elements(node)


@converter(aten.instance_norm.default, supports=_supports_instance_norm)
def aten_instance_norm(
    net: Network,
    input: ITensor,
    weight: TensorLike | None,
    bias: TensorLike | None,
    running_mean: TensorLike | None,
    running_var: TensorLike | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> ITensor:
    """instance_norm(input, weight?, bias?, running_mean?, running_var?, use_input_stats, momentum, eps, ...)"""
    x = net.tensor(input)
    if not use_input_stats and running_mean is not None and running_var is not None:
        return _with_statistics(net, x, running_mean, running_var, weight, bias, eps)
    normalized = _normalized_rows(net, x, net.size(x, 1), eps)
    return _affine(net, normalized, weight, bias, _per_channel(net, x))


@converter(aten._native_batch_norm_legit_no_training.default, supports=_only_result_is_used)
def aten__native_batch_norm_legit_no_training(
    net: Network,
    input: ITensor,
    weight: TensorLike | None,
    bias: TensorLike | None,
    running_mean: TensorLike,
    running_var: TensorLike,
    momentum: float,
    eps: float,
) -> tuple[ITensor, None, None]:
    """_native_batch_norm_legit_no_training(input, weight?, bias?, running_mean, running_var, momentum, eps)"""
    x = net.tensor(input)
    result = _with_statistics(net, x, running_mean, running_var, weight, bias, eps)
    return result, None, None


@converter(aten._native_batch_norm_legit.no_stats, supports=_only_result_is_used)
def aten__native_batch_norm_legit_no_stats(
    net: Network,
    input: ITensor,
    weight: TensorLike | None,
    bias: TensorLike | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[ITensor, None, None]:
    """_native_batch_norm_legit.no_stats(input, weight?, bias?, training, momentum, eps) -> (Tensor, Tensor, Tensor)"""
    x = net.tensor(input)
    swapped = [1, 0, *range(2, net.rank(x))]
    channels = net.permute(x, swapped)
    rows = net.reshape(channels, [net.size(x, 1), -1])
    normalized = net.reshape(_normalize(net, rows, [1], eps), net.all_sizes(channels))
    return (
        _affine(net, net.permute(normalized, swapped), weight, bias, _per_channel(net, x)),
        None,
        None,
    )


def _root_mean_square(
    net: Network, x: ITensor, dims: int, weight: TensorLike | None, eps: float | None
) -> ITensor:
    """x / sqrt(mean(x * x) + eps) * weight over the last ``dims`` dimensions, in FP32 as PyTorch computes it."""
    operation = trt.ElementWiseOperation
    wide = net.cast(x, torch.float32)
    square = net.elementwise(wide, wide, operation.PROD)
    mean = net.reduce(square, trt.ReduceOperation.AVG, range(-dims, 0), True)
    least = torch.finfo(torch.float32).eps if eps is None else eps
    root = net.unary(
        net.elementwise(mean, least, operation.SUM, torch.float32), trt.UnaryOperation.SQRT
    )
    result = net.elementwise(wide, root, operation.DIV)
    if weight is not None:
        result = net.elementwise(result, weight, operation.PROD, torch.float32)
    return net.cast(result, net.result_dtypes[0])


def _supports_rms_norm(node: Node, spec: CompileSpec) -> str | None:
    source, result = node.all_input_nodes[0].meta["val"], node.meta["val"]
    if not source.dtype.is_floating_point:
        return f"TensorRT normalizes floats, not {source.dtype}"
    return _only_result_is_used(node, spec) if isinstance(result, (tuple, list)) else None


@converter(aten.rms_norm.default, supports=_supports_rms_norm)
def aten_rms_norm(
    net: Network,
    input: ITensor,
    normalized_shape: Sequence[Size],
    weight: TensorLike | None,
    eps: float | None,
) -> ITensor:
    """rms_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, float? eps=None) -> Tensor"""
    return _root_mean_square(net, net.tensor(input), len(normalized_shape), weight, eps)


@converter(aten._fused_rms_norm.default, supports=_supports_rms_norm)
def aten__fused_rms_norm(
    net: Network,
    input: ITensor,
    normalized_shape: Sequence[Size],
    weight: TensorLike | None,
    eps: float | None,
) -> tuple[ITensor, None]:
    """_fused_rms_norm(input, int[] normalized_shape, Tensor? weight, float? eps) -> (Tensor, Tensor)"""
    return _root_mean_square(net, net.tensor(input), len(normalized_shape), weight, eps), None

"""Layer and group normalization."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, Size, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _only_result_is_used(node: Node, spec: CompileSpec) -> str | None:
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return "TensorRT does not give the mean and deviation that are used"
    return None


def _supports_layer_norm(node: Node, spec: CompileSpec) -> str | None:
    if any(not isinstance(size, int) for size in node.args[1]):  # type: ignore[union-attr]
        return "it normalizes over a size that is only known at run time"
    return _only_result_is_used(node, spec)


def _normalize(net: Network, x: ITensor, axes: Sequence[int], eps: float, groups: int) -> ITensor:
    """(x - mean) / sqrt(variance + eps), the affine part left out."""
    dtype, mask = net.dtype_of(x), sum(1 << axis for axis in axes)
    shape = (
        [groups if d == 1 else 1 for d in range(net.rank(x))] if groups > 1 else [1] * net.rank(x)
    )
    ones, zeros = (net.constant(torch.full(shape, value, dtype=dtype)) for value in (1.0, 0.0))
    layer = net.layer(net.definition.add_normalization(x, ones, zeros, mask), "normalization")
    layer.epsilon, layer.num_groups = eps, groups
    return layer.get_output(0)


def _affine(
    net: Network,
    x: ITensor,
    weight: TensorLike | None,
    bias: TensorLike | None,
    shape: Sequence[Size],
) -> ITensor:
    for value, operation in (
        (weight, trt.ElementWiseOperation.PROD),
        (bias, trt.ElementWiseOperation.SUM),
    ):
        if value is not None:
            x = net.elementwise(x, net.reshape(net.tensor(value), shape), operation)
    return x


@converter(aten.native_layer_norm.default, supports=_supports_layer_norm)
def aten_native_layer_norm(
    net: Network,
    input: ITensor,
    normalized_shape: Sequence[int],
    weight: TensorLike | None,
    bias: TensorLike | None,
    eps: float,
) -> tuple[ITensor, None, None]:
    """native_layer_norm(input, SymInt[] normalized_shape, weight?, bias?, float eps) -> (Tensor, Tensor, Tensor)"""
    x = net.tensor(input)
    axes = range(net.rank(x) - len(normalized_shape), net.rank(x))
    return (
        _affine(net, _normalize(net, x, axes, eps, 1), weight, bias, normalized_shape),
        None,
        None,
    )


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
    # Each group is a row of a matrix: what TensorRT's own groups take as scale changed between its versions.
    rows = net.reshape(x, [net.size(x, 0), group, -1])
    normalized = _normalize(net, rows, [2], eps, 1)
    result = net.reshape(normalized, [net.size(x, d) for d in range(net.rank(x))])
    return _affine(net, result, weight, bias, [C, *[1] * (net.rank(x) - 2)]), None, None

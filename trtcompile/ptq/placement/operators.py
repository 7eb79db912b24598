"""The operators that can read INT8, told apart by what they read."""

from __future__ import annotations

import torch
from torch.fx import Node

from trtcompile.products import PRODUCTS, operands
from trtcompile.ptq.placement.rule import is_constant, is_float32
from trtcompile.scale_shift import scaled_value

aten = torch.ops.aten

CONVOLUTION = aten.convolution.default
LINEAR = aten.linear.default
#: Operators that TensorRT runs on INT8 when both sides are quantized.
AVERAGING = frozenset({aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default})
#: TensorRT computes these in the epilogue of a convolution, with Q behind them.
ACTIVATIONS = frozenset(
    {
        aten.clamp.default,
        aten.elu.default,
        aten.gelu.default,
        aten.hardsigmoid.default,
        aten.hardswish.default,
        aten.hardtanh.default,
        aten.leaky_relu.default,
        aten.relu.default,
        aten.sigmoid.default,
        aten.softplus.default,
        aten.tanh.default,
    }
)
SUM = aten.add.Tensor
ATTENTION = aten.scaled_dot_product_attention.default


def is_product(node: Node) -> bool:
    """Whether a node is a convolution, a linear layer, or a matrix product, of floats."""
    return node.target in PRODUCTS and node.meta["val"].dtype.is_floating_point


def is_weighted(node: Node) -> bool:
    """Whether a node multiplies by something that is, or was meant to be, a weight."""
    if not is_product(node):
        return False
    return node.target in (CONVOLUTION, LINEAR) or any(map(is_constant, operands(node)))


def is_sum(node: Node) -> bool:
    """Whether a node adds two values of one shape; a broadcast operand, such as a bias, is no branch.

    Nor is a multiple of a value, which would be computed before it is added.
    """
    if node.target is not SUM or node.kwargs.get("alpha", 1) != 1:
        return False
    a, b = node.args[:2]
    if not (is_float32(a) and is_float32(b)) or a is b:
        return False
    shapes = [list(map(str, n.meta["val"].shape)) for n in (a, b)]  # type: ignore[union-attr]
    return shapes[0] == shapes[1]


def can_read_int8(node: Node) -> bool:
    """Whether rules decide about a node; operators that only move values are not among them."""
    if node.op != "call_function":
        return False
    if is_product(node) or is_sum(node) or node.target is ATTENTION:
        return True
    if scaled_value(node) is not None:
        return is_float32(node)
    return node.target in AVERAGING and is_float32(node.args[0])

"""Operators that multiply and add: convolutions, linear layers, matrix products; and how much they multiply."""

from __future__ import annotations

import math

import torch
from torch.fx import Node

aten = torch.ops.aten

#: Operators that multiply a data input by a weight or by another input.
PRODUCTS = (
    aten.convolution.default,
    aten.linear.default,
    aten.mm.default,
    aten.bmm.default,
    aten.matmul.default,
    aten.addmm.default,
)


def operands(node: Node) -> tuple[object, object]:
    """The two factors of a product."""
    first = 1 if node.target is aten.addmm.default else 0
    return node.args[first], node.args[first + 1]


def opt_shape(node: Node) -> list[int]:
    """The shape of a node's tensor; a dynamic size counts as the one it was traced with: the opt size, at least 2.

    A size that depends on data, as after ``nonzero``, is not known before the model runs, and counts as 0.
    """
    return [s if isinstance(s, int) else int(s.node.hint or 0) for s in node.meta["val"].shape]


def multiply_adds(node: Node) -> int:
    """Multiply-adds of one call at the opt shape; 0 for what is no product, or has a size that depends on data."""
    if node.target not in PRODUCTS:
        return 0
    data, weight = operands(node)
    if not isinstance(weight, Node):
        return 0
    shape = opt_shape(weight)
    result = math.prod(opt_shape(node))
    if node.target is aten.convolution.default:
        if node.args[6]:  # transposed: each input element meets the whole kernel of its group
            assert isinstance(data, Node)
            return math.prod(opt_shape(data)) * math.prod(shape[1:])
        return result * math.prod(shape[1:])
    # The second factor of a linear layer is transposed; that of a matmul may be a vector.
    depth = shape[-1] if node.target is aten.linear.default or len(shape) == 1 else shape[-2]
    return result * depth

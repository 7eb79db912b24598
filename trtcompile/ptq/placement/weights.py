"""Operators that multiply data by a weight: convolutions, linear layers, products with a constant."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.fx import Node

from trtcompile.node_info import layer_name
from trtcompile.products import operands
from trtcompile.ptq.placement.decisions import WeightedOperator
from trtcompile.ptq.placement.operators import (
    CONVOLUTION,
    LINEAR,
    is_weighted,
)
from trtcompile.ptq.placement.rule import (
    LeavesOut,
    Quantizes,
    Read,
    Situation,
    is_constant,
)


def _computed_weight(node: Node, situation: Situation) -> str | None:
    if not is_weighted(node) or any(map(is_constant, operands(node))):
        return None
    return "its weight is computed by the model"


def _constant_input(node: Node, situation: Situation) -> str | None:
    if not is_weighted(node):
        return None
    return "its input is a constant" if is_constant(operands(node)[0]) else None


def _not_float32(node: Node, situation: Situation) -> str | None:
    if not is_weighted(node):
        return None
    data = operands(node)[0]
    assert isinstance(data, Node)
    dtype = data.meta["val"].dtype
    return None if dtype == torch.float32 else f"its input is {dtype}, not float32"


def _no_channel_axis(node: Node, situation: Situation) -> str | None:
    return lacks_channel_axis(node) if is_weighted(node) else None


def lacks_channel_axis(node: Node) -> str | None:
    """Why the output channels of a weighted operator's weight lie along no single axis; None if they do."""
    if node.target is CONVOLUTION:
        if node.args[6] and node.args[8] != 1:
            return "a grouped transposed convolution has no single output-channel axis"
        return None
    weight = operands(node)[1]
    assert isinstance(weight, Node)
    shape = list(weight.meta["val"].shape)
    is_matrix = len(shape) >= 2 and math.prod(shape[:-2]) == 1
    return None if is_matrix else f"a weight of shape {shape} has no single output-channel axis"


def _data(node: Node, situation: Situation) -> Iterator[Read]:
    if is_weighted(node):
        data = operands(node)[0]
        assert isinstance(data, Node)
        yield Read(data, node, f"input of {layer_name(node)}")


def weighted_operator(node: Node) -> WeightedOperator:
    """The weight of an operator that no rule left out, and the axis of its output channels.

    A convolution's weight is [out, in, ...], a transposed one's [in, out, ...], a linear layer's [out, in], and the
    right factor of a product [..., in, out].
    """
    weight = operands(node)[1]
    assert isinstance(weight, Node)
    if node.target is CONVOLUTION:
        return WeightedOperator(node, weight, 1 if node.args[6] else 0)
    last = len(weight.meta["val"].shape) - 1
    return WeightedOperator(node, weight, 0 if node.target is LINEAR else last)


COMPUTED_WEIGHT = LeavesOut(
    name="computed weight",
    matches="convolutions and linear layers whose weight is no constant",
    reason="Scales for each channel are measured on weights when compiling.",
    why=_computed_weight,
)
CONSTANT_INPUT = LeavesOut(
    name="constant input",
    matches="products whose left factor, or data, is a constant",
    reason="Scales for each channel belong to the right factor.",
    why=_constant_input,
)
NOT_FLOAT32 = LeavesOut(
    name="not FP32",
    matches="weighted operators whose input the model has cast to another type",
    reason="The model asks for that type.",
    why=_not_float32,
)
NO_CHANNEL_AXIS = LeavesOut(
    name="no channel axis",
    matches="grouped transposed convolutions, products with a vector or a stack of weights",
    reason="The output channels of their weights do not lie along one axis, as TensorRT's scales do.",
    why=_no_channel_axis,
)
WEIGHTED = Quantizes(
    name="weighted operator",
    matches="the input of a convolution, transposed convolution, linear layer, or product with a constant; its weight",
    reason="INT8 is in the multiplications: inputs get one scale, weights one for each output channel, biases none.",
    reads=_data,
)

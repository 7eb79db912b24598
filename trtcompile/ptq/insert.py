"""Rewrites a lowered graph so that chosen values pass through quantize and dequantize nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import GraphModule, Node

from trtcompile.errors import CalibrationError
from trtcompile.lowering.qdq_pair import insert_pair
from trtcompile.node_info import layer_name
from trtcompile.ptq.algorithms import INT8_MAX, MIN_SCALE
from trtcompile.ptq.number_format import INT8, NumberFormat
from trtcompile.ptq.placement import Placement, WeightedOperator


def insert_qdq(
    graph_module: GraphModule,
    placement: Placement,
    scales: Mapping[str, float],
    number_format: NumberFormat = INT8,
) -> None:
    """Inserts Q/DQ in place: per tensor on activations, per channel on weights, none on biases.

    Args:
        graph_module: the lowered graph that ``placement`` speaks of.
        placement: what to quantize.
        scales: tensor name to the scale of a calibration table.
        number_format: what to quantize to.

    Raises:
        CalibrationError: a quantized value has no scale.
    """
    missing = [layer_name(value) for value in placement.readers if layer_name(value) not in scales]
    if missing:
        raise CalibrationError(
            f"the calibration table has no scale for {', '.join(missing[:5])} ({len(missing)} tensors). Calibrate "
            "again with this model."
        )
    for value, readers in placement.readers.items():
        scale = number_format.scale_of(scales[layer_name(value)])
        dequantized = insert_pair(
            value,
            number_format.per_tensor,
            number_format.activation_arguments(scale),
            number_format.dtype,
            before=value.next,
            origin=value,
            name=layer_name(value),
        )
        for reader in readers:
            reader.replace_input_with(value, dequantized)
    for weighted in placement.weighted.values():
        quantize_weight(graph_module, weighted, number_format)
    graph_module.graph.lint()
    graph_module.recompile()


def quantize_weight(
    graph_module: GraphModule, weighted: WeightedOperator, number_format: NumberFormat = INT8
) -> None:
    """Puts Q/DQ with a scale for each output channel between an operator and its constant weight, in place."""
    node, weight, axis = weighted.node, weighted.weight, weighted.weight_axis
    constant = str(weight.target)
    scales = weight_scales(getattr(graph_module, constant), axis, number_format.largest)
    arguments = number_format.weight_arguments(graph_module, constant, scales, axis, reader=node)
    insert_weight_pair(node, weight, number_format.per_channel, arguments, number_format.dtype)


def insert_weight_pair(
    node: Node,
    weight: Node,
    operators: tuple[Any, Any],
    arguments: tuple[Any, ...],
    dtype: torch.dtype,
) -> None:
    """Puts a Q/DQ pair between an operator and its weight; others that read the weight still read it as it is.

    Args:
        node: the operator.
        weight: its weight.
        operators: what quantizes, and what dequantizes.
        arguments: what both take behind the weight.
        dtype: what holds the quantized weight.
    """
    name = f"{layer_name(node)}/weight"
    dequantized = insert_pair(
        weight, operators, arguments, dtype, before=node, origin=node, name=name
    )
    node.replace_input_with(weight, dequantized)


def weight_scales(weight: torch.Tensor, axis: int, largest: float = INT8_MAX) -> torch.Tensor:
    """Symmetric scales of each channel along ``axis``: amax / largest, FP32.

    A channel of zeros quantizes to zeros with any scale; it gets that of amax 1. No scale is below ``MIN_SCALE``: the
    reciprocal would overflow, and make NaN of channels that training has left with nothing but subnormal numbers.
    """
    dims = [d for d in range(weight.dim()) if d != axis]
    amax = weight.detach().float().abs().amax(dim=dims)
    scales = torch.where(amax > 0, amax, torch.ones_like(amax)) / largest
    return scales.clamp(min=MIN_SCALE)

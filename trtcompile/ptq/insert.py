"""Rewrites a lowered graph so that chosen values pass through quantize and dequantize nodes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import GraphModule, Node

from trtcompile.errors import CalibrationError
from trtcompile.node_info import TENSOR_NAME, copy_origin, layer_name
from trtcompile.ptq.algorithms import INT8_MAX
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
        dequantized = _through_qdq(graph_module, value, scale, number_format)
        for reader in readers:
            reader.replace_input_with(value, dequantized)
    for weighted in placement.weighted.values():
        _quantize_weight(graph_module, weighted, number_format)
    graph_module.graph.lint()
    graph_module.recompile()


def _through_qdq(
    graph_module: GraphModule, value: Node, scale: float, number_format: NumberFormat
) -> Node:
    quantize, dequantize = number_format.per_tensor
    arguments = number_format.activation_arguments(scale)
    with graph_module.graph.inserting_after(value):
        quantized = graph_module.graph.call_function(quantize, (value, *arguments))
    with graph_module.graph.inserting_after(quantized):
        dequantized = graph_module.graph.call_function(
            dequantize, (quantized, *arguments), {"out_dtype": torch.float32}
        )
    like = value.meta["val"]
    for node, dtype, kind in (
        (quantized, number_format.dtype, "quantize"),
        (dequantized, torch.float32, "dequantize"),
    ):
        _describe(
            node, value, like.new_empty(like.shape, dtype=dtype), f"{layer_name(value)}/{kind}"
        )
    return dequantized


def _quantize_weight(
    graph_module: GraphModule, weighted: WeightedOperator, number_format: NumberFormat
) -> None:
    node, weight, axis = weighted.node, weighted.weight, weighted.weight_axis
    value = getattr(graph_module, str(weight.target))
    scales = weight_scales(value, axis, number_format.largest)
    arguments = number_format.weight_arguments(
        graph_module, str(weight.target), scales, axis, reader=node
    )
    quantize, dequantize = number_format.per_channel
    with graph_module.graph.inserting_before(node):
        quantized = graph_module.graph.call_function(quantize, (weight, *arguments))
        dequantized = graph_module.graph.call_function(
            dequantize, (quantized, *arguments), {"out_dtype": torch.float32}
        )
    for new, dtype, kind in (
        (quantized, number_format.dtype, "quantize"),
        (dequantized, torch.float32, "dequantize"),
    ):
        _describe(
            new,
            node,
            torch.empty(value.shape, dtype=dtype, device="meta"),
            f"{layer_name(node)}/weight/{kind}",
        )
    node.replace_input_with(weight, dequantized)


def weight_scales(weight: torch.Tensor, axis: int, largest: float = INT8_MAX) -> torch.Tensor:
    """Symmetric scales of each channel along ``axis``: amax / largest, FP32.

    A channel of zeros quantizes to zeros with any scale; it gets that of amax 1.
    """
    dims = [d for d in range(weight.dim()) if d != axis]
    amax = weight.detach().float().abs().amax(dim=dims)
    return torch.where(amax > 0, amax, torch.ones_like(amax)) / largest


def _describe(node: Node, origin: Node, value: torch.Tensor, name: str) -> None:
    copy_origin(origin, node, value)
    node.meta[TENSOR_NAME] = name

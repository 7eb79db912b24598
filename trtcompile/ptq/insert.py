"""Rewrites a lowered graph so that chosen values pass through quantize and dequantize nodes."""

from __future__ import annotations

from collections.abc import Mapping

import torch

# Registers the quantized_decomposed operators.
import torch.ao.quantization.fx._decomposed
from torch.fx import GraphModule, Node

from trtcompile.errors import CalibrationError
from trtcompile.lowering.constants import add_constant
from trtcompile.node_info import TENSOR_NAME, copy_origin, layer_name
from trtcompile.ptq.placement import Placement, WeightedOperator

qd = torch.ops.quantized_decomposed
_INT8_RANGE = (-128, 127)


def insert_qdq(
    graph_module: GraphModule, placement: Placement, scales: Mapping[str, float]
) -> None:
    """Inserts Q/DQ in place: per tensor on activations, per channel on weights, none on biases.

    Args:
        graph_module: the lowered graph that ``placement`` speaks of.
        placement: what to quantize.
        scales: tensor name to scale.

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
        dequantized = _through_qdq(graph_module, value, scales[layer_name(value)])
        for reader in readers:
            reader.replace_input_with(value, dequantized)
    for weighted in placement.weighted.values():
        _quantize_weight(graph_module, weighted)
    graph_module.graph.lint()
    graph_module.recompile()


def _through_qdq(graph_module: GraphModule, value: Node, scale: float) -> Node:
    arguments = (scale, 0, *_INT8_RANGE, torch.int8)
    with graph_module.graph.inserting_after(value):
        quantized = graph_module.graph.call_function(
            qd.quantize_per_tensor.default, (value, *arguments)
        )
    with graph_module.graph.inserting_after(quantized):
        dequantized = graph_module.graph.call_function(
            qd.dequantize_per_tensor.default, (quantized, *arguments), {"out_dtype": torch.float32}
        )
    like = value.meta["val"]
    for node, dtype, kind in (
        (quantized, torch.int8, "quantize"),
        (dequantized, torch.float32, "dequantize"),
    ):
        _describe(
            node, value, like.new_empty(like.shape, dtype=dtype), f"{layer_name(value)}/{kind}"
        )
    return dequantized


def _quantize_weight(graph_module: GraphModule, weighted: WeightedOperator) -> None:
    node, weight = weighted.node, weighted.weight
    value = getattr(graph_module, str(weight.target))
    scale = weight_scales(value, weighted.weight_axis)
    scales = add_constant(graph_module, f"{weight.target}_scales", scale, before=node)
    zero_points = add_constant(
        graph_module,
        f"{weight.target}_zero_points",
        torch.zeros_like(scale, dtype=torch.int64),
        before=node,
    )
    arguments = (scales, zero_points, weighted.weight_axis, -127, 127, torch.int8)
    with graph_module.graph.inserting_before(node):
        quantized = graph_module.graph.call_function(
            qd.quantize_per_channel.default, (weight, *arguments)
        )
        dequantized = graph_module.graph.call_function(
            qd.dequantize_per_channel.default, (quantized, *arguments), {"out_dtype": torch.float32}
        )
    for new, dtype, kind in (
        (quantized, torch.int8, "quantize"),
        (dequantized, torch.float32, "dequantize"),
    ):
        _describe(
            new,
            node,
            torch.empty(value.shape, dtype=dtype, device="meta"),
            f"{layer_name(node)}/weight/{kind}",
        )
    node.replace_input_with(weight, dequantized)


def weight_scales(weight: torch.Tensor, axis: int) -> torch.Tensor:
    """Symmetric scales of each channel along ``axis``: amax / 127, FP32.

    A channel of zeros quantizes to zeros with any scale; it gets that of amax 1.
    """
    dims = [d for d in range(weight.dim()) if d != axis]
    amax = weight.detach().float().abs().amax(dim=dims)
    return torch.where(amax > 0, amax, torch.ones_like(amax)) / 127


def _describe(node: Node, origin: Node, value: torch.Tensor, name: str) -> None:
    copy_origin(origin, node, value)
    node.meta[TENSOR_NAME] = name

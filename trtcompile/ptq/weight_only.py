"""Weight-only quantization: weights become INT8 or INT4, and products stay in floating point.

The engine reads fewer bytes for each product and dequantizes them on the way. No data is needed, as nothing but weights
is measured.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch.fx import GraphModule, Node

from trtcompile import int4_blocks
from trtcompile.lowering.constants import add_constant, constant_of
from trtcompile.products import operands
from trtcompile.ptq.insert import insert_weight_pair, quantize_weight
from trtcompile.ptq.placement import Decision, Placement, WeightedOperator
from trtcompile.ptq.placement.operators import CONVOLUTION, LINEAR, is_weighted
from trtcompile.ptq.placement.weights import lacks_channel_axis, weighted_operator


def quantize_weights(graph_module: GraphModule, taken: Collection[Node], kind: str) -> Placement:
    """Puts Q/DQ on the weights of linear layers, and for INT8 of all weighted operators, in place.

    Given::

        y = linear(x, weight, bias)

    Result::

        levels = quantize_int4_blocks(weight, scales)
        w = dequantize_int4_blocks(levels, scales)
        y = linear(x, w, bias)

    Args:
        graph_module: the lowered FP32 graph.
        taken: the operators that TensorRT takes.
        kind: ``"int8"``, per output channel; or ``"int4"``, in blocks of 128 inputs.

    Returns:
        Each weighted operator whose weight stays as it is, and why.
    """
    skipped: dict[Node, Decision] = {}
    for node in list(graph_module.graph.nodes):
        if not is_weighted(node):
            continue
        reason = _reason_to_skip(graph_module, node, taken, kind)
        if reason is not None:
            skipped[node] = Decision("weight only", reason)
        elif kind == "int4":
            _insert_int4(graph_module, weighted_operator(node))
        else:
            quantize_weight(graph_module, weighted_operator(node))
    graph_module.graph.lint()
    graph_module.recompile()
    return Placement(skipped=skipped)


def _reason_to_skip(
    graph_module: GraphModule, node: Node, taken: Collection[Node], kind: str
) -> str | None:
    if node not in taken:
        return "it runs in PyTorch"
    weight = constant_of(graph_module, operands(node)[1])
    if weight is None:
        return "its weight is computed by the model"
    if weight.dtype != torch.float32:
        return f"its weight is {weight.dtype}, not float32"
    if kind == "int8":
        return lacks_channel_axis(node)
    if node.target is CONVOLUTION:
        return "TensorRT has INT4 weights for products of matrices only"
    if node.target is not LINEAR or weight.dim() != 2:
        return f"its weight {list(weight.shape)} is no matrix of [outputs, inputs], whose rows have INT4's blocks"
    if weight.shape[1] % int4_blocks.BLOCK_SIZE:
        return f"its {weight.shape[1]} inputs are no multiple of the block size, {int4_blocks.BLOCK_SIZE}"
    return None


def _insert_int4(graph_module: GraphModule, weighted: WeightedOperator) -> None:
    node, weight = weighted.node, weighted.weight
    constant = str(weight.target)
    value = int4_blocks.block_scales(getattr(graph_module, constant))
    scales = add_constant(graph_module, f"{constant}_scales", value, before=node)
    operators = int4_blocks.quantize_int4_blocks, int4_blocks.dequantize_int4_blocks
    insert_weight_pair(node, weight, operators, (scales,), torch.int8)

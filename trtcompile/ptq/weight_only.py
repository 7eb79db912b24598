"""Weight-only quantization: weights become INT8 or INT4, and products stay in floating point.

The engine reads fewer bytes for each product and dequantizes them on the way. No data is needed, as nothing but weights
is measured.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch.fx import GraphModule, Node

from trtcompile import int4_blocks
from trtcompile.lowering.constants import add_constant, constant_of
from trtcompile.node_info import TENSOR_NAME, copy_origin, layer_name
from trtcompile.ptq.insert import weight_scales
from trtcompile.ptq.number_format import INT8
from trtcompile.ptq.placement import Decision, Placement

aten = torch.ops.aten


def quantize_weights(graph_module: GraphModule, taken: Collection[Node], kind: str) -> Placement:
    """Puts Q/DQ on the weights of linear layers, and for INT8 of convolutions as well, in place.

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
        Each linear layer and convolution whose weight stays as it is, and why.
    """
    skipped: dict[Node, Decision] = {}
    for node in list(graph_module.graph.nodes):
        if node.target not in (aten.linear.default, aten.convolution.default):
            continue
        reason = _reason_to_skip(graph_module, node, taken, kind)
        if reason is not None:
            skipped[node] = Decision("weight only", reason)
        elif kind == "int4":
            _insert_int4(graph_module, node)
        else:
            _insert_int8(graph_module, node)
    graph_module.graph.lint()
    graph_module.recompile()
    return Placement(skipped=skipped)


def _reason_to_skip(
    graph_module: GraphModule, node: Node, taken: Collection[Node], kind: str
) -> str | None:
    if node not in taken:
        return "it runs in PyTorch"
    weight = constant_of(graph_module, node.args[1])
    if weight is None:
        return "its weight is computed by the model"
    if weight.dtype != torch.float32:
        return f"its weight is {weight.dtype}, not float32"
    if kind == "int8":
        is_grouped = node.target is aten.convolution.default and node.args[6] and node.args[8] != 1
        if is_grouped:
            return "a grouped transposed convolution has no single output-channel axis"
        return None
    if node.target is aten.convolution.default:
        return "TensorRT has INT4 weights for products of matrices only"
    inputs = weight.shape[-1]
    if weight.dim() != 2 or inputs % int4_blocks.BLOCK_SIZE:
        return f"its {inputs} inputs are no multiple of the block size, {int4_blocks.BLOCK_SIZE}"
    return None


def _insert_int8(graph_module: GraphModule, node: Node) -> None:
    is_transposed = node.target is aten.convolution.default and bool(node.args[6])
    axis = 1 if is_transposed else 0
    weight = constant_of(graph_module, node.args[1])
    assert weight is not None
    name = str(node.args[1].target)  # type: ignore[union-attr]
    arguments = INT8.weight_arguments(
        graph_module, name, weight_scales(weight, axis), axis, reader=node
    )
    _insert(node, INT8.per_channel, arguments)


def _insert_int4(graph_module: GraphModule, node: Node) -> None:
    weight = constant_of(graph_module, node.args[1])
    assert weight is not None
    name = str(node.args[1].target)  # type: ignore[union-attr]
    scales = add_constant(
        graph_module, f"{name}_scales", int4_blocks.block_scales(weight), before=node
    )
    operators = int4_blocks.quantize_int4_blocks, int4_blocks.dequantize_int4_blocks
    _insert(node, operators, (scales,))


def _insert(node: Node, operators: tuple[Any, Any], arguments: tuple[Any, ...]) -> None:
    weight = node.args[1]
    assert isinstance(weight, Node)
    quantize, dequantize = operators
    with node.graph.inserting_before(node):
        quantized = node.graph.call_function(quantize, (weight, *arguments))
        dequantized = node.graph.call_function(
            dequantize, (quantized, *arguments), {"out_dtype": torch.float32}
        )
    for new, dtype, what in (
        (quantized, torch.int8, "quantize"),
        (dequantized, torch.float32, "dequantize"),
    ):
        copy_origin(node, new, torch.empty(weight.meta["val"].shape, dtype=dtype, device="meta"))
        new.meta[TENSOR_NAME] = f"{layer_name(node)}/weight/{what}"
    node.replace_input_with(weight, dequantized)

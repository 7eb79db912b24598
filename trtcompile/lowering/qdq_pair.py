"""One Q/DQ pair: its operators, and the two nodes with their metadata and names."""

from __future__ import annotations

from typing import Any

import torch

# Registers the quantized_decomposed operators.
import torch.ao.quantization.fx._decomposed
from torch._subclasses import FakeTensor
from torch.fx import Node

from trtcompile import float8
from trtcompile.node_info import TENSOR_NAME, copy_origin

qd = torch.ops.quantized_decomposed

#: What quantizes to integers, and what dequantizes, by whether there is a scale for each channel.
INTEGER_PAIRS = {
    False: (qd.quantize_per_tensor.default, qd.dequantize_per_tensor.default),
    True: (qd.quantize_per_channel.default, qd.dequantize_per_channel.default),
}
#: The same for FP8.
FP8_PAIRS = {
    False: (float8.quantize_fp8, float8.dequantize_fp8),
    True: (float8.quantize_fp8_per_channel, float8.dequantize_fp8_per_channel),
}


def insert_pair(
    source: Node,
    operators: tuple[Any, Any],
    arguments: tuple[Any, ...],
    dtype: torch.dtype,
    *,
    before: Node,
    origin: Node,
    out_dtype: torch.dtype = torch.float32,
    name: str | None = None,
) -> Node:
    """Adds the nodes that quantize a value and dequantize it again; nothing reads them yet.

    Args:
        source: the value.
        operators: what quantizes, and what dequantizes.
        arguments: what both take behind the tensor.
        dtype: what is quantized to.
        before: where the nodes go.
        origin: the node whose source line and module they inherit.
        out_dtype: what is dequantized to.
        name: the start of their tensor names; None gives them none.

    Returns:
        The node that dequantizes.
    """
    quantize, dequantize = operators
    graph = before.graph
    with graph.inserting_before(before):
        quantized = graph.call_function(quantize, (source, *arguments))
        dequantized = graph.call_function(
            dequantize, (quantized, *arguments), {"out_dtype": out_dtype}
        )
    for node, of, kind in ((quantized, dtype, "quantize"), (dequantized, out_dtype, "dequantize")):
        copy_origin(origin, node, _shaped_like(source.meta["val"], of))
        if name is not None:
            node.meta[TENSOR_NAME] = f"{name}/{kind}"
    return dequantized


def _shaped_like(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Metadata without values: of a constant, whose metadata is the constant itself, no copy."""
    if isinstance(value, FakeTensor):
        return value.new_empty(value.shape, dtype=dtype)
    return torch.empty(value.shape, dtype=dtype, device="meta")

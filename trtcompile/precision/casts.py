"""The floating-point type of a node's result, and nodes that give a value in another one."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from trtcompile.node_info import TENSOR_NAME, layer_name

aten = torch.ops.aten

_NAMES = {torch.float16: "fp16", torch.float32: "fp32"}


def floating_dtype(node: Node) -> torch.dtype | None:
    """FP32 or FP16, of the first of several results; None for anything else."""
    value: Any = node.meta.get("val")
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    return value.dtype if isinstance(value, torch.Tensor) and value.dtype in _NAMES else None


def set_floating_dtype(node: Node, dtype: torch.dtype) -> None:
    """Declares that a node's FP32 and FP16 results are of ``dtype``."""

    def typed(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype in _NAMES and value.dtype != dtype:
            return value.new_empty(value.shape, dtype=dtype)
        return value

    value = node.meta["val"]
    node.meta["val"] = (
        type(value)(map(typed, value)) if isinstance(value, (tuple, list)) else typed(value)
    )


def add_cast(graph_module: GraphModule, source: Node, dtype: torch.dtype) -> Node:
    """Adds a cast of a value behind it, named after both; nothing reads it yet."""
    with graph_module.graph.inserting_after(source):
        cast = graph_module.graph.call_function(aten._to_copy.default, (source,), {"dtype": dtype})
    return _described(cast, source, dtype, f"{layer_name(source)}/{_NAMES[dtype]}")


def add_dequantize(graph_module: GraphModule, dequantize: Node, dtype: torch.dtype) -> Node:
    """Adds a dequantize node as another one, with a result of ``dtype``; nothing reads it yet."""
    with graph_module.graph.inserting_after(dequantize):
        copied = graph_module.graph.node_copy(dequantize)
    copied.kwargs = {**dequantize.kwargs, "out_dtype": dtype}
    return _described(copied, dequantize, dtype, f"{layer_name(dequantize)}.{_NAMES[dtype]}")


def _described(node: Node, source: Node, dtype: torch.dtype, name: str) -> Node:
    node.meta = {**source.meta, TENSOR_NAME: name}
    set_floating_dtype(node, dtype)
    return node

"""In which precision an operator of a lowered graph computes."""

from __future__ import annotations

import torch
from torch.fx import Node

from trtcompile.products import PRODUCTS, operands

qd = torch.ops.quantized_decomposed

_DEQUANTIZE = (qd.dequantize_per_tensor.default, qd.dequantize_per_channel.default)
_NAMES = {torch.float32: "FP32", torch.float16: "FP16", torch.bfloat16: "BF16"}


def is_dequantized(value: object) -> bool:
    """Whether a value comes straight from a dequantize node."""
    return isinstance(value, Node) and value.target in _DEQUANTIZE


def precision_of(node: Node) -> str:
    """``INT8`` if a product has two dequantized factors, else the name of its result's dtype."""
    if node.target in PRODUCTS and all(is_dequantized(value) for value in operands(node)):
        return "INT8"
    return dtype_name(node)


def dtype_name(node: Node) -> str:
    """The name of the dtype of a node's first result; ``-`` where there is none."""
    value = node.meta.get("val")
    tensor = value[0] if isinstance(value, (tuple, list)) else value
    dtype = tensor.dtype if isinstance(tensor, torch.Tensor) else None
    return (
        _NAMES.get(dtype, str(dtype).removeprefix("torch.").upper()) if dtype is not None else "-"
    )

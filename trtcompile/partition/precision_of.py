"""In which precision an operator of a lowered graph computes."""

from __future__ import annotations

import torch
from torch.fx import Node

from trtcompile.int4_blocks import dequantize_int4_blocks
from trtcompile.node_info import dequantized_from
from trtcompile.products import PRODUCTS, operands
from trtcompile.settings import QUANTIZED_PRECISIONS

aten = torch.ops.aten

_NAMES = {torch.float32: "FP32", torch.float16: "FP16", torch.bfloat16: "BF16"}


def precision_of(node: Node) -> str:
    """``INT8`` or ``FP8`` if a product has two factors of that type, else the name of its result's dtype."""
    if node.target in PRODUCTS:
        first, second = map(dequantized_from, operands(node))
        # A model may come with FP8 convolutions, for which TensorRT has no kernels: it dequantizes in front of them.
        has_kernels = first != torch.float8_e4m3fn or node.target is not aten.convolution.default
        if first is not None and first == second and has_kernels:
            return QUANTIZED_PRECISIONS[first]
    return dtype_name(node)


def weight_format(node: Node) -> str | None:
    """``INT8`` or ``INT4`` if that is what the weight of a floating-point product is kept in."""
    if node.target not in PRODUCTS:
        return None
    data, weight = operands(node)
    dtype = dequantized_from(weight)
    if dtype is None or dequantized_from(data) is not None:
        return None
    assert isinstance(weight, Node)
    return "INT4" if weight.target is dequantize_int4_blocks else QUANTIZED_PRECISIONS[dtype]


def dtype_name(node: Node) -> str:
    """The name of the dtype of a node's first result; ``-`` where there is none."""
    value = node.meta.get("val")
    tensor = value[0] if isinstance(value, (tuple, list)) else value
    dtype = tensor.dtype if isinstance(tensor, torch.Tensor) else None
    return (
        _NAMES.get(dtype, str(dtype).removeprefix("torch.").upper()) if dtype is not None else "-"
    )

"""In which precision an operator of a lowered graph computes, and how much it computes."""

from __future__ import annotations

import math

import torch
from torch.fx import Node

from trtcompile.int4_blocks import dequantize_int4_blocks
from trtcompile.node_info import is_dequantize
from trtcompile.settings import QUANTIZED_PRECISIONS

aten = torch.ops.aten

#: Operators that multiply a data input by a weight or by another input, with the positions of the two.
WEIGHTED = (
    aten.convolution.default,
    aten.linear.default,
    aten.mm.default,
    aten.bmm.default,
    aten.matmul.default,
    aten.addmm.default,
)
_NAMES = {torch.float32: "FP32", torch.float16: "FP16", torch.bfloat16: "BF16"}


def operands(node: Node) -> tuple[object, object]:
    """The two factors of a weighted operator."""
    first = 1 if node.target is aten.addmm.default else 0
    return node.args[first], node.args[first + 1]


def dequantized_from(value: object) -> torch.dtype | None:
    """The dtype that a value was dequantized from; None if it does not come straight from a dequantize node."""
    if not isinstance(value, Node) or not is_dequantize(value):
        return None
    (quantized, *_) = value.all_input_nodes
    dtype: torch.dtype = quantized.meta["val"].dtype
    return dtype


def precision_of(node: Node) -> str:
    """``INT8`` or ``FP8`` if a weighted operator has two factors of that type, else the name of its result's dtype."""
    if node.target in WEIGHTED:
        first, second = map(dequantized_from, operands(node))
        # A model may come with FP8 convolutions, for which TensorRT has no kernels: it dequantizes in front of them.
        has_kernels = first != torch.float8_e4m3fn or node.target is not aten.convolution.default
        if first is not None and first == second and has_kernels:
            return QUANTIZED_PRECISIONS[first]
    return dtype_name(node)


def weight_format(node: Node) -> str | None:
    """``INT8`` or ``INT4`` if that is what the weight of a floating-point product is kept in."""
    if node.target not in WEIGHTED:
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


def multiply_adds(node: Node) -> int:
    """Multiply-adds of one call; a dynamic size counts as the size it was traced with."""
    if node.target not in WEIGHTED:
        return 0
    weight = operands(node)[1]
    if not isinstance(weight, Node):
        return 0
    shape = [_size(s) for s in weight.meta["val"].shape]
    result = math.prod(_size(s) for s in node.meta["val"].shape)
    if node.target is aten.convolution.default:
        if node.args[6]:  # transposed: each input element meets the whole kernel of its group
            data = operands(node)[0]
            assert isinstance(data, Node)
            return math.prod(_size(s) for s in data.meta["val"].shape) * math.prod(shape[1:])
        return result * math.prod(shape[1:])
    # The second factor of a linear layer is transposed; that of a matmul may be a vector.
    depth = shape[-1] if node.target is aten.linear.default or len(shape) == 1 else shape[-2]
    return result * depth


def _size(size: int | torch.SymInt) -> int:
    return size if isinstance(size, int) else int(size.node.hint)

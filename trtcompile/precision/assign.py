"""Moves operators to FP16 and inserts the casts that a strongly typed network needs."""

from __future__ import annotations

import operator
from collections.abc import Collection

import torch
from torch.fx import GraphModule, Node

from trtcompile.lowering.constants import add_constant, constant_of, drop_unused_constants
from trtcompile.node_info import is_dequantize, is_qdq
from trtcompile.precision.casts import (
    add_cast,
    add_dequantize,
    floating_dtype,
    set_floating_dtype,
)
from trtcompile.precision.pooled_convolution import pooled_convolutions

aten = torch.ops.aten

#: Operators whose result or intermediate values leave FP16's range or lose too much of its 11 bits.
KEPT_IN_FP32 = frozenset(
    {
        aten._embedding_bag.default,
        aten._embedding_bag_forward_only.default,
        aten._log_softmax.default,
        aten._softmax.default,
        aten.acosh.default,
        aten.atanh.default,
        aten.cosh.default,
        aten.cumprod.default,
        aten.cumsum.default,
        aten.div.Scalar_mode,
        aten.div.Tensor_mode,
        aten.exp.default,
        aten.exp2.default,
        aten.expm1.default,
        aten.fmod.Scalar,
        aten.fmod.Tensor,
        aten.full_like.default,
        aten.index_put.default,
        aten.index_reduce.default,
        aten.linalg_vector_norm.default,
        aten.log.default,
        aten.log10.default,
        aten.log1p.default,
        aten.log2.default,
        aten.pow.Scalar,
        aten.pow.Tensor_Scalar,
        aten.pow.Tensor_Tensor,
        aten.prod.default,
        aten.prod.dim_int,
        aten.reciprocal.default,
        aten.remainder.Scalar,
        aten.remainder.Scalar_Tensor,
        aten.remainder.Tensor,
        aten.round.decimals,
        aten.rsqrt.default,
        aten.scatter.reduce,
        aten.scatter_add.default,
        aten.scatter_reduce.two,
        aten.sinh.default,
        aten.softmax.int,
        aten.sort.default,
        aten.sort.stable,
        aten.sum.dim_IntList,
        aten.tan.default,
        aten.topk.default,
        aten.var.correction,
        aten.var_mean.correction,
    }
)


def assign_fp16(graph_module: GraphModule, taken: Collection[Node]) -> int:
    """Lets the FP32 operators that TensorRT takes compute in FP16; inputs and outputs of the graph keep their types.

    Quantize nodes read either type; dequantize nodes produce the type that their readers compute in. What the model
    itself computes in FP16 stays as it is.

    Given::

        x: f32
        a = relu(x)
        y = softmax(a)

    Result::

        x: f32
        h = to(x, f16)
        a: f16 = relu(h)
        s = to(a, f32)
        y = softmax(s)

    Returns:
        The number of operators moved.
    """
    halved = {
        node
        for node in graph_module.graph.nodes
        if _can_be_halved(node, taken) and not _is_quantized_last_layer(node)
    } - pooled_convolutions(graph_module)
    own_fp16 = {node for node in graph_module.graph.nodes if floating_dtype(node) == torch.float16}
    _split_dequantize(graph_module, halved)
    for node in halved:
        set_floating_dtype(node, torch.float16)
    casts: dict[tuple[Node, torch.dtype], Node] = {}
    for node in list(graph_module.graph.nodes):
        if node.op == "output" or (node.op == "call_function" and not is_qdq(node)):
            wanted = torch.float16 if node in halved else torch.float32
            for source in node.all_input_nodes:
                if source not in own_fp16 and _needs_cast(source, wanted):
                    node.replace_input_with(source, _cast(graph_module, source, wanted, casts))
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    drop_unused_constants(graph_module)
    return len(halved)


def _can_be_halved(node: Node, taken: Collection[Node]) -> bool:
    if (
        node.op != "call_function"
        or node not in taken
        or node.target in KEPT_IN_FP32
        or is_qdq(node)
    ):
        return False
    if _names_a_dtype(node) or floating_dtype(node) != torch.float32:
        return False
    if node.target is operator.getitem:  # it has the type of what it picks from
        (source,) = node.all_input_nodes
        return _can_be_halved(source, taken)
    if not any(
        isinstance(n.meta.get("val"), (torch.Tensor, tuple, list)) for n in node.all_input_nodes
    ):
        return False  # it makes a tensor of PyTorch's default type
    return all(floating_dtype(n) in (torch.float32, None) for n in node.all_input_nodes)


def _names_a_dtype(node: Node) -> bool:
    """Whether the model says which type the result has, as casts do."""
    return any(isinstance(value, torch.dtype) for value in (*node.args, *node.kwargs.values()))


def _is_quantized_last_layer(node: Node) -> bool:
    """It accumulates in INT32, or of FP8 in FP32: as FP32 it goes to the output with neither rounding nor cast."""
    operands = node.all_input_nodes[:2]
    return (
        bool(node.users)
        and all(user.op == "output" for user in node.users)
        and all(map(is_dequantize, operands))
    )


def _split_dequantize(graph_module: GraphModule, halved: set[Node]) -> None:
    """Gives FP16 readers of a dequantize node an FP16 dequantize node of their own."""
    for node in list(graph_module.graph.nodes):
        if not is_dequantize(node):
            continue
        readers = [user for user in node.users if user in halved]
        if not readers:
            continue
        half = add_dequantize(graph_module, node, torch.float16)
        for reader in readers:
            reader.replace_input_with(node, half)


def _needs_cast(source: Node, wanted: torch.dtype) -> bool:
    dtype = floating_dtype(source)
    is_single = isinstance(source.meta.get("val"), torch.Tensor)
    return is_single and dtype is not None and dtype != wanted


def _saturated(constant: torch.Tensor) -> torch.Tensor:
    """FP16; what is finite stays so. A mask's -1e9 would become -infinity, and a row of them NaN after softmax."""
    limits = torch.finfo(torch.float16)
    bounded = constant.clamp(limits.min, limits.max)
    return torch.where(constant.isinf(), constant, bounded).to(torch.float16)


def _cast(
    graph_module: GraphModule,
    source: Node,
    dtype: torch.dtype,
    casts: dict[tuple[Node, torch.dtype], Node],
) -> Node:
    if (source, dtype) in casts:
        return casts[source, dtype]
    constant = constant_of(graph_module, source)
    if constant is not None:
        value = _saturated(constant) if dtype == torch.float16 else constant.to(dtype)
        cast = add_constant(graph_module, f"{source.target}_fp16", value, before=source)
    else:
        cast = add_cast(graph_module, source, dtype)
    casts[source, dtype] = cast
    return cast

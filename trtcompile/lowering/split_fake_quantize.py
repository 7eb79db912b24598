"""Writes the fake quantization of other tools as quantize and dequantize."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from trtcompile import float8
from trtcompile.lowering.constants import add_constant, constant_of
from trtcompile.lowering.qdq_pair import FP8_PAIRS, INTEGER_PAIRS, insert_pair
from trtcompile.node_info import operator_name
from trtcompile.settings import CompileSpec

aten = torch.ops.aten
qd = torch.ops.quantized_decomposed

_PER_TENSOR = frozenset(
    {
        aten.fake_quantize_per_tensor_affine.default,
        aten.fake_quantize_per_tensor_affine.tensor_qparams,
        aten.fake_quantize_per_tensor_affine_cachemask.default,
        aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default,
    }
)
_PER_CHANNEL = frozenset(
    {
        aten.fake_quantize_per_channel_affine.default,
        aten.fake_quantize_per_channel_affine_cachemask.default,
    }
)
#: ModelOpt's operator, by name: its namespace is there only while ModelOpt is imported.
_MODELOPT = "tensorrt.quantize_op.default"


def split_fake_quantize(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Replaces fake quantization with known ranges by the pair that TensorRT reads.

    Quantization-aware training with ``torch.ao`` and NVIDIA ModelOpt write one operator where
    TensorRT has two; ranges that are tensors become numbers, as they are constants of the engine.

    Given::

        y = fake_quantize_per_tensor_affine(x, 0.02, 0, -128, 127)

    Result::

        q = quantize_per_tensor(x, 0.02, 0, -128, 127, int8)
        y = dequantize_per_tensor(q, 0.02, 0, -128, 127, int8)
    """
    rewrites = 0
    for node in list(graph_module.graph.nodes):
        arguments = _quantization_of(graph_module, node)
        if arguments is None:
            continue
        result = _insert_pair(node, *arguments)
        for user in list(node.users):
            # The cachemask forms also give a mask, which only training reads.
            if user.target is operator.getitem and user.args[1] == 0:
                user.replace_all_uses_with(result)
                graph_module.graph.erase_node(user)
        if isinstance(node.meta.get("val"), torch.Tensor):
            node.replace_all_uses_with(result)
        if not node.users:
            graph_module.graph.erase_node(node)
        rewrites += 1
    return rewrites + _fix_tensor_ranges(graph_module)


def _quantization_of(
    graph_module: GraphModule, node: Node
) -> tuple[Any, Any, int | None, int, int] | None:
    """Scale, zero-point, axis (None: per tensor), and limits of a fake quantization; None for what is none."""
    if node.op != "call_function":
        return None
    if node.target in _PER_TENSOR:
        _, scale, zero_point = node.args[:3]
        numbers = _number(graph_module, scale), _number(graph_module, zero_point)
        if None in numbers or not _is_enabled(graph_module, node):
            return None
        low, high = node.args[-2:]
        return float(numbers[0]), int(numbers[1]), None, low, high  # type: ignore[arg-type, return-value]
    if node.target in _PER_CHANNEL:
        _, scales, zero_points, axis, low, high = node.args
        if (
            constant_of(graph_module, scales) is None
            or constant_of(graph_module, zero_points) is None
        ):
            return None
        return scales, zero_points, axis, low, high  # type: ignore[return-value]
    if operator_name(node) == _MODELOPT:
        return _of_modelopt(graph_module, node)
    return None


def _is_enabled(graph_module: GraphModule, node: Node) -> bool:
    """The tensor form can be switched off by a tensor."""
    if node.target is not aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default:
        return True
    switch = node.args[3]
    if isinstance(switch, Node) and switch.target is aten.full.default:
        switch = switch.args[1]
    return bool(_number(graph_module, switch))


def _of_modelopt(
    graph_module: GraphModule, node: Node
) -> tuple[Any, Any, int | None, int, int] | None:
    """quantize_op(input, amax, num_bits, exponent_bits, unsigned, narrow_range), for 8-bit integers and for FP8."""
    _, amax, bits, exponent_bits, unsigned, narrow = node.args
    value = constant_of(graph_module, amax)
    if value is None or bits != 8 or exponent_bits not in (0, 4) or unsigned:
        return None
    low, high = (-448, 448) if exponent_bits else (-127 if narrow else -128, 127)
    if value.numel() == 1:
        return float(value.double() / high), 0, None, low, high
    axes = [axis for axis, size in enumerate(value.shape) if size != 1]
    if len(axes) != 1 or value.dim() != node.meta["val"].dim():
        return None
    # Of a channel that is zero throughout, as after pruning, any scale is right.
    scales = torch.where(value == 0, 1.0, value.detach()).reshape(-1).float() / high
    name = str(amax.target)  # type: ignore[union-attr]
    zeros = torch.zeros_like(scales, dtype=torch.int64)
    return (
        add_constant(graph_module, f"{name}_scales", scales, before=node),
        add_constant(graph_module, f"{name}_zero_points", zeros, before=node),
        axes[0],
        low,
        high,
    )


def _number(graph_module: GraphModule, value: object) -> float | None:
    """A number, also out of a constant tensor of one element."""
    if isinstance(value, (int, float)):
        return value
    constant = constant_of(graph_module, value)
    return None if constant is None or constant.numel() != 1 else constant.item()


def _insert_pair(
    node: Node, scale: Any, zero_point: Any, axis: int | None, low: int, high: int
) -> Node:
    source = node.args[0]
    assert isinstance(source, Node)
    along = () if axis is None else (axis,)
    if high == float8.E4M3_MAX:
        dtype, ranges = float8.E4M3, (scale, *along)
        operators = FP8_PAIRS[axis is not None]
    else:
        dtype = torch.int8 if low < 0 else torch.uint8
        ranges = (scale, zero_point, *along, low, high, dtype)
        operators = INTEGER_PAIRS[axis is not None]
    out_dtype = source.meta["val"].dtype
    return insert_pair(
        source, operators, ranges, dtype, before=node, origin=node, out_dtype=out_dtype
    )


#: Forms whose ranges are tensors, and those that take numbers.
_TENSOR_RANGES = {
    qd.quantize_per_tensor.tensor: qd.quantize_per_tensor.default,
    qd.dequantize_per_tensor.tensor: qd.dequantize_per_tensor.default,
}


def _fix_tensor_ranges(graph_module: GraphModule) -> int:
    rewrites = 0
    for node in graph_module.graph.nodes:
        if node.target not in _TENSOR_RANGES:
            continue
        scale, zero_point = (_number(graph_module, value) for value in node.args[1:3])
        if scale is None or zero_point is None:
            continue
        node.target = _TENSOR_RANGES[node.target]
        node.args = (node.args[0], float(scale), int(zero_point), *node.args[3:])
        rewrites += 1
    return rewrites

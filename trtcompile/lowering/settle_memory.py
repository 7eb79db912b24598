"""Gives ``as_strided`` the memory that it read when the model was captured."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from trtcompile.node_info import copy_origin
from trtcompile.settings import CompileSpec

aten = torch.ops.aten
#: Whether these share memory with their input depends on its strides.
_COPY_IF_NEEDED = (aten.reshape.default, aten.contiguous.default)


def settle_memory(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Puts a copy in the order of the memory in front of each ``as_strided``.

    It reads the memory of the tensor, whose order the other passes and the engines do not keep. So it reads that of the
    tensor which is no view, and of a transposed one in the order in which its elements lay.

    Given::

        p = permute(relu, [0, 2, 1])
        y = as_strided(p, [2, 3], [1, 2], 1)

    Result::

        c = clone(relu, memory_format=contiguous)
        y = as_strided(c, [2, 3], [1, 2], 1)
    """
    rewrites = 0
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and node.target is aten.as_strided.default:
            rewrites += _settle(node)
    return rewrites


def _settle(node: Node) -> bool:
    arguments: Any = node.args
    source, size, stride, *rest = arguments
    value = source.meta["val"]
    offset = rest[0] if rest and rest[0] is not None else value.storage_offset()
    while _is_view(source):
        source = source.args[0]
    value = source.meta["val"]
    known = (*value.shape, *value.stride(), *size, *stride, offset)
    if not all(isinstance(number, int) for number in known) or value.storage_offset() != 0:
        return False
    order = sorted(range(value.dim()), key=lambda dim: (-value.stride(dim), dim))
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if not value.permute(order).is_contiguous() or last >= value.numel():
        return False
    graph = node.graph
    with graph.inserting_before(node):
        ordered = source
        if order != sorted(order):
            ordered = graph.call_function(aten.permute.default, (source, order))
            copy_origin(node, ordered, value.permute(order))
        copied = graph.call_function(
            aten.clone.default, (ordered,), {"memory_format": torch.contiguous_format}
        )
        copy_origin(node, copied, value.permute(order).contiguous())
    node.args = (copied, size, stride, offset)
    return True


def _is_view(node: Any) -> bool:
    """Whether the node's value shares the memory of its first argument."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target in _COPY_IF_NEEDED:
        return False
    (returned, *others) = node.target._schema.returns or (None,)
    return bool(
        not others
        and returned is not None
        and returned.alias_info is not None
        and isinstance(node.meta.get("val"), torch.Tensor)
        and isinstance(node.args[0], Node)
    )

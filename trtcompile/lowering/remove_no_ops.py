"""Removes operators that change nothing in inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from trtcompile.settings import CompileSpec

aten = torch.ops.aten

_COPIES = {
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
}
_IDENTITY_IF_SAME_SHAPE = {
    aten._unsafe_view.default,
    aten.adaptive_avg_pool2d.default,
    aten.expand.default,
    aten.reshape.default,
    aten.view.default,
}
_ASSERTIONS = {
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten._assert_tensor_metadata.default,
}


def remove_no_ops(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Removes copies, dropout, casts and reshapes that change nothing, and concatenations of one tensor.

    Given::

        y = relu(x)
        z = dropout(y, 0.5, False)
        w = view(z, z.shape)

    Result::

        y = relu(x)
    """
    removed = 0
    for node in list(graph_module.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _ASSERTIONS:
            graph_module.graph.erase_node(node)
            removed += 1
        elif _is_no_op(node):
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph_module.graph.erase_node(node)
            removed += 1
    return removed


def _is_no_op(node: Node) -> bool:
    if node.target is aten.cat.default:
        return len(node.args[0]) == 1  # type: ignore[arg-type]
    source = node.args[0] if node.args else None
    if not isinstance(source, Node):
        return False
    before, after = source.meta.get("val"), node.meta.get("val")
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return False
    if node.target in _COPIES:
        # That one reads memory, whose order is the copy's.
        return all(user.target is not aten.as_strided.default for user in node.users)
    if node.target is aten.dropout.default:
        return node.args[2] is False
    if node.target is aten._to_copy.default:
        return before.dtype == after.dtype and before.device == after.device
    if node.target in _IDENTITY_IF_SAME_SHAPE:
        return _equal(before.shape, after.shape)
    if node.target is aten.as_strided.default:
        return _equal(before.shape, after.shape) and _equal(_layout(before), _layout(after))
    return False


def _layout(x: torch.Tensor) -> list[Any]:
    """Where the elements are in memory; the stride of a dimension of size 1 does not matter."""
    strides = [n for n, size in zip(x.stride(), x.shape, strict=True) if str(size) != "1"]
    return [x.storage_offset(), *strides]


def _equal(before: Sequence[Any], after: Sequence[Any]) -> bool:
    # Comparing symbolic sizes would add guards, so only the very same symbol counts as equal.
    return len(before) == len(after) and all(
        a == b if isinstance(a, int) and isinstance(b, int) else str(a) == str(b)
        for a, b in zip(before, after, strict=True)
    )

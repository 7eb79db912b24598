"""Casts images of bytes before they are moved, so that TensorRT can move them."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from trtcompile.node_info import copy_origin
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

#: Operators whose result holds only elements of their first argument, wherever they put them.
_MOVES = frozenset(
    {
        aten.expand.default,
        aten.flip.default,
        aten.index_select.default,
        aten.permute.default,
        aten.repeat.default,
        aten.reshape.default,
        aten.roll.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.transpose.int,
        aten.unfold.default,
        aten.unsqueeze.default,
    }
)


def cast_bytes(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Exchanges casts of bytes with the operators in front that only move elements.

    TensorRT has uint8 tensors as inputs alone, and only casts them. Which element goes where does not depend on its
    type, so the values stay the same to the bit.

    Given::

        p = permute(image, [0, 3, 1, 2])
        y = _to_copy(p, dtype=float32)

    Result::

        c = _to_copy(image, dtype=float32)
        y = permute(c, [0, 3, 1, 2])
    """
    rewrites = 0
    # From the end: a cast that was exchanged comes up again as the user of the operator before.
    for node in reversed(list(graph_module.graph.nodes)):
        if _is_move_of_bytes(node) and node.users and all(map(_is_cast, node.users)):
            for cast in list(node.users):
                _exchange(node, cast)
            node.graph.erase_node(node)
            rewrites += 1
    return rewrites


def _is_move_of_bytes(node: Node) -> bool:
    source = node.args[0] if node.op == "call_function" and node.args else None
    value = source.meta.get("val") if isinstance(source, Node) else None
    return node.target in _MOVES and isinstance(value, torch.Tensor) and value.dtype == torch.uint8


def _is_cast(node: Node) -> bool:
    return node.target is aten._to_copy.default and set(node.kwargs) <= {"dtype", "device"}


def _exchange(move: Node, cast: Node) -> None:
    source, graph = move.args[0], move.graph
    assert isinstance(source, Node)
    dtype = cast.meta["val"].dtype
    with graph.inserting_before(move):
        moved_cast = graph.call_function(cast.target, (source,), dict(cast.kwargs))  # type: ignore[arg-type]
        copy_origin(cast, moved_cast, source.meta["val"].to(dtype))
    with graph.inserting_before(cast):
        result = graph.call_function(move.target, (moved_cast, *move.args[1:]), dict(move.kwargs))  # type: ignore[arg-type]
        copy_origin(move, result, move.meta["val"].to(dtype))
    cast.replace_all_uses_with(result)
    graph.erase_node(cast)

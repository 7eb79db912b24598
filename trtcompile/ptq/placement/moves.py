"""Values on their way: operators that only move them, such as max pools, reshapes, and concatenations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch.fx import Node

from trtcompile.node_info import layer_name
from trtcompile.ptq.movement import moved_values, moves_whole, only_moves
from trtcompile.ptq.placement.exclusions import may_be_read_in_int8
from trtcompile.ptq.placement.rule import (
    Quantizes,
    Read,
    Shares,
    Situation,
    is_constant,
    is_float32,
)
from trtcompile.ptq.placement.written import can_be_written_in_int8

aten = torch.ops.aten


def _chain_start(value: Node, situation: Situation) -> Iterator[Read]:
    """The movements that carry a value to where INT8 reads it, if nothing but INT8 reads it anywhere."""
    readers = situation.placement.readers.get(value, {})
    if not is_float32(value) or (only_moves(value) and not readers):
        return
    ends = {user: _ends(user, situation) for user in value.users if user not in readers}
    if all(ends.values()):
        for user, (end, *_) in ends.items():
            yield Read(value, user, f"start of the chain to {layer_name(end)}")


def _ends(movement: Node, situation: Situation) -> list[Node]:
    """The quantized values at the ends of the chains that begin with a reader; none if any of them leads elsewhere."""
    is_passed = moves_whole(movement) or _joins_int8(movement, situation)
    if not is_passed or not may_be_read_in_int8(movement, situation):
        return []
    readers = situation.placement.readers.get(movement, {})
    ends = [movement] if readers else []
    for user in movement.users:
        if user not in readers:
            further = _ends(user, situation)
            if not further:
                return []
            ends += further
    return ends


def _joins_int8(node: Node, situation: Situation) -> bool:
    """Whether a node concatenates values for which Q costs nothing, some of which others read, too.

    If nothing else reads them, TensorRT moves Q in front of the concatenation by itself.
    """
    if node.target is not aten.cat.default or any(map(is_constant, node.all_input_nodes)):
        return False
    is_shared = any(len(source.users) > 1 for source in node.all_input_nodes)
    return is_shared and can_be_written_in_int8(node, situation)


def _moved(node: Node) -> Iterable[Node]:
    return moved_values(node) if only_moves(node) else ()


CHAIN_START = Quantizes(
    name="start of a chain",
    matches="a value that INT8 alone reads, some of it behind max pools, reshapes, and the like, where it is computed; "
    "behind concatenations if one of the values that they join has other readers, and Q costs nothing for any of them",
    reason="TensorRT 10.6 does not move Q from its region of matrix products into that of convolutions, and a value "
    "with several readers may have to be written in both types. Quantizing twice with one scale gives the same values "
    "as once. What a part is picked from, such as all tokens for one, is not quantized: most of that work would be for "
    "values that nobody reads.",
    reads=_chain_start,
)
SHARED_SCALE = Shares(
    name="shared scale",
    matches="values that max pools, reshapes, concatenations, and the like connect",
    reason="TensorRT moves Q across such operators only if the scale is the same on both sides. It is chosen for the "
    "values that something computes with: what a max pool drops needs no range.",
    joined=_moved,
)

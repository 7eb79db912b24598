"""Values on their way: operators that only move them, such as max pools, reshapes, and concatenations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch.fx import Node

from trtcompile.node_info import layer_name
from trtcompile.ptq.movement import moved_values, only_moves, picks_part
from trtcompile.ptq.placement.exclusions import may_be_read_in_int8
from trtcompile.ptq.placement.rule import Quantizes, Read, Shares, Situation, is_float32


def _chain_start(value: Node, situation: Situation) -> Iterator[Read]:
    """Where a quantized value was computed, before operators that only moved it to where it is read."""
    readers = situation.placement.readers.get(value)
    if readers is None or set(value.users) != set(readers):
        return
    reader = value
    while only_moves(reader) and not picks_part(reader) and may_be_read_in_int8(reader, situation):
        moved = list(moved_values(reader))
        if len(moved) != 1:
            return
        (source,) = moved
        if len(source.users) != 1 or not is_float32(source):
            return
        if not only_moves(source):
            yield Read(source, reader, f"start of the chain to {layer_name(value)}")
            return
        reader = source


def _moved(node: Node) -> Iterable[Node]:
    return moved_values(node) if only_moves(node) else ()


CHAIN_START = Quantizes(
    name="start of a chain",
    matches="a value that max pools, reshapes, and the like alone move to where INT8 reads it, where it is computed",
    reason="TensorRT 10.6 does not move Q from its region of matrix products into that of convolutions; quantizing "
    "twice with one scale gives the same values as once. What a part is picked from, such as all tokens for one, is "
    "not quantized: values that nobody reads would have a say in the scale.",
    reads=_chain_start,
)
SHARED_SCALE = Shares(
    name="shared scale",
    matches="values that max pools, reshapes, concatenations, and the like connect",
    reason="TensorRT moves Q across such operators only if the scale is the same on both sides.",
    joined=_moved,
)

"""Average pools, which TensorRT computes in INT8 between Q/DQ."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import Node

from trtcompile.node_info import layer_name
from trtcompile.ptq.movement import only_moves
from trtcompile.ptq.placement.operators import AVERAGING
from trtcompile.ptq.placement.rule import Quantizes, Read, Situation, is_float32


def _averaged(node: Node, situation: Situation) -> Iterator[Read]:
    source = node.args[0] if node.target in AVERAGING else None
    if isinstance(source, Node) and is_float32(source) and _leads_to_int8(node, situation):
        yield Read(source, node, f"input of {layer_name(node)}, whose result is quantized")


def _leads_to_int8(node: Node, situation: Situation) -> bool:
    if node in situation.placement.readers:
        return True
    return any(only_moves(user) and _leads_to_int8(user, situation) for user in node.users)


AVERAGE_POOL = Quantizes(
    name="average pool",
    matches="the input of an average pool whose result is quantized",
    reason="The layer in front can then write INT8, and an addition in front can be part of its convolution.",
    reads=_averaged,
)

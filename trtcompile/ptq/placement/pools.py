"""Average pools, which TensorRT computes in INT8 between Q/DQ."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import Node

from trtcompile.node_info import layer_name
from trtcompile.ptq.movement import only_moves
from trtcompile.ptq.placement.operators import AVERAGING
from trtcompile.ptq.placement.rule import Quantizes, Read, Situation, is_float32
from trtcompile.ptq.placement.written import can_be_written_in_int8


def _averaged(node: Node, situation: Situation) -> Iterator[Read]:
    source = node.args[0] if node.target in AVERAGING else None
    if not isinstance(source, Node) or not is_float32(source):
        return
    if can_be_written_in_int8(source, situation) and leads_to_quantized(node, situation):
        yield Read(source, node, f"input of {layer_name(node)}, whose result is quantized")


def leads_to_quantized(node: Node, situation: Situation) -> bool:
    """Whether a value is quantized, at once, moved, or averaged."""
    if node in situation.placement.readers:
        return True
    return any(
        (only_moves(user) or user.target in AVERAGING) and leads_to_quantized(user, situation)
        for user in node.users
    )


AVERAGE_POOL = Quantizes(
    name="average pool",
    matches="the input of an average pool whose result is quantized, if an INT8 product computes it, or none does",
    reason="The layer in front can then write INT8, and an addition in front can be part of its convolution. One that "
    "cannot would need a Q of its own over all that is averaged.",
    reads=_averaged,
)

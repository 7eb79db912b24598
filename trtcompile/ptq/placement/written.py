"""What the kernel that computes a value can write in INT8, so that Q costs nothing."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.fx import Node

from trtcompile.ptq.movement import moved_values, moves_whole, only_moves
from trtcompile.ptq.placement.concatenated import is_left_out_for_concatenation
from trtcompile.ptq.placement.operators import ACTIVATIONS, AVERAGING, CONVOLUTION, is_sum
from trtcompile.ptq.placement.rule import Situation
from trtcompile.scale_shift import scaled_value

aten = torch.ops.aten


def can_be_written_in_int8(value: Node, situation: Situation) -> bool:
    """Whether Q costs nothing, since the kernel that computes a value can write INT8 as well.

    What comes before all products, as an input of the model does, has to be cast to FP16 otherwise, which takes as
    long as Q.
    """
    if value in situation.int8_operators or not situation.follows_product[value]:
        return True
    if is_left_out_for_concatenation(value, situation):  # costs a kernel, for the sake of others
        return True
    if only_moves(value):
        return _all_can(moved_values(value), situation)
    if value.target in AVERAGING or value.target in ACTIVATIONS:
        return _all_can(value.all_input_nodes, situation)
    if is_sum(value) and value not in situation.placement.skipped:
        return any(
            source.target is CONVOLUTION and source in situation.int8_operators
            for source in value.all_input_nodes
        )
    scaled = scaled_value(value)
    if scaled is not None:  # by a kernel that reads INT8 as well
        return value not in situation.placement.skipped and can_be_written_in_int8(
            scaled, situation
        )
    if value.target is aten.mul.Tensor:  # SiLU: a value times an activation of it
        sources = activated(value)
        return len(sources) == 1 and _all_can(sources, situation)
    return False


def is_written_by_int8_product(value: Node, situation: Situation) -> bool:
    """Whether the kernel of an INT8 product writes a value; unlike the above, no input of the model counts."""
    return situation.follows_product[value] and can_be_written_in_int8(value, situation)


def computed_by(value: Node) -> Node:
    """What a value was before activations, and before movements of all of it."""
    while value.target in ACTIVATIONS or moves_whole(value):
        (value,) = moved_values(value)
    return value


def _all_can(values: Iterable[Node], situation: Situation) -> bool:
    values = list(values)
    return bool(values) and all(can_be_written_in_int8(value, situation) for value in values)


def activated(product: Node) -> set[Node]:
    """The values whose activations a node multiplies."""
    return {_before_activations(source) for source in product.all_input_nodes}


def _before_activations(node: Node) -> Node:
    while node.target in ACTIVATIONS:
        (node,) = node.all_input_nodes
    return node

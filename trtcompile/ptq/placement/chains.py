"""What comes behind an operator in a chain that stays in INT8."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch._ops import OpOverload
from torch.fx import Node

from trtcompile.ptq.movement import only_moves
from trtcompile.ptq.placement.depthwise import lacks_int8_kernel
from trtcompile.ptq.placement.operators import ACTIVATIONS, is_sum
from trtcompile.ptq.placement.written import activated
from trtcompile.scale_shift import scaled_value

aten = torch.ops.aten


def leads_to(node: Node, kind: OpOverload, is_wanted: Callable[[Node], bool]) -> bool:
    """Whether a wanted operator of a kind reads INT8 that a node begins, itself or behind other operators."""
    waiting, seen = list(node.users), {node}
    while waiting:
        user = waiting.pop()
        if user in seen or lacks_int8_kernel(user):
            continue
        seen.add(user)
        if user.target is kind and is_wanted(user):
            return True
        is_gate = user.target is aten.mul.Tensor and len(activated(user)) > 1
        passes = only_moves(user) or is_sum(user) or scaled_value(user) is not None
        if (
            passes
            or user.target in {kind, *ACTIVATIONS}
            or (user.target is aten.mul.Tensor and not is_gate)
        ):
            waiting += user.users
    return False

"""First layers whose result is concatenated, which a kernel of TensorRT 10.6 writes to the wrong places."""

from __future__ import annotations

import torch
from torch.fx import Node

from trtcompile.node_info import layer_name
from trtcompile.products import operands, opt_shape
from trtcompile.ptq.placement.operators import ACTIVATIONS, CONVOLUTION, is_sum
from trtcompile.ptq.placement.rule import LeavesOut, Situation

aten = torch.ops.aten

#: The kernel is not for more channels, which are read in vectors of as many.
_VECTOR = 32
#: What a convolution's kernel may compute before it writes.
_EPILOGUES = frozenset({*ACTIVATIONS, aten.mul.Tensor})


def _written_into_concatenation(node: Node, situation: Situation) -> str | None:
    if node.target is not CONVOLUTION:
        return None
    data, weight = operands(node)
    assert isinstance(data, Node) and isinstance(weight, Node)
    channels = opt_shape(data)[1]
    is_pointwise = all(size == 1 for size in opt_shape(weight)[2:])
    if channels >= _VECTOR or is_pointwise or situation.follows_product[data]:
        return None
    concatenation = _concatenation_of(node)
    if concatenation is None:
        return None
    return f"it reads {channels} channels, and {layer_name(concatenation)} takes its result"


def _concatenation_of(convolution: Node) -> Node | None:
    """A concatenation that a convolution's kernel may write to."""
    written = [convolution]
    for value in written:
        for user in value.users:
            if user.target is aten.cat.default:
                return user
            if (user.target in _EPILOGUES or is_sum(user)) and user not in written:
                written.append(user)
    return None


def is_left_out_for_concatenation(node: Node, situation: Situation) -> bool:
    """Whether a convolution was left out by this rule."""
    decision = situation.placement.skipped.get(node)
    return decision is not None and decision.rule == CONCATENATED.name


CONCATENATED = LeavesOut(
    name="concatenated first layer",
    matches=f"convolutions of fewer than {_VECTOR} channels, with kernels of more than one pixel and no product in "
    "front of them, whose result a concatenation takes",
    reason="A kernel of TensorRT 10.6 for such convolutions (`avdt_dense_chw`) writes INT8 into a concatenation as if "
    "nothing else were in it: in each batch of a DenseNet all images but the first were wrong where TensorRT chose "
    "that kernel, and right where it chose another. Behind a convolution in FP16, Q is a kernel of its own.",
    why=_written_into_concatenation,
)

"""Additions: a CNN's shortcuts are quantized, a transformer's residual stream never is."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx import Node

from trtcompile.node_info import layer_name
from trtcompile.ptq.movement import moved_values, only_moves
from trtcompile.ptq.placement.operators import ATTENTION, CONVOLUTION, is_product, is_sum
from trtcompile.ptq.placement.rule import LeavesOut, Quantizes, Read, Situation

aten = torch.ops.aten

_LAYER_NORMS = frozenset(
    {
        aten.native_layer_norm.default,
        aten.native_group_norm.default,
        aten.layer_norm.default,
        aten.group_norm.default,
        aten.rms_norm.default,
        aten._fused_rms_norm.default,
    }
)
_SCALINGS = frozenset({aten.mul.Tensor, aten.mul.Scalar})


def _residual_stream(node: Node, situation: Situation) -> str | None:
    if not is_sum(node):
        return None
    norm = _norm_behind(node)
    if norm is not None:
        return f"its sum is normalized by {layer_name(norm)}"
    for branch in node.args[:2]:
        assert isinstance(branch, Node)
        source = _computed_by(branch)
        is_matrix_product = is_product(source) and source.target is not CONVOLUTION
        if is_matrix_product or source.target is ATTENTION:
            return f"it adds what {layer_name(source)} gives"
    return None


def _norm_behind(node: Node) -> Node | None:
    """A norm that reads a value, at once or moved."""
    for user in node.users:
        if user.target in _LAYER_NORMS and user.args[0] is node:
            return user
        if only_moves(user):
            norm = _norm_behind(user)
            if norm is not None:
                return norm
    return None


def _computed_by(node: Node) -> Node:
    """Where a value comes from: before it was moved, or scaled by a constant."""
    while True:
        if only_moves(node):
            sources = list(moved_values(node))
        elif node.target in _SCALINGS:
            sources = [n for n in node.all_input_nodes if n.op != "get_attr"]
        else:
            return node
        if len(sources) != 1:
            return node
        (node,) = sources


def _shortcut(node: Node, situation: Situation) -> Iterator[Read]:
    """What is added to a convolution's result, so that the convolution can add it in its epilogue.

    Of two convolutions that meet in an addition, the one at the end of the longer path keeps it; the other one's
    result (a projection shortcut) is the residual.
    """
    if not is_sum(node):
        return
    a, b = node.args[:2]
    assert isinstance(a, Node) and isinstance(b, Node)
    candidates = [
        (main, residual)
        for main, residual in ((a, b), (b, a))
        if main in situation.int8_operators
        and main.target is CONVOLUTION
        and set(main.users) == {node}
    ]
    if candidates:
        main, residual = max(candidates, key=lambda pair: situation.depths[pair[0]])
        yield Read(residual, node, f"residual added to {layer_name(main)}")


RESIDUAL_STREAM = LeavesOut(
    name="residual stream",
    matches="additions of what a linear layer or product gives, and those whose sum a layer or group norm reads",
    reason="A transformer's residual stream carries a few large values, for which all others would be rounded away.",
    why=_residual_stream,
)
SHORTCUT = Quantizes(
    name="shortcut",
    matches="what is added to the result of an INT8 convolution that nothing else reads",
    reason="TensorRT then adds it in the convolution's epilogue and writes INT8; otherwise the sum is a kernel of its "
    "own.",
    reads=_shortcut,
)

"""The first and the last layers of a model, for those who want them in floating point."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch.fx import Node

from trtcompile.ptq.placement.operators import is_weighted
from trtcompile.ptq.placement.rule import LeavesOut, Situation


def _first_layer(node: Node, situation: Situation) -> str | None:
    if situation.spec.int8_first_layer or not is_weighted(node):
        return None
    if _leads_to_weighted(node, lambda n: n.all_input_nodes):
        return None
    return "int8_first_layer is False, and no weighted operator is in front of it"


def _last_layer(node: Node, situation: Situation) -> str | None:
    if situation.spec.int8_last_layer or not is_weighted(node):
        return None
    if _leads_to_weighted(node, lambda n: n.users):
        return None
    return "int8_last_layer is False, and no weighted operator is behind it"


def _leads_to_weighted(node: Node, neighbours: Callable[[Node], Iterable[Node]]) -> bool:
    waiting, seen = list(neighbours(node)), {node}
    while waiting:
        other = waiting.pop()
        if other in seen:
            continue
        seen.add(other)
        if other.op == "call_function" and is_weighted(other):
            return True
        waiting += neighbours(other)
    return False


FIRST_LAYER = LeavesOut(
    name="first layer",
    matches="weighted operators with none in front of them, where `int8_first_layer` is False",
    reason="Some models lose more accuracy in the first layer than in all others; INT8 there is the default.",
    why=_first_layer,
)
LAST_LAYER = LeavesOut(
    name="last layer",
    matches="weighted operators with none behind them, where `int8_last_layer` is False",
    reason="Some models lose more accuracy in the last layer than in all others; INT8 there is the default.",
    why=_last_layer,
)

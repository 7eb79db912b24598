"""Operators that stay in floating point because the user says so, or because PyTorch runs them."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch.fx import Node

from trtcompile.node_info import enclosing_modules, is_one_of, layer_name, operator_name
from trtcompile.ptq.placement.rule import LeavesOut, Situation


def _runs_in_pytorch(node: Node, situation: Situation) -> str | None:
    return None if node in situation.taken else "it runs in PyTorch"


def _excluded_module(node: Node, situation: Situation) -> str | None:
    for path in reversed(enclosing_modules(node)):
        for pattern in sorted(situation.spec.int8_excluded_modules):
            if fnmatchcase(path, pattern):
                return f"int8_excluded_modules has {pattern}"
    return None


def _excluded_operator(node: Node, situation: Situation) -> str | None:
    if not is_one_of(node, situation.spec.int8_excluded_ops):
        return None
    return f"int8_excluded_ops has {operator_name(node)}"


def _excluded_node(node: Node, situation: Situation) -> str | None:
    if layer_name(node) not in situation.spec.int8_excluded_nodes:
        return None
    return f"int8_excluded_nodes has {layer_name(node)}"


RUNS_IN_PYTORCH = LeavesOut(
    name="runs in PyTorch",
    matches="operators that TensorRT does not take",
    reason="INT8 is TensorRT's; in PyTorch, Q/DQ would only lose precision.",
    why=_runs_in_pytorch,
)
EXCLUDED_MODULE = LeavesOut(
    name="excluded module",
    matches="operators in a module that `int8_excluded_modules` names",
    reason="The user says so.",
    why=_excluded_module,
)
EXCLUDED_OPERATOR = LeavesOut(
    name="excluded operator",
    matches="operators that `int8_excluded_ops` names",
    reason="The user says so.",
    why=_excluded_operator,
)
EXCLUDED_NODE = LeavesOut(
    name="excluded node",
    matches="operators that `int8_excluded_nodes` names",
    reason="The user says so.",
    why=_excluded_node,
)


def may_be_read_in_int8(node: Node, situation: Situation) -> bool:
    """Whether an operator that only moves values may move them in INT8."""
    rules = (RUNS_IN_PYTORCH, EXCLUDED_MODULE, EXCLUDED_OPERATOR, EXCLUDED_NODE)
    return all(rule.why(node, situation) is None for rule in rules)

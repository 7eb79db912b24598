"""What a graph knows about sizes before they are known: bounds."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node


def lowest(size: Any) -> float:
    """The least value of a size, which may be symbolic."""
    return float(_bounds(size).lower) if isinstance(size, torch.SymInt) else size


def highest(size: Any) -> float:
    """The greatest value of a size, infinite if it has no bound."""
    return float(_bounds(size).upper) if isinstance(size, torch.SymInt) else size


def may_be_one(size: Any) -> bool:
    """Whether a size is 1 for some inputs and not for others."""
    if not isinstance(size, torch.SymInt):
        return False
    symbols = size.node.expr.free_symbols
    # torch.export gives a size that may be 1 the lower bound 2, as it never traces with 1.
    is_traced_as_two = any(size.node.shape_env.bound_sympy(s).lower <= 2 for s in symbols)
    return is_traced_as_two or lowest(size) < 2


def value_of(argument: Any) -> Any:
    """The tensor or number that an argument of a node stands for."""
    return argument.meta.get("val") if isinstance(argument, Node) else argument


def _bounds(size: torch.SymInt) -> Any:
    return size.node.shape_env.bound_sympy(size.node.expr)

"""A node's arguments by the names of the operator's schema, for predicates."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg


def arguments_of(node: Node) -> dict[str, Any]:
    """Every argument by name, defaults filled in; nodes are replaced by their ``meta["val"]``."""
    assert isinstance(node.target, torch._ops.OpOverload)
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
    bound: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):
        if position < len(args):
            bound[argument.name] = args[position]
        else:
            bound[argument.name] = kwargs.get(argument.name, argument.default_value)
    return bound

"""A node's arguments by the names of the operator's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg


def arguments_of(node: Node) -> dict[str, Any]:
    """Every argument by name, defaults filled in; nodes are replaced by their ``meta["val"]``."""
    assert isinstance(node.target, torch._ops.OpOverload)
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
    return bind(node.target, args, kwargs)


def bind(
    target: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments by name, defaults filled in."""
    bound: dict[str, Any] = {}
    for position, argument in enumerate(target._schema.arguments):
        if position < len(args):
            bound[argument.name] = args[position]
        else:
            bound[argument.name] = kwargs.get(argument.name, argument.default_value)
    return bound

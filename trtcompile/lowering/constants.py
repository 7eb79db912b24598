"""Reading and adding the constants of a graph."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node


def constant_of(graph_module: GraphModule, node: object) -> torch.Tensor | None:
    """The tensor behind a ``get_attr`` node; None for anything else."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value = getattr(graph_module, str(node.target))
    return value if isinstance(value, torch.Tensor) else None


def add_constant(
    graph_module: GraphModule, name: str, value: torch.Tensor, *, before: Node
) -> Node:
    """Registers ``value`` under a free name derived from ``name`` and returns its ``get_attr`` node."""
    free = name
    suffix = 0
    while hasattr(graph_module, free):
        suffix += 1
        free = f"{name}_{suffix}"
    graph_module.register_buffer(free, value)
    with graph_module.graph.inserting_before(before):
        node = graph_module.graph.get_attr(free)
    node.meta["val"] = value
    return node


def drop_unused_constants(graph_module: GraphModule) -> None:
    """Frees the constants that no node refers to any more."""
    used = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}
    for name in list(graph_module._buffers):
        if name not in used:
            delattr(graph_module, name)

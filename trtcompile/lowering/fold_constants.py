"""Computes at compile time what depends on constants alone."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from trtcompile.lowering.constants import add_constant, constant_of
from trtcompile.settings import CompileSpec

# A constant that is much larger than what it was made of would only swell the engine.
_LARGEST_GROWTH = 16 * 2**20


def fold_constants(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Replaces a node whose inputs are all constants by its value.

    Given::

        w = get_attr[weight]
        t = transpose(w, 0, 1)
        y = mm(x, t)

    Result::

        t = get_attr[transpose]
        y = mm(x, t)
    """
    folded = 0
    for node in list(graph_module.graph.nodes):
        if not _is_foldable(graph_module, node):
            continue
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: constant_of(graph_module, n))
        with torch.no_grad():
            value = node.target(*args, **kwargs)
        if (
            not isinstance(value, torch.Tensor)
            or value.numel() * value.element_size() > _LARGEST_GROWTH
        ):
            continue
        constant = add_constant(
            graph_module, f"folded_{node.name}", value.detach().contiguous(), before=node
        )
        node.replace_all_uses_with(constant)
        graph_module.graph.erase_node(node)
        folded += 1
    return folded


def _is_foldable(graph_module: GraphModule, node: Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    if node.target.namespace != "aten" or torch.Tag.nondeterministic_seeded in node.target.tags:
        return False
    inputs = node.all_input_nodes
    return bool(inputs) and all(constant_of(graph_module, n) is not None for n in inputs)

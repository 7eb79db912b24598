"""Computes at compile time what depends on constants alone."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from trtcompile.lowering.constants import add_constant, constant_of
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

# A constant that is much larger than what it was made of would only swell the engine.
_LARGEST_GROWTH = 16 * 2**20

# What these give depends on no value of their first argument, only on its shape and dtype.
_READ_SHAPE_ALONE = frozenset(
    {
        aten.zeros_like.default,
        aten.ones_like.default,
        aten.full_like.default,
        aten.new_zeros.default,
        aten.new_ones.default,
        aten.new_full.default,
    }
)


def fold_constants(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Replaces a node whose inputs are all constants, or that has none, by its value, or by those that are picked.

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
        arguments = _constant_arguments(graph_module, node)
        if arguments is None or _grows_too_large(graph_module, node):
            continue
        args, kwargs = arguments
        with torch.no_grad():
            value = node.target(*args, **kwargs)
        if isinstance(value, torch.Tensor):
            _replace(graph_module, node, value)
            folded += 1
        elif isinstance(value, (list, tuple)):
            picks = [user for user in node.users if user.target is operator.getitem]
            for pick in picks:
                _replace(graph_module, pick, value[pick.args[1]])
            folded += len(picks)
    return folded


def _replace(graph_module: GraphModule, node: Node, value: torch.Tensor) -> None:
    constant = add_constant(
        graph_module, f"folded_{node.name}", value.detach().contiguous(), before=node
    )
    node.replace_all_uses_with(constant)
    graph_module.graph.erase_node(node)


def _constant_arguments(graph_module: GraphModule, node: Node) -> tuple[Any, Any] | None:
    """The arguments of a node to compute it with; None if it is not to be computed."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    target = node.target
    if target.namespace != "aten" or torch.Tag.nondeterministic_seeded in target.tags:
        return None
    if "empty" in str(target):  # holds whatever was in memory
        return None
    known = {n: constant_of(graph_module, n) for n in node.all_input_nodes}
    if target in _READ_SHAPE_ALONE:
        read = node.args[0]
        value = read.meta.get("val") if isinstance(read, Node) else None
        if isinstance(value, torch.Tensor) and all(isinstance(s, int) for s in value.shape):
            known[read] = torch.empty(value.shape, dtype=value.dtype, device="meta")  # type: ignore[index]
    if any(value is None for value in known.values()):
        return None
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: known[n])
    if target in _READ_SHAPE_ALONE:
        kwargs = {**kwargs, "device": "cpu"}
    return args, kwargs


def _grows_too_large(graph_module: GraphModule, node: Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return False
    constants = (constant_of(graph_module, n) for n in node.all_input_nodes)
    return value.nbytes > _LARGEST_GROWTH + sum(c.nbytes for c in constants if c is not None)

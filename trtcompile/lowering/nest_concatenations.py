"""Lets concatenations that begin with the same tensors copy these once."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def nest_concatenations(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Builds a concatenation on the longest earlier one that it begins with.

    The layers of a dense block concatenate the results of all layers in front, each anew: 535 of them are copied in
    DenseNet-121, where TensorRT 10.6 has nothing to copy if each concatenation adds one tensor to the one before.

    Given::

        a = cat([x, y], 1)
        b = cat([x, y, z], 1)

    Result::

        a = cat([x, y], 1)
        b = cat([a, z], 1)
    """
    earlier: list[tuple[tuple[Node, ...], Node]] = []
    rewrites = 0
    for node in graph_module.graph.nodes:
        if node.target is not aten.cat.default:
            continue
        joined = tuple(node.args[0])
        prefixes = [
            (parts, other)
            for parts, other in earlier
            if 1 < len(parts) < len(joined)
            and joined[: len(parts)] == parts
            and _dim(other) == _dim(node)
            and other.meta["val"].dtype == node.meta["val"].dtype  # or parts would be rounded first
        ]
        if prefixes:
            parts, longest = max(prefixes, key=lambda prefix: len(prefix[0]))
            node.args = ([longest, *joined[len(parts) :]], *node.args[1:])
            rewrites += 1
        earlier.append((joined, node))
    return rewrites


def _dim(concatenation: Node) -> int:
    """The dimension that grows, counted from the first."""
    _, *positional = concatenation.args
    dim = positional[0] if positional else concatenation.kwargs.get("dim", 0)
    rank: int = concatenation.meta["val"].dim()
    assert isinstance(dim, int)
    return dim % rank

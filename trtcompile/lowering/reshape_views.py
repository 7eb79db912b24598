"""Lets reshapes take tensors of any strides."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from trtcompile.settings import CompileSpec

aten = torch.ops.aten
_VIEWS = (aten.view.default, aten._unsafe_view.default)


def reshape_views(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Replaces views by reshapes, which compute the same.

    A view needs strides that fit. Those of the capture are not those of the compiled model: copies are removed,
    weights are contiguous whatever the model's were, and so are the outputs of engines.

    Given::

        p = permute(x, [0, 2, 1])
        c = clone(p, memory_format=contiguous)
        y = view(c, [2, 12])

    Result, once the copy is removed::

        p = permute(x, [0, 2, 1])
        y = reshape(p, [2, 12])
    """
    rewrites = 0
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and node.target in _VIEWS:
            node.target = aten.reshape.default
            rewrites += 1
    return rewrites

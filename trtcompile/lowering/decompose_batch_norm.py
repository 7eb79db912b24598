"""Writes batch norms that no layer could absorb as one multiplication and one addition."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from trtcompile.lowering.batch_norm import BatchNorm, read_batch_norm, replace_batch_norm
from trtcompile.lowering.constants import add_constant
from trtcompile.node_info import copy_origin
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def decompose_batch_norm(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Computes scale and shift in FP64 at compile time.

    Given::

        n = batch_norm(x, weight, bias, mean, var, ...)
        y = n[0]

    Result::

        m = mul(x, weight / sqrt(var + eps))
        y = add(m, bias - mean * weight / sqrt(var + eps))
    """
    rewrites = 0
    for node in list(graph_module.graph.nodes):
        norm = read_batch_norm(graph_module, node)
        if norm is not None:
            _decompose(graph_module, node, norm)
            rewrites += 1
    return rewrites


def _decompose(graph_module: GraphModule, node: Node, norm: BatchNorm) -> None:
    value = node.meta["val"][0]
    sizes = [-1] + [1] * (value.dim() - 2)
    scale, shift = (
        add_constant(
            graph_module, f"{node.name}_{what}", each.reshape(sizes).to(value.dtype), before=node
        )
        for what, each in (("scale", norm.scale), ("shift", norm.shift()))
    )
    with graph_module.graph.inserting_before(node):
        scaled = graph_module.graph.call_function(aten.mul.Tensor, (node.args[0], scale))
        result = graph_module.graph.call_function(aten.add.Tensor, (scaled, shift))
    for new in (scaled, result):
        copy_origin(node, new, value)
    replace_batch_norm(node, result)

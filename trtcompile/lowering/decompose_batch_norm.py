"""Writes batch norms that no layer could absorb as a scale and a shift."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from trtcompile.lowering.batch_norm import BatchNorm, read_batch_norm, replace_batch_norm
from trtcompile.lowering.constants import add_constant
from trtcompile.node_info import copy_origin
from trtcompile.scale_shift import SCALE_SHIFT
from trtcompile.settings import CompileSpec


def decompose_batch_norm(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Computes scale and shift in FP64 at compile time.

    Given::

        n = batch_norm(x, weight, bias, mean, var, ...)
        y = n[0]

    Result::

        y = addcmul(shift, x, scale)

    with ``scale = weight / sqrt(var + eps)`` and ``shift = bias - mean * scale``.
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
        result = graph_module.graph.call_function(SCALE_SHIFT, (shift, node.args[0], scale))
    copy_origin(node, result, value)
    replace_batch_norm(node, result)

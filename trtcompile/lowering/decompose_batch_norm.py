"""Writes batch norms that no layer could absorb as one multiplication and one addition."""

from __future__ import annotations

import operator

import torch
from torch.fx import GraphModule, Node

from trtcompile.lowering.constants import add_constant, constant_of
from trtcompile.lowering.fold_batch_norm import BATCH_NORM
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
    for norm in list(graph_module.graph.nodes):
        if (
            norm.op == "call_function"
            and norm.target is BATCH_NORM
            and _decompose(graph_module, norm)
        ):
            rewrites += 1
    return rewrites


def _decompose(graph_module: GraphModule, norm: Node) -> bool:
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in norm.users):
        return False
    gamma, beta, mean, var = (constant_of(graph_module, a) for a in norm.args[1:5])
    if mean is None or var is None:
        return False
    if any(a is not None and c is None for a, c in zip(norm.args[1:3], (gamma, beta), strict=True)):
        return False
    source = norm.args[0]
    assert isinstance(source, Node)
    value = norm.meta["val"][0]
    scale = torch.rsqrt(var.double() + float(norm.args[6]))  # type: ignore[arg-type]
    scale = scale if gamma is None else scale * gamma.double()
    shift = -mean.double() * scale
    shift = shift if beta is None else shift + beta.double()
    sizes = [-1] + [1] * (value.dim() - 2)
    scale_node = add_constant(
        graph_module, f"{norm.name}_scale", scale.reshape(sizes).to(value.dtype), before=norm
    )
    shift_node = add_constant(
        graph_module, f"{norm.name}_shift", shift.reshape(sizes).to(value.dtype), before=norm
    )
    with graph_module.graph.inserting_before(norm):
        scaled = graph_module.graph.call_function(aten.mul.Tensor, (source, scale_node))
        result = graph_module.graph.call_function(aten.add.Tensor, (scaled, shift_node))
    for node in (scaled, result):
        copy_origin(norm, node, value)
    for user in list(norm.users):
        user.replace_all_uses_with(result)
        graph_module.graph.erase_node(user)
    graph_module.graph.erase_node(norm)
    return True

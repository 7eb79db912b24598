"""Folds batch norms into the convolution or linear layer in front."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from trtcompile.lowering.batch_norm import BatchNorm, read_batch_norm, replace_batch_norm
from trtcompile.lowering.constants import add_constant, constant_of
from trtcompile.node_info import FOLDED_NORM
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def fold_batch_norm(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Multiplies the norm's scale into the weight and its shift into the bias, in FP64.

    Must run before weights are quantized: per-channel scales belong to the weights that the engine has.

    Given::

        c = convolution(x, weight, bias, ...)
        n = batch_norm(c, ...)
        y = n[0]

    Result::

        y = convolution(x, weight * scale, (bias - mean) * scale + shift, ...)
    """
    folded = 0
    for node in list(graph_module.graph.nodes):
        norm = read_batch_norm(graph_module, node)
        if norm is not None and _fold(graph_module, node, norm):
            folded += 1
    return folded


def _fold(graph_module: GraphModule, node: Node, norm: BatchNorm) -> bool:
    layer = node.args[0]
    if not isinstance(layer, Node) or set(layer.users) != {node}:
        return False
    if layer.target is aten.convolution.default:
        transposed, groups = bool(layer.args[6]), int(str(layer.args[8]))
    elif layer.target is aten.linear.default and node.meta["val"][0].dim() == 2:
        transposed, groups = False, 1
    else:
        return False
    weight_node = layer.args[1]
    bias_node = layer.args[2] if len(layer.args) > 2 else None
    weight, bias = constant_of(graph_module, weight_node), constant_of(graph_module, bias_node)
    if weight is None or (bias_node is not None and bias is None):
        return False

    folded_weight = _scale_output_channels(weight.double(), norm.scale, transposed, groups)
    name = str(weight_node.target)  # type: ignore[union-attr]
    weight_value, bias_value = folded_weight.to(weight.dtype), norm.shift(bias).to(weight.dtype)
    new_weight = add_constant(graph_module, f"{name}_folded", weight_value, before=layer)
    new_bias = add_constant(graph_module, f"{name}_folded_bias", bias_value, before=layer)
    layer.args = (layer.args[0], new_weight, new_bias, *layer.args[3:])
    layer.meta[FOLDED_NORM] = node.meta.get("nn_module_stack") or {}
    replace_batch_norm(node, layer)
    return True


def _scale_output_channels(
    weight: torch.Tensor, scale: torch.Tensor, transposed: bool, groups: int
) -> torch.Tensor:
    if not transposed:
        return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    # A transposed kernel is [in, out / groups, ...]; output channel g * (out / groups) + j belongs to group g.
    per_group = weight.reshape(groups, -1, *weight.shape[1:])
    factors = scale.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))
    return (per_group * factors).reshape(weight.shape)

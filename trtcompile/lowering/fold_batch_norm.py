"""Folds batch norms into the convolution or linear layer in front."""

from __future__ import annotations

import operator

import torch
from torch.fx import GraphModule, Node

from trtcompile.lowering.constants import add_constant, constant_of
from trtcompile.settings import CompileSpec

aten = torch.ops.aten
#: Kept whole in capture, for the passes on it.
BATCH_NORM = aten._native_batch_norm_legit_no_training.default


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
    for norm in list(graph_module.graph.nodes):
        if norm.op == "call_function" and norm.target is BATCH_NORM and _fold(graph_module, norm):
            folded += 1
    return folded


def _fold(graph_module: GraphModule, norm: Node) -> bool:
    layer = norm.args[0]
    if (
        not isinstance(layer, Node)
        or set(layer.users) != {norm}
        or not _only_first_output_used(norm)
    ):
        return False
    if layer.target is aten.convolution.default:
        transposed, groups = bool(layer.args[6]), int(str(layer.args[8]))
    elif layer.target is aten.linear.default and norm.meta["val"][0].dim() == 2:
        transposed, groups = False, 1
    else:
        return False
    weight_node = layer.args[1]
    bias_node = layer.args[2] if len(layer.args) > 2 else None
    weight, bias = constant_of(graph_module, weight_node), constant_of(graph_module, bias_node)
    gamma, beta, mean, var = (constant_of(graph_module, a) for a in norm.args[1:5])
    affine_is_constant = all(
        a is None or constant is not None
        for a, constant in zip(norm.args[1:3], (gamma, beta), strict=True)
    )
    if weight is None or mean is None or var is None or not affine_is_constant:
        return False
    if bias_node is not None and bias is None:
        return False

    scale = torch.rsqrt(var.double() + float(norm.args[6]))  # type: ignore[arg-type]
    if gamma is not None:
        scale = scale * gamma.double()
    shift = -mean.double() if bias is None else bias.double() - mean.double()
    shift = shift * scale
    if beta is not None:
        shift = shift + beta.double()
    folded_weight = _scale_output_channels(weight.double(), scale, transposed, groups)

    name = str(weight_node.target)  # type: ignore[union-attr]
    weight_value = folded_weight.to(weight.dtype)
    new_weight = add_constant(graph_module, f"{name}_folded", weight_value, before=layer)
    new_bias = add_constant(
        graph_module, f"{name}_folded_bias", shift.to(weight.dtype), before=layer
    )
    layer.args = (layer.args[0], new_weight, new_bias, *layer.args[3:])
    for user in list(norm.users):
        user.replace_all_uses_with(layer)
        graph_module.graph.erase_node(user)
    graph_module.graph.erase_node(norm)
    return True


def _only_first_output_used(norm: Node) -> bool:
    return all(user.target is operator.getitem and user.args[1] == 0 for user in norm.users)


def _scale_output_channels(
    weight: torch.Tensor, scale: torch.Tensor, transposed: bool, groups: int
) -> torch.Tensor:
    if not transposed:
        return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    # A transposed kernel is [in, out / groups, ...]; output channel g * (out / groups) + j belongs to group g.
    per_group = weight.reshape(groups, -1, *weight.shape[1:])
    factors = scale.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))
    return (per_group * factors).reshape(weight.shape)

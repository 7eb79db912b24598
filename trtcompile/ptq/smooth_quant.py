"""SmoothQuant: moves outliers from activations into weights, where INT8 has a scale for each channel.

Xiao, Lin, Seznec, Wu, Demouth, Han, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
Models" (ICML 2023). In transformers a few channels behind a norm are 100 times as large as the others, which one scale
for the tensor rounds away. Dividing channel j by ``s_j = max|X_j| ** alpha / max|W_j| ** (1 - alpha)`` in the norm, and
multiplying input channel j of the weights that read it by the same, changes nothing but how large the values are.

The factors are rounded to powers of two. Then floating-point numbers are scaled without rounding, the FP32 model's
results stay the same to the bit (unless numbers get subnormal), and maxima that another device sums up a little
differently give the same factors, so that a calibration table measured there still fits.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from trtcompile.lowering.constants import add_constant, constant_of, drop_unused_constants
from trtcompile.node_info import layer_name
from trtcompile.ptq.movement import keeps_last_axis

aten = torch.ops.aten

#: Tensor name -> the largest absolute value of each channel, float32 ``[C]``.
Measure = Callable[[Sequence[Node]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class _Norm:
    """A norm whose result linear layers read.

    Attributes:
        node: the operator; its weight and bias are divided.
        value: its result.
        readers: the linear layers, and what each reads: the result, or what movements that leave the channels where
            they are make of it.
        others: what else reads that.
    """

    node: Node
    value: Node
    readers: Mapping[Node, Node]
    others: Sequence[Node]


def smooth(
    graph_module: GraphModule, taken: Collection[Node], alpha: float, measure: Measure
) -> dict[Node, str]:
    """Smooths what linear layers read of norms, in place; the graph computes the same function.

    Args:
        graph_module: the lowered FP32 graph.
        taken: the operators that TensorRT takes; what PyTorch runs is not quantized.
        alpha: from 0, which leaves activations as hard to quantize as they are, to 1, which gives all of it to the
            weights.
        measure: gives the channels' largest absolute values on the calibration data.

    Returns:
        Each norm that linear layers read and that was left out, and why.
    """
    norms, left_out = _find(graph_module, taken)
    if norms:
        maxima = measure(list(dict.fromkeys(v for norm in norms for v in norm.readers.values())))
        for norm in norms:
            weights = [_weight(graph_module, reader) for reader in norm.readers]
            read = [maxima[layer_name(value)] for value in norm.readers.values()]
            factors = smoothing_factors(torch.stack(read).amax(dim=0), weights, alpha)
            _apply(graph_module, norm, factors)
        graph_module.graph.eliminate_dead_code()  # the constants that were replaced
        graph_module.graph.lint()
        graph_module.recompile()
        drop_unused_constants(graph_module)
    return left_out


def smoothing_factors(largest: Tensor, weights: Sequence[Tensor], alpha: float) -> Tensor:
    """What each channel is divided by: ``max|X_j| ** alpha / max|W_j| ** (1 - alpha)``, rounded to a power of two.

    Args:
        largest: the channels' largest absolute values, float32 ``[C]``.
        weights: of all readers, ``[outputs, C]``.
        alpha: from 0 to 1.

    Returns:
        float32 ``[C]``; 1 for channels that are zero, or that no weight reads.
    """
    of_weights = torch.stack([weight.detach().abs().amax(dim=0) for weight in weights]).amax(dim=0)
    x, w = largest.double(), of_weights.double()
    exponents = alpha * torch.log2(x) - (1 - alpha) * torch.log2(w)
    exponents = torch.where((x > 0) & (w > 0), exponents, torch.zeros_like(exponents))
    return torch.exp2(exponents.round()).float()


def _find(
    graph_module: GraphModule, taken: Collection[Node]
) -> tuple[list[_Norm], dict[Node, str]]:
    norms: list[_Norm] = []
    left_out: dict[Node, str] = {}
    for node in graph_module.graph.nodes:
        if node.target not in (aten.native_layer_norm.default, aten.rms_norm.default):
            continue
        value = _result(node)
        if value is None:
            continue
        norm = _Norm(node, value, *_readers(value))
        if not norm.readers:
            continue
        reason = _reason_to_leave_out(graph_module, norm, taken)
        if reason is None:
            norms.append(norm)
        else:
            left_out[node] = f"smooth_quant leaves it out: {reason}"
    return norms, left_out


def _result(node: Node) -> Node | None:
    if node.target is aten.rms_norm.default:
        return node
    values = [u for u in node.users if u.target is operator.getitem and u.args[1] == 0]
    return values[0] if len(values) == 1 and len(node.users) == 1 else None


def _readers(value: Node) -> tuple[dict[Node, Node], list[Node]]:
    """The linear layers that a value reaches with its channels along the last axis, with what they read; the others."""
    readers: dict[Node, Node] = {}
    others: list[Node] = []
    waiting = [value]
    while waiting:
        moved = waiting.pop(0)
        for user in moved.users:
            if user.target is aten.linear.default:
                readers[user] = moved
            elif keeps_last_axis(user):
                waiting.append(user)
            else:
                others.append(user)
    return readers, others


def _reason_to_leave_out(
    graph_module: GraphModule, norm: _Norm, taken: Collection[Node]
) -> str | None:
    node = norm.node
    for other in norm.others:
        return f"{layer_name(other)} reads it as well"
    for reader, moved in norm.readers.items():
        if reader not in taken:
            return f"its reader {layer_name(reader)} runs in PyTorch"
        if reader.args[0] is not moved or constant_of(graph_module, reader.args[1]) is None:
            return f"the weight of its reader {layer_name(reader)} is computed by the model"
    shape = node.args[1]
    if not isinstance(shape, (list, tuple)) or len(shape) != 1:
        return f"it normalizes {shape}, not the channels alone"
    dtype = norm.value.meta["val"].dtype
    if dtype != torch.float32:
        return f"its result is {dtype}, not float32"
    for given in node.args[2 : 2 + _parameters(node)]:
        if given is not None and constant_of(graph_module, given) is None:
            return "its weight or bias is computed by the model"
    return None


def _parameters(node: Node) -> int:
    """How many parameters a norm may have: a weight, and a layer norm a bias."""
    return 2 if node.target is aten.native_layer_norm.default else 1


def _weight(graph_module: GraphModule, linear: Node) -> Tensor:
    weight = constant_of(graph_module, linear.args[1])
    assert weight is not None
    return weight


def _apply(graph_module: GraphModule, norm: _Norm, factors: Tensor) -> None:
    """New constants: others may use the old ones, such as a norm that is called twice, or a tied embedding."""
    arguments = [*norm.node.args, *[None] * (2 + _parameters(norm.node) - len(norm.node.args))]
    for place in range(2, 2 + _parameters(norm.node)):
        old = constant_of(graph_module, arguments[place])
        if old is None and place == 2:
            old = torch.ones_like(factors)
        if old is not None:
            name = f"{norm.node.name}_{'weight' if place == 2 else 'bias'}_smoothed"
            arguments[place] = add_constant(
                graph_module, name, old.detach() / factors, before=norm.node
            )
    norm.node.args = tuple(arguments)
    for reader in norm.readers:
        weight = _weight(graph_module, reader).detach() * factors
        new = add_constant(graph_module, f"{reader.name}_weight_smoothed", weight, before=reader)
        reader.update_arg(1, new)

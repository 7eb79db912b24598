"""Pairs tensors with names such as ``/layer1/layer1.0/conv1/Conv_output_0``, by module and operator.

PyTorch's ONNX exporter (``torch.onnx.export(dynamo=False)``, PyTorch 1.13 and later) names a tensor after the module
that computes it, the ONNX operator, and its rank among operators of that kind in the module. TensorRT's parser keeps
these names, and so does its calibration cache.
"""

from __future__ import annotations

import collections
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from trtcompile.node_info import FOLDED_NORM
from trtcompile.ptq.movement import only_moves

aten = torch.ops.aten

_SCOPED = re.compile(
    r"(?P<scope>(?:/[^/]+)*)/(?P<operator>[A-Z][A-Za-z]*)(?:_(?P<rank>\d+))?_output_0"
)
# torch.compile's paths start at the function that was compiled: L['self'].layer1.0
_ROOT = re.compile(r"L\['\w+'\]\.?")

_AVERAGES = ("AveragePool", "GlobalAveragePool", "ReduceMean")

#: What an operator is written as. The exporter has one choice for each scope: the ranks are of one kind.
_WRITTEN_AS: Mapping[Any, tuple[str, ...]] = {
    aten.adaptive_avg_pool2d.default: _AVERAGES,
    aten.add.Tensor: ("Add",),
    aten.avg_pool2d.default: ("AveragePool",),
    aten.bmm.default: ("MatMul",),
    aten.cat.default: ("Concat",),
    aten.convolution.default: ("Conv", "ConvTranspose"),
    aten.div.Tensor: ("Div",),
    aten.hardtanh.default: ("Clip",),
    aten.leaky_relu.default: ("LeakyRelu",),
    aten.matmul.default: ("MatMul",),
    aten.max_pool2d.default: ("MaxPool",),
    aten.mean.dim: _AVERAGES,
    aten.mm.default: ("MatMul",),
    aten.mul.Tensor: ("Mul",),
    aten.relu.default: ("Relu",),
    aten.select.int: ("Gather",),
    aten.scaled_dot_product_attention.default: ("MatMul",),
    aten.sigmoid.default: ("Sigmoid",),
    aten.softmax.int: ("Softmax",),
    aten.sub.Tensor: ("Sub",),
    aten.tanh.default: ("Tanh",),
}
#: What a module that computes nothing else ends with, and how many of these it has.
_ENDS_WITH: Mapping[Any, Mapping[str, int]] = {
    aten.elu.default: {"Elu": 1},
    aten.embedding.default: {"Gather": 1},
    aten.gelu.default: {"Gelu": 1, "Mul": 2},
    aten.hardsigmoid.default: {"HardSigmoid": 1},
    aten.hardswish.default: {"HardSwish": 1, "Mul": 1},
    aten.native_group_norm.default: {"Add": 1},
    aten.native_layer_norm.default: {"Add": 2, "LayerNormalization": 1},
    aten.prelu.default: {"PRelu": 1},
    aten.silu.default: {"Mul": 1},
}

#: ONNX operator -> rank -> name in the cache, for one scope.
_Entries = dict[str, dict[int, str]]


def is_scoped(name: str) -> bool:
    """Whether a name tells the module and the operator."""
    return _SCOPED.fullmatch(name) is not None


def pair_by_module(graph_module: GraphModule, names: Iterable[str]) -> dict[Node, tuple[str, str]]:
    """Finds the entries of a graph's nodes by module and operator. The order of the cache tells nothing.

    Operators are paired by rank among those of their kind in a module, if there are as many on both sides; what is
    written as several operators gives the module's result, if the module computes nothing else.

    Args:
        graph_module: the lowered graph.
        names: the cache's.

    Returns:
        Node -> its entry, and how it was found.
    """
    scopes: dict[str, _Entries] = {}
    for name in names:
        match = _SCOPED.fullmatch(name)
        if match is not None:
            entries = scopes.setdefault(match["scope"], {}).setdefault(match["operator"], {})
            entries[int(match["rank"] or 0)] = name
    pairs: dict[Node, tuple[str, str]] = {}
    for scope, nodes in _calls(graph_module).items():
        entries_of_scope = scopes.get(scope, {})
        whole = _result_of_module(nodes, entries_of_scope)
        if whole is not None:
            node, name = whole
            pairs[node] = (name, f"the result of {_spoken(scope)}")
        for node, name, kind in _by_rank(nodes, entries_of_scope):
            pairs[node] = (name, f"the {kind} of {_spoken(scope)}")
    # A norm that was folded computes the layer's value, wherever the exporter has left it whole.
    for scope, layer in _folded_norms(graph_module).items():
        for name in scopes.get(scope, {}).get("BatchNormalization", {}).values():
            pairs[layer] = (name, f"the result of the norm {scope}")
    # The entry of a graph's output has the output's name.
    return {node: found for node, found in pairs.items() if not _is_output(node)}


def _is_output(node: Node) -> bool:
    return any(user.op == "output" for user in node.users)


def _result_of_module(nodes: Sequence[Node], entries: _Entries) -> tuple[Node, str] | None:
    inside = set(nodes)
    leaving = [node for node in nodes if any(user not in inside for user in node.users)]
    computing = [
        node for node in nodes if node.target is not operator.getitem and not only_moves(node)
    ]
    if len(leaving) != 1:
        return None
    norms = entries.get("BatchNormalization", {})
    if len(entries) == 1 and set(norms) == {0}:  # decomposed by us
        return leaving[0], norms[0]
    value = leaving[0].args[0] if leaving[0].target is operator.getitem else leaving[0]
    if not isinstance(value, Node) or computing != [value]:
        return None
    if value.target is aten.linear.default:
        ends: Mapping[str, int] = {"Add": 1, "Gemm": 1} if _has_bias(value) else {"MatMul": 1}
    else:
        ends = _ENDS_WITH.get(value.target, {})
    for kind, count in ends.items():
        if set(entries.get(kind, ())) == set(range(count)):
            return leaving[0], entries[kind][count - 1]
    return None


def _by_rank(nodes: Sequence[Node], entries: _Entries) -> Iterator[tuple[Node, str, str]]:
    spelled: dict[tuple[str, ...], list[Node | None]] = {}
    for node in nodes:
        if node.target is aten.linear.default:
            spelled.setdefault(_product_of(node), []).append(None)  # a bias may follow
        elif node.target in _WRITTEN_AS:
            inner = node.target is aten.scaled_dot_product_attention.default
            spelled.setdefault(_WRITTEN_AS[node.target], []).extend(
                [None, node] if inner else [node]
            )
    for kinds, ours in spelled.items():
        present = [kind for kind in kinds if kind in entries]
        if len(present) != 1 or set(entries[present[0]]) != set(range(len(ours))):
            continue
        for rank, node_ in enumerate(ours):
            if node_ is not None:
                place = f" {rank + 1} of {len(ours)}" if len(ours) > 1 else ""
                yield node_, entries[present[0]][rank], f"{present[0]}{place}"


def _product_of(linear: Node) -> tuple[str, ...]:
    return ("Gemm",) if _has_bias(linear) and linear.meta["val"].dim() == 2 else ("MatMul",)


def _has_bias(linear: Node) -> bool:
    return len(linear.args) > 2 and linear.args[2] is not None


def _calls(graph_module: GraphModule) -> dict[str, list[Node]]:
    """The exporter's scope of each module call -> the nodes that the call computes itself."""
    nodes: dict[tuple[str, ...], list[Node]] = {}
    stacks: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for node in graph_module.graph.nodes:
        if node.op == "call_function":
            stack = node.meta.get("nn_module_stack") or {}
            call = tuple(key for key, (path, *_) in stack.items() if _ROOT.sub("", str(path)))
            nodes.setdefault(call, []).append(node)
            stacks[call] = stack
    scopes: dict[str, list[Node]] = {}
    ambiguous = set()
    for scope, call in zip(_numbered(stacks.values()), stacks, strict=True):
        if scope in scopes:  # a module is called relu_1, and another, relu, is called twice
            ambiguous.add(scope)
        scopes[scope] = nodes[call]
    return {scope: found for scope, found in scopes.items() if scope not in ambiguous}


def _folded_norms(graph_module: GraphModule) -> dict[str, Node]:
    """The exporter's scope of each norm that was folded -> the layer that it was folded into."""
    layers = [node for node in graph_module.graph.nodes if node.meta.get(FOLDED_NORM)]
    return dict(zip(_numbered(node.meta[FOLDED_NORM] for node in layers), layers, strict=True))


def _numbered(stacks: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The scopes of module calls; those of one module get numbers, as operators do: /relu, /relu_1, ..."""
    counts: collections.Counter[str] = collections.Counter()
    for stack in stacks:
        base = _scope(stack)
        yield f"{base}_{counts[base]}" if counts[base] else base
        counts[base] += 1


def _spoken(scope: str) -> str:
    return f"module {scope}" if scope else "the model itself"


def _scope(stack: Mapping[str, Any]) -> str:
    """``/layer1/layer1.0/conv1`` of a module stack: the end of each module's path, from a name on."""
    scope = ""
    for path, *_ in stack.values():
        parts = _ROOT.sub("", str(path), count=1).split(".")
        start = max((i for i, part in enumerate(parts) if not part.isdigit()), default=0)
        scope += f"/{'.'.join(parts[start:])}" if parts != [""] else ""
    return scope

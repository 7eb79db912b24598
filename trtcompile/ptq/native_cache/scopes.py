"""Pairs tensors with names such as ``/layer1/layer1.0/conv1/Conv_output_0``, by module and operator.

PyTorch's ONNX exporter (``torch.onnx.export(dynamo=False)``, PyTorch 1.13 and later) names a tensor after the module
that computes it, the ONNX operator, and its rank among operators of that kind in the module. TensorRT's parser keeps
these names, and so does its calibration cache.
"""

from __future__ import annotations

import collections
import operator as operator_module
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from trtcompile.node_info import FOLDED_NORM

aten = torch.ops.aten

_SCOPED = re.compile(r"(?P<scope>(?:/[^/]+)*)/(?P<operator>[A-Z][A-Za-z]*)(?:_\d+)?_output_0")
# torch.compile's paths start at the function that was compiled: L['self'].layer1.0
_ROOT = re.compile(r"L\['\w+'\]\.?")

# Constants and sizes are no activations.
_NO_ACTIVATION = frozenset({"Constant", "ConstantOfShape", "Shape"})
_PRODUCTS = frozenset({"Gemm", "MatMul"})


@dataclass(frozen=True)
class _Spelling:
    """How the exporter writes an ATen operator.

    Attributes:
        operators: the ONNX operators that its result may come from.
        count: how many operators of these kinds it is written as; the last one gives the result.
    """

    operators: frozenset[str]
    count: int = 1


_NONE = _Spelling(frozenset())


def _of(*operators: str, count: int = 1) -> _Spelling:
    return _Spelling(frozenset(operators), count)


#: Operators that are found by rank among their kind: no other operator is written with these kinds.
_SPELLINGS: Mapping[Any, _Spelling] = {
    aten.adaptive_avg_pool2d.default: _of("AveragePool", "GlobalAveragePool", "ReduceMean"),
    aten.add.Tensor: _of("Add"),
    aten.avg_pool2d.default: _of("AveragePool"),
    aten.bmm.default: _of(*_PRODUCTS),
    aten.cat.default: _of("Concat"),
    aten.convolution.default: _of("Conv", "ConvTranspose"),
    aten.div.Tensor: _of("Div"),
    aten.hardtanh.default: _of("Clip"),
    aten.leaky_relu.default: _of("LeakyRelu"),
    aten.linear.default: _of(*_PRODUCTS),
    aten.matmul.default: _of(*_PRODUCTS),
    aten.max_pool2d.default: _of("MaxPool"),
    aten.mean.dim: _of("GlobalAveragePool", "ReduceMean"),
    aten.mm.default: _of(*_PRODUCTS),
    aten.mul.Tensor: _of("Mul"),
    aten.relu.default: _of("Relu"),
    aten.scaled_dot_product_attention.default: _of(*_PRODUCTS, count=2),
    aten.sigmoid.default: _of("Sigmoid"),
    aten.softmax.int: _of("Softmax"),
    aten.sub.Tensor: _of("Sub"),
    aten.tanh.default: _of("Tanh"),
}
#: What else the last operator of a module may be, if the operator here gives the module's result.
_LAST: Mapping[Any, frozenset[str]] = {
    aten.add.Tensor: frozenset({"BatchNormalization"}),
    aten.elu.default: frozenset({"Elu"}),
    aten.embedding.default: frozenset({"Gather"}),
    aten.gelu.default: frozenset({"Gelu", "Mul"}),
    aten.hardsigmoid.default: frozenset({"HardSigmoid"}),
    aten.hardswish.default: frozenset({"HardSwish", "Mul"}),
    aten.linear.default: frozenset({"Add"}),
    aten.native_group_norm.default: frozenset({"Add", "GroupNormalization"}),
    aten.native_layer_norm.default: frozenset({"Add", "LayerNormalization"}),
    aten.prelu.default: frozenset({"PRelu"}),
    aten.silu.default: frozenset({"Mul"}),
}


def is_scoped(name: str) -> bool:
    """Whether a name tells the module and the operator."""
    return _SCOPED.fullmatch(name) is not None


def pair_by_module(graph_module: GraphModule, names: Iterable[str]) -> dict[Node, tuple[str, str]]:
    """Finds the entries of a graph's nodes by module and operator.

    A module's result is the last entry of its scope, if only one of the module's values is read outside of it. Other
    values are paired by rank among operators of their kind in the scope, if there are as many of them on both sides.

    Args:
        graph_module: the lowered graph.
        names: the cache's, in its order.

    Returns:
        Node -> its entry, and how it was found.
    """
    scopes: dict[str, list[tuple[str, str]]] = {}
    for name in names:
        match = _SCOPED.fullmatch(name)
        if match is not None and match["operator"] not in _NO_ACTIVATION:
            scopes.setdefault(match["scope"], []).append((match["operator"], name))
    calls = _calls(graph_module)
    pairs: dict[Node, tuple[str, str]] = {}
    for scope, nodes in calls.items():
        entries = scopes.get(scope, [])
        for node, name in _by_rank(nodes, entries):
            pairs[node] = (name, f"by operator and rank in {_spoken(scope)}")
        whole = _result_of_module(nodes, entries)
        if whole is not None:
            node, name = whole
            pairs[node] = (name, f"the result of {_spoken(scope)}")
    # A norm that was folded computes the layer's value, wherever the exporter has left it whole.
    for scope, layer in _folded_norms(graph_module).items():
        if scopes.get(scope):
            pairs[layer] = (scopes[scope][-1][1], f"the result of the norm {scope}")
    return pairs


def _result_of_module(
    nodes: Sequence[Node], entries: Sequence[tuple[str, str]]
) -> tuple[Node, str] | None:
    inside = set(nodes)
    leaving = [node for node in nodes if any(user not in inside for user in node.users)]
    if len(leaving) != 1 or not entries:
        return None
    (node,), (operator, name) = leaving, entries[-1]
    if any(user.op == "output" for user in node.users):
        return None  # the entry of a graph's output has the output's name
    source = node.args[0] if node.target is operator_module.getitem else node
    target = source.target if isinstance(source, Node) else None
    spelling = _SPELLINGS.get(target, _NONE)
    allowed = spelling.operators | _LAST.get(target, frozenset())
    return (node, name) if operator in allowed else None


def _by_rank(
    nodes: Sequence[Node], entries: Sequence[tuple[str, str]]
) -> Iterator[tuple[Node, str]]:
    for kind in {_SPELLINGS[node.target].operators for node in nodes if node.target in _SPELLINGS}:
        ours: list[Node | None] = []
        for node in nodes:
            spelling = _SPELLINGS.get(node.target)
            if spelling is not None and spelling.operators == kind:
                ours += [None] * (spelling.count - 1) + [node]
        theirs = [(operator, name) for operator, name in entries if operator in kind]
        if len(ours) != len(theirs):
            continue
        for node_, (operator, name) in zip(ours, theirs, strict=True):
            if node_ is not None and not (_has_bias(node_) and operator == "MatMul"):
                yield node_, name


def _has_bias(node: Node) -> bool:
    is_linear = node.target is aten.linear.default
    return is_linear and len(node.args) > 2 and node.args[2] is not None


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
    # Calls of one module get numbers, as if they were operators: /relu, /relu_1, ...
    counts: collections.Counter[str] = collections.Counter()
    scopes: dict[str, list[Node]] = {}
    ambiguous = set()
    for call, stack in stacks.items():
        base = _scope(stack)
        scope = f"{base}_{counts[base]}" if counts[base] else base
        counts[base] += 1
        if scope in scopes:  # a module is called relu_1, and another, relu, is called twice
            ambiguous.add(scope)
        scopes[scope] = nodes[call]
    return {scope: found for scope, found in scopes.items() if scope not in ambiguous}


def _folded_norms(graph_module: GraphModule) -> dict[str, Node]:
    return {
        _scope(node.meta[FOLDED_NORM]): node
        for node in graph_module.graph.nodes
        if node.meta.get(FOLDED_NORM)
    }


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

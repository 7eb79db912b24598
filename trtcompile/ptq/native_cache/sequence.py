"""Pairs tensors with names such as ``(Unnamed Layer* 3) [Convolution]_output``, by the sequence of layers.

TensorRT names the results of layers that a program added to a network, and did not name, after the layer's number and
kind. Such names say nothing of which layer it is, so the whole sequence of kinds must be that of the model: a model
with another operator anywhere is not mistaken for this one. Only the order of branches that have the same kinds of
layers does not show; the program is taken to have added them in the order in which the model computes them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from trtcompile.node_info import FOLDED_NORM, layer_name
from trtcompile.ptq.movement import only_moves

aten = torch.ops.aten

_UNNAMED = re.compile(r"\(Unnamed Layer\* (?P<number>\d+)\) \[(?P<kind>[^\]]+)\](?:_\d+)?_output")

# What moves values and what makes constants is written in too many ways to compare.
_PASSED_OVER = frozenset({"Constant", "Shuffle", "Shape", "Cast", "Identity", "Gather", "Slice"})

_KINDS: Mapping[Any, str] = {
    aten.adaptive_avg_pool2d.default: "average",
    aten.add.Tensor: "ElementWise",
    aten.addcmul.default: "Scale",
    aten.avg_pool2d.default: "Pooling",
    aten.cat.default: "Concatenation",
    aten.div.Tensor: "ElementWise",
    aten.hardtanh.default: "Activation",
    aten.leaky_relu.default: "Activation",
    aten.max_pool2d.default: "Pooling",
    aten.mean.dim: "average",
    aten.mul.Tensor: "ElementWise",
    aten.relu.default: "Activation",
    aten.sigmoid.default: "Activation",
    aten.softmax.int: "SoftMax",
    aten.sub.Tensor: "ElementWise",
    aten.tanh.default: "Activation",
}


@dataclass(frozen=True)
class _Style:
    """What a program may have chosen.

    Attributes:
        norm: layers after a convolution that a norm of ours was folded into.
        linear: layers of a linear layer with a bias.
        average: the layer of an average over an image.
        names_outputs: whether the model's outputs have names of their own, which say nothing of layers.
    """

    norm: tuple[str, ...]
    linear: tuple[str, ...]
    average: str
    names_outputs: bool


_STYLES = [
    _Style(*choices)
    for choices in itertools.product(
        [(), ("Scale",)],
        [("Fully Connected",), ("Matrix Multiply", "ElementWise"), ("Convolution",)],
        ["Pooling", "Reduce"],
        [False, True],
    )
]


def is_unnamed(name: str) -> bool:
    """Whether TensorRT made a name up."""
    return _UNNAMED.fullmatch(name) is not None


def pair_by_sequence(
    graph_module: GraphModule, names: Iterable[str]
) -> tuple[dict[Node, tuple[str, str]], str | None]:
    """Finds the entries of a graph's nodes by their place in the sequence of layers.

    Args:
        graph_module: the lowered graph.
        names: the cache's.

    Returns:
        Node -> its entry, and how it was found; and why there are none, as a sentence, or None.
    """
    layers = _layers(names)
    theirs = [kind for kind, _ in layers]
    difference: tuple[int, str] = (-1, "")
    for style in _STYLES:
        spelled = list(_spelled(graph_module, style))
        kinds = [kind for kind, _ in spelled]
        if kinds == theirs:
            return {
                node: (name, f"layer {place} of {len(layers)} in a sequence that is the model's")
                for place, ((_, node), (_, name)) in enumerate(
                    zip(spelled, layers, strict=True), start=1
                )
                if node is not None
            }, None
        difference = max(difference, _first_difference(spelled, layers))
    return {}, difference[1]


def _layers(names: Iterable[str]) -> list[tuple[str, str]]:
    """``(kind, name)`` in the order of the layers' numbers."""
    found = []
    for name in names:
        match = _UNNAMED.fullmatch(name)
        if match is not None and match["kind"] not in _PASSED_OVER:
            found.append((int(match["number"]), match["kind"], name))
    return [(kind, name) for _, kind, name in sorted(found)]


def _spelled(graph_module: GraphModule, style: _Style) -> Iterable[tuple[str, Node | None]]:
    """The kinds of layers that a program in this style has; the last one of each node gives its value."""
    for node in graph_module.graph.nodes:
        if node.op != "call_function":
            continue
        *inner, last = _kinds(node, style) or (None,)
        yield from ((kind, None) for kind in inner if kind is not None)
        is_output = any(user.op == "output" for user in node.users)
        if last is not None and not (style.names_outputs and is_output):
            yield last, node


def _kinds(node: Node, style: _Style) -> tuple[str, ...]:
    norm = style.norm if FOLDED_NORM in node.meta else ()
    if node.target is aten.convolution.default:
        return ("Deconvolution" if node.args[6] else "Convolution", *norm)
    if node.target is aten.linear.default:
        has_bias = len(node.args) > 2 and node.args[2] is not None
        return (*(style.linear if has_bias else style.linear[:1]), *norm)
    kind = _KINDS.get(node.target)
    if kind is None:
        return () if only_moves(node) else (f"a layer for {layer_name(node)}",)
    return (style.average if kind == "average" else kind,)


def _first_difference(
    spelled: Sequence[tuple[str, Node | None]], layers: Sequence[tuple[str, str]]
) -> tuple[int, str]:
    """Where two sequences part, and a sentence on it."""
    place = 0
    while place < min(len(spelled), len(layers)) and spelled[place][0] == layers[place][0]:
        place += 1
    ours = "ends"
    if place < len(spelled):
        kind, node = spelled[place]
        ours = f"has {kind}" + ("" if node is None else f" for {layer_name(node)!r}")
    theirs = f"has {layers[place][1]!r}" if place < len(layers) else "ends"
    return place, f"After {place} layers that agree, the model {ours}, but the cache {theirs}."

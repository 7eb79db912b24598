"""What a placement rule is, and what it may ask about the graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch.fx import GraphModule, Node

from trtcompile.products import PRODUCTS
from trtcompile.ptq.placement.decisions import Placement
from trtcompile.settings import CompileSpec


@dataclass(frozen=True, eq=False)
class Situation:
    """A lowered FP32 graph while the rules go over it.

    Attributes:
        graph_module: the graph, batch norms folded.
        taken: the operators that TensorRT takes.
        spec: the settings.
        placement: what the rules further up in the table have decided.
    """

    graph_module: GraphModule
    taken: Collection[Node]
    spec: CompileSpec
    placement: Placement = field(default_factory=Placement)

    @cached_property
    def depths(self) -> dict[Node, int]:
        """The number of nodes on the longest way to each node."""
        depths: dict[Node, int] = {}
        for node in self.graph_module.graph.nodes:
            depths[node] = 1 + max((depths[n] for n in node.all_input_nodes), default=0)
        return depths

    @cached_property
    def follows_product(self) -> dict[Node, bool]:
        """Whether a node, or what leads to it, is a convolution, linear layer, or matrix product."""
        follows: dict[Node, bool] = {}
        for node in self.graph_module.graph.nodes:
            follows[node] = node.target in PRODUCTS or any(
                follows[source] for source in node.all_input_nodes
            )
        return follows

    @property
    def prefers_faster_fp16(self) -> bool:
        """Whether operators are to stay in FP16 where they are faster in it than in INT8."""
        return self.spec.uses_fp16 and self.spec.int8_only_where_faster

    @property
    def int8_operators(self) -> Collection[Node]:
        """The weighted operators, of those judged so far, that no rule has left out."""
        return self.placement.weighted


@dataclass(frozen=True)
class LeavesOut:
    """A rule that keeps operators in floating point; of several that match, the first in the table decides.

    Attributes:
        name: its name in reports and in the documentation.
        matches: what it matches, as a phrase.
        reason: why, as a sentence.
        why: says of an operator why this rule leaves it out; None if it does not match.
    """

    name: str
    matches: str
    reason: str
    why: Callable[[Node, Situation], str | None]

    effect = "leaves out"


@dataclass(frozen=True)
class Read:
    """A value that an operator is to read through Q/DQ.

    Attributes:
        value: the value.
        reader: the operator.
        why: what the value is to the operator, as a phrase.
    """

    value: Node
    reader: Node
    why: str


@dataclass(frozen=True)
class Quantizes:
    """A rule that puts Q/DQ between values and operators that no rule left out.

    Attributes:
        name: its name in reports and in the documentation.
        matches: what it matches, as a phrase.
        reason: why, as a sentence.
        reads: the reads that this rule quantizes at one node of the graph.
    """

    name: str
    matches: str
    reason: str
    reads: Callable[[Node, Situation], Iterable[Read]]

    effect = "quantizes"


@dataclass(frozen=True)
class Shares:
    """A rule that gives several quantized values one scale.

    Attributes:
        name: its name in the documentation.
        matches: what it matches, as a phrase.
        reason: why, as a sentence.
        joined: the nodes whose values must have the scale of a node's value if they are quantized.
    """

    name: str
    matches: str
    reason: str
    joined: Callable[[Node], Iterable[Node]]

    effect = "shares a scale"


Rule = LeavesOut | Quantizes | Shares


def is_float32(node: object) -> bool:
    """Whether a node computes, or is given, one FP32 tensor; constants are none."""
    if not isinstance(node, Node) or node.op == "get_attr":
        return False
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def is_constant(node: object) -> bool:
    """Whether a node is a tensor that is known when compiling."""
    return isinstance(node, Node) and node.op == "get_attr"

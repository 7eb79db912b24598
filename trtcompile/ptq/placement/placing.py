"""Applies the rules to a graph."""

from __future__ import annotations

from collections.abc import Collection

from torch.fx import GraphModule, Node

from trtcompile.ptq.connected import connected
from trtcompile.ptq.placement.decisions import Decision, Placement
from trtcompile.ptq.placement.depthwise import GROUPED, without_int8_result
from trtcompile.ptq.placement.operators import can_read_int8, is_weighted
from trtcompile.ptq.placement.rule import LeavesOut, Quantizes, Shares, Situation
from trtcompile.ptq.placement.table import RULES
from trtcompile.ptq.placement.weights import weighted_operator
from trtcompile.settings import CompileSpec


def place(graph_module: GraphModule, taken: Collection[Node], spec: CompileSpec) -> Placement:
    """Decides where Q/DQ go in a lowered FP32 graph.

    Args:
        graph_module: the lowered graph, batch norms folded.
        taken: the operators that TensorRT takes; what PyTorch runs stays in floating point.
        spec: the settings.
    """
    situation = Situation(graph_module, taken, spec)
    placement = situation.placement
    nodes = list(graph_module.graph.nodes)
    for node in filter(can_read_int8, nodes):
        decision = _why_left_out(node, situation)
        if decision is not None:
            placement.skipped[node] = decision
        elif is_weighted(node):
            placement.weighted[node] = weighted_operator(node)
    # Backwards, since the result of one may go to another.
    for node in reversed(list(placement.weighted)):
        why = without_int8_result(node, placement)
        if why is not None:
            placement.skipped[node] = Decision(GROUPED.name, why)
            del placement.weighted[node]
    for rule in RULES:
        if isinstance(rule, Quantizes):
            for node in nodes:
                for read in rule.reads(node, situation):
                    if read.reader not in placement.skipped:
                        decision = Decision(rule.name, read.why)
                        placement.quantize(read.value, read.reader, decision)
    placement.groups = _groups(nodes, placement.readers)
    return placement


def _why_left_out(node: Node, situation: Situation) -> Decision | None:
    for rule in RULES:
        if isinstance(rule, LeavesOut):
            why = rule.why(node, situation)
            if why is not None:
                return Decision(rule.name, why)
    return None


def _groups(nodes: list[Node], quantized: Collection[Node]) -> list[tuple[Node, ...]]:
    """The quantized values that must share a scale, in the order of the graph."""
    pairs = (
        (source, node)
        for rule in RULES
        if isinstance(rule, Shares)
        for node in nodes
        for source in rule.joined(node)
    )
    return [tuple(group) for group in connected(filter(quantized.__contains__, nodes), pairs)]

"""Cuts a graph into engine graphs and the PyTorch graph that calls them."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from trtcompile.partition.grouping import group, is_tensor_valued
from trtcompile.partition.shapes import Profile, SymbolRanges, shape_range, symbol_ranges
from trtcompile.partition.support import Verdicts
from trtcompile.profiles import Profiles


@dataclass(frozen=True)
class EnginePartition:
    """A subgraph that becomes one engine.

    Attributes:
        name: the name of the submodule that stands for it in the executor.
        graph_module: placeholders are its inputs, the output is a tuple.
        profiles: for each optimization profile the min, opt, and max shape of each input; no two are equal.
        nodes: its operators in the original graph.
    """

    name: str
    graph_module: GraphModule
    profiles: tuple[Profile, ...]
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class PartitionedGraph:
    """A graph in which engines are calls of submodules that are still to be put in.

    Attributes:
        executor: the PyTorch remainder; its submodules ``engine_0``, ``engine_1``, ... are placeholders.
        engines: the subgraphs in the order in which they run.
        verdicts: for each operator None, or the reason why PyTorch runs it.
        engine_of: for each operator that went into an engine, the engine's name.
    """

    executor: GraphModule
    engines: tuple[EnginePartition, ...]
    verdicts: Verdicts
    engine_of: dict[Node, str]


def partition(
    graph_module: GraphModule, verdicts: Verdicts, profiles: Profiles, min_block_size: int
) -> PartitionedGraph:
    """Splits a lowered graph; the graph itself is left as it is.

    Args:
        graph_module: the lowered graph.
        verdicts: from ``support.judge``; blocks that are too small are added to it.
        profiles: for each optimization profile the ``Input`` of each placeholder.
        min_block_size: see ``CompileSpec``.

    Raises:
        UnsupportedGraphError: the shape of an engine's input depends on data.
    """
    by_level = group(graph_module, verdicts, min_block_size)
    ranges = [symbol_ranges(graph_module, inputs) for inputs in profiles]
    engines = []
    for index, level in enumerate(sorted(by_level)):
        engines.append(_extract(graph_module, f"engine_{index}", by_level[level], ranges))
    engine_of = {node: engine.name for engine in engines for node in engine.nodes}
    executor = _executor(graph_module, engines, engine_of)
    return PartitionedGraph(executor, tuple(engines), verdicts, engine_of)


def _extract(
    graph_module: GraphModule, name: str, nodes: list[Node], ranges: Sequence[SymbolRanges]
) -> EnginePartition:
    members = set(nodes)
    graph = Graph()
    copies: dict[Node, Node] = {}
    attributes: dict[str, torch.Tensor] = {}
    needed = _with_sizes(nodes)
    inputs = _tensor_inputs(needed, members)
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    for node in graph_module.graph.nodes:
        if node.op == "get_attr" and any(user in needed for user in node.users):
            copies[node] = graph.node_copy(node, lambda n: copies[n])
            attributes[str(node.target)] = getattr(graph_module, str(node.target))
        elif node in needed:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    outputs = [
        n for n in nodes if any(user not in members for user in n.users) and not _is_tuple(n)
    ]
    graph.output(tuple(copies[n] for n in outputs))
    root = nn.Module()
    for attribute, value in attributes.items():
        root.register_buffer(attribute, value)
    extracted = GraphModule(root, graph, class_name=name)
    extracted.meta["inputs"], extracted.meta["outputs"] = inputs, outputs
    profiles = (tuple(shape_range(n.meta["val"], one) for n in inputs) for one in ranges)
    # Where profiles do not differ in what enters this engine, one is enough.
    return EnginePartition(name, extracted, tuple(dict.fromkeys(profiles)), tuple(nodes))


def _is_tuple(node: Node) -> bool:
    return isinstance(node.meta.get("val"), (tuple, list))


def _with_sizes(nodes: list[Node]) -> set[Node]:
    """The nodes and the size arithmetic that they need, which an engine does for itself."""
    needed = set(nodes)
    pending = list(nodes)
    while pending:
        for source in pending.pop().all_input_nodes:
            if (
                source.op == "call_function"
                and not is_tensor_valued(source)
                and source not in needed
            ):
                needed.add(source)
                pending.append(source)
    return needed


def _tensor_inputs(needed: set[Node], members: set[Node]) -> list[Node]:
    found: dict[Node, None] = {}
    for node in needed:
        for source in node.all_input_nodes:
            if source not in members and source not in needed and source.op != "get_attr":
                found[source] = None
    return sorted(found)  # in the order of the graph


def _executor(
    graph_module: GraphModule, engines: list[EnginePartition], engine_of: dict[Node, str]
) -> GraphModule:
    graph = Graph()
    copies: dict[Node, Node] = {}
    root = nn.Module()
    for engine in engines:
        root.add_module(engine.name, nn.Module())
    remaining = [
        n for n in graph_module.graph.nodes if n.op == "call_function" and n not in engine_of
    ]
    # A size is copied with its first reader's surroundings: whatever it reads must have been computed.
    pending: list[Node | EnginePartition] = [*engines, *remaining]
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            copies[node] = graph.node_copy(node)
        elif node.op == "get_attr" and any(user not in engine_of for user in node.users):
            _add_attribute(root, str(node.target), getattr(graph_module, str(node.target)))
            copies[node] = graph.node_copy(node)
    while pending:
        step = next(s for s in pending if all(n in copies for n in _reads(s)))
        pending.remove(step)
        if isinstance(step, Node):
            copies[step] = graph.node_copy(step, lambda n: copies[n])
            continue
        inputs, outputs = step.graph_module.meta["inputs"], step.graph_module.meta["outputs"]
        call = graph.call_module(step.name, tuple(copies[n] for n in inputs))
        for index, node in enumerate(outputs):
            copies[node] = graph.call_function(operator.getitem, (call, index))
            copies[node].meta = dict(node.meta)
    output = next(iter(reversed(graph_module.graph.nodes)))
    graph.output(torch.fx.node.map_arg(output.args[0], lambda n: copies[n]))
    executor = GraphModule(root, graph, class_name="Executor")
    executor.graph.eliminate_dead_code()
    executor.recompile()
    return executor


def _add_attribute(root: nn.Module, name: str, value: torch.Tensor | nn.Module) -> None:
    if isinstance(value, nn.Module):  # a branch of torch.cond: the executor's own moves to the GPU
        root.add_module(name, copy.deepcopy(value))
    else:
        root.register_buffer(name, value)


def _reads(step: Node | EnginePartition) -> Sequence[Node]:
    return step.all_input_nodes if isinstance(step, Node) else step.graph_module.meta["inputs"]

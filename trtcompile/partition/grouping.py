"""Groups nodes into as few engines as their order of execution allows."""

from __future__ import annotations

import operator
from collections import defaultdict

import torch
from torch.fx import GraphModule, Node

from trtcompile.node_info import is_qdq
from trtcompile.partition.support import Verdicts

aten = torch.ops.aten

_READ_BY_PYTORCH = "it depends on constants alone, and only PyTorch reads it"


def assign_levels(graph_module: GraphModule, verdicts: Verdicts) -> dict[Node, int]:
    """Gives each operator the step at which it runs: even steps are engines, odd ones PyTorch.

    A node's level is at least that of everything it reads, and one more where the side changes. All TensorRT
    nodes of a level form one engine: levels never decrease along an edge, so engines cannot depend on each
    other in a cycle, and their number is the number of times that some path through the model changes sides.

    Nodes run as early as they can, but for those that depend on constants alone, for Q/DQ, and for casts: they run
    with their first reader. INT8 weights and what makes them would otherwise be in another engine than the
    convolution.
    """
    constant = _constant_nodes(graph_module)
    levels: dict[Node, int] = {}
    for node in graph_module.graph.nodes:
        if node.op != "call_function" or node in constant:
            continue
        before = max((levels[n] for n in node.all_input_nodes if n in levels), default=-1)
        if is_tensor_valued(node):
            levels[node] = before if before % 2 == _parity(node, verdicts) else before + 1
        else:  # sizes are recomputed wherever they are needed
            levels[node] = before
    for node in reversed(graph_module.graph.nodes):
        if node not in constant and not (node in levels and _is_conversion(node)):
            continue
        parity = _parity(node, verdicts)
        first_read = min((levels[user] for user in node.users if user in levels), default=parity)
        latest = first_read if first_read % 2 == parity else first_read - 1
        levels[node] = max(latest, levels.get(node, latest))
    return levels


def _constant_nodes(graph_module: GraphModule) -> set[Node]:
    """Tensors that depend on no input of the graph."""
    constant: set[Node] = set()
    for node in graph_module.graph.nodes:
        if (
            node.op == "call_function"
            and is_tensor_valued(node)
            and all(n.op == "get_attr" or n in constant for n in node.all_input_nodes)
        ):
            constant.add(node)
    return constant


def _parity(node: Node, verdicts: Verdicts) -> int:
    return 0 if verdicts[node] is None else 1


def _is_conversion(node: Node) -> bool:
    """Conversions are no work of their own, and belong with what reads them."""
    return is_qdq(node) or node.target is aten._to_copy.default


def is_tensor_valued(node: Node) -> bool:
    """Whether the node computes tensors rather than a size."""
    value = node.meta.get("val")
    return isinstance(value, (torch.Tensor, tuple, list))


def is_work(node: Node) -> bool:
    """Whether the node is an operator of the model, rather than Q/DQ, a size, or picking an output."""
    return node.target is not operator.getitem and is_tensor_valued(node) and not is_qdq(node)


def counts_towards_block(node: Node) -> bool:
    """Whether the node makes an engine worth its while; casts do not."""
    return is_work(node) and node.target is not aten._to_copy.default


def group(
    graph_module: GraphModule, verdicts: Verdicts, min_block_size: int
) -> dict[int, list[Node]]:
    """The nodes of each engine, by level; nodes of blocks that are too small get a verdict against TensorRT.

    ``min_block_size`` does not apply when the whole graph fits into one engine.
    """
    while True:
        _leave_constants_to_pytorch(graph_module, verdicts)
        levels = assign_levels(graph_module, verdicts)
        engines: dict[int, list[Node]] = defaultdict(list)
        for node, level in levels.items():
            if level % 2 == 0 and is_tensor_valued(node):
                engines[level].append(node)
        runs_in_torch = any(level % 2 == 1 and is_tensor_valued(n) for n, level in levels.items())
        small = {
            level: nodes
            for level, nodes in engines.items()
            if sum(map(counts_towards_block, nodes)) < min_block_size
            and (runs_in_torch or len(engines) > 1)
        }
        if not small:
            return dict(engines)
        # Demoting one block can join its neighbours' PyTorch parts, so the smallest goes first, then all is redone.
        level = min(small, key=lambda key: (sum(map(counts_towards_block, small[key])), key))
        size = sum(map(counts_towards_block, small[level]))
        for node in small[level]:
            verdicts[node] = (
                f"its block of {size} operators is smaller than min_block_size={min_block_size}"
            )


def _leave_constants_to_pytorch(graph_module: GraphModule, verdicts: Verdicts) -> None:
    """An engine without inputs, for PyTorch's use, would be no gain."""
    constant = _constant_nodes(graph_module)
    for node in reversed(graph_module.graph.nodes):
        if node in constant and verdicts[node] is None:
            readers = [user for user in node.users if user in verdicts and is_tensor_valued(user)]
            if readers and all(verdicts[user] is not None for user in readers):
                verdicts[node] = _READ_BY_PYTORCH

"""Groups nodes into as few engines as their order of execution allows."""

from __future__ import annotations

import operator
from collections import defaultdict

import torch
from torch.fx import GraphModule, Node

from trtcompile.partition.support import Verdicts

#: Operators that move no data of their own and do not count towards the size of a block.
_UNCOUNTED_NAMESPACES = ("quantized_decomposed",)


def assign_levels(graph_module: GraphModule, verdicts: Verdicts) -> dict[Node, int]:
    """Gives each operator the earliest step at which it can run: even steps are engines, odd ones PyTorch.

    A node's level is at least that of everything it reads, and one more where the side changes. All TensorRT
    nodes of a level form one engine: levels never decrease along an edge, so engines cannot depend on each
    other in a cycle, and their number is the number of times that some path through the model changes sides.
    """
    levels: dict[Node, int] = {}
    for node in graph_module.graph.nodes:
        if node.op != "call_function":
            continue
        before = [levels[n] for n in node.all_input_nodes if n in levels]
        if not is_tensor_valued(node):  # sizes are recomputed wherever they are needed
            levels[node] = max(before, default=-1)
            continue
        parity = 0 if verdicts[node] is None else 1
        earliest = max(before, default=-1)
        levels[node] = earliest if earliest % 2 == parity else earliest + 1
    return levels


def is_tensor_valued(node: Node) -> bool:
    """Whether the node computes tensors rather than a size."""
    value = node.meta.get("val")
    return isinstance(value, (torch.Tensor, tuple, list))


def counts_towards_block(node: Node) -> bool:
    """Whether the node is work, rather than bookkeeping such as Q/DQ or picking an output."""
    if node.target is operator.getitem or not is_tensor_valued(node):
        return False
    namespace = getattr(node.target, "namespace", "")
    return namespace not in _UNCOUNTED_NAMESPACES


def group(
    graph_module: GraphModule, verdicts: Verdicts, min_block_size: int
) -> dict[int, list[Node]]:
    """The nodes of each engine, by level; nodes of blocks that are too small get a verdict against TensorRT.

    ``min_block_size`` does not apply when the whole graph fits into one engine.
    """
    while True:
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

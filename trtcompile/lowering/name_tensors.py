"""Gives every value a name that does not depend on how the model was captured."""

from __future__ import annotations

import collections

from torch.fx import GraphModule

from trtcompile.node_info import TENSOR_NAME, operator_name
from trtcompile.settings import CompileSpec


def name_tensors(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Names values ``input_0``, ``convolution``, ``convolution_1``, ``relu``, ... in the order of the graph.

    ``compile()`` and ``torch.compile()`` capture the same operators in the same order but name nodes differently;
    calibration tables are keyed by these names, so that one serves both.
    """
    counts: collections.Counter[str] = collections.Counter()
    for node in graph_module.graph.nodes:
        if node.op not in ("placeholder", "call_function"):
            continue
        parts = operator_name(node).split(".")
        kind = "input" if node.op == "placeholder" else (parts[1] if len(parts) > 1 else parts[0])
        index = counts[kind]
        counts[kind] += 1
        node.meta[TENSOR_NAME] = f"{kind}_{index}" if index or kind == "input" else kind
    return sum(counts.values())

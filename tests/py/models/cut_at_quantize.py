"""Compares an INT8 network with its simulation layer by layer.

Rounding to INT8 makes a whole network chaotic: where a value lies on the edge between two integers,
the last bit of a sum decides, and what follows differs as much as quantization noise does. So the
network is cut where activations are quantized: every Quantize layer is given the simulation's value,
and every value to be quantized becomes an output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from checks import run_in_oracle
from torch import Tensor, fx

from trtcompile.conversion import convert

QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


def errors_between_cuts(engine_graph: fx.GraphModule, inputs: Sequence[Tensor]) -> dict[str, float]:
    """For each value that is computed and quantized, and each output, the error of the oracle.

    Args:
        engine_graph: the graph of an engine, Q/DQ included.
        inputs: the engine's inputs.

    Returns:
        By node name the RMS of oracle minus simulation, relative to the simulation's RMS.
    """
    expected = _Values(engine_graph)
    with torch.no_grad():
        expected.run(*inputs)
    cut, given, computed = _cut(engine_graph)
    arguments = [*inputs, *(expected.values[name] for name in given)]
    outputs = run_in_oracle(convert(cut), arguments)
    return {
        name: _relative_rms(output, expected.values[name])
        for name, output in zip(computed, outputs, strict=True)
    }


def _relative_rms(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    error = (actual.double() - expected.double()).square().mean().sqrt()
    return float(error / expected.double().square().mean().sqrt())


class _Values(fx.Interpreter):
    """Keeps the value of every node."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module, garbage_collect_values=False)
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n.name] = super().run_node(n)
        return self.values[n.name]


def _cut(engine_graph: fx.GraphModule) -> tuple[fx.GraphModule, list[str], list[str]]:
    """The cut graph, the names of the values it is given, and of those it computes."""
    graph = fx.Graph()
    output = graph.graph_copy(engine_graph.graph, copies := {})
    quantized: dict[fx.Node, list[fx.Node]] = {}
    for node in engine_graph.graph.nodes:
        if node.target is QUANTIZE and node.args[0].op == "call_function":
            quantized.setdefault(node.args[0], []).append(node)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_after(placeholders[-1]):
        for value, readers in reversed(quantized.items()):
            given = graph.placeholder(f"{value.name}_given")
            given.meta["val"] = value.meta["val"]
            for reader in readers:
                copies[reader].replace_input_with(copies[value], given)
    results = next(node for node in engine_graph.graph.nodes if node.op == "output").args[0]
    computed = list(dict.fromkeys([*quantized, *results]))
    assert isinstance(output, tuple) and len(output) == len(results)
    graph.output(tuple(copies[value] for value in computed))
    cut = fx.GraphModule(engine_graph, graph)
    return cut, [value.name for value in quantized], [value.name for value in computed]

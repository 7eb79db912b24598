"""The simulation of an INT8 engine without building it, and with other scales than it was made with."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

# Registers the operators that quantize and dequantize.
import torch.ao.quantization.fx._decomposed
from torch import nn
from torch.fx import GraphModule

from trtcompile import compiler
from trtcompile.inputs import Input, parse_inputs
from trtcompile.node_info import layer_name
from trtcompile.ptq import Calibrator
from trtcompile.settings import CompileSpec

qd = torch.ops.quantized_decomposed
_PER_TENSOR = (qd.quantize_per_tensor.default, qd.dequantize_per_tensor.default)


def simulation(
    model: nn.Module,
    shape: tuple[int, ...],
    calibrator: Calibrator,
    precisions: Collection[torch.dtype],
) -> GraphModule:
    """The lowered graph, Q/DQ included, as ``compile`` leaves it in ``compiled.lowered``.

    Args:
        model: in eval mode, with one input and one output; it is not changed.
        shape: of a float32 batch.
        calibrator: measures or brings the scales.
        precisions: as ``enabled_precisions``.

    Returns:
        A graph on the CPU, which gives a sequence of one tensor.
    """
    spec = CompileSpec(enabled_precisions=frozenset(precisions), calibrator=calibrator)
    captured = compiler.capture(
        model, parse_inputs([Input(shape)]), undecomposed=compiler.undecomposed_operators()
    )
    compiler.prepare(captured, spec)
    return captured.graph_module


def set_scales(graph_module: GraphModule, scales: Mapping[str, float]) -> None:
    """Writes the scales of a table into a quantized graph's per-tensor Q/DQ.

    Args:
        graph_module: quantized for the tensors that ``scales`` names.
        scales: tensor name to scale; a ``CalibrationTable``.

    Raises:
        KeyError: a quantized tensor has no scale.
    """
    for node in graph_module.graph.nodes:
        if node.target in _PER_TENSOR:
            name, _, _ = layer_name(node).rpartition("/")
            node.update_arg(1, scales[name])
    graph_module.recompile()

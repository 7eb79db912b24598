"""Models that come quantized: their own quantize and dequantize nodes say where INT8 or FP8 is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from trtcompile.errors import SettingsError, UnsupportedGraphError
from trtcompile.lowering.constants import add_constant, constant_of, drop_unused_constants
from trtcompile.node_info import dequantized_from, is_qdq, layer_name
from trtcompile.products import operands
from trtcompile.ptq.placement import lacks_quantized_result
from trtcompile.ptq.unit_scales import UnitScales
from trtcompile.settings import CompileSpec

_NAMED = 3


def comes_quantized(graph_module: GraphModule) -> bool:
    """Whether a lowered graph has quantize or dequantize nodes of its own."""
    return any(is_qdq(node) for node in graph_module.graph.nodes)


def check_given(spec: CompileSpec, verdicts: Mapping[Node, str | None]) -> None:
    """Checks that a model that comes quantized can be compiled as it is.

    Args:
        spec: the settings.
        verdicts: for each operator why TensorRT does not take it, or None.

    Raises:
        SettingsError: what the model is quantized to is not enabled, or a calibrator is a second source of scales.
        UnsupportedGraphError: TensorRT has nothing like the model's quantization.
    """
    wanted = set(map(dequantized_from, verdicts))
    if spec.quantized_dtype is None or (torch.float8_e4m3fn in wanted) != spec.uses_fp8:
        dtype = torch.float8_e4m3fn if torch.float8_e4m3fn in wanted else torch.int8
        raise SettingsError(
            f"the model comes quantized, but enabled_precisions has no {dtype}. Add it, or give the model as it was "
            "before quantization."
        )
    if spec.weight_only is not None:
        raise SettingsError(
            f"weight_only is {spec.weight_only!r}, but the model comes quantized. Drop weight_only, or give the model "
            "as it was before quantization."
        )
    if spec.calibrator is not None and not isinstance(spec.calibrator, UnitScales):
        raise SettingsError(
            "a calibrator was given, but the model comes quantized, with scales of its own. Drop the calibrator, or "
            "give the model as it was before quantization."
        )
    if spec.placement_options:
        raise SettingsError(
            f"{', '.join(spec.placement_options)} was given, but the model comes quantized, and where INT8 is it says "
            "itself. Drop the option, or give the model as it was before quantization."
        )
    if spec.smooth_quant is not None:
        raise SettingsError(
            f"smooth_quant is {spec.smooth_quant!r}, but the model comes quantized, with scales of its own. Drop "
            "smooth_quant, or give the model as it was before quantization."
        )
    refused = {
        node: reason for node, reason in verdicts.items() if reason is not None and is_qdq(node)
    }
    if refused:
        named = "; ".join(
            f"{layer_name(node)}: {reason}" for node, reason in list(refused.items())[:_NAMED]
        )
        raise UnsupportedGraphError(
            f"the model comes quantized in a way that TensorRT does not have, in {len(refused)} places ({named}). "
            "Quantize to symmetric int8: qscheme per_tensor_symmetric for activations from -128 to 127, "
            "per_channel_symmetric for weights, zero-points 0; or give the model as it was before quantization, and a "
            "calibrator."
        )


def dequantize_grouped(graph_module: GraphModule) -> int:
    """Dequantizes, when compiling, the weights of grouped convolutions for which TensorRT has no INT8 kernel.

    They keep the values that quantization left them. TensorRT 10.6 would dequantize such a weight at run time, and
    computed wrong numbers then.

    Given::

        q = quantize_per_channel(weight, ...)
        w = dequantize_per_channel(q, ...)
        y = convolution(x, w)  # depthwise, and no Q behind it

    Result::

        w = get_attr[weight_dequantized]
        y = convolution(x, w)

    Returns:
        The number of weights.
    """
    rewrites = 0
    for node in list(graph_module.graph.nodes):
        if not lacks_quantized_result(node):
            continue
        weight = operands(node)[1]
        if not isinstance(weight, Node) or weight.op == "get_attr":
            continue
        value = _dequantized(graph_module, weight)
        if value is not None:
            name = f"{layer_name(node)}_weight_dequantized"
            node.replace_input_with(weight, add_constant(graph_module, name, value, before=node))
            rewrites += 1
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()
    drop_unused_constants(graph_module)
    return rewrites


def _dequantized(graph_module: GraphModule, node: Node) -> torch.Tensor | None:
    """The value of a constant behind quantize and dequantize nodes; None for what depends on inputs."""
    if not is_qdq(node):
        return constant_of(graph_module, node)
    known = {source: _dequantized(graph_module, source) for source in node.all_input_nodes}
    if any(value is None for value in known.values()):
        return None
    args, kwargs = map_arg((node.args, node.kwargs), lambda source: known[source])
    with torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator, no-any-return]

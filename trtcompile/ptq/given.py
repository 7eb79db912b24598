"""Models that come quantized: their own quantize and dequantize nodes say where INT8 or FP8 is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from trtcompile.errors import SettingsError, UnsupportedGraphError
from trtcompile.lowering.constants import add_constant, constant_of, drop_unused_constants
from trtcompile.lowering.qdq_pair import FP8_PAIRS, INTEGER_PAIRS
from trtcompile.node_info import dequantized_from, is_qdq, layer_name, operator_name
from trtcompile.products import PRODUCTS, operands
from trtcompile.ptq.placement import lacks_quantized_result
from trtcompile.ptq.placement.weights import lacks_channel_axis, weighted_operator
from trtcompile.ptq.table import problem_of_scale
from trtcompile.ptq.unit_scales import UnitScales
from trtcompile.settings import CompileSpec

_NAMED = 3
#: Where operators that dequantize with a scale for each channel are told the axis.
_AXIS_ARGUMENT = {INTEGER_PAIRS[True][1]: 3, FP8_PAIRS[True][1]: 2}


#: ModelOpt's operators, where lowering found no Q/DQ pair for them.
_MODELOPT = "tensorrt."


def comes_quantized(graph_module: GraphModule) -> bool:
    """Whether a lowered graph has quantize or dequantize nodes of its own."""
    return any(_is_given(node) for node in graph_module.graph.nodes)


def _is_given(node: Node) -> bool:
    return is_qdq(node) or operator_name(node).startswith(_MODELOPT)


def check_given(spec: CompileSpec, verdicts: Mapping[Node, str | None]) -> None:
    """Checks that a model that comes quantized can be compiled as it is.

    Args:
        spec: the settings.
        verdicts: why TensorRT does not take an operator, or None; of those that no option leaves to PyTorch.

    Raises:
        SettingsError: what the model is quantized to is not enabled, or a calibrator is a second source of scales.
        UnsupportedGraphError: TensorRT has nothing like the model's quantization.
    """
    given = {
        node: _problem_of(node, reason) for node, reason in verdicts.items() if _is_given(node)
    }
    refused = {node: problem for node, problem in given.items() if problem is not None}
    if refused:
        named = "; ".join(
            f"{layer_name(node)}: {problem}" for node, problem in list(refused.items())[:_NAMED]
        )
        raise UnsupportedGraphError(
            f"the model comes quantized in a way that TensorRT does not have, in {len(refused)} places ({named}). "
            "Quantize to symmetric int8: qscheme per_tensor_symmetric for activations from -128 to 127, "
            "per_channel_symmetric for weights, zero-points 0; leave these modules to PyTorch by "
            "torch_executed_modules; or give the model as it was before quantization, and a calibrator."
        )
    wanted = {_quantized_to(node) for node in given}
    if wanted and (
        spec.quantized_dtype is None or (torch.float8_e4m3fn in wanted) != spec.uses_fp8
    ):
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


def _problem_of(node: Node, reason: str | None) -> str | None:
    """What TensorRT does not have of a quantize or dequantize node, as a sentence; None if it has all of it."""
    if operator_name(node).startswith(_MODELOPT):
        return f"{operator_name(node)} is none of signed 8-bit integers or FP8 (E4M3) with a fixed amax"
    if reason is not None:
        return reason
    scale = node.args[1]
    values = scale.meta["val"].flatten().tolist() if isinstance(scale, Node) else [scale]
    return next((problem for problem in map(problem_of_scale, values) if problem), None)


def _quantized_to(node: Node) -> torch.dtype:
    dtype: torch.dtype = dequantized_from(node) or node.meta["val"].dtype
    return dtype


def dequantize_weights(graph_module: GraphModule) -> int:
    """Dequantizes, when compiling, the weights of products for which TensorRT has no INT8 kernel.

    These are grouped convolutions whose result is not quantized, and weights whose scales do not lie along the output
    channels, so that they cannot be factored out of a sum of integers. They keep the values that quantization left
    them. TensorRT 10.6 would dequantize such a weight of a grouped convolution at run time, and computed wrong numbers
    then.

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
        if not lacks_quantized_result(node) and not _has_scales_along_inputs(node):
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


def _has_scales_along_inputs(node: Node) -> bool:
    """Whether a product's weight has scales along another axis than that of its output channels."""
    weight = operands(node)[1] if node.target in PRODUCTS else None
    if not isinstance(weight, Node) or weight.target not in _AXIS_ARGUMENT:
        return False
    axis = weight.args[_AXIS_ARGUMENT[weight.target]]
    assert isinstance(axis, int)
    rank = weight.meta["val"].dim()
    return (
        lacks_channel_axis(node) is not None or axis % rank != weighted_operator(node).weight_axis
    )


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

"""Models that come quantized: their own quantize and dequantize nodes say where INT8 or FP8 is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import GraphModule, Node

from trtcompile.errors import SettingsError, UnsupportedGraphError
from trtcompile.node_info import is_dequantize, is_qdq, layer_name
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
    wanted = {_quantized_dtype(node) for node in verdicts if is_dequantize(node)}
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


def _quantized_dtype(node: Node) -> torch.dtype:
    (quantized, *_) = node.all_input_nodes
    dtype: torch.dtype = quantized.meta["val"].dtype
    return dtype

"""Models that come quantized: their own quantize and dequantize nodes say where INT8 is."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import GraphModule, Node

from trtcompile.errors import SettingsError, UnsupportedGraphError
from trtcompile.node_info import layer_name, operator_name
from trtcompile.ptq.unit_scales import UnitScales
from trtcompile.settings import CompileSpec

_NAMED = 3


def comes_quantized(graph_module: GraphModule) -> bool:
    """Whether a lowered graph has quantize or dequantize nodes of its own."""
    return any(_is_quantization(node) for node in graph_module.graph.nodes)


def check_int8_source(
    graph_module: GraphModule, spec: CompileSpec, verdicts: Mapping[Node, str | None]
) -> None:
    """Checks that INT8 scales come from one place: the model, or a calibrator.

    Args:
        graph_module: the lowered graph.
        spec: the settings.
        verdicts: for each operator why TensorRT does not take it, or None.

    Raises:
        SettingsError: INT8 has no scales, or two sources of them, or the model is quantized and INT8 is not enabled.
        UnsupportedGraphError: TensorRT has nothing like the model's quantization.
    """
    if not comes_quantized(graph_module):
        if spec.uses_int8 and spec.calibrator is None:
            raise SettingsError(
                "enabled_precisions has torch.int8, but there is no calibrator to measure activation ranges, and the "
                "model has no quantize nodes. Pass calibrator=trtcompile.ptq.DataLoaderCalibrator(dataloader), or "
                "CacheCalibrator(cache_file) to reuse a calibration table."
            )
        return
    if not spec.uses_int8:
        raise SettingsError(
            "the model comes quantized, but enabled_precisions has no torch.int8. Add it, or give the model as it was "
            "before quantization."
        )
    if spec.calibrator is not None and not isinstance(spec.calibrator, UnitScales):
        raise SettingsError(
            "a calibrator was given, but the model comes quantized, with scales of its own. Drop the calibrator, or "
            "give the model as it was before quantization."
        )
    refused = {
        node: reason
        for node, reason in verdicts.items()
        if reason is not None and _is_quantization(node)
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


def _is_quantization(node: Node) -> bool:
    return operator_name(node).startswith("quantized_decomposed.")

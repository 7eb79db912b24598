"""Upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, Size
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _supports_resize(node: Node, spec: CompileSpec) -> str | None:
    value, source = node.meta["val"], node.all_input_nodes[0].meta["val"]
    if not value.dtype.is_floating_point:
        return f"TensorRT resizes floating-point tensors, not {value.dtype}"
    output_size, scales = node.args[1], node.args[-1]
    if output_size is not None and any(isinstance(size, Node) for size in output_size):  # type: ignore[union-attr]
        return "the output size is only known at run time"
    for size, scale in zip(source.shape[2:], scales if output_size is None else (), strict=False):  # type: ignore[arg-type]
        if scale != int(scale) and not (isinstance(size, int) and (size * scale).is_integer()):
            return f"scaling {size} by {scale} gives no whole size"
    if node.args[2] is True and any(size == 1 for size in value.shape[2:]):
        return "align_corners has no meaning in TensorRT for an output size of 1"
    return None


def _resize(
    net: Network, x: ITensor, output_size: Sequence[Size] | None, scales: Sequence[float] | None
) -> tuple[Any, ITensor]:
    layer = net.layer(net.definition.add_resize(x), "resize")
    if output_size is not None and all(size >= 0 for size in net.dims(x)[:2]):
        layer.shape = (*net.dims(x)[:2], *output_size)
    elif output_size is not None:
        layer.set_input(1, net.shape_tensor([net.size(x, 0), net.size(x, 1), *output_size]))
    else:
        layer.scales = (1.0, 1.0, *(scales or ()))
    return layer, layer.get_output(0)


@converter(aten.upsample_nearest2d.vec, supports=_supports_resize)
def aten_upsample_nearest2d(
    net: Network,
    input: ITensor,
    output_size: Sequence[Size] | None,
    scale_factors: Sequence[float] | None,
) -> ITensor:
    """upsample_nearest2d.vec(Tensor input, SymInt[]? output_size, float[]? scale_factors) -> Tensor"""
    layer, result = _resize(net, input, output_size, scale_factors)
    layer.resize_mode = trt.InterpolationMode.NEAREST
    layer.coordinate_transformation = trt.ResizeCoordinateTransformation.ASYMMETRIC
    layer.nearest_rounding = trt.ResizeRoundMode.FLOOR
    return result


@converter(aten.upsample_bilinear2d.vec, supports=_supports_resize)
def aten_upsample_bilinear2d(
    net: Network,
    input: ITensor,
    output_size: Sequence[Size] | None,
    align_corners: bool,
    scale_factors: Sequence[float] | None,
) -> ITensor:
    """upsample_bilinear2d.vec(input, SymInt[]? output_size, bool align_corners, float[]? scale_factors) -> Tensor"""
    layer, result = _resize(net, input, output_size, scale_factors)
    layer.resize_mode = trt.InterpolationMode.LINEAR
    kind = "ALIGN_CORNERS" if align_corners else "HALF_PIXEL"
    layer.coordinate_transformation = getattr(trt.ResizeCoordinateTransformation, kind)
    return result

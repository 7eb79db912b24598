"""Quantize and Dequantize, INT8 and FP8, with a scale per tensor, per channel, or per block."""

from __future__ import annotations

import torch

from network_oracle.dtypes import FLOATS
from network_oracle.float8 import nearest_e4m3
from network_oracle.layer_view import LayerView
from network_oracle.registry import handles


@handles("QUANTIZE", "IQuantizeLayer", rounds_to=None)
def quantize(view: LayerView) -> torch.Tensor:
    """clamp(round(x / scale), -128, 127), ties to even; or the nearest FP8 number, at most 448."""
    x, scale = view.value(), _scale(view)
    if view.output_dtypes[0] == torch.float8_e4m3fn and x.dtype in FLOATS:
        return nearest_e4m3(x / scale)
    if view.output_dtypes[0] != torch.int8 or x.dtype not in FLOATS:
        raise view.unsupported(f"quantization to {view.output_dtypes[0]}.")
    return torch.round(x / scale).clamp(-128, 127).to(torch.int8)


@handles("DEQUANTIZE", "IDequantizeLayer", rounds_to=None)
def dequantize(view: LayerView) -> torch.Tensor:
    """q * scale, rounded to the declared type."""
    q, scale = view.value(), _scale(view)
    if q.dtype not in (torch.int8, torch.float8_e4m3fn) or view.output_dtypes[0] not in FLOATS:
        raise view.unsupported(f"dequantization of {q.dtype} to {view.output_dtypes[0]}.")
    return (q.float() * scale).to(view.output_dtypes[0])


def _scale(view: LayerView) -> torch.Tensor:
    """The scale, shaped to broadcast against the input."""
    x, scale = view.value(0), view.value(1)
    if view.has(2) and view.value(2).count_nonzero():
        raise view.mismatch("its zero point is not zero.")
    if not bool((scale > 0).all()):
        raise view.unsupported("a scale is not positive.")
    if scale.dim() == 0:
        return scale
    if scale.dim() == x.dim() > 1:
        return _of_blocks(view, x, scale)
    if scale.dim() != 1:
        raise view.unsupported(f"{scale.dim()}-D scales for a {x.dim()}-D tensor.")
    if view.layer.axis < 0:
        raise view.mismatch("its scale is one per channel, its axis is not set.")
    axis = view.axis(view.layer.axis, x.dim())
    if scale.numel() != x.shape[axis]:
        raise view.mismatch(f"{scale.numel()} scales for axis {axis} of {tuple(x.shape)}.")
    return scale.reshape([-1 if dim == axis else 1 for dim in range(x.dim())])


def _of_blocks(view: LayerView, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The scale of each element: consecutive ones along one dimension share it."""
    blocked = [d for d in range(x.dim()) if scale.shape[d] != x.shape[d]]
    if len(blocked) > 1 or any(x.shape[d] % scale.shape[d] for d in blocked):
        raise view.mismatch(f"scales of shape {tuple(scale.shape)} for {tuple(x.shape)}.")
    for d in blocked:
        index = torch.arange(x.shape[d]) // (x.shape[d] // scale.shape[d])
        scale = scale.index_select(d, index)
    return scale

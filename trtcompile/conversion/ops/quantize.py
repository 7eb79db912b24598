"""Quantize and dequantize, in the form that PyTorch's PT2E quantization writes them."""

from __future__ import annotations

from typing import Any

import torch

# Registers the quantized_decomposed operators.
import torch.ao.quantization.fx._decomposed
from torch.fx import Node

from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

qd = torch.ops.quantized_decomposed


def _supports_per_tensor(node: Node, spec: CompileSpec) -> str | None:
    _, _, zero_point, _, _, dtype = node.args[:6]
    if zero_point != 0:
        return f"TensorRT quantizes symmetrically, but the zero-point is {zero_point}"
    if dtype != torch.int8:
        return f"TensorRT quantizes to int8 here, not {dtype}"
    return None


def _supports_per_channel(node: Node, spec: CompileSpec) -> str | None:
    dtype = node.args[6]
    return None if dtype == torch.int8 else f"TensorRT quantizes to int8 here, not {dtype}"


def _scale(value: Any) -> torch.Tensor:
    return torch.as_tensor(value, dtype=torch.float32)


@converter(qd.quantize_per_tensor.default, supports=_supports_per_tensor)
def quantize_per_tensor(
    net: Network,
    input: TensorLike,
    scale: float,
    zero_point: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
) -> ITensor:
    """quantize_per_tensor(input, float scale, int zero_point, int quant_min, int quant_max, dtype) -> Tensor"""
    return net.quantize(net.tensor(input), _scale(scale))


@converter(qd.dequantize_per_tensor.default, supports=_supports_per_tensor)
def dequantize_per_tensor(
    net: Network,
    input: ITensor,
    scale: float,
    zero_point: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    out_dtype: torch.dtype | None,
) -> ITensor:
    """dequantize_per_tensor(input, scale, zero_point, quant_min, quant_max, dtype, *, out_dtype=None) -> Tensor"""
    return net.dequantize(input, _scale(scale), net.result_dtypes[0])


@converter(qd.quantize_per_channel.default, supports=_supports_per_channel)
def quantize_per_channel(
    net: Network,
    input: TensorLike,
    scales: torch.Tensor,
    zero_points: torch.Tensor,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
) -> ITensor:
    """quantize_per_channel(input, scales, zero_points, int axis, int quant_min, int quant_max, dtype) -> Tensor"""
    if isinstance(
        input, torch.Tensor
    ):  # a weight: an INT8 constant is a quarter of the FP32 one and its Q
        return qd.quantize_per_channel(
            input, scales, zero_points, axis, quant_min, quant_max, dtype
        )
    return net.quantize(input, scales, axis)


@converter(qd.dequantize_per_channel.default, supports=_supports_per_channel)
def dequantize_per_channel(
    net: Network,
    input: ITensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor | None,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    out_dtype: torch.dtype | None,
) -> ITensor:
    """dequantize_per_channel(input, scales, zero_points?, axis, quant_min, quant_max, dtype, *, out_dtype=None)"""
    return net.dequantize(net.tensor(input), scales, net.result_dtypes[0], axis)

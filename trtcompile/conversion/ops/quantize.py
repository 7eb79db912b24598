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
    _, _, zero_point, low, high, dtype = node.args[:6]
    if zero_point != 0:
        return f"TensorRT quantizes symmetrically, but the zero-point is {zero_point}"
    return _supports_range(node, low, high, dtype)


def _supports_per_channel(node: Node, spec: CompileSpec) -> str | None:
    _, _, zero_points, _, low, high, dtype = node.args[:7]
    if isinstance(zero_points, Node):
        known = zero_points.op == "get_attr" and isinstance(zero_points.meta["val"], torch.Tensor)
        if not known or bool(zero_points.meta["val"].any()):
            return "TensorRT quantizes symmetrically, but not all zero-points are 0"
    return _supports_range(node, low, high, dtype)


def _supports_range(node: Node, low: Any, high: Any, dtype: Any) -> str | None:
    if dtype != torch.int8:
        return f"TensorRT quantizes to int8 here, not {dtype}"
    x = node.args[0]
    if isinstance(x, Node) and x.op != "get_attr":  # a constant is clamped by PyTorch
        if x.meta["val"].dim() == 0:
            return "TensorRT quantizes tensors of at least one dimension"
        if "dequantize" not in str(node.target) and (low, high) != (-128, 127):
            return f"TensorRT clamps to [-128, 127], not to [{low}, {high}]"
    return None


def _axis(x: TensorLike, axis: int) -> int:
    return axis % len(tuple(x.shape))


def _scale(value: Any) -> torch.Tensor:
    return torch.as_tensor(value, dtype=torch.float32)


@converter(qd.quantize_per_tensor.default, supports=_supports_per_tensor, takes_bytes=True)
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
    if isinstance(input, torch.Tensor):
        return qd.quantize_per_tensor(input, scale, zero_point, quant_min, quant_max, dtype)
    return net.quantize(input, _scale(scale))


@converter(qd.dequantize_per_tensor.default, supports=_supports_per_tensor, takes_bytes=True)
def dequantize_per_tensor(
    net: Network,
    input: TensorLike,
    scale: float,
    zero_point: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    out_dtype: torch.dtype | None,
) -> ITensor:
    """dequantize_per_tensor(input, scale, zero_point, quant_min, quant_max, dtype, *, out_dtype=None) -> Tensor"""
    return net.dequantize(net.tensor(input), _scale(scale), net.result_dtypes[0])


@converter(qd.quantize_per_channel.default, supports=_supports_per_channel, takes_bytes=True)
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
    if isinstance(input, torch.Tensor):  # a weight: its INT8 constant is a quarter of the FP32 one
        return qd.quantize_per_channel(
            input, scales, zero_points, axis, quant_min, quant_max, dtype
        )
    return net.quantize(input, _scale(scales), _axis(input, axis))


@converter(qd.dequantize_per_channel.default, supports=_supports_per_channel, takes_bytes=True)
def dequantize_per_channel(
    net: Network,
    input: TensorLike,
    scales: torch.Tensor,
    zero_points: torch.Tensor | None,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    out_dtype: torch.dtype | None,
) -> ITensor:
    """dequantize_per_channel(input, scales, zero_points?, axis, quant_min, quant_max, dtype, *, out_dtype=None)"""
    dtype = net.result_dtypes[0]
    return net.dequantize(net.tensor(input), _scale(scales), dtype, _axis(input, axis))

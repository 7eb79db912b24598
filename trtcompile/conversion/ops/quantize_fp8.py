"""Quantize to FP8 and dequantize from it."""

from __future__ import annotations

import torch
from torch.fx import Node

from trtcompile import float8
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec


def _supports_quantize(node: Node, spec: CompileSpec) -> str | None:
    x = node.args[0]
    if isinstance(x, Node) and x.op != "get_attr" and x.meta["val"].dim() == 0:
        return "TensorRT quantizes tensors of at least one dimension"
    return None


@converter(float8.quantize_fp8, supports=_supports_quantize, takes_bytes=True)
def quantize_fp8(net: Network, input: TensorLike, scale: float) -> TensorLike:
    """quantize_fp8(Tensor input, float scale) -> Tensor"""
    if isinstance(input, torch.Tensor):
        return float8.quantize_fp8(input, scale)
    return net.quantize(input, torch.tensor(scale), dtype=float8.E4M3)


@converter(float8.dequantize_fp8, takes_bytes=True)
def dequantize_fp8(
    net: Network, input: TensorLike, scale: float, out_dtype: torch.dtype | None
) -> ITensor:
    """dequantize_fp8(Tensor input, float scale, *, ScalarType? out_dtype=None) -> Tensor"""
    return net.dequantize(net.tensor(input), torch.tensor(scale), net.result_dtypes[0])


@converter(float8.quantize_fp8_per_channel, supports=_supports_quantize, takes_bytes=True)
def quantize_fp8_per_channel(
    net: Network, input: TensorLike, scales: torch.Tensor, axis: int
) -> TensorLike:
    """quantize_fp8_per_channel(Tensor input, Tensor scales, int axis) -> Tensor"""
    if isinstance(input, torch.Tensor):  # a weight: its FP8 constant is a quarter of the FP32 one
        return float8.quantize_fp8_per_channel(input, scales, axis)
    return net.quantize(input, scales.float(), axis % net.rank(input), dtype=float8.E4M3)


@converter(float8.dequantize_fp8_per_channel, takes_bytes=True)
def dequantize_fp8_per_channel(
    net: Network,
    input: TensorLike,
    scales: torch.Tensor,
    axis: int,
    out_dtype: torch.dtype | None,
) -> ITensor:
    """dequantize_fp8_per_channel(Tensor input, Tensor scales, int axis, *, ScalarType? out_dtype=None) -> Tensor"""
    axis %= net.rank(input)
    return net.dequantize(net.tensor(input), scales.float(), net.result_dtypes[0], axis)

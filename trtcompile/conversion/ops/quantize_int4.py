"""Weights in INT4: a constant of half a byte for each, and a dequantize layer."""

from __future__ import annotations

import torch
from torch.fx import Node

from trtcompile import int4_blocks
from trtcompile.conversion.network import ITensor, Network
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec


def _supports_weights(node: Node, spec: CompileSpec) -> str | None:
    (first, *_) = node.all_input_nodes
    is_constant = first.op == "get_attr" or first.target is int4_blocks.quantize_int4_blocks
    return None if is_constant else "TensorRT has INT4 for constants only"


@converter(int4_blocks.quantize_int4_blocks, supports=_supports_weights, takes_bytes=True)
def quantize_int4_blocks(net: Network, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """quantize_int4_blocks(Tensor weight, Tensor scales) -> Tensor"""
    levels: torch.Tensor = int4_blocks.quantize_int4_blocks(weight, scales)
    return levels


@converter(int4_blocks.dequantize_int4_blocks, supports=_supports_weights, takes_bytes=True)
def dequantize_int4_blocks(
    net: Network, levels: torch.Tensor, scales: torch.Tensor, out_dtype: torch.dtype | None
) -> ITensor:
    """dequantize_int4_blocks(Tensor levels, Tensor scales, *, ScalarType? out_dtype=None) -> Tensor"""
    dtype = net.result_dtypes[0]
    # TensorRT-RTX builds no engine where scales of blocks have another type than the result.
    return net.dequantize_int4(levels, scales.to(dtype), dtype)

"""INT4 weights: quantize and dequantize in blocks as PyTorch operators, so that running a graph simulates the engine.

A weight of ``[outputs, inputs]`` has a scale for each output and each block of consecutive inputs, as 16 levels are too
few for a whole row. Levels are from -7 to 7, held as INT8 until they become a constant of a network.
"""

from __future__ import annotations

import torch

#: Inputs that share a scale; TensorRT also takes 64, at twice as many scales.
BLOCK_SIZE = 128
INT4_MAX = 7
# The smallest normal FP16: scales have the type of the data, and must not become 0 in it.
_MIN_SCALE = 2.0**-14

# A fragment: other modules may add operators to the namespace.
_LIBRARY = torch.library.Library("trtcompile", "FRAGMENT")
_LIBRARY.define("quantize_int4_blocks(Tensor weight, Tensor scales) -> Tensor")
_LIBRARY.define(
    "dequantize_int4_blocks(Tensor levels, Tensor scales, *, ScalarType? out_dtype=None) -> Tensor"
)


def block_scales(weight: torch.Tensor, block_size: int = BLOCK_SIZE) -> torch.Tensor:
    """The scale of each block: amax / 7 as FP32, of shape ``[outputs, inputs / block_size]``."""
    outputs, inputs = weight.shape
    blocks = weight.detach().float().reshape(outputs, inputs // block_size, block_size)
    return (blocks.abs().amax(2) / INT4_MAX).clamp(min=_MIN_SCALE)


def _quantize(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The nearest level to ``weight / scale``, ties to even."""
    levels = torch.round(weight.float() / _spread(scales, weight))
    return levels.clamp(-INT4_MAX, INT4_MAX).to(torch.int8)


def _dequantize(
    levels: torch.Tensor, scales: torch.Tensor, *, out_dtype: torch.dtype | None = None
) -> torch.Tensor:
    """``level * scale`` with the scale and the result in ``out_dtype``, FP32 unless another type is named."""
    dtype = out_dtype or torch.float32
    return (levels.float() * _spread(scales.to(dtype).float(), levels)).to(dtype)


def _spread(scales: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The scale of each weight."""
    return scales.repeat_interleave(weight.shape[1] // scales.shape[1], dim=1)


# Made of PyTorch's operators, so these serve every device, and shapes without values.
_LIBRARY.impl("quantize_int4_blocks", _quantize, "CompositeExplicitAutograd")
_LIBRARY.impl("dequantize_int4_blocks", _dequantize, "CompositeExplicitAutograd")

quantize_int4_blocks = torch.ops.trtcompile.quantize_int4_blocks.default
dequantize_int4_blocks = torch.ops.trtcompile.dequantize_int4_blocks.default

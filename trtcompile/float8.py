"""FP8: quantize and dequantize as PyTorch operators, so that running a graph simulates the engine.

The format is E4M3 (Micikevicius et al., "FP8 Formats for Deep Learning", 2022): a sign, four bits of exponent, three
of mantissa, no infinity, and 448 as the largest number. PyTorch's ``quantized_decomposed`` operators round to whole
numbers before they cast, which makes INT8 of it.
"""

from __future__ import annotations

import torch

E4M3 = torch.float8_e4m3fn
#: The largest number of the format.
E4M3_MAX = 448.0

# A fragment: other modules may add operators to the namespace.
_LIBRARY = torch.library.Library("trtcompile", "FRAGMENT")
_LIBRARY.define("quantize_fp8(Tensor input, float scale) -> Tensor")
_LIBRARY.define(
    "dequantize_fp8(Tensor input, float scale, *, ScalarType? out_dtype=None) -> Tensor"
)
_LIBRARY.define("quantize_fp8_per_channel(Tensor input, Tensor scales, int axis) -> Tensor")
_LIBRARY.define(
    "dequantize_fp8_per_channel(Tensor input, Tensor scales, int axis, *, ScalarType? out_dtype=None) -> Tensor"
)


def _quantize(x: torch.Tensor, scale: float) -> torch.Tensor:
    """The nearest FP8 number to ``x / scale``, ties to even; what is beyond 448 becomes 448.

    TensorRT 10.6 computes the same, but makes 448 of NaN, which stays NaN here.
    """
    return _rounded(x.float() / scale)


def _quantize_per_channel(x: torch.Tensor, scales: torch.Tensor, axis: int) -> torch.Tensor:
    """The same with a scale for each index of dimension ``axis``."""
    return _rounded(x.float() / _along(scales, axis, x.dim()))


def _dequantize(
    x: torch.Tensor, scale: float, *, out_dtype: torch.dtype | None = None
) -> torch.Tensor:
    """``x * scale``, as FP32 unless another type is named."""
    return (x.float() * scale).to(out_dtype or torch.float32)


def _dequantize_per_channel(
    x: torch.Tensor, scales: torch.Tensor, axis: int, *, out_dtype: torch.dtype | None = None
) -> torch.Tensor:
    """The same with a scale for each index of dimension ``axis``."""
    return (x.float() * _along(scales, axis, x.dim())).to(out_dtype or torch.float32)


def _rounded(x: torch.Tensor) -> torch.Tensor:
    # PyTorch's own cast makes NaN of what is too large; TensorRT saturates.
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(E4M3)


def _along(scales: torch.Tensor, axis: int, rank: int) -> torch.Tensor:
    return scales.float().reshape([-1 if d == axis % rank else 1 for d in range(rank)])


for _name, _function in (
    ("quantize_fp8", _quantize),
    ("dequantize_fp8", _dequantize),
    ("quantize_fp8_per_channel", _quantize_per_channel),
    ("dequantize_fp8_per_channel", _dequantize_per_channel),
):
    # Made of PyTorch's operators, so this serves every device, and shapes without values.
    _LIBRARY.impl(_name, _function, "CompositeExplicitAutograd")

_operators = torch.ops.trtcompile
quantize_fp8 = _operators.quantize_fp8.default
dequantize_fp8 = _operators.dequantize_fp8.default
quantize_fp8_per_channel = _operators.quantize_fp8_per_channel.default
dequantize_fp8_per_channel = _operators.dequantize_fp8_per_channel.default

"""E4M3 from its definition, and not from PyTorch's cast: the tests of that cast compare with it."""

from __future__ import annotations

import torch

_BIAS = 7
_MANTISSA = 8


def decoded(byte: int) -> float:
    """The value of a byte: a sign bit, 4 bits of exponent, 3 of mantissa; only 0x7F and 0xFF are no number."""
    sign = -1.0 if byte & 0x80 else 1.0
    exponent, mantissa = byte >> 3 & 0xF, byte & 0x7
    if exponent == 0xF and mantissa == 0x7:
        return float("nan")
    if exponent == 0:
        return sign * mantissa / _MANTISSA * 2.0 ** (1 - _BIAS)
    return sign * (1 + mantissa / _MANTISSA) * 2.0 ** (exponent - _BIAS)


#: The values of the bytes 0x00 to 0x7E, which ascend from 0 to 448.
MAGNITUDES = torch.tensor([decoded(byte) for byte in range(0x7F)], dtype=torch.float64)
_MIDDLES = (MAGNITUDES[:-1] + MAGNITUDES[1:]) / 2


def nearest_e4m3(x: torch.Tensor) -> torch.Tensor:
    """The nearest FP8 number to each value, of two equally near ones that with an even mantissa; at most 448."""
    size = x.double().abs().contiguous()
    # Between two bytes, whose values ascend with them: how many middles lie below tells the byte.
    byte = torch.searchsorted(_MIDDLES, size)
    is_tie = torch.zeros_like(size, dtype=torch.bool)
    inside = byte < len(_MIDDLES)
    is_tie[inside] = _MIDDLES[byte[inside]] == size[inside]
    byte = torch.where(is_tie & (byte % 2 == 1), byte + 1, byte)
    byte = torch.where(x.isnan(), 0x7F, byte)
    byte = torch.where(torch.signbit(x), byte + 0x80, byte)
    return byte.to(torch.uint8).view(torch.float8_e4m3fn)

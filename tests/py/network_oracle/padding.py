"""TensorRT's padding modes as arithmetic on sizes (``PaddingMode`` in NvInfer.h).

The names of the header: I input size, B padding before, A padding after, S stride, DK extent
of the dilated filter, O output size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

Pads = list[tuple[int, int]]


def explicit_pads(
    size: Sequence[int],
    extent: Sequence[int],
    stride: Sequence[int],
    pre: Sequence[int],
    post: Sequence[int],
    *,
    round_up: bool,
) -> tuple[Pads, list[int]]:
    """Pads to apply and output size: O = round((I + B + A - DK) / S) + 1.

    Rounding up, the padding after grows so that the last window fits.
    """
    pads, output = [], []
    for i, dk, s, b, a in zip(size, extent, stride, pre, post, strict=True):
        room = i + b + a - dk
        steps = -(-room // s) if round_up else room // s
        output.append(steps + 1)
        pads.append((b, a + max(0, steps * s - room)))
    return pads, output


def same_pads(
    size: Sequence[int], extent: Sequence[int], stride: Sequence[int], *, lower: bool
) -> tuple[Pads, list[int]]:
    """Pads and output size for SAME_UPPER / SAME_LOWER: O = ceil(I / S)."""
    pads, output = [], []
    for i, dk, s in zip(size, extent, stride, strict=True):
        total = max(0, (i - 1) // s * s + dk - i)
        small, large = total // 2, total - total // 2
        pads.append((large, small) if lower else (small, large))
        output.append(-(-i // s))
    return pads, output


def pad_spatial(x: torch.Tensor, pads: Pads, value: float = 0.0) -> torch.Tensor:
    """``x`` with its last dimensions padded; ``pads`` in the order of the dimensions."""
    flat = [amount for before, after in reversed(pads) for amount in (before, after)]
    return F.pad(x, flat, value=value)

"""Resize and GridSample."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
import torch.nn.functional as F

from network_oracle.dtypes import FLOATS
from network_oracle.layer_view import LayerView
from network_oracle.registry import handles

Taps = list[tuple[int, float]]  # input index and weight


@handles("RESIZE", "IResizeLayer")
def resize(view: LayerView) -> torch.Tensor:
    """Every mode is separable: each dimension that changes is resampled by itself."""
    x = view.value(0)
    sizes = _output_sizes(view, x)
    mode = view.name_of("resize_mode")
    if mode != "NEAREST" and x.dtype not in FLOATS:
        raise view.unsupported(f"resize mode {mode} of {x.dtype}.")
    for dim, size in enumerate(sizes):
        if size == x.shape[dim]:
            continue
        taps = [_taps(view, mode, out, x.shape[dim], size) for out in range(size)]
        if mode == "NEAREST":
            x = x.index_select(dim, torch.tensor([tap[0][0] for tap in taps]))
            continue
        matrix = torch.zeros(size, x.shape[dim])
        for row, row_taps in enumerate(taps):
            for index, weight in row_taps:
                matrix[row, index] += weight
        x = torch.movedim(torch.movedim(x, dim, -1) @ matrix.t(), -1, dim)
    return x


def _output_sizes(view: LayerView, x: torch.Tensor) -> list[int]:
    if view.has(1):
        sizes = view.integers(1)
    elif len(view.layer.scales):
        scaled = [Fraction(s) * n for s, n in zip(view.layer.scales, x.shape, strict=True)]
        if any(size.denominator != 1 for size in scaled):
            raise view.unsupported(
                f"scales {list(view.layer.scales)} of {tuple(x.shape)} give a broken size: "
                "whether coordinates follow the scale or the rounded size is not documented."
            )
        sizes = [int(size) for size in scaled]
    else:
        sizes = list(view.dims("shape"))
    if len(sizes) != x.dim():
        raise view.mismatch(f"output dimensions {sizes} for an input of rank {x.dim()}.")
    return sizes


def _coordinate(view: LayerView, out: int, length: int, size: int) -> Fraction:
    """Coordinate in the input, exactly."""
    if size == 1 and view.name_of("selector_for_single_pixel") == "UPPER":
        return Fraction(0)
    transformation = view.name_of("coordinate_transformation")
    if transformation == "ASYMMETRIC":
        return Fraction(out * length, size)
    if transformation == "HALF_PIXEL":
        return Fraction((2 * out + 1) * length, 2 * size) - Fraction(1, 2)
    if transformation == "ALIGN_CORNERS":
        if size == 1:
            raise view.unsupported("aligned corners with one output pixel divide by zero.")
        return Fraction(out * (length - 1), size - 1)
    raise view.unsupported(f"coordinate transformation {transformation}.")


def _taps(view: LayerView, mode: str, out: int, length: int, size: int) -> Taps:
    """Which input elements make output element ``out``; those outside repeat the border."""
    position = _coordinate(view, out, length, size)
    base = math.floor(position)
    t = float(position - base)
    if mode == "NEAREST":
        return [(min(max(_rounded(view, position), 0), length - 1), 1.0)]
    if mode == "LINEAR":
        taps: Taps = [(base, 1 - t), (base + 1, t)]
    elif mode == "CUBIC":
        a = view.layer.cubic_coeff
        taps = [(base + k, _cubic(abs(t - k), a)) for k in (-1, 0, 1, 2)]
    else:
        raise view.unsupported(f"resize mode {mode}.")
    if view.layer.exclude_outside:
        taps = [(index, weight) for index, weight in taps if 0 <= index < length]
        total = sum(weight for _, weight in taps)
        taps = [(index, weight / total) for index, weight in taps]
    return [(min(max(index, 0), length - 1), weight) for index, weight in taps]


def _rounded(view: LayerView, position: Fraction) -> int:
    rounding = view.name_of("nearest_rounding")
    if rounding == "FLOOR":
        return math.floor(position)
    if rounding == "CEIL":
        return math.ceil(position)
    if rounding == "HALF_UP":
        return math.floor(position + Fraction(1, 2))
    if rounding == "HALF_DOWN":
        return math.ceil(position - Fraction(1, 2))
    raise view.unsupported(f"rounding {rounding}.")


def _cubic(x: float, a: float) -> float:
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    if x < 2:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return 0.0


_GRID_INTERPOLATION = {"NEAREST": "nearest", "LINEAR": "bilinear", "CUBIC": "bicubic"}
_GRID_BORDER = {"FILL": "zeros", "CLAMP": "border", "REFLECT": "reflection"}


@handles("GRID_SAMPLE", "IGridSampleLayer", same_type=(0, 1))
def grid_sample(view: LayerView) -> torch.Tensor:
    """ONNX GridSample, which is PyTorch's: a grid of (x, y[, z]) in [-1, 1]."""
    interpolation = view.name_of("interpolation_mode")
    border = view.name_of("sample_mode")
    if interpolation not in _GRID_INTERPOLATION or border not in _GRID_BORDER:
        raise view.unsupported(f"interpolation {interpolation}, sample mode {border}.")
    return F.grid_sample(
        view.value(0),
        view.value(1),
        mode=_GRID_INTERPOLATION[interpolation],
        padding_mode=_GRID_BORDER[border],
        align_corners=bool(view.layer.align_corners),
    )

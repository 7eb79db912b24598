"""Resize and GridSample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from oracle_networks.network_case import (
    Net,
    OracleNetwork,
    Tensor,
    set_attributes,
    signed,
    uniform,
)


def _resize(
    name: str,
    x: Tensor,
    expect: Callable[[Tensor], Tensor],
    *,
    sizes_input: Sequence[int] | None = None,
    **attributes: Any,
) -> OracleNetwork:
    def define(net: Net, x0: Any) -> Any:
        layer = net.network.add_resize(x0)
        if sizes_input is not None:
            layer.set_input(1, net.integers(*sizes_input))
        set_attributes(net, layer, attributes)
        return layer.get_output(0)

    return OracleNetwork(f"resize-{name}", [x], define, expect)


def _interpolate(*size: int, mode: str, align_corners: bool | None = None) -> Any:
    return lambda x: F.interpolate(x, size, mode=mode, align_corners=align_corners)


def _nearest_rows(length: int, size: int, rounding: str, transform: str) -> list[int]:
    """Which input row each output row takes, in floating point."""
    rows = []
    for out in range(size):
        if transform == "HALF_PIXEL":
            position = (out + 0.5) * length / size - 0.5
        elif transform == "ALIGN_CORNERS":
            position = out * (length - 1) / (size - 1)
        else:
            position = out * length / size
        row = {
            "FLOOR": math.floor(position),
            "CEIL": math.ceil(position),
            "HALF_UP": math.floor(position + 0.5),
            "HALF_DOWN": math.ceil(position - 0.5),
        }[rounding]
        rows.append(min(max(row, 0), length - 1))
    return rows


def _nearest(length: int, size: int, rounding: str, transform: str) -> OracleNetwork:
    rows = _nearest_rows(length, size, rounding, transform)
    return _resize(
        f"nearest-{rounding.lower()}-{transform.lower()}-{length}-to-{size}",
        signed(1, 2, length, 3),
        lambda x: x[:, :, rows],
        shape=(1, 2, size, 3),
        nearest_rounding=rounding,
        coordinate_transformation=transform,
    )


def _excluding_outside(x: Tensor) -> Tensor:
    """Cubic by four taps whose weights beyond the border are dropped and shared out again."""
    a, length, size = -0.5, x.shape[-1], 2 * x.shape[-1]
    result = torch.zeros(*x.shape[:-1], size)
    for out in range(size):
        position = (out + 0.5) / 2 - 0.5
        total = 0.0
        for index in range(length):
            d = abs(position - index)
            if d <= 1:
                weight = (a + 2) * d**3 - (a + 3) * d**2 + 1
            elif d < 2:
                weight = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            else:
                continue
            total += weight
            result[..., out] += weight * x[..., index]
        result[..., out] /= total
    return result


def _cubic_excluding_outside(x: Tensor) -> Tensor:
    rows = _excluding_outside(x)
    return _excluding_outside(rows.transpose(-1, -2)).transpose(-1, -2)


_IMAGE = (1, 2, 4, 5)

RESIZES = [
    _resize(
        "nearest-default",
        signed(*_IMAGE),
        _interpolate(8, 15, mode="nearest"),
        shape=(1, 2, 8, 15),
    ),
    _resize(
        "nearest-scales",
        signed(*_IMAGE),
        _interpolate(8, 10, mode="nearest"),
        scales=[1, 1, 2, 2],
    ),
    _nearest(4, 8, "HALF_UP", "HALF_PIXEL"),
    _nearest(4, 8, "HALF_DOWN", "HALF_PIXEL"),
    _nearest(8, 4, "HALF_UP", "HALF_PIXEL"),
    _nearest(8, 4, "HALF_DOWN", "HALF_PIXEL"),
    _nearest(4, 6, "CEIL", "ASYMMETRIC"),
    _nearest(6, 4, "FLOOR", "ASYMMETRIC"),
    _nearest(5, 9, "HALF_DOWN", "ALIGN_CORNERS"),
    _nearest(5, 9, "HALF_UP", "ALIGN_CORNERS"),
    _resize(
        "linear-half-pixel",
        signed(*_IMAGE),
        _interpolate(7, 8, mode="bilinear", align_corners=False),
        shape=(1, 2, 7, 8),
        resize_mode="LINEAR",
        coordinate_transformation="HALF_PIXEL",
    ),
    _resize(
        "linear-shrinks",
        signed(1, 2, 9, 8),
        _interpolate(4, 5, mode="bilinear", align_corners=False),
        shape=(1, 2, 4, 5),
        resize_mode="LINEAR",
        coordinate_transformation="HALF_PIXEL",
    ),
    _resize(
        "linear-align-corners",
        signed(*_IMAGE),
        _interpolate(7, 9, mode="bilinear", align_corners=True),
        shape=(1, 2, 7, 9),
        resize_mode="LINEAR",
        coordinate_transformation="ALIGN_CORNERS",
    ),
    _resize(
        "linear-asymmetric",
        signed(1, 2, 3, 4),
        lambda x: torch.stack(
            [x[:, :, 0], (x[:, :, 0] + x[:, :, 1]) / 2, x[:, :, 1],
             (x[:, :, 1] + x[:, :, 2]) / 2, x[:, :, 2], x[:, :, 2]], 2),
        shape=(1, 2, 6, 4),
        resize_mode="LINEAR",
        coordinate_transformation="ASYMMETRIC",
    ),
    _resize(
        "linear-1d",
        signed(2, 3, 5),
        _interpolate(8, mode="linear", align_corners=False),
        shape=(2, 3, 8),
        resize_mode="LINEAR",
        coordinate_transformation="HALF_PIXEL",
    ),
    _resize(
        "linear-3d",
        signed(1, 2, 3, 4, 3),
        _interpolate(5, 4, 6, mode="trilinear", align_corners=False),
        shape=(1, 2, 5, 4, 6),
        resize_mode="LINEAR",
        coordinate_transformation="HALF_PIXEL",
    ),
    _resize(
        "linear-single-pixel-upper",
        signed(*_IMAGE),
        lambda x: x[:, :, :1, :1],
        shape=(1, 2, 1, 1),
        resize_mode="LINEAR",
        coordinate_transformation="HALF_PIXEL",
        selector_for_single_pixel="UPPER",
    ),
    _resize(
        "linear-single-pixel-formula",
        signed(*_IMAGE),
        _interpolate(1, 1, mode="bilinear", align_corners=False),
        shape=(1, 2, 1, 1),
        resize_mode="LINEAR",
        coordinate_transformation="HALF_PIXEL",
    ),
    _resize(
        "linear-sizes-as-input",
        signed(*_IMAGE),
        _interpolate(8, 10, mode="bilinear", align_corners=False),
        sizes_input=(1, 2, 8, 10),
        resize_mode="LINEAR",
        coordinate_transformation="HALF_PIXEL",
    ),
    _resize(
        "cubic-half-pixel",
        signed(*_IMAGE),
        _interpolate(8, 9, mode="bicubic", align_corners=False),
        shape=(1, 2, 8, 9),
        resize_mode="CUBIC",
        coordinate_transformation="HALF_PIXEL",
    ),
    _resize(
        "cubic-align-corners",
        signed(*_IMAGE),
        _interpolate(7, 9, mode="bicubic", align_corners=True),
        shape=(1, 2, 7, 9),
        resize_mode="CUBIC",
        coordinate_transformation="ALIGN_CORNERS",
    ),
    _resize(
        "cubic-exclude-outside",
        signed(*_IMAGE),
        _cubic_excluding_outside,
        shape=(1, 2, 8, 10),
        resize_mode="CUBIC",
        coordinate_transformation="HALF_PIXEL",
        cubic_coeff=-0.5,
        exclude_outside=True,
    ),
]  # fmt: skip


def _grid_sample(name: str, expect_mode: str, border: str, align: bool, **attributes: Any):
    def define(net: Net, x0: Any, x1: Any) -> Any:
        layer = net.network.add_grid_sample(x0, x1)
        layer.align_corners = align
        set_attributes(net, layer, attributes)
        return layer.get_output(0)

    def expect(x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(x, grid, expect_mode, border, align)

    return OracleNetwork(
        f"grid_sample-{name}",
        [signed(2, 3, 4, 5), uniform(-1.3, 1.3, 2, 6, 7, 2)],
        define,
        expect,
    )


def _corners(x: Tensor, grid: Tensor) -> Tensor:
    """With aligned corners, grid points -1 and 1 are the border pixels themselves."""
    return torch.stack([x[:, :, 0, 0], x[:, :, 0, -1], x[:, :, -1, 0], x[:, :, -1, -1]], -1)[
        :, :, None
    ]


def _grid_sample_corners(net: Net, x0: Any, x1: Any) -> Any:
    layer = net.network.add_grid_sample(x0, x1)
    layer.align_corners = True
    return layer.get_output(0)


GRID_SAMPLES = [
    _grid_sample("linear-zeros", "bilinear", "zeros", False),
    _grid_sample("linear-border", "bilinear", "border", True, sample_mode="CLAMP"),
    _grid_sample("linear-reflection", "bilinear", "reflection", False, sample_mode="REFLECT"),
    _grid_sample("nearest-zeros", "nearest", "zeros", False, interpolation_mode="NEAREST"),
    _grid_sample("cubic-zeros", "bicubic", "zeros", False, interpolation_mode="CUBIC"),
    OracleNetwork(
        "grid_sample-corners-in-order-x-y",
        [
            signed(1, 3, 4, 5),
            torch.tensor([[[[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]]]),
        ],
        _grid_sample_corners,
        _corners,
    ),
]

NETWORKS = [*RESIZES, *GRID_SAMPLES]

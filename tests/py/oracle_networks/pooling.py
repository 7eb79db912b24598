"""Pooling."""

from __future__ import annotations

from collections.abc import Callable
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


def _pooling(
    name: str,
    kind: str,
    x: Tensor,
    window: tuple[int, ...],
    expect: Callable[[Tensor], Tensor],
    **attributes: Any,
) -> OracleNetwork:
    def define(net: Net, x0: Any) -> Any:
        layer = net.network.add_pooling_nd(x0, getattr(net.trt.PoolingType, kind), window)
        set_attributes(net, layer, attributes)
        return layer.get_output(0)

    return OracleNetwork(f"pooling-{name}", [x], define, expect)


def _padded_max(x: Tensor, pads: tuple[int, ...], window: int, stride: int) -> Tensor:
    return F.max_pool2d(F.pad(x, pads, value=-float("inf")), window, stride)


def _average_over_input(
    x: Tensor, pads: tuple[int, int, int, int], window: int, stride: int
) -> Tensor:
    """Sums divided by how many input elements each window covers."""
    ones = torch.ones_like(x)
    total, count = (
        F.avg_pool2d(F.pad(t, pads), window, stride, divisor_override=1) for t in (x, ones)
    )
    return total / count


NETWORKS = [
    _pooling(
        "max",
        "MAX",
        signed(2, 3, 7, 8),
        (2, 3),
        lambda x: F.max_pool2d(x, (2, 3), (2, 1)),
        stride_nd=(2, 1),
    ),
    _pooling(
        "max-padding-of-negatives",
        "MAX",
        uniform(-2, -1, 2, 3, 7, 8),
        (3, 3),
        lambda x: F.max_pool2d(x, 3, 2, 1),
        stride_nd=(2, 2),
        padding_nd=(1, 1),
    ),
    _pooling(
        "max-asymmetric-padding",
        "MAX",
        signed(2, 3, 7, 8) - 2,
        (3, 3),
        lambda x: _padded_max(x, (0, 2, 1, 0), 3, 2),
        stride_nd=(2, 2),
        pre_padding=(1, 0),
        post_padding=(0, 2),
    ),
    _pooling(
        "max-round-up",
        "MAX",
        signed(2, 3, 8, 7) - 2,
        (3, 3),
        lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
        stride_nd=(2, 2),
        padding_mode="EXPLICIT_ROUND_UP",
    ),
    _pooling(
        "max-same-upper",
        "MAX",
        signed(1, 3, 8, 7) - 2,
        (3, 3),
        lambda x: _padded_max(x, (1, 1, 0, 1), 3, 2),
        stride_nd=(2, 2),
        padding_mode="SAME_UPPER",
    ),
    _pooling(
        "max-same-lower",
        "MAX",
        signed(1, 3, 8, 7) - 2,
        (3, 3),
        lambda x: _padded_max(x, (1, 1, 1, 0), 3, 2),
        stride_nd=(2, 2),
        padding_mode="SAME_LOWER",
    ),
    _pooling(
        "max-3d",
        "MAX",
        signed(1, 2, 4, 6, 6),
        (2, 2, 3),
        lambda x: F.max_pool3d(x, (2, 2, 3), 2),
        stride_nd=(2, 2, 2),
    ),
    _pooling(
        "average",
        "AVERAGE",
        signed(2, 3, 6, 6),
        (2, 2),
        lambda x: F.avg_pool2d(x, 2, 2),
        stride_nd=(2, 2),
    ),
    _pooling(
        "average-excluding-padding",
        "AVERAGE",
        signed(2, 3, 7, 7) + 1,
        (3, 3),
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        stride_nd=(2, 2),
        padding_nd=(1, 1),
        average_count_excludes_padding=True,
    ),
    _pooling(
        "average-including-padding",
        "AVERAGE",
        signed(2, 3, 7, 7) + 1,
        (3, 3),
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=True),
        stride_nd=(2, 2),
        padding_nd=(1, 1),
        average_count_excludes_padding=False,
    ),
    _pooling(
        "average-round-up-including-padding",
        "AVERAGE",
        signed(2, 3, 8, 8) + 1,
        (3, 3),
        lambda x: F.avg_pool2d(F.pad(x, (1, 2, 1, 2)), 3, 2, divisor_override=9),
        stride_nd=(2, 2),
        padding_nd=(1, 1),
        padding_mode="EXPLICIT_ROUND_UP",
        average_count_excludes_padding=False,
    ),
    _pooling(
        "average-round-up-excluding-padding",
        "AVERAGE",
        signed(2, 3, 8, 8) + 1,
        (3, 3),
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        stride_nd=(2, 2),
        padding_nd=(1, 1),
        padding_mode="EXPLICIT_ROUND_UP",
    ),
    _pooling(
        "average-asymmetric-padding",
        "AVERAGE",
        signed(2, 3, 7, 8) + 1,
        (3, 3),
        lambda x: _average_over_input(x, (0, 1, 1, 0), 3, 2),
        stride_nd=(2, 2),
        pre_padding=(1, 0),
        post_padding=(0, 1),
    ),
    _pooling(
        "average-3d",
        "AVERAGE",
        signed(1, 2, 4, 6, 6),
        (2, 2, 3),
        lambda x: F.avg_pool3d(x, (2, 2, 3), 2),
        stride_nd=(2, 2, 2),
    ),
    _pooling(
        "blend",
        "MAX_AVERAGE_BLEND",
        signed(2, 3, 6, 6),
        (2, 2),
        lambda x: 0.25 * F.avg_pool2d(x, 2, 2) + 0.75 * F.max_pool2d(x, 2, 2),
        stride_nd=(2, 2),
        blend_factor=0.25,
    ),
]

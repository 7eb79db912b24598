"""Convolution and Deconvolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from oracle_networks.network_case import Net, OracleNetwork, Tensor, set_attributes, signed


def _convolution(
    name: str,
    x: Tensor,
    kernel: Tensor,
    expect: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    *,
    bias: bool = True,
    as_inputs: bool = False,
    deconvolution: bool = False,
    dtype: torch.dtype = torch.float32,
    **attributes: Any,
) -> OracleNetwork:
    """``expect`` gets the input, the kernel and the bias, in float32."""
    groups = attributes.get("num_groups", 1)
    maps = kernel.shape[1] * groups if deconvolution else kernel.shape[0]
    x, kernel = x.to(dtype), kernel.to(dtype)
    offset = signed(maps).to(dtype) if bias else None

    def define(net: Net, x0: Any) -> Any:
        add = net.network.add_deconvolution_nd if deconvolution else net.network.add_convolution_nd
        if as_inputs:
            layer = add(x0, maps, tuple(kernel.shape[2:]), net.weights(None), net.weights(None))
            layer.set_input(1, net.constant(kernel))
            if offset is not None:
                layer.set_input(2, net.constant(offset))
        else:
            layer = add(x0, maps, tuple(kernel.shape[2:]), net.weights(kernel), net.weights(offset))
        set_attributes(net, layer, attributes)
        return layer.get_output(0)

    def expected(x: Tensor) -> Tensor:
        result = expect(x.float(), kernel.float(), None if offset is None else offset.float())
        return result.to(dtype)

    kind = "deconvolution" if deconvolution else "convolution"
    return OracleNetwork(f"{kind}-{name}", [x], define, expected)


def _same_padding(size: int, kernel: int, stride: int, lower: bool) -> tuple[int, int]:
    """As TensorFlow's SAME: enough for ceil(size / stride) outputs, the odd one at the end."""
    outputs = int(np.ceil(size / stride))
    total = max((outputs - 1) * stride + kernel - size, 0)
    return (total - total // 2, total // 2) if lower else (total // 2, total - total // 2)


def _same(lower: bool, stride: int) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    def expect(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        top, bottom = _same_padding(x.shape[2], w.shape[2], stride, lower)
        left, right = _same_padding(x.shape[3], w.shape[3], stride, lower)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), w, b, stride)

    return expect


def _by_loops(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """A correlation, spelled out."""
    n, _, height, width = x.shape
    maps, _, r, s = w.shape
    result = torch.zeros(n, maps, height - r + 1, width - s + 1)
    for i in range(result.shape[2]):
        for j in range(result.shape[3]):
            patch = x[:, None, :, i : i + r, j : j + s]
            result[:, :, i, j] = (patch * w[None]).sum((2, 3, 4))
    return result if b is None else result + b[None, :, None, None]


CONVOLUTIONS = [
    _convolution("plain", signed(2, 3, 7, 6), signed(4, 3, 3, 2), _by_loops),
    _convolution("no-bias", signed(2, 3, 7, 6), signed(4, 3, 3, 2), _by_loops, bias=False),
    _convolution(
        "kernel-and-bias-as-inputs",
        signed(2, 3, 7, 6),
        signed(4, 3, 3, 2),
        _by_loops,
        as_inputs=True,
    ),
    _convolution(
        "stride-padding-dilation",
        signed(2, 3, 9, 11),
        signed(4, 3, 3, 2),
        lambda x, w, b: F.conv2d(x, w, b, (2, 3), (1, 2), (2, 1)),
        stride_nd=(2, 3),
        padding_nd=(1, 2),
        dilation_nd=(2, 1),
    ),
    _convolution(
        "asymmetric-padding",
        signed(1, 3, 6, 7),
        signed(4, 3, 3, 3),
        lambda x, w, b: F.conv2d(F.pad(x, (0, 3, 2, 1)), w, b),
        pre_padding=(2, 0),
        post_padding=(1, 3),
    ),
    _convolution(
        "grouped",
        signed(2, 4, 6, 6),
        signed(6, 2, 3, 3),
        lambda x, w, b: torch.cat(
            [F.conv2d(x[:, :2], w[:3], b[:3]), F.conv2d(x[:, 2:], w[3:], b[3:])], 1
        ),
        num_groups=2,
    ),
    _convolution(
        "depthwise",
        signed(2, 4, 6, 6),
        signed(4, 1, 3, 3),
        lambda x, w, b: torch.cat(
            [_by_loops(x[:, i : i + 1], w[i : i + 1], b[i : i + 1]) for i in range(4)], 1
        ),
        num_groups=4,
    ),
    _convolution(
        "round-up",
        signed(1, 3, 8, 7),
        signed(4, 3, 3, 3),
        lambda x, w, b: F.conv2d(F.pad(x, (0, 2, 0, 1)), w, b, 3),
        padding_mode="EXPLICIT_ROUND_UP",
        stride_nd=(3, 3),
        post_padding=(0, 1),
    ),
    _convolution(
        "same-upper",
        signed(1, 3, 8, 7),
        signed(4, 3, 3, 4),
        _same(False, 2),
        padding_mode="SAME_UPPER",
        stride_nd=(2, 2),
    ),
    _convolution(
        "same-lower",
        signed(1, 3, 8, 7),
        signed(4, 3, 3, 4),
        _same(True, 2),
        padding_mode="SAME_LOWER",
        stride_nd=(2, 2),
    ),
    _convolution(
        "3d",
        signed(1, 2, 5, 6, 7),
        signed(4, 2, 2, 3, 3),
        lambda x, w, b: F.conv3d(x, w, b, (1, 2, 1), (1, 0, 1)),
        stride_nd=(1, 2, 1),
        padding_nd=(1, 0, 1),
    ),
    _convolution(
        "half",
        signed(2, 8, 7, 6),
        signed(8, 8, 3, 2),
        _by_loops,
        dtype=torch.float16,
    ),
    _convolution(
        "bfloat16", signed(2, 8, 7, 6), signed(8, 8, 3, 2), _by_loops, dtype=torch.bfloat16
    ),
]


def _transposed_by_loops(x: Tensor, w: Tensor, b: Tensor | None, stride: int = 1) -> Tensor:
    """Each input element adds its multiple of the kernel."""
    n, _, height, width = x.shape
    _, maps, r, s = w.shape
    result = torch.zeros(n, maps, (height - 1) * stride + r, (width - 1) * stride + s)
    for i in range(height):
        for j in range(width):
            i0, j0 = i * stride, j * stride
            result[:, :, i0 : i0 + r, j0 : j0 + s] += torch.einsum(
                "nc,cmrs->nmrs", x[:, :, i, j], w
            )
    return result if b is None else result + b[None, :, None, None]


def _deconvolution(name: str, *arguments: Any, **options: Any) -> OracleNetwork:
    return _convolution(name, *arguments, deconvolution=True, **options)


DECONVOLUTIONS = [
    _deconvolution("plain", signed(2, 3, 4, 5), signed(3, 4, 3, 2), _transposed_by_loops),
    _deconvolution(
        "no-bias", signed(2, 3, 4, 5), signed(3, 4, 3, 2), _transposed_by_loops, bias=False
    ),
    _deconvolution(
        "stride-padding",
        signed(2, 3, 4, 5),
        signed(3, 4, 4, 3),
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1),
        stride_nd=(2, 2),
        padding_nd=(1, 1),
    ),
    _deconvolution(
        "asymmetric-padding",
        signed(2, 3, 4, 5),
        signed(3, 4, 4, 3),
        lambda x, w, b: _transposed_by_loops(x, w, b, 2)[:, :, 1:, :-1],
        stride_nd=(2, 2),
        pre_padding=(1, 0),
        post_padding=(0, 1),
    ),
    _deconvolution(
        "grouped",
        signed(2, 4, 4, 5),
        signed(4, 3, 3, 3),
        lambda x, w, b: torch.cat(
            [
                _transposed_by_loops(x[:, :2], w[:2], b[:3]),
                _transposed_by_loops(x[:, 2:], w[2:], b[3:]),
            ],
            1,
        ),
        num_groups=2,
    ),
    _deconvolution(
        "dilated",
        signed(1, 3, 4, 5),
        signed(3, 4, 3, 3),
        lambda x, w, b: F.conv_transpose2d(x, w, b, dilation=2),
        dilation_nd=(2, 2),
    ),
    _deconvolution(
        "same-upper",
        signed(1, 3, 4, 5),
        signed(3, 4, 3, 3),
        lambda x, w, b: _transposed_by_loops(x, w, b, 2)[:, :, :8, :10],
        padding_mode="SAME_UPPER",
        stride_nd=(2, 2),
    ),
    _deconvolution(
        "same-lower",
        signed(1, 3, 4, 5),
        signed(3, 4, 3, 3),
        lambda x, w, b: _transposed_by_loops(x, w, b, 2)[:, :, 1:9, 1:11],
        padding_mode="SAME_LOWER",
        stride_nd=(2, 2),
    ),
    _deconvolution(
        "3d",
        signed(1, 2, 3, 4, 3),
        signed(2, 3, 2, 3, 2),
        lambda x, w, b: F.conv_transpose3d(x, w, b, 2, (0, 1, 0)),
        stride_nd=(2, 2, 2),
        padding_nd=(0, 1, 0),
    ),
]


NETWORKS = [*CONVOLUTIONS, *DECONVOLUTIONS]

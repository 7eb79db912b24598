"""Antialiased resizing: two products with the matrices of PyTorch's own weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _supports_antialias(node: Node, spec: CompileSpec) -> str | None:
    value = node.meta["val"]
    given = arguments_of(node)
    source = given["input" if "input" in given else "self"]
    if not value.dtype.is_floating_point:
        return f"TensorRT multiplies matrices of floats, not {value.dtype}"
    if any(not isinstance(size, int) for size in (*source.shape[2:], *value.shape[2:])):
        return "the weights of antialiasing depend on a size that is only known at run time"
    return None


def _matrix(
    resize: Callable[..., torch.Tensor],
    length: int,
    size: int,
    align_corners: bool,
    scale: float | None,
) -> torch.Tensor:
    """[size, length]: what each of the elements contributes to each of the results along one dimension."""
    unit = torch.eye(length)[None, :, None]
    return resize(unit, [1, size], align_corners, None, scale)[0, :, 0].t()


def _antialiased(
    net: Network,
    input: TensorLike,
    resize: Callable[..., torch.Tensor],
    align_corners: bool,
    scales: Sequence[float | None],
) -> ITensor:
    x = net.tensor(input)
    dtype = net.dtype_of(x)
    rows, columns = (
        _matrix(resize, length, size, align_corners, scale).to(dtype)
        for length, size, scale in zip(
            net.dims(x)[2:], net.result_shapes[0][2:], scales, strict=True
        )
    )
    x = net.matmul(x, net.constant(columns), transpose_b=True)
    return net.matmul(net.constant(rows), x)


def _default(resize: Any) -> Callable[..., ITensor]:
    def convert(
        net: Network,
        self: TensorLike,
        output_size: Sequence[int],
        align_corners: bool,
        scales_h: float | None,
        scales_w: float | None,
    ) -> ITensor:
        return _antialiased(net, self, resize, align_corners, (scales_h, scales_w))

    return convert


def _vec(resize: Any) -> Callable[..., ITensor]:
    def convert(
        net: Network,
        input: TensorLike,
        output_size: Sequence[int] | None,
        align_corners: bool,
        scale_factors: Sequence[float] | None,
    ) -> ITensor:
        scales = scale_factors if output_size is None and scale_factors else (None, None)
        return _antialiased(net, input, resize, align_corners, scales)

    return convert


for _family in (aten._upsample_bilinear2d_aa, aten._upsample_bicubic2d_aa):
    converter(_family.default, supports=_supports_antialias)(_default(_family.default))
    converter(_family.vec, supports=_supports_antialias)(_vec(_family.default))

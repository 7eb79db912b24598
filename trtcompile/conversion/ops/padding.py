"""Padding: by a constant, by reflection, by the border, and around."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, Size
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _pad(net: Network, x: ITensor, pad: Sequence[Size], **outside: Any) -> ITensor:
    """``x`` with ``pad`` as PyTorch lists it: (before, after) from the last dimension on; negative cuts off."""
    untouched: list[Size] = [0] * (net.rank(x) - len(pad) // 2)
    before, after = ([*untouched, *reversed(pad[side::2])] for side in (0, 1))
    sizes: list[Size] = []
    for dim, known in enumerate(net.result_shapes[0]):
        more = net.size_math(before[dim], after[dim], "SUM")
        sizes.append(
            known if isinstance(known, int) else net.size_math(net.size(x, dim), more, "SUM")
        )
    starts = [net.size_math(0, size, "SUB") for size in before]
    return net.slice(x, starts, sizes, **outside)


def _has_elements(node: Node, spec: CompileSpec) -> str | None:
    sizes = arguments_of(node)["self"].shape
    if any(isinstance(size, int) and size == 0 for size in sizes):
        return "it pads a tensor without elements"
    return None


@converter(aten.constant_pad_nd.default, supports=_has_elements)
def aten_constant_pad_nd(net: Network, self: ITensor, pad: Sequence[Size], value: float) -> ITensor:
    """constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor"""
    dtype = net.result_dtypes[0]
    if dtype == torch.bool:  # TensorRT fills bools with nothing but zero
        padded = _pad(net, net.tensor(self, torch.int32), pad, fill=int(bool(value)))
        return net.elementwise(padded, 0, trt.ElementWiseOperation.GREATER, torch.int32)
    return _pad(net, net.tensor(self), pad, fill=value)


def _padding(mode: str) -> Callable[[Network, ITensor, Sequence[Size]], ITensor]:
    def convert(net: Network, self: ITensor, padding: Sequence[Size]) -> ITensor:
        return _pad(net, net.tensor(self), padding, mode=mode)

    return convert


for _packet, _mode in (
    (aten.reflection_pad1d, "REFLECT"),
    (aten.reflection_pad2d, "REFLECT"),
    (aten.reflection_pad3d, "REFLECT"),
    (aten.replication_pad1d, "CLAMP"),
    (aten.replication_pad2d, "CLAMP"),
    (aten.replication_pad3d, "CLAMP"),
):
    converter(_packet.default, supports=_has_elements)(_padding(_mode))


def _supports_circular_pad(node: Node, spec: CompileSpec) -> str | None:
    if any(isinstance(amount, int) and amount < 0 for amount in arguments_of(node)["pad"]):
        return "it pads around with a negative amount"
    return _has_elements(node, spec)


@converter(aten._pad_circular.default, supports=_supports_circular_pad)
def aten_pad_circular(net: Network, self: ITensor, pad: Sequence[Size]) -> ITensor:
    """_pad_circular(Tensor self, SymInt[] pad) -> Tensor"""
    return _pad(net, net.tensor(self), pad, mode="WRAP")

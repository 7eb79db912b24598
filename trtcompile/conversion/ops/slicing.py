"""Parts of tensors: slices, splits, reversed order, and padding."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from trtcompile.conversion.network import ITensor, Network
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten
_INT64_MAX = 2**63 - 1


def _slice_is_known(node: Node, spec: CompileSpec) -> str | None:
    x, dim = node.args[0], node.args[1] if len(node.args) > 1 else 0
    value = x.meta.get("val") if isinstance(x, Node) else None
    bounds = node.args[2:5]
    if value is None or not isinstance(value.shape[dim], int):
        return "it slices a dimension whose size is only known at run time"
    if any(isinstance(bound, Node) for bound in bounds):
        return "its bounds are only known at run time"
    return None


@converter(aten.slice.Tensor, supports=_slice_is_known)
def aten_slice(
    net: Network, self: ITensor, dim: int, start: int | None, end: int | None, step: int
) -> ITensor:
    """slice.Tensor(Tensor(a) self, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) -> Tensor(a)"""
    x = net.tensor(self)
    dim %= net.rank(x)
    first, last, _ = slice(start, None if end == _INT64_MAX else end).indices(net.dims(x)[dim])
    return _slice(net, x, dim, first, len(range(first, last, step)), step)


def _slice(net: Network, x: ITensor, dim: int, start: int, length: int, step: int = 1) -> ITensor:
    """``x`` from ``start`` (non-negative) along one dimension."""
    rank = net.rank(x)
    starts, steps = [0] * rank, [1] * rank
    starts[dim], steps[dim] = start, step
    sizes = [length if d == dim else net.size(x, d) for d in range(rank)]
    return net.slice(x, starts, sizes, steps)


@converter(aten.select.int, supports=_slice_is_known)
def aten_select(net: Network, self: ITensor, dim: int, index: int) -> ITensor:
    """select.int(Tensor(a) self, int dim, SymInt index) -> Tensor(a)"""
    x = net.tensor(self)
    dim %= net.rank(x)
    one = _slice(net, x, dim, index % net.dims(x)[dim], 1)
    return net.reshape(one, [net.size(one, d) for d in range(net.rank(one)) if d != dim])


@converter(operator.getitem)
def getitem(net: Network, values: Sequence[Any], index: int) -> Any:
    """One output of an operator that has several."""
    return values[index]


def _split_is_known(node: Node, spec: CompileSpec) -> str | None:
    if any(isinstance(size, Node) for size in node.args[1]):  # type: ignore[union-attr]
        return "the sizes of its parts are only known at run time"
    return None


@converter(aten.split_with_sizes.default, supports=_split_is_known)
def aten_split_with_sizes(
    net: Network, self: ITensor, split_sizes: Sequence[int], dim: int
) -> list[ITensor]:
    """split_with_sizes(Tensor(a -> *) self, SymInt[] split_sizes, int dim=0) -> Tensor(a)[]"""
    x = net.tensor(self)
    starts = [sum(split_sizes[:i]) for i in range(len(split_sizes))]
    return [
        _slice(net, x, dim % net.rank(x), start, size)
        for start, size in zip(starts, split_sizes, strict=True)
    ]


def _flipped_sizes_known(node: Node, spec: CompileSpec) -> str | None:
    value = node.meta["val"]
    if any(not isinstance(value.shape[d], int) for d in node.args[1]):  # type: ignore[union-attr]
        return "it reverses a dimension whose size is only known at run time"
    return None


@converter(aten.flip.default, supports=_flipped_sizes_known)
def aten_flip(net: Network, self: ITensor, dims: Sequence[int]) -> ITensor:
    """flip(Tensor self, int[] dims) -> Tensor"""
    x = net.tensor(self)
    flipped = {d % net.rank(x) for d in dims}
    starts = [net.dims(x)[d] - 1 if d in flipped else 0 for d in range(net.rank(x))]
    steps = [-1 if d in flipped else 1 for d in range(net.rank(x))]
    return net.slice(x, starts, [net.size(x, d) for d in range(net.rank(x))], steps)


def _supports_pad(node: Node, spec: CompileSpec) -> str | None:
    if any(isinstance(amount, Node) for amount in node.args[1]):  # type: ignore[union-attr]
        return "the padding is only known at run time"
    if node.meta["val"].dtype == torch.bool:
        return "TensorRT pads no bool tensors"
    return None


@converter(aten.constant_pad_nd.default, supports=_supports_pad)
def aten_constant_pad_nd(net: Network, self: ITensor, pad: Sequence[int], value: float) -> ITensor:
    """constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor"""
    x = net.tensor(self)
    untouched = [0] * (net.rank(x) - len(pad) // 2)
    # PyTorch lists (before, after) from the last dimension on.
    before, after = ([*untouched, *reversed(pad[side::2])] for side in (0, 1))
    return net.pad(x, before, after, value)

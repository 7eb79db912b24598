"""The largest and smallest elements, in order."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, Size
from trtcompile.conversion.registry import converter
from trtcompile.conversion.sizes import highest, lowest
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

#: What TensorRT's TopK gives at most.
_LARGEST_K = 3840
#: TopK works along one of so many last dimensions.
_DIMS_OF_TOP_K = 4


def supports_count(k: Any) -> str | None:
    """Whether TensorRT gives so many elements in order."""
    if highest(k) > _LARGEST_K:
        return f"TensorRT gives at most {_LARGEST_K} elements in order, not {k}"
    if lowest(k) < 1:
        return "TensorRT gives at least one element in order, not none"
    return None


def top_k(net: Network, x: ITensor, k: Size, dim: int, largest: bool) -> list[ITensor]:
    """Values, best first, and their indices."""
    rank, dtype = net.rank(x), net.dtype_of(x)
    x = net.tensor(x, torch.int32 if dtype == torch.bool else dtype)
    if rank < 2:  # TensorRT wants two dimensions
        dim, sizes = 1, [net.size(x, 0)] if rank else [1]
        x = net.reshape(x, [1, *sizes])
    dim %= net.rank(x)
    order = list(range(net.rank(x)))
    if net.rank(x) - dim > _DIMS_OF_TOP_K:
        order[dim], order[-1] = order[-1], order[dim]
        x = net.permute(x, order)
    operation = trt.TopKOperation.MAX if largest else trt.TopKOperation.MIN
    count = k if isinstance(k, int) else 1
    layer = net.definition.add_topk(x, operation, count, 1 << order.index(dim))
    layer = net.layer(layer, "topk")
    if not isinstance(k, int):
        layer.set_input(1, net.reshape(net.cast(k, torch.int32), []))
    values, indices = (
        net.cast(layer.get_output(0), dtype),
        net.cast(layer.get_output(1), torch.int64),
    )
    if order != sorted(order):
        values, indices = net.permute(values, order), net.permute(indices, order)
    if rank < 2:
        values, indices = (net.reshape(t, [k] if rank else []) for t in (values, indices))
    return [values, indices]


def _supports_top_k(node: Node, spec: CompileSpec) -> str | None:
    return supports_count(arguments_of(node)["k"])


@converter(aten.topk.default, supports=_supports_top_k)
def aten_topk(
    net: Network,
    self: ITensor,
    k: Size,
    dim: int,
    largest: bool,
    sorted: bool,
) -> list[ITensor]:
    """topk(Tensor self, SymInt k, int dim=-1, ...) -> (Tensor values, Tensor indices)"""
    return top_k(net, net.tensor(self), k, dim, largest)


def _supports_sort(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    x = given["self"]
    if given.get("stable") and any(
        user.target is not operator.getitem or user.args[1] != 0 for user in node.users
    ):
        return "TensorRT gives equal elements in no defined order, and the sort is to be stable"
    return supports_count(x.shape[given["dim"]] if x.dim() else 1)


def _sort(net: Network, x: ITensor, dim: int, descending: bool) -> list[ITensor]:
    size = net.size(x, dim) if net.rank(x) else 1
    return top_k(net, x, size, dim, descending)


@converter(aten.sort.default, supports=_supports_sort)
def aten_sort(net: Network, self: ITensor, dim: int, descending: bool) -> list[ITensor]:
    """sort(Tensor self, int dim=-1, bool descending=False) -> (Tensor values, Tensor indices)"""
    return _sort(net, net.tensor(self), dim, descending)


@converter(aten.sort.stable, supports=_supports_sort)
def aten_sort_stable(
    net: Network, self: ITensor, stable: bool | None, dim: int, descending: bool
) -> list[ITensor]:
    """sort.stable(Tensor self, *, bool? stable, ...) -> (Tensor values, Tensor indices)"""
    return _sort(net, net.tensor(self), dim, descending)

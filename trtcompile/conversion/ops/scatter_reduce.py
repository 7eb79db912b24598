"""Elements combined at indices.

TensorRT's Scatter has no reduction. Each place of the result is compared with each index instead, and reduced over
those that name it: work and memory grow with their product, so it is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.ops.rearrange import expand
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

#: The most elements that are compared and reduced: 64 MiB of FP32.
_MOST_PAIRS = 2**24
_OPERATIONS = {
    "sum": "SUM",
    "add": "SUM",
    "mean": "SUM",
    "prod": "PROD",
    "multiply": "PROD",
    "amax": "MAX",
    "amin": "MIN",
}


def too_many_pairs(places: Sequence[Any], values: Sequence[Any]) -> str | None:
    """Why so many values cannot be combined into so many places, or None."""
    if not all(isinstance(size, int) for size in (*places, *values)):
        return "it combines values in a tensor whose size is only known at run time"
    if math.prod(places) * math.prod(values) > _MOST_PAIRS:
        return "TensorRT's Scatter combines no values, and comparing so many indices would take too much memory"
    return None


def _identity(reduce: str, dtype: torch.dtype) -> float:
    """What changes nothing when combined."""
    if reduce in ("prod", "multiply"):
        return 1
    if reduce not in ("amax", "amin"):
        return 0
    if dtype.is_floating_point:
        return -math.inf if reduce == "amax" else math.inf
    limits = torch.iinfo(dtype)
    return limits.min if reduce == "amax" else limits.max


def _reduced(
    net: Network, values: ITensor, dim: int, operation: str, like: ITensor, identity: float
) -> ITensor:
    """Reduced over the values for each place, and as large as ``like``: nothing names what lies beyond."""
    result = net.reduce(values, getattr(trt.ReduceOperation, operation), [dim + 1], False)
    beyond = [a - b for a, b in zip(net.dims(like), net.dims(result), strict=True)]
    return net.pad(result, [0] * len(beyond), beyond, identity) if any(beyond) else result


def combined(
    net: Network,
    x: ITensor,
    dim: int,
    index: ITensor,
    src: ITensor,
    reduce: str,
    include_self: bool,
) -> ITensor:
    """``x`` combined with ``src`` along ``dim`` at ``index``, which broadcasts to ``src``."""
    dtype, size, operation = net.dtype_of(x), net.dims(x)[dim], _OPERATIONS[reduce]
    identity = _identity(reduce, dtype)
    rows = torch.arange(size, dtype=torch.int32).reshape([size, *([1] * (net.rank(x) - dim))])
    hit = net.elementwise(net.unsqueeze(index, [dim]), rows, trt.ElementWiseOperation.EQUAL)
    values = net.select(hit, net.unsqueeze(src, [dim]), net.tensor(identity, dtype))
    result = _reduced(net, values, dim, operation, x, identity)
    count = None
    if reduce == "mean" or not include_self:
        hits = expand(net, net.cast(hit, torch.int32), net.dims(values))
        count = _reduced(net, hits, dim, "SUM", x, 0)
    if not include_self:
        is_hit = net.elementwise(count, 0, trt.ElementWiseOperation.GREATER, torch.int32)
        x = net.select(is_hit, net.tensor(identity, dtype), x)
    result = net.elementwise(x, result, getattr(trt.ElementWiseOperation, operation))
    if reduce != "mean":
        return result
    own = trt.ElementWiseOperation.SUM if include_self else trt.ElementWiseOperation.MAX
    count = net.elementwise(count, 1, own, torch.int32)
    return net.elementwise(result, count, trt.ElementWiseOperation.DIV, dtype)


def add_rows(net: Network, x: ITensor, places: ITensor, rows: ITensor) -> ITensor:
    """``x`` with rows added to its own at ``places`` of its first dimension."""
    count = net.size(places, 0)
    index = net.reshape(places, [count, *([1] * (net.rank(x) - 1))])
    return combined(net, x, 0, index, rows, "sum", True)


def _supports_combining(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    x, index, dim = given["self"], given["index"], given["dim"]
    if x.dtype == torch.bool:
        return "TensorRT combines no bools"
    if given.get("reduce") == "mean" and not x.dtype.is_floating_point:
        return "it takes the mean of integers"
    places = [x.shape[dim] if x.dim() else 1]
    return too_many_pairs(places, index.shape) or too_many_pairs(x.shape, [])


def _scatter_reduce(
    net: Network,
    self: ITensor,
    dim: int,
    index: TensorLike,
    src: TensorLike,
    reduce: str,
    include_self: bool = True,
) -> ITensor:
    x, index = net.tensor(self), net.tensor(index, torch.int32)
    shape = net.dims(x)
    if 0 in net.dims(index) or 0 in shape:
        return x
    sizes = net.dims(index) or (1,)
    x = x if shape else net.reshape(x, [1])
    index = net.reshape(index, sizes)
    if isinstance(src, (bool, int, float)):
        src = expand(net, net.tensor(src, net.dtype_of(x)), sizes)
    else:
        src = net.tensor(src, net.dtype_of(x))
        src = src if net.rank(src) else net.reshape(src, [1])
        src = net.slice(src, [0] * len(sizes), sizes)
    result = combined(net, x, dim % net.rank(x), index, src, reduce, include_self)
    return result if shape else net.reshape(result, [])


@converter(aten.scatter_add.default, supports=_supports_combining)
def aten_scatter_add(
    net: Network, self: ITensor, dim: int, index: TensorLike, src: TensorLike
) -> ITensor:
    """scatter_add(Tensor self, int dim, Tensor index, Tensor src) -> Tensor"""
    return _scatter_reduce(net, self, dim, index, src, "sum")


@converter(aten.scatter_reduce.two, supports=_supports_combining)
def aten_scatter_reduce(
    net: Network,
    self: ITensor,
    dim: int,
    index: TensorLike,
    src: TensorLike,
    reduce: str,
    include_self: bool,
) -> ITensor:
    """scatter_reduce.two(Tensor self, int dim, Tensor index, Tensor src, str reduce, ...) -> Tensor"""
    return _scatter_reduce(net, self, dim, index, src, reduce, include_self)


@converter(aten.scatter.reduce, supports=_supports_combining)
def aten_scatter_with_reduce(
    net: Network, self: ITensor, dim: int, index: TensorLike, src: TensorLike, reduce: str
) -> ITensor:
    """scatter.reduce(Tensor self, int dim, Tensor index, Tensor src, *, str reduce) -> Tensor"""
    return _scatter_reduce(net, self, dim, index, src, reduce)


@converter(aten.scatter.value_reduce, supports=_supports_combining)
def aten_scatter_value_reduce(
    net: Network, self: ITensor, dim: int, index: TensorLike, value: float, reduce: str
) -> ITensor:
    """scatter.value_reduce(Tensor self, int dim, Tensor index, Scalar value, *, str reduce) -> Tensor"""
    return _scatter_reduce(net, self, dim, index, value, reduce)


def _supports_index_reduce(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    source = given["source"]
    places = [given["self"].shape[given["dim"]] if source.dim() else 1]
    return _supports_combining(node, spec) or too_many_pairs(places, source.shape)


@converter(aten.index_reduce.default, supports=_supports_index_reduce)
def aten_index_reduce(
    net: Network,
    self: ITensor,
    dim: int,
    index: TensorLike,
    source: TensorLike,
    reduce: str,
    include_self: bool,
) -> ITensor:
    """index_reduce(Tensor self, int dim, Tensor index, Tensor source, str reduce, ...) -> Tensor"""
    x, source = net.tensor(self), net.tensor(source, net.result_dtypes[0])
    shape = net.dims(x)
    if 0 in net.dims(source):
        return x
    x, source = (t if net.rank(t) else net.reshape(t, [1]) for t in (x, source))
    dim %= net.rank(x)
    ones = [1] * (net.rank(x) - dim - 1)
    places = net.reshape(net.tensor(index, torch.int32), [*([1] * dim), -1, *ones])
    result = combined(net, x, dim, places, source, reduce, include_self)
    return net.reshape(result, shape)

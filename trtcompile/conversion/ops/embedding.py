"""Embeddings, bags of them, and one-hot vectors."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, Size, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

#: The most elements that are compared with the bounds of bags: 64 MiB of FP32.
_MOST_PAIRS = 2**24
_SUM, _MEAN, _MAX = 0, 1, 2


@converter(aten.embedding.default)
def aten_embedding(
    net: Network,
    weight: TensorLike,
    indices: TensorLike,
    padding_idx: Size,
    scale_grad_by_freq: bool,
    sparse: bool,
) -> ITensor:
    """embedding(Tensor weight, Tensor indices, SymInt padding_idx=-1, bool scale_grad_by_freq=False, ...) -> Tensor"""
    return net.gather(net.tensor(weight), indices, 0)


def _supports_bags(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    weight, indices, offsets = (given[name] for name in ("weight", "indices", "offsets"))
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return "only the bags themselves are computed, not their sizes and offsets"
    if indices.dim() != 1 or offsets.dim() != 1:
        return f"it has indices of {indices.dim()} dimensions instead of one row"
    sizes = (weight.shape[1], *indices.shape, *offsets.shape)
    if not all(isinstance(size, int) for size in sizes):
        return "the number of bags or indices is only known at run time"
    if math.prod(sizes) > _MOST_PAIRS or 0 in sizes:
        return "comparing each index with each bag would take too much memory, or there are none"
    return None


def _in_bag(net: Network, count: int, offsets: ITensor, last_is_end: bool) -> ITensor:
    """For each bag and each index whether it belongs to the bag."""
    starts = net.tensor(offsets, torch.int32)
    bags = net.dims(starts)[0]
    if last_is_end:
        bags -= 1
        ends, starts = net.slice(starts, [1], [bags]), net.slice(starts, [0], [bags])
    else:
        end = net.constant(torch.tensor([count], dtype=torch.int32))
        ends = net.concat([net.slice(starts, [1], [bags - 1]), end], 0) if bags > 1 else end
    places = net.arange(count, dtype=torch.int32)
    before_start = net.elementwise(
        places, net.unsqueeze(starts, [1]), trt.ElementWiseOperation.LESS
    )
    before_end = net.elementwise(places, net.unsqueeze(ends, [1]), trt.ElementWiseOperation.LESS)
    has_started = net.unary(before_start, trt.UnaryOperation.NOT)
    return net.elementwise(has_started, before_end, trt.ElementWiseOperation.AND)


def _bags(
    net: Network,
    weight: TensorLike,
    indices: TensorLike,
    offsets: TensorLike,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: TensorLike | None,
    include_last_offset: bool,
    padding_idx: int,
) -> list[ITensor | None]:
    dtype = net.result_dtypes[0]
    places = net.tensor(indices, torch.int32)
    chosen = net.gather(net.tensor(weight), places, 0)
    if per_sample_weights is not None:
        factors = net.unsqueeze(net.tensor(per_sample_weights, dtype), [1])
        chosen = net.elementwise(chosen, factors, trt.ElementWiseOperation.PROD)
    belongs = _in_bag(net, net.dims(places)[0], net.tensor(offsets), include_last_offset)
    if padding_idx >= 0:
        is_padding = net.elementwise(
            places, padding_idx, trt.ElementWiseOperation.EQUAL, torch.int32
        )
        is_used = net.unary(net.unsqueeze(is_padding, [0]), trt.UnaryOperation.NOT)
        belongs = net.elementwise(belongs, is_used, trt.ElementWiseOperation.AND)
    belongs = net.unsqueeze(belongs, [2])
    identity = net.tensor(-math.inf if mode == _MAX else 0.0, dtype)
    operation = trt.ReduceOperation.MAX if mode == _MAX else trt.ReduceOperation.SUM
    bags = net.reduce(net.select(belongs, chosen, identity), operation, [1], False)
    return [bags if mode == _SUM else _mean_or_zero(net, bags, belongs, mode), None, None, None]


def _mean_or_zero(net: Network, bags: ITensor, belongs: ITensor, mode: int) -> ITensor:
    """Divides by the number of elements for the mean; an empty bag's maximum is zero."""
    counts = net.reduce(net.cast(belongs, torch.int32), trt.ReduceOperation.SUM, [1], False)
    if mode == _MAX:
        is_filled = net.elementwise(counts, 0, trt.ElementWiseOperation.GREATER, torch.int32)
        return net.select(is_filled, bags, net.tensor(0.0, net.dtype_of(bags)))
    counts = net.elementwise(counts, 1, trt.ElementWiseOperation.MAX, torch.int32)
    return net.elementwise(bags, counts, trt.ElementWiseOperation.DIV, net.dtype_of(bags))


for _target in (aten._embedding_bag.default, aten._embedding_bag_forward_only.default):
    converter(_target, supports=_supports_bags)(_bags)


def _supports_one_hot(node: Node, spec: CompileSpec) -> str | None:
    classes: Any = arguments_of(node)["num_classes"]
    if not isinstance(classes, int) or classes < 0:
        return "the number of classes depends on data"
    return None


@converter(aten.one_hot.default, supports=_supports_one_hot)
def aten_one_hot(net: Network, self: TensorLike, num_classes: int) -> ITensor:
    """one_hot(Tensor self, int num_classes=-1) -> Tensor"""
    x = net.tensor(self, torch.int32)
    classes = torch.arange(num_classes, dtype=torch.int32)
    hot = net.elementwise(net.unsqueeze(x, [net.rank(x)]), classes, trt.ElementWiseOperation.EQUAL)
    return net.cast(hot, torch.int64)

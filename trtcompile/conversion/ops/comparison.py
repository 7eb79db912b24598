"""Comparisons, logical operations, and selection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.logic import either
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _common_dtype(net: Network, a: TensorLike, b: TensorLike) -> torch.dtype:
    """What PyTorch promotes operands to before it compares them."""

    def like(value: TensorLike) -> Any:
        if isinstance(value, (bool, int, float)):
            return value
        return torch.empty([1] * net.rank(value), dtype=net.dtype_of(value))

    return torch.result_type(like(a), like(b))


def _compare(net: Network, a: TensorLike, b: TensorLike, *operations: str) -> ITensor:
    """Whether any of the comparisons holds; for NaN none does, so none is the opposite of another."""
    dtype = _common_dtype(net, a, b)
    dtype = torch.int32 if dtype == torch.bool else dtype  # TensorRT orders no bools
    results = [
        net.elementwise(a, b, getattr(trt.ElementWiseOperation, operation), dtype)
        for operation in operations
    ]
    if len(results) == 1:
        return results[0]
    return net.elementwise(results[0], results[1], trt.ElementWiseOperation.OR)


def _comparison(*operations: str) -> Callable[[Network, TensorLike, TensorLike], ITensor]:
    def convert(net: Network, self: TensorLike, other: TensorLike) -> ITensor:
        return _compare(net, self, other, *operations)

    return convert


def _unequal(net: Network, self: TensorLike, other: TensorLike) -> ITensor:
    return net.unary(_compare(net, self, other, "EQUAL"), trt.UnaryOperation.NOT)


_COMPARISONS: tuple[tuple[Any, Callable[[Network, TensorLike, TensorLike], ITensor]], ...] = (
    (aten.eq, _comparison("EQUAL")),
    (aten.ne, _unequal),
    (aten.lt, _comparison("LESS")),
    (aten.le, _comparison("LESS", "EQUAL")),
    (aten.gt, _comparison("GREATER")),
    (aten.ge, _comparison("GREATER", "EQUAL")),
)
for _packet, _convert in _COMPARISONS:
    converter(_packet.Tensor)(_convert)
    converter(_packet.Scalar)(_convert)


@converter(aten.logical_not.default)
def aten_logical_not(net: Network, self: TensorLike) -> ITensor:
    """logical_not(Tensor self) -> Tensor"""
    return net.unary(net.truth(self), trt.UnaryOperation.NOT)


def _logical(operation: str) -> Callable[[Network, TensorLike, TensorLike], ITensor]:
    def convert(net: Network, self: TensorLike, other: TensorLike) -> ITensor:
        if operation == "OR":
            return either(net, self, other)
        # A Python number has no dtype; only bitwise operations take one, and they are of bools.
        a, b = (
            net.tensor(x, torch.bool) if isinstance(x, (bool, int)) else net.truth(x)
            for x in (self, other)
        )
        return net.elementwise(a, b, getattr(trt.ElementWiseOperation, operation))

    return convert


def _only_bools(node: Node, spec: CompileSpec) -> str | None:
    dtype = node.meta["val"].dtype
    return None if dtype == torch.bool else f"TensorRT has no bitwise operations on {dtype}"


for _operation in ("and", "or", "xor"):
    _convert = _logical(_operation.upper())
    converter(getattr(aten, f"logical_{_operation}").default)(_convert)
    _packet = getattr(aten, f"bitwise_{_operation}")
    for _target in (_packet.Tensor, _packet.Scalar, _packet.Scalar_Tensor):
        converter(_target, supports=_only_bools)(_convert)


@converter(aten.bitwise_not.default)
def aten_bitwise_not(net: Network, self: TensorLike) -> ITensor:
    """bitwise_not(Tensor self) -> Tensor"""
    dtype = net.result_dtypes[0]
    if dtype == torch.bool:
        return net.unary(net.tensor(self), trt.UnaryOperation.NOT)
    return net.elementwise(-1, self, trt.ElementWiseOperation.SUB, dtype)  # two's complement


@converter(aten.where.self)
def aten_where(net: Network, condition: TensorLike, self: TensorLike, other: TensorLike) -> ITensor:
    """where.self(Tensor condition, Tensor self, Tensor other) -> Tensor"""
    return net.select(net.tensor(condition), self, other, net.result_dtypes[0])

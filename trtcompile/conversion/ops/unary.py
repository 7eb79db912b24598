"""Unary operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network
from trtcompile.conversion.registry import converter

aten = torch.ops.aten


_ROUNDING = ("FLOOR", "CEIL")


def _unary(operation: str) -> Callable[[Network, ITensor], ITensor]:
    def convert(net: Network, self: ITensor) -> ITensor:
        dtype = net.result_dtypes[0]
        x = net.tensor(self, dtype)
        if not dtype.is_floating_point and operation in _ROUNDING:
            return x  # what is whole stays as it is, and TensorRT rounds floating point only
        return net.unary(x, getattr(trt.UnaryOperation, operation))

    return convert


_UNARY: tuple[tuple[Any, str], ...] = (
    (aten.exp.default, "EXP"),
    (aten.log.default, "LOG"),
    (aten.sqrt.default, "SQRT"),
    (aten.reciprocal.default, "RECIP"),
    (aten.abs.default, "ABS"),
    (aten.neg.default, "NEG"),
    (aten.sin.default, "SIN"),
    (aten.cos.default, "COS"),
    (aten.erf.default, "ERF"),
    (aten.floor.default, "FLOOR"),
    (aten.ceil.default, "CEIL"),
)
for _target, _operation in _UNARY:
    converter(_target)(_unary(_operation))


@converter(aten.rsqrt.default)
def aten_rsqrt(net: Network, self: ITensor) -> ITensor:
    """rsqrt(Tensor self) -> Tensor"""
    root = net.unary(net.tensor(self, net.result_dtypes[0]), trt.UnaryOperation.SQRT)
    return net.unary(root, trt.UnaryOperation.RECIP)

"""Arithmetic on sizes that are only known at run time; it stays on the host as INT64 shape tensors."""

from __future__ import annotations

import operator

import torch

from trtcompile.conversion.network import ITensor, Network, Size
from trtcompile.conversion.registry import converter

aten = torch.ops.aten


@converter(aten.sym_size.int)
def aten_sym_size(net: Network, self: ITensor, dim: int) -> Size:
    """sym_size.int(Tensor self, int dim) -> SymInt"""
    return net.size(self, dim)


@converter(operator.add)
def size_add(net: Network, a: Size, b: Size) -> Size:
    """a + b"""
    return net.size_math(a, b, "SUM")


@converter(operator.sub)
def size_sub(net: Network, a: Size, b: Size) -> Size:
    """a - b"""
    return net.size_math(a, b, "SUB")


@converter(operator.mul)
def size_mul(net: Network, a: Size, b: Size) -> Size:
    """a * b"""
    return net.size_math(a, b, "PROD")


@converter(operator.floordiv)
def size_floordiv(net: Network, a: Size, b: Size) -> Size:
    """a // b"""
    return net.size_math(a, b, "FLOOR_DIV")


@converter(operator.mod)
def size_mod(net: Network, a: Size, b: Size) -> Size:
    """a % b"""
    return net.size_math(a, net.size_math(net.size_math(a, b, "FLOOR_DIV"), b, "PROD"), "SUB")


@converter(operator.neg)
def size_neg(net: Network, a: Size) -> Size:
    """-a"""
    return net.size_math(0, a, "SUB")


@converter(torch.sym_max)
def size_max(net: Network, a: Size, b: Size) -> Size:
    """max(a, b)"""
    return net.size_math(a, b, "MAX")


@converter(torch.sym_min)
def size_min(net: Network, a: Size, b: Size) -> Size:
    """min(a, b)"""
    return net.size_math(a, b, "MIN")

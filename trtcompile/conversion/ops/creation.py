"""Tensors that are made of numbers and sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, Size, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _scalar(net: Network, value: TensorLike, dtype: torch.dtype) -> ITensor:
    """A number, or a size that is known at run time only, as a tensor without dimensions."""
    return (
        net.reshape(net.tensor(value, dtype), []) if net.rank(value) else net.tensor(value, dtype)
    )


def _filled(net: Network, sizes: Sequence[Size], value: TensorLike) -> ITensor:
    """A tensor of these sizes with one value everywhere."""
    x = _scalar(net, value, net.result_dtypes[0])
    if not sizes:
        return x
    # A step of 0 repeats the only element.
    one = net.reshape(x, [1] * len(sizes))
    return net.slice(one, [0] * len(sizes), sizes, [0] * len(sizes))


@converter(aten.full.default)
def aten_full(
    net: Network,
    size: Sequence[Size],
    fill_value: TensorLike,
    dtype: torch.dtype | None,
    layout: object,
    device: object,
    pin_memory: object,
) -> ITensor:
    """full(SymInt[] size, Scalar fill_value, *, dtype=None, layout=None, device=None, pin_memory=None) -> Tensor"""
    return _filled(net, size, fill_value)


@converter(aten.full_like.default)
def aten_full_like(
    net: Network,
    self: TensorLike,
    fill_value: TensorLike,
    dtype: torch.dtype | None,
    layout: object,
    device: object,
    pin_memory: object,
    memory_format: object,
) -> ITensor:
    """full_like(Tensor self, Scalar fill_value, *, dtype=None, ..., memory_format=None) -> Tensor"""
    return _filled(net, net.all_sizes(self), fill_value)


@converter(aten.empty.memory_format)
def aten_empty(
    net: Network,
    size: Sequence[Size],
    dtype: torch.dtype | None,
    layout: object,
    device: object,
    pin_memory: object,
    memory_format: object,
) -> ITensor:
    """empty.memory_format(SymInt[] size, *, dtype=None, ..., memory_format=None) -> Tensor"""
    return _filled(net, size, 0)  # any values will do


@converter(aten.empty_permuted.default)
def aten_empty_permuted(
    net: Network,
    size: Sequence[Size],
    physical_layout: Sequence[int],
    dtype: torch.dtype | None,
    layout: object,
    device: object,
    pin_memory: object,
) -> ITensor:
    """empty_permuted(SymInt[] size, int[] physical_layout, *, dtype=None, ..., pin_memory=None) -> Tensor"""
    return _filled(net, size, 0)


@converter(aten.empty_strided.default)
def aten_empty_strided(
    net: Network,
    size: Sequence[Size],
    stride: Sequence[Size],
    dtype: torch.dtype | None,
    layout: object,
    device: object,
    pin_memory: object,
) -> ITensor:
    """empty_strided(SymInt[] size, SymInt[] stride, *, dtype=None, ..., pin_memory=None) -> Tensor"""
    return _filled(net, size, 0)


@converter(aten.scalar_tensor.default)
def aten_scalar_tensor(
    net: Network,
    s: TensorLike,
    dtype: torch.dtype | None,
    layout: object,
    device: object,
    pin_memory: object,
) -> ITensor:
    """scalar_tensor(Scalar s, *, dtype=None, layout=None, device=None, pin_memory=None) -> Tensor"""
    return _scalar(net, s, net.result_dtypes[0])


@converter(torch.ops.prims.scalar_tensor.default)
def prims_scalar_tensor(
    net: Network, s: TensorLike, dtype: torch.dtype | None, device: object
) -> ITensor:
    """scalar_tensor(Scalar s, *, ScalarType? dtype=None, Device? device=None) -> Tensor"""
    return _scalar(net, s, net.result_dtypes[0])


def _supports_arange(node: Node, spec: CompileSpec) -> str | None:
    arguments = arguments_of(node)
    bounds = [arguments[name] for name in ("start", "end", "step")]
    if all(isinstance(bound, (int, float)) for bound in bounds):
        return None
    if not all(isinstance(bound, (int, torch.SymInt)) for bound in bounds):
        return "its length depends on a number that is no integer"
    if not isinstance(arguments["step"], int):
        return "its step is only known at run time"
    return None


@converter(aten.arange.start_step, supports=_supports_arange)
def aten_arange(
    net: Network,
    start: Size,
    end: Size,
    step: float,
    dtype: torch.dtype | None,
    layout: object,
    device: object,
    pin_memory: object,
) -> ITensor:
    """arange.start_step(Scalar start, Scalar end, Scalar step=1, *, dtype=None, ..., pin_memory=None) -> Tensor"""
    wanted = net.result_dtypes[0]
    if isinstance(start, (int, float)) and isinstance(end, (int, float)):
        return net.constant(torch.arange(start, end, step, dtype=wanted))
    step = int(step)
    # The length is the distance divided by the step, rounded up.
    distance = net.size_math(end, start, "SUB") if step > 0 else net.size_math(start, end, "SUB")
    padded = net.size_math(distance, abs(step) - 1, "SUM")
    return net.cast(net.arange(net.size_math(padded, abs(step), "FLOOR_DIV"), start, step), wanted)


def _eye(net: Network, rows: Size, columns: Size) -> ITensor:
    row = net.reshape(net.arange(rows, dtype=torch.int32), [-1, 1])
    column = net.reshape(net.arange(columns, dtype=torch.int32), [1, -1])
    same = net.elementwise(row, column, trt.ElementWiseOperation.EQUAL)
    return net.cast(same, net.result_dtypes[0])


@converter(aten.eye.default)
def aten_eye(
    net: Network,
    n: Size,
    dtype: torch.dtype | None,
    layout: object,
    device: object,
    pin_memory: object,
) -> ITensor:
    """eye(SymInt n, *, dtype=None, layout=None, device=None, pin_memory=None) -> Tensor"""
    return _eye(net, n, n)


@converter(aten.eye.m)
def aten_eye_m(
    net: Network,
    n: Size,
    m: Size,
    dtype: torch.dtype | None,
    layout: object,
    device: object,
    pin_memory: object,
) -> ITensor:
    """eye.m(SymInt n, SymInt m, *, dtype=None, layout=None, device=None, pin_memory=None) -> Tensor"""
    return _eye(net, n, m)

"""Max, average, and adaptive pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _expand(values: Sequence[int], count: int) -> list[int]:
    values = list(values)
    return values * count if len(values) == 1 else values


def _pool(
    net: Network,
    x: ITensor,
    kind: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    *,
    excludes_padding: bool = True,
    out_sizes: Sequence[Any] | None = None,
) -> ITensor:
    """Pools so that the output has the size that PyTorch gives, ceil_mode or not."""
    layer = net.layer(
        net.definition.add_pooling_nd(x, getattr(trt.PoolingType, kind), tuple(kernel)), "pooling"
    )
    layer.stride_nd = tuple(stride)
    layer.average_count_excludes_padding = excludes_padding
    layer.pre_padding = tuple(padding)
    # ceil_mode lets a last window hang over the end: the padding there grows by what it hangs over.
    spatial = zip(
        net.dims(x)[-len(kernel) :],
        out_sizes or net.result_shapes[0][-len(kernel) :],
        kernel,
        stride,
        padding,
        strict=True,
    )
    layer.post_padding = tuple(
        max(pad, (out - 1) * step + window - size - pad)
        if isinstance(out, int) and size >= 0
        else pad
        for size, out, window, step, pad in spatial
    )
    return layer.get_output(0)


def _supports_pool(ceil_mode_index: int, dilation_index: int | None = None, spatial_dims: int = 2):  # type: ignore[no-untyped-def]
    def supports(node: Node, spec: CompileSpec) -> str | None:
        x = node.args[0]
        value = x.meta.get("val") if isinstance(x, Node) else None
        if not isinstance(value, torch.Tensor) or value.dim() != spatial_dims + 2:
            return "the input has no batch dimension"
        if not value.dtype.is_floating_point:
            return f"TensorRT pools floating-point tensors, not {value.dtype}"
        if dilation_index is not None and len(node.args) > dilation_index:
            dilation = node.args[dilation_index]
            if any(d != 1 for d in ([dilation] if isinstance(dilation, int) else dilation)):  # type: ignore[union-attr]
                return f"TensorRT has no dilated pooling (dilation {dilation})"
        ceil_mode = len(node.args) > ceil_mode_index and bool(node.args[ceil_mode_index])
        if ceil_mode and any(not isinstance(size, int) for size in value.shape[2:]):
            return "ceil_mode needs spatial sizes that are known when compiling"
        return None

    return supports


def _max_pool(
    net: Network,
    x: ITensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dims: int,
) -> ITensor:
    kernel = _expand(kernel_size, dims)
    return _pool(net, x, "MAX", kernel, _expand(stride or kernel, dims), _expand(padding, dims))


@converter(aten.max_pool1d.default, supports=_supports_pool(5, 4, 1))
def aten_max_pool1d(
    net: Network,
    self: ITensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> ITensor:
    """max_pool1d(self, int[1] kernel_size, int[1] stride=[], padding=0, dilation=1, ceil_mode=False) -> Tensor"""
    # TensorRT pools over two or three dimensions: a second one of size 1 changes nothing.
    kernel, step = [*kernel_size, 1], [*(stride or kernel_size), 1]
    out_sizes = (net.result_shapes[0][2], 1)
    x = net.unsqueeze(self, [3])
    pooled = _pool(net, x, "MAX", kernel, step, [*padding, 0], out_sizes=out_sizes)
    return net.reshape(pooled, [net.size(pooled, d) for d in range(3)])


@converter(aten.max_pool2d.default, supports=_supports_pool(5, 4, 2))
def aten_max_pool2d(
    net: Network,
    self: ITensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> ITensor:
    """max_pool2d(self, int[2] kernel_size, int[2] stride=[], padding=0, dilation=1, ceil_mode=False) -> Tensor"""
    return _max_pool(net, self, kernel_size, stride, padding, 2)


@converter(aten.max_pool3d.default, supports=_supports_pool(5, 4, 3))
def aten_max_pool3d(
    net: Network,
    self: ITensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> ITensor:
    """max_pool3d(self, int[3] kernel_size, int[3] stride=[], padding=0, dilation=1, ceil_mode=False) -> Tensor"""
    return _max_pool(net, self, kernel_size, stride, padding, 3)


def _supports_average(node: Node, spec: CompileSpec) -> str | None:
    dims = 3 if node.target is aten.avg_pool3d.default else 2
    reason: str | None = _supports_pool(4, spatial_dims=dims)(node, spec)
    if reason is not None:
        return reason
    values = dict(
        zip(
            ("kernel", "stride", "padding", "ceil_mode", "count_pad", "divisor"),
            node.args[1:],
            strict=False,
        )
    )
    if values.get("divisor") is not None:
        return "divisor_override has no counterpart in TensorRT"
    padding = values.get("padding", 0)
    is_padded = any(p != 0 for p in ([padding] if isinstance(padding, int) else padding))  # type: ignore[union-attr]
    if values.get("ceil_mode") and is_padded and values.get("count_pad", True):
        return "ceil_mode with counted padding divides by a window size that TensorRT does not use"
    return None


@converter(aten.avg_pool2d.default, supports=_supports_average)
def aten_avg_pool2d(
    net: Network,
    self: ITensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> ITensor:
    """avg_pool2d(self, kernel_size, stride=[], padding=0, ceil_mode, count_include_pad=True, divisor_override=None)"""
    return _average_pool(net, self, kernel_size, stride, padding, count_include_pad, 2)


@converter(aten.avg_pool3d.default, supports=_supports_average)
def aten_avg_pool3d(
    net: Network,
    self: ITensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> ITensor:
    """avg_pool3d(self, kernel_size, stride=[], padding=0, ceil_mode, count_include_pad=True, divisor_override=None)"""
    return _average_pool(net, self, kernel_size, stride, padding, count_include_pad, 3)


def _average_pool(
    net: Network,
    x: ITensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    counts_padding: bool,
    dims: int,
) -> ITensor:
    kernel, step, padding = (
        _expand(v, dims) for v in (kernel_size, stride or kernel_size, padding)
    )
    # The overhang of ceil_mode is never counted, so without real padding "excludes" is right for both settings.
    excludes = not counts_padding or not any(padding)
    return _pool(net, x, "AVERAGE", kernel, step, padding, excludes_padding=excludes)


def _supports_adaptive(node: Node, spec: CompileSpec) -> str | None:
    x = node.args[0]
    value = x.meta.get("val") if isinstance(x, Node) else None
    if not isinstance(value, torch.Tensor) or value.dim() != 4:
        return "the input has no batch dimension"
    wants_one = all(size == 1 for size in node.args[1])  # type: ignore[union-attr]
    if not wants_one and any(not isinstance(size, int) for size in value.shape[2:]):
        return "adaptive pooling needs spatial sizes that are known when compiling"
    return None


@converter(aten.adaptive_avg_pool2d.default, supports=_supports_adaptive)
def aten_adaptive_avg_pool2d(net: Network, self: ITensor, output_size: Sequence[int]) -> ITensor:
    """adaptive_avg_pool2d(Tensor self, SymInt[2] output_size) -> Tensor"""
    sizes = net.dims(self)[2:]
    if any(size < 0 for size in sizes):
        return net.reduce(self, trt.ReduceOperation.AVG, [2, 3], True)
    if all(size % out == 0 for size, out in zip(sizes, output_size, strict=True)):
        window = [size // out for size, out in zip(sizes, output_size, strict=True)]
        return _pool(net, self, "AVERAGE", window, window, [0, 0])
    # Windows of unequal size: averaging is linear, so it is a matrix product along each dimension.
    dtype = net.result_dtypes[0]
    rows, columns = (
        averaging_matrix(s, o).to(dtype) for s, o in zip(sizes, output_size, strict=True)
    )
    return net.matmul(net.matmul(net.constant(rows), self), net.constant(columns), transpose_b=True)


def _supports_adaptive_3d(node: Node, spec: CompileSpec) -> str | None:
    value, output_size = node.all_input_nodes[0].meta["val"], node.meta["val"].shape[-3:]
    if value.dim() != 5:
        return "the input has no batch dimension"
    if any(not isinstance(size, int) for size in value.shape[2:]):
        return "adaptive pooling needs spatial sizes that are known when compiling"
    if any(size % out for size, out in zip(value.shape[2:], output_size, strict=True)):
        return f"windows of {list(value.shape[2:])} for {list(output_size)} differ in size"
    return None


@converter(aten._adaptive_avg_pool3d.default, supports=_supports_adaptive_3d)
def aten_adaptive_avg_pool3d(net: Network, self: ITensor, output_size: Sequence[int]) -> ITensor:
    """_adaptive_avg_pool3d(Tensor self, SymInt[3] output_size) -> Tensor"""
    if all(out == 1 for out in output_size):
        return net.reduce(self, trt.ReduceOperation.AVG, [2, 3, 4], True)
    window = [size // out for size, out in zip(net.dims(self)[2:], output_size, strict=True)]
    return _pool(net, self, "AVERAGE", window, window, [0, 0, 0])


def averaging_matrix(size: int, output_size: int) -> torch.Tensor:
    """The [output_size, size] matrix of adaptive average pooling: window i is [floor(i*n/o), ceil((i+1)*n/o))."""
    matrix = torch.zeros(output_size, size, dtype=torch.float64)
    for i in range(output_size):
        start, end = i * size // output_size, -((-(i + 1) * size) // output_size)
        matrix[i, start:end] = 1.0 / (end - start)
    return matrix

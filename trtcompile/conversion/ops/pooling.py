"""Max and average pooling over windows of one size."""

from __future__ import annotations

import itertools
import math
import operator
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

#: Up to this many elements a window is reduced slice by slice.
_MOST_SLICES = 64


def only_values_are_used(node: Node) -> str | None:
    """The reason against an operator whose second output, the indices, is read."""
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return "TensorRT does not give the indices of the maxima, which are used"
    return None


def batched(net: Network, x: ITensor, dims: int) -> ITensor:
    """``x`` with a batch dimension, which PyTorch lets out before ``dims`` spatial ones."""
    return net.unsqueeze(x, [0]) if net.rank(x) == dims + 1 else x


def unbatched(net: Network, pooled: ITensor, rank: int) -> ITensor:
    """``pooled`` without the batch dimension that ``batched`` put before a tensor of ``rank``."""
    return pooled if net.rank(pooled) == rank else net.squeeze(pooled, [0])


def pool(
    net: Network,
    x: ITensor,
    kind: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    out_sizes: Sequence[Any],
    *,
    excludes_padding: bool = True,
) -> ITensor:
    """Pools the last dimensions so that they get the sizes that PyTorch gives, ceil_mode or not."""
    layer = net.layer(
        net.definition.add_pooling_nd(x, getattr(trt.PoolingType, kind), tuple(kernel)), "pooling"
    )
    layer.stride_nd = tuple(stride)
    layer.average_count_excludes_padding = excludes_padding
    layer.pre_padding = tuple(padding)
    # ceil_mode lets a last window hang over the end: the padding there grows by what it hangs over.
    spatial = zip(net.dims(x)[-len(kernel) :], out_sizes, kernel, stride, padding, strict=True)
    layer.post_padding = tuple(
        max(pad, (out - 1) * step + window - size - pad)
        if isinstance(out, int) and size >= 0
        else pad
        for size, out, window, step, pad in spatial
    )
    return layer.get_output(0)


def _expand(values: int | Sequence[int], count: int) -> list[int]:
    values = [values] if isinstance(values, int) else list(values)
    return values * count if len(values) == 1 else values


def _supports_windows(node: Node, dims: int) -> str | None:
    arguments = arguments_of(node)
    value = arguments["self"]
    numbers = (*arguments["kernel_size"], *arguments["stride"], *_expand(arguments["padding"], 1))
    if not all(isinstance(number, int) for number in numbers):
        return "the windows are only known at run time"
    # With a stride of 1 there is nothing to round.
    stride = _expand(arguments["stride"] or arguments["kernel_size"], dims)
    if arguments["ceil_mode"] and any(
        not isinstance(size, int) and step != 1
        for size, step in zip(value.shape[-dims:], stride, strict=True)
    ):
        return "ceil_mode needs spatial sizes that are known when compiling"
    return None


def _supports_max(dims: int) -> Callable[[Node, CompileSpec], str | None]:
    def supports(node: Node, spec: CompileSpec) -> str | None:
        reason = _supports_windows(node, dims)
        if reason is not None:
            return reason
        arguments = arguments_of(node)
        value = arguments["self"]
        kernel = _expand(arguments["kernel_size"], dims)
        dilation = _expand(arguments["dilation"], dims)
        if not value.dtype.is_floating_point or any(d != 1 for d in dilation):
            what = f"dilated windows ({dilation})" if any(d != 1 for d in dilation) else value.dtype
            if math.prod(kernel) > _MOST_SLICES:
                return f"TensorRT does not pool {what}, and a window of {kernel} is too large for slices"
            if any(not isinstance(size, int) for size in value.shape[-dims:]):
                return f"TensorRT does not pool {what}, and slices need known spatial sizes"
        is_pair = isinstance(node.meta["val"], (tuple, list))
        return only_values_are_used(node) if is_pair else None

    return supports


def _max_pool(
    net: Network,
    x: ITensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    dims: int,
) -> ITensor:
    rank, out_sizes = net.rank(x), list(net.result_shapes[0][-dims:])
    kernel = _expand(kernel_size, dims)
    step, padding, dilation = (_expand(v, dims) for v in (stride or kernel, padding, dilation))
    x = batched(net, x, dims)
    if not net.dtype_of(x).is_floating_point or any(d != 1 for d in dilation):
        pooled = _max_of_slices(net, x, kernel, step, padding, dilation, out_sizes)
        return unbatched(net, pooled, rank)
    if dims == 1:  # TensorRT pools over two or three dimensions: one more of size 1 changes nothing
        x, out_sizes = net.unsqueeze(x, [3]), [*out_sizes, 1]
        kernel, step, padding = [*kernel, 1], [*step, 1], [*padding, 0]
    pooled = pool(net, x, "MAX", kernel, step, padding, out_sizes)
    if dims == 1:
        pooled = net.reshape(pooled, [net.size(pooled, d) for d in range(3)])
    return unbatched(net, pooled, rank)


def _max_of_slices(
    net: Network,
    x: ITensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    out_sizes: Sequence[int],
) -> ITensor:
    """The maximum over one strided slice for each place in the window; beyond the border it is the least value."""
    dtype, lead = net.dtype_of(x), net.rank(x) - len(kernel)
    least = -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min
    sizes: list[Size] = [*(net.size(x, d) for d in range(lead)), *out_sizes]
    steps, best = [*[1] * lead, *stride], None
    for place in itertools.product(*map(range, kernel)):
        starts = [d * i - p for d, i, p in zip(dilation, place, padding, strict=True)]
        part = net.slice(x, [*[0] * lead, *starts], sizes, steps, fill=least)
        best = part if best is None else net.elementwise(best, part, trt.ElementWiseOperation.MAX)
    assert best is not None
    return best


@converter(aten.max_pool1d.default, supports=_supports_max(1))
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
    return _max_pool(net, self, kernel_size, stride, padding, dilation, 1)


@converter(aten.max_pool2d.default, supports=_supports_max(2))
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
    return _max_pool(net, self, kernel_size, stride, padding, dilation, 2)


@converter(aten.max_pool3d.default, supports=_supports_max(3))
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
    return _max_pool(net, self, kernel_size, stride, padding, dilation, 3)


@converter(aten.max_pool2d_with_indices.default, supports=_supports_max(2))
def aten_max_pool2d_with_indices(
    net: Network,
    self: ITensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[ITensor, None]:
    """max_pool2d_with_indices(self, kernel_size, stride=[], padding=0, dilation=1, ceil_mode) -> (Tensor, Tensor)"""
    return _max_pool(net, self, kernel_size, stride, padding, dilation, 2), None


@converter(aten.max_pool3d_with_indices.default, supports=_supports_max(3))
def aten_max_pool3d_with_indices(
    net: Network,
    self: ITensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[ITensor, None]:
    """max_pool3d_with_indices(self, kernel_size, stride=[], padding=0, dilation=1, ceil_mode) -> (Tensor, Tensor)"""
    return _max_pool(net, self, kernel_size, stride, padding, dilation, 3), None


def _supports_average(dims: int) -> Callable[[Node, CompileSpec], str | None]:
    def supports(node: Node, spec: CompileSpec) -> str | None:
        dtype = node.meta["val"].dtype
        if not dtype.is_floating_point:
            return f"TensorRT averages floating-point tensors, not {dtype}"
        return _supports_windows(node, dims)

    return supports


def _average_pool(
    net: Network,
    x: ITensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    counts_padding: bool,
    divisor: int | None,
    dims: int,
) -> ITensor:
    rank, out_sizes = net.rank(x), net.result_shapes[0][-dims:]
    kernel = _expand(kernel_size, dims)
    step, padding = (_expand(v, dims) for v in (stride or kernel, padding))
    x = batched(net, x, dims)
    if divisor is not None:
        # Counting all of a window, what hangs over the end included, TensorRT divides by the window's size.
        mean = pool(net, x, "AVERAGE", kernel, step, padding, out_sizes, excludes_padding=False)
        factor = math.prod(kernel) / divisor
        dtype = net.dtype_of(x)
        pooled = net.elementwise(mean, factor, trt.ElementWiseOperation.PROD, dtype)
        return unbatched(net, pooled, rank)
    excludes = not counts_padding or not any(padding)
    spatial = zip(net.dims(x)[-dims:], out_sizes, kernel, step, padding, strict=True)
    if not excludes and any(_hangs_over(*sizes) for sizes in spatial):
        # PyTorch counts the padding, but not what hangs over its end: so the padding becomes part of the input.
        borders = [0, 0, *padding]
        x, padding, excludes = net.pad(x, borders, borders), [0] * dims, True
    pooled = pool(net, x, "AVERAGE", kernel, step, padding, out_sizes, excludes_padding=excludes)
    return unbatched(net, pooled, rank)


def _hangs_over(size: int, out: Any, window: int, step: int, padding: int) -> bool:
    """Whether the last window ends behind the padding, as ceil_mode allows."""
    known = size >= 0 and isinstance(out, int)
    return known and (out - 1) * step + window > size + 2 * padding


@converter(aten.avg_pool2d.default, supports=_supports_average(2))
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
    return _average_pool(
        net, self, kernel_size, stride, padding, count_include_pad, divisor_override, 2
    )


@converter(aten.avg_pool3d.default, supports=_supports_average(3))
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
    return _average_pool(
        net, self, kernel_size, stride, padding, count_include_pad, divisor_override, 3
    )

"""Convolution and Deconvolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from network_oracle.layer_view import LayerView
from network_oracle.padding import Pads, explicit_pads, pad_spatial, same_pads
from network_oracle.registry import handles

_CONVOLUTIONS = {2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {2: F.conv_transpose2d, 3: F.conv_transpose3d}


@handles("CONVOLUTION", "IConvolutionLayer", same_type=(0, 1, 2))
def convolution(view: LayerView) -> torch.Tensor:
    x = view.value()
    filter_size, stride = view.dims("kernel_size_nd"), view.dims("stride_nd")
    dilation, groups = view.dims("dilation_nd"), view.layer.num_groups
    maps = view.layer.num_output_maps
    rank = _spatial_rank(view, x)
    kernel = _kernel(view, (maps, x.shape[1] // groups, *filter_size))
    extent = [1 + d * (f - 1) for d, f in zip(dilation, filter_size, strict=True)]
    pads, output_size = _convolution_pads(view, tuple(x.shape[2:]), extent, stride)
    padded = pad_spatial(x, pads)
    full = _CONVOLUTIONS[rank](padded, kernel, _bias(view, maps), stride, 0, dilation, groups)
    index = (slice(None), slice(None), *(slice(size) for size in output_size))
    return full[index]


def _convolution_pads(
    view: LayerView, size: tuple[int, ...], extent: list[int], stride: tuple[int, ...]
) -> tuple[Pads, list[int]]:
    mode = view.name_of("padding_mode")
    if mode.startswith("SAME"):
        return same_pads(size, extent, stride, lower=mode == "SAME_LOWER")
    pre, post = view.dims("pre_padding"), view.dims("post_padding")
    return explicit_pads(size, extent, stride, pre, post, round_up=mode == "EXPLICIT_ROUND_UP")


@handles("DECONVOLUTION", "IDeconvolutionLayer", same_type=(0, 1, 2))
def deconvolution(view: LayerView) -> torch.Tensor:
    """The full transposed convolution, cropped by the padding."""
    x = view.value()
    filter_size, stride = view.dims("kernel_size_nd"), view.dims("stride_nd")
    dilation, groups = view.dims("dilation_nd"), view.layer.num_groups
    maps = view.layer.num_output_maps
    rank = _spatial_rank(view, x)
    kernel = _kernel(view, (x.shape[1], maps // groups, *filter_size))
    bias = _bias(view, maps)
    full = _TRANSPOSED[rank](x, kernel, bias, stride, 0, 0, groups, dilation)
    crops = []
    mode = view.name_of("padding_mode")
    pre, post = view.dims("pre_padding"), view.dims("post_padding")
    for dim in range(rank):
        extent = 1 + dilation[dim] * (filter_size[dim] - 1)
        size = full.shape[2 + dim]
        if mode.startswith("SAME"):
            total = max(extent - stride[dim], 0)
            begin = (total + 1) // 2 if mode == "SAME_LOWER" else total // 2
            end = size - (total - begin)
        else:
            begin, end = pre[dim], size - post[dim]
        if end <= begin:
            raise view.mismatch(f"its padding leaves nothing of dimension {dim}.")
        crops.append(slice(begin, end))
    index = (slice(None), slice(None), *crops)
    return full[index]


def _spatial_rank(view: LayerView, x: torch.Tensor) -> int:
    rank = len(view.dims("kernel_size_nd"))
    if rank not in _CONVOLUTIONS or x.dim() != rank + 2:
        raise view.unsupported(f"{rank} spatial dimensions with an input of rank {x.dim()}.")
    return rank


def _kernel(view: LayerView, shape: tuple[int, ...]) -> torch.Tensor:
    """The kernel from input 1, or from the layer's weights."""
    weights = view.weights("kernel")
    if view.has(1):
        if weights is not None:
            raise view.unsupported("its kernel is both weights and an input.")
        kernel = view.value(1)
        if tuple(kernel.shape) != shape:
            raise view.mismatch(f"its kernel has shape {tuple(kernel.shape)}, not {shape}.")
        return kernel
    if weights is None:
        raise view.mismatch("its kernel is neither weights nor an input.")
    return _as_input_type(view, weights, "kernel", shape)


def _bias(view: LayerView, maps: int) -> torch.Tensor | None:
    weights = view.weights("bias")
    if view.has(2):
        if weights is not None:
            raise view.unsupported("its bias is both weights and an input.")
        return view.value(2).reshape(maps)
    return None if weights is None else _as_input_type(view, weights, "bias", (maps,))


def _as_input_type(
    view: LayerView, weights: torch.Tensor, what: str, shape: tuple[int, ...]
) -> torch.Tensor:
    source = view.raw[0]
    assert source is not None
    if weights.dtype != source.dtype:
        raise view.mismatch(f"its {what} weights are {weights.dtype}, its input {source.dtype}.")
    count = torch.Size(shape).numel()
    if weights.numel() != count:
        raise view.mismatch(f"{weights.numel()} {what} weights for shape {shape}.")
    return weights.float().reshape(shape)

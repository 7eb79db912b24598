"""Convolution and transposed convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def supports_convolution(node: Node, spec: CompileSpec) -> str | None:
    """TensorRT convolves floating point over 1 (as 2), 2, or 3 spatial dimensions."""
    x, weight = node.args[:2]
    rank = _rank(x)
    if rank is None or rank not in (3, 4, 5) or _rank(weight) != rank:
        return f"the input has {rank} dimensions; a batched input with 1 to 3 spatial dimensions is needed"
    if any(not isinstance(value, int) for value in (*node.args[3], *node.args[4], *node.args[5])):  # type: ignore[misc]
        return "stride, padding, or dilation is not a constant"
    if not node.meta["val"].dtype.is_floating_point:
        return f"TensorRT convolves floating-point tensors, not {node.meta['val'].dtype}"
    sizes = weight.meta["val"].shape if isinstance(weight, Node) else ()
    if any(not isinstance(size, int) for size in sizes):
        return "the size of the weight is only known at run time"
    return None


def _rank(value: object) -> int | None:
    meta = value.meta.get("val") if isinstance(value, Node) else None
    return meta.dim() if isinstance(meta, torch.Tensor) else None


@converter(aten.convolution.default, supports=supports_convolution)
def aten_convolution(
    net: Network,
    input: ITensor,
    weight: TensorLike,
    bias: TensorLike | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> ITensor:
    """convolution(input, weight, bias?, stride, padding, dilation, transposed, output_padding, groups) -> Tensor"""
    spatial = net.rank(input) - 2
    stride, padding, dilation, output_padding = (
        list(v) * (spatial if len(v) == 1 else 1)
        for v in (stride, padding, dilation, output_padding)
    )
    x = net.tensor(input)
    kernel = list(net.dims(weight))
    if (
        spatial == 1
    ):  # TensorRT has no 1-D convolution: a second spatial dimension of size 1 changes nothing.
        x = net.unsqueeze(x, [3])
        weight = (
            weight.unsqueeze(3) if isinstance(weight, torch.Tensor) else net.unsqueeze(weight, [3])
        )
        kernel, stride, dilation = [*kernel, 1], [*stride, 1], [*dilation, 1]
        padding, output_padding = [*padding, 0], [*output_padding, 0]
    maps = kernel[1] * groups if transposed else kernel[0]
    # What PyTorch calls output padding is padding that the transposed convolution does not cut off at the end;
    # where there is not enough of it, zeros are added, and only then the bias.
    cut = [p - extra for p, extra in zip(padding, output_padding, strict=True)]
    added, late_bias = [max(0, -size) for size in cut], None
    is_computed = bias is not None and not isinstance(bias, torch.Tensor)
    if any(added) or is_computed:  # TensorRT takes neither a bias of data nor one inside the zeros
        bias, late_bias = None, bias
    is_constant = isinstance(weight, torch.Tensor)
    kernel_weights = net.weights(weight) if is_constant else net.no_weights()
    bias_weights = net.weights(bias) if isinstance(bias, torch.Tensor) else net.no_weights()
    add = net.definition.add_deconvolution_nd if transposed else net.definition.add_convolution_nd
    layer = net.layer(add(x, maps, tuple(kernel[2:]), kernel_weights, bias_weights), "convolution")
    if not is_constant:
        layer.set_input(1, weight)
    layer.stride_nd = tuple(stride)
    layer.pre_padding = tuple(padding)
    layer.post_padding = tuple(max(0, size) for size in cut)
    layer.dilation_nd = tuple(dilation)
    layer.num_groups = groups
    result = layer.get_output(0)
    if any(added):
        result = net.pad(result, [0] * (len(added) + 2), [0, 0, *added])
    if late_bias is not None:
        per_channel = net.reshape(net.tensor(late_bias), [1, maps, *[1] * len(added)])
        result = net.elementwise(result, per_channel, trt.ElementWiseOperation.SUM)
    if spatial == 1:
        result = net.reshape(result, [net.size(result, d) for d in range(3)])
    return result

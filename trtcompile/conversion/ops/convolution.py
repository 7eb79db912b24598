"""Convolution and transposed convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def supports_convolution(node: Node, spec: CompileSpec) -> str | None:
    """TensorRT convolves over one (as two), two, or three spatial dimensions of a batched floating-point input."""
    x, weight = node.args[0], node.args[1]
    rank = _rank(x)
    if rank is None or rank not in (3, 4, 5) or _rank(weight) != rank:
        return f"the input has {rank} dimensions; a batched input with 1 to 3 spatial dimensions is needed"
    if any(not isinstance(value, int) for value in (*node.args[3], *node.args[4], *node.args[5])):  # type: ignore[misc]
        return "stride, padding, or dilation is not a constant"
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
    is_constant = isinstance(weight, torch.Tensor)
    kernel_weights = net.weights(weight) if is_constant else net.no_weights()
    bias_weights = net.weights(bias) if isinstance(bias, torch.Tensor) else net.no_weights()
    add = net.definition.add_deconvolution_nd if transposed else net.definition.add_convolution_nd
    layer = net.layer(add(x, maps, tuple(kernel[2:]), kernel_weights, bias_weights), "convolution")
    if not is_constant:
        layer.set_input(1, weight)
    if bias is not None and not isinstance(bias, torch.Tensor):
        layer.set_input(2, bias)
    layer.stride_nd = tuple(stride)
    layer.pre_padding = tuple(padding)
    # What PyTorch calls output padding is padding that the transposed convolution does not cut off at the end.
    layer.post_padding = tuple(p - extra for p, extra in zip(padding, output_padding, strict=True))
    layer.dilation_nd = tuple(dilation)
    layer.num_groups = groups
    result = layer.get_output(0)
    if spatial == 1:
        result = net.reshape(result, [net.size(result, d) for d in range(3)])
    return result

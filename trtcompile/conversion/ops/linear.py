"""Linear layers and matrix products."""

from __future__ import annotations

import torch

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter

aten = torch.ops.aten


@converter(aten.linear.default)
def aten_linear(
    net: Network, input: ITensor, weight: TensorLike, bias: TensorLike | None
) -> ITensor:
    """linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor"""
    is_quantized = not isinstance(weight, torch.Tensor)
    if is_quantized and net.rank(input) == 2 and (bias is None or isinstance(bias, torch.Tensor)):
        return _as_convolution(net, input, weight, bias)
    result = net.matmul(net.tensor(input), net.tensor(weight), transpose_b=True)
    return result if bias is None else net.elementwise(result, bias, trt.ElementWiseOperation.SUM)


def _as_convolution(
    net: Network, x: ITensor, weight: ITensor, bias: torch.Tensor | None
) -> ITensor:
    """A 1x1 convolution: TensorRT 10.6 then fuses Q and ReLU as it does between convolutions, without a cast kernel."""
    kernel = net.unsqueeze(weight, [2, 3])
    bias_weights = net.no_weights() if bias is None else net.weights(bias)
    x = net.unsqueeze(x, [2, 3])
    layer = net.definition.add_convolution_nd(
        x, net.dims(weight)[0], (1, 1), net.no_weights(), bias_weights
    )
    layer = net.layer(layer, "convolution")
    layer.set_input(1, kernel)
    result = layer.get_output(0)
    return net.reshape(result, [net.size(result, 0), net.size(result, 1)])


@converter(aten.mm.default)
def aten_mm(net: Network, self: TensorLike, mat2: TensorLike) -> ITensor:
    """mm(Tensor self, Tensor mat2) -> Tensor"""
    return net.matmul(net.tensor(self), net.tensor(mat2))


@converter(aten.bmm.default)
def aten_bmm(net: Network, self: TensorLike, mat2: TensorLike) -> ITensor:
    """bmm(Tensor self, Tensor mat2) -> Tensor"""
    return net.matmul(net.tensor(self), net.tensor(mat2))


@converter(aten.addmm.default)
def aten_addmm(
    net: Network, self: TensorLike, mat1: TensorLike, mat2: TensorLike, beta: float, alpha: float
) -> ITensor:
    """addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    dtype = net.result_dtypes[0]
    product = net.matmul(net.tensor(mat1), net.tensor(mat2))
    if alpha != 1:
        product = net.elementwise(product, alpha, trt.ElementWiseOperation.PROD, dtype)
    if beta == 0:  # PyTorch then ignores self, NaN and all
        return product
    bias = net.elementwise(self, beta, trt.ElementWiseOperation.PROD, dtype) if beta != 1 else self
    return net.elementwise(product, bias, trt.ElementWiseOperation.SUM, dtype)

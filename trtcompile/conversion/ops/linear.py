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
    result = net.matmul(net.tensor(input), net.tensor(weight), transpose_b=True)
    return result if bias is None else net.elementwise(result, bias, trt.ElementWiseOperation.SUM)


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

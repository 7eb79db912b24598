"""Linear layers and matrix products."""

from __future__ import annotations

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _supports_matmul(node: Node, spec: CompileSpec) -> str | None:
    dtype = node.meta["val"].dtype
    return (
        None if dtype.is_floating_point else f"TensorRT multiplies matrices of floats, not {dtype}"
    )


@converter(aten.linear.default, supports=_supports_matmul)
def aten_linear(
    net: Network, input: ITensor, weight: TensorLike, bias: TensorLike | None
) -> ITensor:
    """linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor"""
    is_int8 = net.dequantized_from(input) == net.dequantized_from(weight) == torch.int8
    if is_int8 and net.rank(input) == 2 and (bias is None or isinstance(bias, torch.Tensor)):
        return _as_convolution(net, input, weight, bias)
    x = net.tensor(input)
    result = product_and_bias(net, x, weight, bias)
    # Of a vector, which was multiplied as a matrix of one row, PyTorch makes a vector.
    return net.reshape(result, [net.size(result, 1)]) if net.rank(x) == 1 else result


def product_and_bias(
    net: Network, x: ITensor, weight: TensorLike, bias: TensorLike | None = None
) -> ITensor:
    """``x @ weight.T + bias``."""
    result = net.matmul(x, net.tensor(weight), transpose_b=True)
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


@converter(aten.mm.default, supports=_supports_matmul)
def aten_mm(net: Network, self: TensorLike, mat2: TensorLike) -> ITensor:
    """mm(Tensor self, Tensor mat2) -> Tensor"""
    return net.matmul(net.tensor(self), net.tensor(mat2))


@converter(aten.bmm.default, supports=_supports_matmul)
def aten_bmm(net: Network, self: TensorLike, mat2: TensorLike) -> ITensor:
    """bmm(Tensor self, Tensor mat2) -> Tensor"""
    return net.matmul(net.tensor(self), net.tensor(mat2))


@converter(aten.matmul.default, supports=_supports_matmul)
def aten_matmul(net: Network, self: TensorLike, other: TensorLike) -> ITensor:
    """matmul(Tensor self, Tensor other) -> Tensor"""
    a, b = net.tensor(self), net.tensor(other)
    is_row, is_column = net.rank(a) == 1, net.rank(b) == 1
    a = net.unsqueeze(a, [0]) if is_row else a
    b = net.unsqueeze(b, [1]) if is_column else b
    product = net.matmul(a, b)
    rank = net.rank(product)
    dropped = [rank - 2] * is_row + [rank - 1] * is_column
    if not dropped:
        return product
    return net.reshape(product, [net.size(product, d) for d in range(rank) if d not in dropped])


def _added(net: Network, self: TensorLike, product: ITensor, beta: float, alpha: float) -> ITensor:
    """beta * self + alpha * product"""
    dtype = net.result_dtypes[0]
    if alpha != 1:
        product = net.elementwise(product, alpha, trt.ElementWiseOperation.PROD, dtype)
    if beta == 0:  # PyTorch then ignores self, NaN and all
        return product
    bias = net.elementwise(self, beta, trt.ElementWiseOperation.PROD, dtype) if beta != 1 else self
    return net.elementwise(product, bias, trt.ElementWiseOperation.SUM, dtype)


@converter(aten.addmm.default, supports=_supports_matmul)
def aten_addmm(
    net: Network, self: TensorLike, mat1: TensorLike, mat2: TensorLike, beta: float, alpha: float
) -> ITensor:
    """addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    return _added(net, self, net.matmul(net.tensor(mat1), net.tensor(mat2)), beta, alpha)


@converter(aten.addbmm.default, supports=_supports_matmul)
def aten_addbmm(
    net: Network,
    self: TensorLike,
    batch1: TensorLike,
    batch2: TensorLike,
    beta: float,
    alpha: float,
) -> ITensor:
    """addbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    products = net.matmul(net.tensor(batch1), net.tensor(batch2))
    total = net.reduce(products, trt.ReduceOperation.SUM, [0], False)
    return _added(net, self, total, beta, alpha)


@converter(aten.addmv.default, supports=_supports_matmul)
def aten_addmv(
    net: Network, self: TensorLike, mat: TensorLike, vec: TensorLike, beta: float, alpha: float
) -> ITensor:
    """addmv(Tensor self, Tensor mat, Tensor vec, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    return _added(net, self, aten_matmul(net, mat, vec), beta, alpha)


@converter(aten.bilinear.default, supports=_supports_matmul)
def aten_bilinear(
    net: Network,
    input1: TensorLike,
    input2: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None,
) -> ITensor:
    """bilinear(Tensor input1, Tensor input2, Tensor weight, Tensor? bias=None) -> Tensor"""
    x1, x2 = net.tensor(input1), net.tensor(input2)
    out, columns, depth = net.dims(weight)
    # weight[o] @ x2 for all o is one product of matrices; x1 then sums its columns.
    rows = net.reshape(x2, [-1, depth])
    flat_weight = net.reshape(net.tensor(weight), [out * columns, depth])
    products = net.reshape(net.matmul(rows, flat_weight, transpose_b=True), [-1, out, columns])
    sums = net.matmul(products, net.reshape(x1, [-1, columns, 1]))
    result = net.reshape(sums, [*(net.size(x1, d) for d in range(net.rank(x1) - 1)), out])
    if bias is None:
        return result
    return net.elementwise(result, bias, trt.ElementWiseOperation.SUM)

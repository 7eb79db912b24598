"""Cumulative sums and products."""

from __future__ import annotations

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.conversion.sizes import highest
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

#: Each doubling of the size costs one more pass over the tensor.
_LARGEST_SIZE = 2**20


def _supports_scan(node: Node, spec: CompileSpec) -> str | None:
    value, dim = node.meta["val"], arguments_of(node)["dim"]
    largest = highest(value.shape[dim]) if value.dim() else 1
    if largest > _LARGEST_SIZE:
        return f"it accumulates over up to {largest:.0f} elements, more than {_LARGEST_SIZE}"
    return None


def _scan(net: Network, self: TensorLike, dim: int, operation: str, neutral: int) -> ITensor:
    """``result[i] = x[0] op ... op x[i]`` by doubling: after each pass an element holds twice as many.

    TensorRT 10.6 has no layer for it, and a product with a triangular matrix would not be exact for integers.
    """
    dtype = net.result_dtypes[0]
    wide = torch.float32 if dtype.is_floating_point else dtype  # PyTorch accumulates FP16 in FP32
    x = net.cast(net.tensor(self, dtype), wide)
    rank = net.rank(x)
    sizes = [net.size(x, d) for d in range(rank)]
    shift, largest = 1, highest(net.result_shapes[0][dim]) if rank else 1
    while shift < largest:
        starts = [-shift if d == dim % rank else 0 for d in range(rank)]
        earlier = net.slice(x, starts, sizes, fill=neutral)
        x = net.elementwise(earlier, x, getattr(trt.ElementWiseOperation, operation))
        shift *= 2
    return net.cast(x, dtype)


@converter(aten.cumsum.default, supports=_supports_scan)
def aten_cumsum(net: Network, self: ITensor, dim: int, dtype: torch.dtype | None) -> ITensor:
    """cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    return _scan(net, self, dim, "SUM", 0)


@converter(aten.cumprod.default, supports=_supports_scan)
def aten_cumprod(net: Network, self: ITensor, dim: int, dtype: torch.dtype | None) -> ITensor:
    """cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    return _scan(net, self, dim, "PROD", 1)

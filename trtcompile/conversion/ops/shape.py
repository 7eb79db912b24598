"""Reshaping, reordering, joining, repeating, and casts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, Size, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.conversion.sizes import may_be_one
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _result_sizes(net: Network, sizes: Sequence[Size]) -> list[Size]:
    """The sizes asked for, with known ones taken from the result's shape (so that -1 is resolved where it can be)."""
    known = net.result_shapes[0]
    return [k if isinstance(k, int) else size for k, size in zip(known, sizes, strict=True)]


@converter(aten.view.default)
def aten_view(net: Network, self: ITensor, size: Sequence[Size]) -> ITensor:
    """view(Tensor(a) self, SymInt[] size) -> Tensor(a)"""
    return net.reshape(net.tensor(self), _result_sizes(net, size))


@converter(aten.reshape.default)
def aten_reshape(net: Network, self: ITensor, shape: Sequence[Size]) -> ITensor:
    """reshape(Tensor(a) self, SymInt[] shape) -> Tensor(a)"""
    return net.reshape(net.tensor(self), _result_sizes(net, shape))


@converter(aten.permute.default)
def aten_permute(net: Network, self: ITensor, dims: Sequence[int]) -> ITensor:
    """permute(Tensor(a) self, int[] dims) -> Tensor(a)"""
    return net.permute(net.tensor(self), dims)


@converter(aten.transpose.int)
def aten_transpose(net: Network, self: ITensor, dim0: int, dim1: int) -> ITensor:
    """transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a)"""
    x = net.tensor(self)
    order = list(range(net.rank(x)))
    if order:  # of a scalar, dimension 0 is allowed too
        order[dim0], order[dim1] = order[dim1], order[dim0]
    return net.permute(x, order)


@converter(aten.unsqueeze.default)
def aten_unsqueeze(net: Network, self: ITensor, dim: int) -> ITensor:
    """unsqueeze(Tensor(a) self, int dim) -> Tensor(a)"""
    x = net.tensor(self)
    return net.unsqueeze(x, [dim % (net.rank(x) + 1)])


def _squeeze(net: Network, x: ITensor, dims: Sequence[int]) -> ITensor:
    rank = net.rank(x)
    dropped = {d % rank for d in dims if net.dims(x)[d] == 1} if rank else set[int]()
    return net.squeeze(x, dropped)


def _squeezed_sizes_known(node: Node, spec: CompileSpec) -> str | None:
    given = arguments_of(node)
    x, dims = given["self"], given["dim"]
    dims = [dims] if isinstance(dims, int) else dims
    if x.dim() > 0 and any(may_be_one(x.shape[d]) for d in dims):
        return "it squeezes a dimension that is 1 for some sizes of the inputs and not for others"
    return None


@converter(aten.squeeze.dim, supports=_squeezed_sizes_known)
def aten_squeeze_dim(net: Network, self: ITensor, dim: int) -> ITensor:
    """squeeze.dim(Tensor(a) self, int dim) -> Tensor(a)"""
    return _squeeze(net, net.tensor(self), [dim])


@converter(aten.squeeze.dims, supports=_squeezed_sizes_known)
def aten_squeeze_dims(net: Network, self: ITensor, dim: Sequence[int]) -> ITensor:
    """squeeze.dims(Tensor(a) self, int[] dim) -> Tensor(a)"""
    return _squeeze(net, net.tensor(self), dim)


@converter(aten.cat.default)
def aten_cat(net: Network, tensors: Sequence[TensorLike], dim: int) -> ITensor:
    """cat(Tensor[] tensors, int dim=0) -> Tensor"""
    dtype = net.result_dtypes[0]
    # PyTorch lets empty 1-D tensors pass for any rank.
    parts = [t for t in tensors if not (net.rank(t) == 1 and net.dims(t) == (0,))] or list(
        tensors[:1]
    )
    return net.concat([net.tensor(part, dtype) for part in parts], dim)


@converter(aten.expand.default)
def aten_expand(net: Network, self: ITensor, size: Sequence[Size], implicit: bool) -> ITensor:
    """expand(Tensor(a) self, SymInt[] size, *, bool implicit=False) -> Tensor(a)"""
    x = net.expand_rank(net.tensor(self), len(size))
    sizes = [
        net.size(x, d) if isinstance(s, int) and s == -1 else s
        for d, s in enumerate(_result_sizes(net, size))
    ]
    steps = [int(known != 1) for known in net.dims(x)]  # a step of 0 repeats the only element
    return net.slice(x, [0] * len(sizes), sizes, steps)


@converter(aten.clone.default)
def aten_clone(net: Network, self: ITensor, memory_format: object) -> ITensor:
    """clone(Tensor self, *, MemoryFormat? memory_format=None) -> Tensor"""
    return net.tensor(self)


def _supports_cast(node: Node, spec: CompileSpec) -> str | None:
    (x, *_), value = node.all_input_nodes, node.meta["val"]
    if value.device.type not in ("cpu", "cuda"):
        return f"it moves the tensor to {value.device}"
    for dtype in (torch.int8, torch.float8_e4m3fn):
        if dtype in (x.meta["val"].dtype, value.dtype):
            return f"TensorRT has {str(dtype).removeprefix('torch.')} for quantized values only"
    if value.dtype == torch.uint8 and any(user.op != "output" for user in node.users):
        return "TensorRT has uint8 for inputs and outputs only"
    return None


@converter(aten._to_copy.default, supports=_supports_cast, takes_bytes=True)
def aten__to_copy(
    net: Network,
    self: TensorLike,
    dtype: torch.dtype | None,
    layout: object,
    device: object,
    pin_memory: object,
    non_blocking: bool,
    memory_format: object,
) -> ITensor:
    """_to_copy(Tensor self, *, dtype=None, layout=None, device=None, ..., memory_format=None) -> Tensor"""
    x = net.tensor(self)
    wanted = net.result_dtypes[0]
    if (
        net.dtype_of(x) == torch.uint8 or wanted == torch.uint8
    ):  # TensorRT wants floats at the other end
        x = net.cast(x, torch.float32)
    is_truth = wanted == torch.bool and net.dtype_of(x) != torch.bool
    if is_truth:  # a cast to BOOL in TensorRT need not be "unequal to zero"
        zero = net.tensor(0, net.dtype_of(x))
        return net.unary(
            net.elementwise(x, zero, trt.ElementWiseOperation.EQUAL), trt.UnaryOperation.NOT
        )
    if wanted in (torch.int32, torch.int64) and net.dtype_of(x).is_floating_point:
        x = _within(net, x, wanted)
    return net.cast(x, wanted)


def _within(net: Network, x: ITensor, integers: torch.dtype) -> ITensor:
    """Numbers that fit ``integers``: what TensorRT makes of others is not defined; CUDA saturates as well."""
    dtype = net.dtype_of(x)
    lowest = torch.tensor(torch.iinfo(integers).min, dtype=dtype).clamp(min=torch.finfo(dtype).min)
    highest = (-lowest).nextafter(torch.zeros((), dtype=dtype))  # the largest integer rounds up
    x = net.elementwise(x, lowest, trt.ElementWiseOperation.MAX)
    return net.elementwise(x, highest, trt.ElementWiseOperation.MIN)

"""Scaled dot-product attention, in the form that TensorRT fuses: product, mask, softmax, product."""

from __future__ import annotations

import math

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, Size, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _supports_attention(node: Node, spec: CompileSpec) -> str | None:
    arguments = arguments_of(node)
    if arguments["dropout_p"] != 0:
        return f"it drops out at random (dropout_p {arguments['dropout_p']})"
    query, key, value = (arguments[name] for name in ("query", "key", "value"))
    if not query.dtype.is_floating_point:
        return f"TensorRT multiplies matrices of floats, not {query.dtype}"
    if not isinstance(query.shape[-1], int):
        return "the size of a head is only known at run time"
    if arguments["enable_gqa"]:
        heads = (x.shape[-3] for x in (query, key, value))
        if not all(isinstance(count, int) for count in heads):
            return "the number of heads is only known at run time"
    return None


@converter(aten.scaled_dot_product_attention.default, supports=_supports_attention)
def aten_scaled_dot_product_attention(
    net: Network,
    query: TensorLike,
    key: TensorLike,
    value: TensorLike,
    attn_mask: TensorLike | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> ITensor:
    """scaled_dot_product_attention(query, key, value, attn_mask?, dropout_p, is_causal, *, scale?, enable_gqa)"""
    operation, dtype = trt.ElementWiseOperation, net.result_dtypes[0]
    q, k, v = (net.tensor(x) for x in (query, key, value))
    if enable_gqa:
        heads = net.dims(q)[-3]
        k, v = (_repeat_heads(net, x, heads // net.dims(x)[-3]) for x in (k, v))
    factor = 1 / math.sqrt(net.dims(q)[-1]) if scale is None else scale
    # TensorRT wants the scale on the query: its scores then stay in FP16's range.
    scores = net.matmul(net.elementwise(q, factor, operation.PROD, dtype), k, transpose_b=True)
    if is_causal:
        attn_mask = _causal_mask(net, net.size(scores, -2), net.size(scores, -1))
    if attn_mask is None:
        return net.matmul(_softmax(net, scores), v)
    if net.dtype_of(attn_mask) == torch.bool:
        scores = net.select(net.tensor(attn_mask), scores, torch.finfo(dtype).min, dtype)
    else:
        scores = net.elementwise(scores, attn_mask, operation.SUM, dtype)
    result = net.matmul(_softmax(net, scores), v)
    reads_something = None if is_causal else _rows_that_read(net, attn_mask)
    if reads_something is None:
        return result
    return net.select(net.tensor(reads_something), result, 0.0, dtype)


def _softmax(net: Network, x: ITensor) -> ITensor:
    layer = net.layer(net.definition.add_softmax(x), "softmax")
    layer.axes = 1 << (net.rank(x) - 1)
    return layer.get_output(0)


def _rows_that_read(net: Network, mask: TensorLike) -> TensorLike | None:
    """Which queries read any key: of the others PyTorch makes zeros. None where a constant mask has no others.

    Each value of a mask is compared by itself: of a row of infinities TensorRT's maximum is the least finite number.
    """
    if isinstance(mask, torch.Tensor):
        allowed = mask if mask.dtype == torch.bool else mask != -math.inf
        rows = allowed.any(-1, keepdim=True)
        return None if bool(rows.all()) else rows
    mask = net.expand_rank(mask, 2)
    dtype, operation = net.dtype_of(mask), trt.ElementWiseOperation
    if dtype.is_floating_point:
        hidden = net.elementwise(mask, torch.finfo(dtype).min, operation.LESS, dtype)
        mask = net.unary(hidden, trt.UnaryOperation.NOT)
    count = net.cast(mask, torch.int32)  # TensorRT reduces no bools
    best = net.reduce(count, trt.ReduceOperation.MAX, [-1], True)
    return net.elementwise(best, 0, operation.GREATER, torch.int32)


def _causal_mask(net: Network, rows: Size, columns: Size) -> TensorLike:
    """Query i may read keys 0 to i."""
    if isinstance(rows, int) and isinstance(columns, int):
        return torch.ones(rows, columns, dtype=torch.bool).tril()
    row, column = (
        net.reshape(net.arange(size, dtype=torch.int32), shape)
        for size, shape in ((rows, (-1, 1)), (columns, (1, -1)))
    )
    after = net.elementwise(column, row, trt.ElementWiseOperation.GREATER)
    return net.unary(after, trt.UnaryOperation.NOT)


def _repeat_heads(net: Network, x: ITensor, times: int) -> ITensor:
    """Each head so many times in a row."""
    if times == 1:
        return x
    rank = net.rank(x)
    sizes = [net.size(x, d) for d in range(rank)]
    heads = net.dims(x)[-3]
    apart = net.reshape(x, [*sizes[: rank - 2], 1, *sizes[rank - 2 :]])
    steps = [0 if d == rank - 2 else 1 for d in range(rank + 1)]
    repeated = net.slice(
        apart, [0] * (rank + 1), [*sizes[: rank - 2], times, *sizes[rank - 2 :]], steps
    )
    return net.reshape(repeated, [*sizes[: rank - 3], heads * times, *sizes[rank - 2 :]])

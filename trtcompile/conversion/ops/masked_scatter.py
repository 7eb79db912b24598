"""Elements written, in their order, to where a mask is true."""

from __future__ import annotations

import math

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.ops.indexing import scalar
from trtcompile.conversion.ops.rearrange import expand
from trtcompile.conversion.ops.scan import scan, supports_length
from trtcompile.conversion.registry import converter
from trtcompile.conversion.sizes import highest
from trtcompile.settings import CompileSpec

aten = torch.ops.aten


def _supports_masked_scatter(node: Node, spec: CompileSpec) -> str | None:
    return supports_length(math.prod(highest(size) for size in node.meta["val"].shape))


@converter(aten.masked_scatter.default, supports=_supports_masked_scatter)
def aten_masked_scatter(
    net: Network, self: TensorLike, mask: TensorLike, source: TensorLike
) -> ITensor:
    """masked_scatter(Tensor self, Tensor mask, Tensor source) -> Tensor"""
    operation = trt.ElementWiseOperation
    x, mask = net.tensor(self), net.tensor(mask)
    rank = max(net.rank(x), net.rank(mask))
    of_x, of_mask = (net.all_sizes(net.expand_rank(t, rank)) for t in (x, mask))
    sizes = [b if isinstance(a, int) and a == 1 else a for a, b in zip(of_x, of_mask, strict=True)]
    everywhere = expand(net, mask, sizes) if rank else mask
    chosen = net.cast(net.reshape(everywhere, [-1]), torch.int32)

    def total(earlier: list[ITensor], later: list[ITensor]) -> list[ITensor]:
        return [net.elementwise(earlier[0], later[0], operation.SUM)]

    largest = math.prod(highest(size) for size in net.result_shapes[0])
    (count,) = scan(net, [chosen], [0], 0, largest, total)
    flat = net.reshape(net.tensor(source), [-1])
    last = scalar(net, net.size_math(net.size(flat, 0), 1, "SUB"))
    place = net.elementwise(count, 1, operation.SUB, torch.int32)
    place = net.elementwise(place, 0, operation.MAX, torch.int32)
    place = net.elementwise(place, last, operation.MIN, torch.int32)
    values = net.reshape(net.gather(flat, place, 0), sizes)
    return net.select(everywhere, values, x)

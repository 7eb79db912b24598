"""Sampling at the places of a grid, and the grids of affine maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

# In the order of PyTorch's numbers for them.
_INTERPOLATIONS = ("LINEAR", "NEAREST", "CUBIC")
_BORDERS = ("FILL", "CLAMP", "REFLECT")


def _supports_grid_sampler(node: Node, spec: CompileSpec) -> str | None:
    dtype = node.meta["val"].dtype
    if dtype not in (torch.float32, torch.float16):
        return f"TensorRT samples FP32 and FP16 tensors, not {dtype}"
    return None


@converter(aten.grid_sampler_2d.default, supports=_supports_grid_sampler)
def aten_grid_sampler_2d(
    net: Network,
    input: TensorLike,
    grid: TensorLike,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> ITensor:
    """grid_sampler_2d(input, grid, int interpolation_mode, int padding_mode, bool align_corners) -> Tensor"""
    layer = net.definition.add_grid_sample(net.tensor(input), net.tensor(grid))
    layer = net.layer(layer, "grid_sample")
    layer.interpolation_mode = getattr(trt.InterpolationMode, _INTERPOLATIONS[interpolation_mode])
    layer.sample_mode = getattr(trt.SampleMode, _BORDERS[padding_mode])
    layer.align_corners = align_corners
    return layer.get_output(0)


def _supports_affine_grid(node: Node, spec: CompileSpec) -> str | None:
    if any(not isinstance(size, int) for size in arguments_of(node)["size"][2:]):
        return "the size of the grid is only known at run time"
    dtype = node.meta["val"].dtype
    return None if dtype.is_floating_point else f"the grid is {dtype}, not floating-point"


@converter(aten.affine_grid_generator.default, supports=_supports_affine_grid)
def aten_affine_grid_generator(
    net: Network, theta: TensorLike, size: Sequence[int], align_corners: bool
) -> ITensor:
    """affine_grid_generator(Tensor theta, SymInt[] size, bool align_corners) -> Tensor"""
    x, dims = net.tensor(theta), len(size) - 2
    identity = torch.eye(dims, dims + 1)[None]
    places = aten.affine_grid_generator(identity, [1, 1, *size[2:]], align_corners)
    batch = net.size(x, 0)
    result: ITensor | None = None
    # A product of matrices would round the places to TF32: each column of theta is multiplied by itself.
    for column in range(dims + 1):
        part = net.slice(x, [0, 0, column], [batch, dims, 1])
        part = net.reshape(part, [batch, *[1] * dims, dims])
        if column < dims:
            place = places[..., column : column + 1].to(net.dtype_of(x))
            part = net.elementwise(part, place, trt.ElementWiseOperation.PROD)
        result = (
            part if result is None else net.elementwise(result, part, trt.ElementWiseOperation.SUM)
        )
    return result

"""Upsampling: a resize layer where TensorRT maps coordinates as PyTorch does, else weighted gathers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, Size
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

#: Resampling along one dimension, (x of [N, C, length], sizes, align_corners, scales): from it come the weights.
_ALONG_ONE_DIMENSION: dict[str, Callable[..., torch.Tensor]] = {
    "nearest": lambda x, sizes, corners, scales: aten.upsample_nearest1d(x, sizes, *scales),
    "exact": lambda x, sizes, corners, scales: aten._upsample_nearest_exact1d(x, sizes, *scales),
    "linear": lambda x, sizes, corners, scales: aten.upsample_linear1d(x, sizes, corners, *scales),
    "cubic": lambda x, sizes, corners, scales: aten.upsample_bicubic2d(
        x[:, :, None], [1, *sizes], corners, None, *scales
    )[:, :, 0],
}
_LAYER_MODES = {"nearest": "NEAREST", "exact": "NEAREST", "linear": "LINEAR", "cubic": "CUBIC"}


def _scales_of(arguments: dict[str, Any], dims: int) -> list[float | None]:
    """The scale of each spatial dimension with which PyTorch computes coordinates, None for the ratio of the sizes."""
    if "scale_factors" in arguments:
        return _used_scales(dims, arguments["output_size"], arguments["scale_factors"])
    return [value for name, value in arguments.items() if name.startswith("scales")]


def _supports_resize(node: Node, spec: CompileSpec) -> str | None:
    arguments, value = arguments_of(node), node.meta["val"]
    source = arguments["input" if "input" in arguments else "self"]
    if not value.dtype.is_floating_point:
        return f"TensorRT resizes floating-point tensors, not {value.dtype}"
    sizes, out_sizes = source.shape[2:], value.shape[2:]
    if all(isinstance(size, int) for size in (*sizes, *out_sizes)):
        return None
    corners = bool(arguments.get("align_corners"))
    for size, out, scale in zip(sizes, out_sizes, _scales_of(arguments, len(sizes)), strict=True):
        if not _is_layer_scale(size, out, scale, corners):
            return f"scaling {size} by {scale} gives no whole size, and the size is only known at run time"
        if corners and isinstance(out, int) and out == 1:
            return "align_corners has no meaning in TensorRT for an output size of 1"
    return None


def _is_layer_scale(size: Any, out: Any, scale: float | None, corners: bool) -> bool:
    """Whether PyTorch's coordinates are those of the ratio of the sizes, which TensorRT uses."""
    if scale is None or corners or scale == int(scale):
        return True
    return isinstance(size, int) and isinstance(out, int) and size * scale == out


def _resize(
    net: Network,
    x: ITensor,
    mode: str,
    sizes: Sequence[Size] | None,
    corners: bool,
    scales: Sequence[float | None],
) -> ITensor:
    known, wanted = net.dims(x)[2:], net.result_shapes[0][2:]
    fits = all(map(_is_layer_scale, known, wanted, scales, [corners] * len(scales)))
    is_point = corners and any(isinstance(out, int) and out == 1 for out in wanted)
    if is_point or not fits:
        for dim, (out, scale) in enumerate(zip(wanted, scales, strict=True), 2):
            if net.dims(x)[dim] != out or scale not in (None, 1.0):
                x = _resample(net, x, dim, mode, out, corners, scale)
        return x
    layer = net.layer(net.definition.add_resize(x), "resize")
    _set_sizes(net, layer, x, sizes, scales)
    layer.resize_mode = getattr(trt.InterpolationMode, _LAYER_MODES[mode])
    kind = {"nearest": "ASYMMETRIC"}.get(mode, "ALIGN_CORNERS" if corners else "HALF_PIXEL")
    layer.coordinate_transformation = getattr(trt.ResizeCoordinateTransformation, kind)
    if mode in ("nearest", "exact"):  # floor(x + 0.5) is what PyTorch calls exact
        rounding = "FLOOR" if mode == "nearest" else "HALF_UP"
        layer.nearest_rounding = getattr(trt.ResizeRoundMode, rounding)
    layer.cubic_coeff = -0.75
    return layer.get_output(0)


def _set_sizes(
    net: Network,
    layer: Any,
    x: ITensor,
    sizes: Sequence[Size] | None,
    scales: Sequence[float | None],
) -> None:
    known = net.result_shapes[0][2:]
    if all(isinstance(size, int) for size in known):
        sizes = known
    if sizes is None:
        layer.scales = (1.0, 1.0, *scales)
    elif all(isinstance(size, int) and size >= 0 for size in (*net.dims(x)[:2], *sizes)):
        layer.shape = (*net.dims(x)[:2], *sizes)
    else:
        layer.set_input(1, net.shape_tensor([net.size(x, 0), net.size(x, 1), *sizes]))


def _resample(
    net: Network,
    x: ITensor,
    dim: int,
    mode: str,
    size: int,
    corners: bool,
    scale: float | None,
) -> ITensor:
    """One dimension by PyTorch's own weights: a sum of gathers, each with a weight for every element."""
    unit = torch.eye(net.dims(x)[dim])[None]
    matrix = _ALONG_ONE_DIMENSION[mode](unit, [size], corners, [scale])[0].t()  # [size, length]
    taps = int((matrix != 0).sum(1).max())
    weights, indices = matrix.abs().topk(taps, dim=1)
    weights = matrix.gather(1, indices)
    shape = [-1 if d == dim else 1 for d in range(net.rank(x))]
    total: ITensor | None = None
    for tap in range(taps):
        part = net.gather(x, indices[:, tap].to(torch.int32), dim)
        if mode not in ("nearest", "exact"):
            weight = weights[:, tap].reshape(shape).to(net.dtype_of(x))
            part = net.elementwise(part, weight, trt.ElementWiseOperation.PROD)
        total = (
            part if total is None else net.elementwise(total, part, trt.ElementWiseOperation.SUM)
        )
    return total


def _nearest_vec(mode: str) -> Callable[..., ITensor]:
    def convert(
        net: Network,
        input: ITensor,
        output_size: Sequence[Size] | None,
        scale_factors: Sequence[float] | None,
    ) -> ITensor:
        scales = _used_scales(net.rank(input) - 2, output_size, scale_factors)
        return _resize(net, net.tensor(input), mode, output_size, False, scales)

    return convert


def _smooth_vec(mode: str) -> Callable[..., ITensor]:
    def convert(
        net: Network,
        input: ITensor,
        output_size: Sequence[Size] | None,
        align_corners: bool,
        scale_factors: Sequence[float] | None,
    ) -> ITensor:
        scales = _used_scales(net.rank(input) - 2, output_size, scale_factors)
        return _resize(net, net.tensor(input), mode, output_size, align_corners, scales)

    return convert


def _used_scales(
    dims: int, sizes: Sequence[Size] | None, scales: Sequence[float] | None
) -> list[float | None]:
    """A size that the model gives wins over scales."""
    return [None] * dims if sizes is not None or scales is None else list(scales)


def _nearest_1d(mode: str) -> Callable[..., ITensor]:
    def convert(
        net: Network, self: ITensor, output_size: Sequence[Size], scales: float | None
    ) -> ITensor:
        return _resize(net, self, mode, output_size, False, [scales])

    return convert


def _nearest_2d(mode: str) -> Callable[..., ITensor]:
    def convert(
        net: Network,
        self: ITensor,
        output_size: Sequence[Size],
        scales_h: float | None,
        scales_w: float | None,
    ) -> ITensor:
        return _resize(net, self, mode, output_size, False, [scales_h, scales_w])

    return convert


def _nearest_3d(mode: str) -> Callable[..., ITensor]:
    def convert(
        net: Network,
        self: ITensor,
        output_size: Sequence[Size],
        scales_d: float | None,
        scales_h: float | None,
        scales_w: float | None,
    ) -> ITensor:
        return _resize(net, self, mode, output_size, False, [scales_d, scales_h, scales_w])

    return convert


def _smooth_2d(mode: str) -> Callable[..., ITensor]:
    def convert(
        net: Network,
        self: ITensor,
        output_size: Sequence[Size],
        align_corners: bool,
        scales_h: float | None,
        scales_w: float | None,
    ) -> ITensor:
        return _resize(net, self, mode, output_size, align_corners, [scales_h, scales_w])

    return convert


@converter(aten.upsample_linear1d.default, supports=_supports_resize)
def aten_upsample_linear1d(
    net: Network,
    self: ITensor,
    output_size: Sequence[Size],
    align_corners: bool,
    scales: float | None,
) -> ITensor:
    """upsample_linear1d(Tensor self, SymInt[1] output_size, bool align_corners, float? scales=None) -> Tensor"""
    return _resize(net, self, "linear", output_size, align_corners, [scales])


@converter(aten.upsample_trilinear3d.default, supports=_supports_resize)
def aten_upsample_trilinear3d(
    net: Network,
    self: ITensor,
    output_size: Sequence[Size],
    align_corners: bool,
    scales_d: float | None,
    scales_h: float | None,
    scales_w: float | None,
) -> ITensor:
    """upsample_trilinear3d(self, SymInt[3] output_size, align_corners, scales_d?, scales_h?, scales_w?) -> Tensor"""
    scales = [scales_d, scales_h, scales_w]
    return _resize(net, self, "linear", output_size, align_corners, scales)


_CONVERTERS: tuple[tuple[Any, Callable[..., ITensor]], ...] = (
    (aten.upsample_nearest1d.vec, _nearest_vec("nearest")),
    (aten.upsample_nearest2d.vec, _nearest_vec("nearest")),
    (aten.upsample_nearest3d.vec, _nearest_vec("nearest")),
    (aten._upsample_nearest_exact1d.vec, _nearest_vec("exact")),
    (aten._upsample_nearest_exact2d.vec, _nearest_vec("exact")),
    (aten._upsample_nearest_exact3d.vec, _nearest_vec("exact")),
    (aten.upsample_linear1d.vec, _smooth_vec("linear")),
    (aten.upsample_bilinear2d.vec, _smooth_vec("linear")),
    (aten.upsample_trilinear3d.vec, _smooth_vec("linear")),
    (aten.upsample_bicubic2d.vec, _smooth_vec("cubic")),
    (aten.upsample_nearest1d.default, _nearest_1d("nearest")),
    (aten.upsample_nearest2d.default, _nearest_2d("nearest")),
    (aten.upsample_nearest3d.default, _nearest_3d("nearest")),
    (aten._upsample_nearest_exact1d.default, _nearest_1d("exact")),
    (aten._upsample_nearest_exact2d.default, _nearest_2d("exact")),
    (aten._upsample_nearest_exact3d.default, _nearest_3d("exact")),
    (aten.upsample_bilinear2d.default, _smooth_2d("linear")),
    (aten.upsample_bicubic2d.default, _smooth_2d("cubic")),
)
for _target, _convert in _CONVERTERS:
    converter(_target, supports=_supports_resize)(_convert)

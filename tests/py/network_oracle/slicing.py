"""Slice: static or dynamic start, size, stride and axes, and five ways past the border."""

from __future__ import annotations

import torch

from network_oracle.layer_view import LayerView
from network_oracle.registry import handles


@handles("SLICE", "ISliceLayer")
def slice_layer(view: LayerView) -> torch.Tensor:
    """output[y] = input[start + y * stride], out-of-range coordinates as ``mode`` says."""
    x, mode = view.value(0), view.name_of("mode")
    start, sizes, stride = (
        _per_dimension(view, index, attribute, rest, x)
        for index, attribute, rest in ((1, "start", 0), (2, "shape", None), (3, "stride", 1))
    )
    outside = torch.zeros([1] * x.dim(), dtype=torch.bool)
    for dim in range(x.dim()):
        length = x.shape[dim]
        where = start[dim] + torch.arange(sizes[dim]) * stride[dim]
        beyond = (where < 0) | (where >= length)
        if beyond.any() and mode == "STRICT_BOUNDS":
            raise view.mismatch(
                f"start {start[dim]}, size {sizes[dim]}, stride {stride[dim]} leaves dimension "
                f"{dim} of length {length}."
            )
        if beyond.any() and length == 0:
            raise view.unsupported(f"mode {mode} with an empty dimension {dim}.")
        if mode == "FILL":
            outside = outside | beyond.reshape([-1 if d == dim else 1 for d in range(x.dim())])
        x = x.index_select(dim, _inside(view, mode, where, length))
    if mode == "FILL":
        x = torch.where(outside, _fill_value(view, x), x)
    return x


def _inside(view: LayerView, mode: str, where: torch.Tensor, length: int) -> torch.Tensor:
    if mode == "STRICT_BOUNDS":
        return where
    if mode in ("CLAMP", "FILL"):
        return where.clamp(0, length - 1) if length else where
    if mode == "WRAP":
        return where.remainder(length)
    if mode == "REFLECT":
        if length == 1:
            return torch.zeros_like(where)
        folded = where.abs().remainder(2 * length - 2)
        return torch.where(folded >= length, 2 * length - 2 - folded, folded)
    raise view.unsupported(f"mode {mode}.")


def _fill_value(view: LayerView, x: torch.Tensor) -> torch.Tensor:
    if not view.has(4):
        # Undocumented, but NVIDIA's ONNX parser relies on it: it leaves out a fill value of zero.
        return torch.zeros((), dtype=x.dtype)
    value = view.value(4)
    if value.numel() != 1:
        raise view.mismatch(f"its fill value has shape {tuple(value.shape)}.")
    return value.reshape(()).to(x.dtype)


def _axes(view: LayerView) -> list[int] | None:
    """The axes that start, size and stride speak of; None for all of them."""
    if view.has(5):
        return view.integers(5)
    return view.optional_dims("axes")


def _per_dimension(
    view: LayerView, index: int, attribute: str, rest: int | None, x: torch.Tensor
) -> list[int]:
    """start, size or stride for every dimension; ``rest`` where axes leave one out.

    ``rest`` None stands for the input's own size.
    """
    given = view.integers(index) if view.has(index) else list(view.dims(attribute))
    axes = _axes(view)
    if axes is None:
        if len(given) != x.dim():
            raise view.mismatch(f"{attribute} {given} for an input of rank {x.dim()}.")
        return given
    if len(given) != len(axes):
        raise view.mismatch(f"{attribute} {given} for axes {axes}.")
    full = [int(size) if rest is None else rest for size in x.shape]
    for axis, value in zip(axes, given, strict=True):
        full[view.axis(axis, x.dim())] = value
    return full

"""Gather, Scatter, TopK, NonZero, OneHot."""

from __future__ import annotations

import torch

from network_oracle.layer_view import LayerView
from network_oracle.registry import handles


@handles("GATHER", "IGatherLayer")
def gather(view: LayerView) -> torch.Tensor:
    data, mode = view.value(0), view.name_of("mode")
    elementwise = view.layer.num_elementwise_dims
    if mode == "DEFAULT":
        axis = view.axis(view.layer.axis, data.dim())
        indices = _in_range(view, view.value(1), axis)
        if elementwise == 0:
            return _take(data, axis, indices)
        if elementwise == 1 and axis > 0:
            batch = max(data.shape[0], indices.shape[0])
            data = data.expand(batch, *data.shape[1:])
            indices = indices.expand(batch, *indices.shape[1:])
            return torch.stack([_take(data[b], axis - 1, indices[b]) for b in range(batch)])
        raise view.unsupported(f"axis {axis} with {elementwise} elementwise dimensions.")
    if mode == "ELEMENT":
        axis = view.axis(view.layer.axis, data.dim())
        indices = _in_range(view, view.value(1), axis)
        if elementwise or indices.dim() != data.dim():
            raise view.mismatch(f"indices of rank {indices.dim()}, {elementwise} elementwise.")
        beside = [d for d in range(data.dim()) if d != axis]
        if any(indices.shape[d] != data.shape[d] for d in beside):
            raise view.unsupported("indices and data differ in size beside the axis.")
        return torch.gather(data, axis, indices)
    if mode == "ND":
        return _gather_nd(view, data, view.value(1), elementwise)
    raise view.unsupported(f"mode {mode}.")


def _take(data: torch.Tensor, axis: int, indices: torch.Tensor) -> torch.Tensor:
    """``data`` with its ``axis`` replaced by the dimensions of ``indices``."""
    taken = data.index_select(axis, indices.reshape(-1))
    return taken.reshape(data.shape[:axis] + indices.shape + data.shape[axis + 1 :])


def _gather_nd(
    view: LayerView, data: torch.Tensor, indices: torch.Tensor, batch_dims: int
) -> torch.Tensor:
    """The last dimension of ``indices`` holds coordinates into data[batch]."""
    depth = indices.shape[-1]
    if data.shape[:batch_dims] != indices.shape[:batch_dims]:
        raise view.mismatch(f"elementwise dimensions {data.shape} and {indices.shape} differ.")
    if batch_dims + depth > data.dim():
        raise view.mismatch(f"{depth} coordinates into data of rank {data.dim()}.")
    places = [
        torch.arange(size).reshape([-1] + [1] * (indices.dim() - 2 - dim))
        for dim, size in enumerate(data.shape[:batch_dims])
    ]
    where = (*places, *_coordinates(view, indices, batch_dims))
    return data[where]


def _coordinates(
    view: LayerView, indices: torch.Tensor, first_axis: int
) -> tuple[torch.Tensor, ...]:
    """The last dimension of ``indices`` taken apart: one tensor of indices per axis of the data."""
    return tuple(
        _in_range(view, indices[..., dim], first_axis + dim) for dim in range(indices.shape[-1])
    )


def _in_range(view: LayerView, indices: torch.Tensor, axis: int) -> torch.Tensor:
    """int64 indices along ``axis`` of the data; Gather counts negative ones from the end."""
    length, declared = view.value(0).shape[axis], view.input_shapes[0]
    if indices.dtype not in (torch.int32, torch.int64):
        raise view.mismatch(f"its indices are {indices.dtype}.")
    indices = indices.long()
    if bool(((indices < -length) | (indices >= length)).any()):
        raise view.mismatch(f"an index is out of range for length {length}.")
    may_be_negative = view.kind == "GATHER" and declared is not None and declared[axis] != -1
    if not may_be_negative and bool((indices < 0).any()):
        raise view.unsupported("negative indices are defined for Gather on a static axis only.")
    return torch.where(indices < 0, indices + length, indices)


@handles("SCATTER", "IScatterLayer", same_type=(0, 2))
def scatter(view: LayerView) -> torch.Tensor:
    data, updates, mode = view.value(0), view.value(2), view.name_of("mode")
    result = data.clone()
    if mode == "ELEMENT":
        axis = view.axis(view.layer.axis, data.dim())
        indices = _in_range(view, view.value(1), axis)
        if not indices.dim() == updates.dim() == data.dim() or indices.shape != updates.shape:
            raise view.mismatch(f"indices {indices.shape} and updates {updates.shape}.")
        result.scatter_(axis, indices, updates)
        kept = result.gather(axis, indices)
    elif mode == "ND":
        indices = view.value(1)
        expected = (*indices.shape[:-1], *data.shape[indices.shape[-1] :])
        if tuple(updates.shape) != expected:
            raise view.mismatch(f"updates have shape {tuple(updates.shape)}, not {expected}.")
        where = _coordinates(view, indices, 0)
        result[where] = updates
        kept = result[where]
    else:
        raise view.unsupported(f"mode {mode}.")
    # The same value twice, as of overlapping pooling windows, is the same in any order.
    if not torch.allclose(kept, updates, rtol=0, atol=0, equal_nan=True):
        raise view.unsupported("an element is written twice, with an undefined result.")
    return result


@handles("TOPK", "ITopKLayer")
def top_k(view: LayerView) -> list[torch.Tensor]:
    """Values, best first, and their indices; the order of equal values is not specified."""
    x, op = view.value(0), view.name_of("op")
    axes = view.axes_of_mask(view.layer.axes, x.dim())
    if len(axes) != 1:
        raise view.unsupported(f"axes {axes}.")
    if op not in ("MAX", "MIN"):
        raise view.unsupported(f"operation {op}.")
    k = view.integers(1)[0] if view.has(1) else view.layer.k
    if not 0 < k <= x.shape[axes[0]]:
        raise view.mismatch(f"k = {k} of {x.shape[axes[0]]} elements.")
    ordered, order = x.sort(dim=axes[0], descending=op == "MAX", stable=True)
    values = ordered.narrow(axes[0], 0, k)
    return [values, order.narrow(axes[0], 0, k).to(view.output_dtypes[1])]


@handles("NON_ZERO", "INonZeroLayer", rounds_to=None)
def non_zero(view: LayerView) -> torch.Tensor:
    """Coordinates of the non-zero elements, one column each, in row-major order."""
    return view.value().nonzero().t().to(view.output_dtypes[0])


@handles("ONE_HOT", "IOneHotLayer", rounds_to=1)
def one_hot(view: LayerView) -> torch.Tensor:
    """values = [off, on]; the new dimension of length depth lies at ``axis``."""
    indices, values, depth = view.value(0), view.value(1), view.integers(2)[0]
    if bool(((indices < 0) | (indices >= depth)).any()):
        raise view.unsupported(f"an index is out of range for depth {depth}.")
    axis = view.axis(view.layer.axis, indices.dim() + 1)
    classes = torch.arange(depth).reshape(
        [-1 if dim == axis else 1 for dim in range(indices.dim() + 1)]
    )
    return torch.where(indices.unsqueeze(axis) == classes, values[1], values[0])

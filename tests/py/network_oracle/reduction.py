"""Reduce, Softmax and Cumulative."""

from __future__ import annotations

import torch

from network_oracle.dtypes import FLOATS
from network_oracle.layer_view import LayerView
from network_oracle.registry import handles


@handles("REDUCE", "IReduceLayer")
def reduce(view: LayerView) -> torch.Tensor:
    x, op, keep = view.value(), view.name_of("op"), view.layer.keep_dims
    axes = view.axes_of_mask(view.layer.axes, x.dim())
    if not axes:
        raise view.unsupported("no axes are reduced.")
    if x.dtype == torch.bool or (op == "AVG" and x.dtype not in FLOATS):
        raise view.unsupported(f"operation {op} of {x.dtype}.")
    if op == "SUM":
        return x.sum(axes, keepdim=keep, dtype=x.dtype)
    if op == "AVG":
        return x.mean(axes, keepdim=keep)
    if op == "MAX":
        return x.amax(axes, keepdim=keep)
    if op == "MIN":
        return x.amin(axes, keepdim=keep)
    if op == "PROD":
        for axis in reversed(axes):
            x = x.prod(axis, keepdim=keep, dtype=x.dtype)
        return x
    raise view.unsupported(f"operation {op}.")


@handles("SOFTMAX", "ISoftMaxLayer")
def softmax(view: LayerView) -> torch.Tensor:
    x = view.value()
    axes = view.axes_of_mask(view.layer.axes, x.dim())
    if len(axes) != 1:
        raise view.unsupported(f"axes {axes}.")
    return torch.softmax(x, axes[0])


@handles("CUMULATIVE", "ICumulativeLayer")
def cumulative(view: LayerView) -> torch.Tensor:
    x, op = view.value(0), view.name_of("op")
    if op != "SUM":
        raise view.unsupported(f"operation {op}.")
    axis = view.axis(view.integers(1)[0], x.dim())
    if view.layer.reverse:
        x = x.flip(axis)
    total = x.cumsum(axis, dtype=x.dtype)
    if view.layer.exclusive:
        total = torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), total], axis)
        total = total.narrow(axis, 0, x.shape[axis])
    return total.flip(axis) if view.layer.reverse else total

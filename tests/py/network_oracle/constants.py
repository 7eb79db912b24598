"""Layers that make values out of attributes: Constant, Fill, Shape."""

from __future__ import annotations

import math

import torch

from network_oracle.layer_view import LayerView
from network_oracle.registry import handles


@handles("CONSTANT", "IConstantLayer", rounds_to=None)
def constant(view: LayerView) -> torch.Tensor:
    shape = view.dims("shape")
    weights = view.weights("weights")
    if weights is None:
        weights = torch.empty(0, dtype=view.output_dtypes[0])
    if weights.numel() != math.prod(shape):
        raise view.mismatch(f"{weights.numel()} weights for shape {shape}.")
    return weights.reshape(shape)


@handles("SHAPE", "IShapeLayer", rounds_to=None)
def shape(view: LayerView) -> torch.Tensor:
    # int64 since TensorRT 10, int32 before: the declared type says which.
    return torch.tensor(tuple(view.value().shape), dtype=view.output_dtypes[0])


@handles("FILL", "IFillLayer", rounds_to=None)
def fill(view: LayerView) -> torch.Tensor:
    """LINSPACE: output[i, j, ...] = start + i * delta[0] + j * delta[1] + ..."""
    if view.name_of("operation") != "LINSPACE":
        raise view.unsupported(f"operation {view.name_of('operation')} is random.")
    sizes = view.integers(0) if view.has(0) else list(view.dims("shape"))
    dtype = view.output_dtypes[0]
    if view.has(1) and view.has(2):
        start, delta = view.value(1), view.value(2)
        if start.dim() != 0 or tuple(delta.shape) != (len(sizes),):
            raise view.mismatch(
                f"start has shape {tuple(start.shape)} and delta {tuple(delta.shape)} "
                f"for an output of rank {len(sizes)}."
            )
    elif view.has(1) or view.has(2):
        raise view.unsupported("only one of start and delta is an input.")
    else:
        if len(sizes) != 1:
            raise view.mismatch(f"static start and delta need rank 1, have {len(sizes)}.")
        start = torch.tensor(view.layer.alpha, dtype=torch.float64)
        delta = torch.tensor([view.layer.beta], dtype=torch.float64)
    exact = torch.float64 if start.is_floating_point() else torch.int64
    result = start.to(exact).expand(sizes).clone()
    for dim, size in enumerate(sizes):
        steps = torch.arange(size, dtype=exact) * delta[dim].to(exact)
        result += steps.reshape([-1 if d == dim else 1 for d in range(len(sizes))])
    return result.to(dtype)

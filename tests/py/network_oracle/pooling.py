"""Pooling: maximum, average and their blend."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from network_oracle.dtypes import FLOATS
from network_oracle.layer_view import LayerView
from network_oracle.padding import explicit_pads, pad_spatial, same_pads
from network_oracle.registry import handles

_MAXIMUM = {2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE = {2: F.avg_pool2d, 3: F.avg_pool3d}


@handles("POOLING", "IPoolingLayer")
def pooling(view: LayerView) -> torch.Tensor:
    """Reduce each window; padding takes no part in a maximum.

    An average divides by the window's overlap with the input, or by the window's size where
    ``average_count_excludes_padding`` is false: TensorRT 10.6 then counts what rounding up adds as well.
    """
    x = view.value()
    window, stride = view.dims("window_size_nd"), view.dims("stride_nd")
    if x.dim() != len(window) + 2 or len(window) not in _MAXIMUM:
        raise view.unsupported(f"window {window} with an input of rank {x.dim()}.")
    if x.dtype not in FLOATS:
        raise view.unsupported(f"pooling of {x.dtype}.")
    size, mode = tuple(x.shape[2:]), view.name_of("padding_mode")
    if mode.startswith("SAME"):
        pads, _ = same_pads(size, window, stride, lower=mode == "SAME_LOWER")
    else:
        pre, post = view.dims("pre_padding"), view.dims("post_padding")
        round_up = mode == "EXPLICIT_ROUND_UP"
        pads, _ = explicit_pads(size, window, stride, pre, post, round_up=round_up)

    def windows_sum(tensor: torch.Tensor) -> torch.Tensor:
        return _AVERAGE[len(window)](tensor, window, stride, divisor_override=1)

    ones = torch.ones(1, 1, *size)
    count = windows_sum(pad_spatial(ones, pads))
    if (count == 0).any():
        raise view.unsupported("a window lies wholly in the padding.")
    kind = view.name_of("type")
    if kind != "AVERAGE":
        maximum = _MAXIMUM[len(window)](pad_spatial(x, pads, value=-torch.inf), window, stride)
    if kind == "MAX":
        return maximum
    if not view.layer.average_count_excludes_padding:
        count = torch.full_like(count, math.prod(window))
    average = windows_sum(pad_spatial(x, pads)) / count
    if kind == "AVERAGE":
        return average
    if kind == "MAX_AVERAGE_BLEND":
        blend = float(view.layer.blend_factor)
        return (1 - blend) * maximum + blend * average
    raise view.unsupported(f"pooling type {kind}.")

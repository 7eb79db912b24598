"""Pooling: maximum, average and their blend."""

from __future__ import annotations

import torch

from network_oracle.dtypes import FLOATS
from network_oracle.layer_view import LayerView
from network_oracle.padding import explicit_pads, pad_spatial, same_pads
from network_oracle.registry import handles


@handles("POOLING", "IPoolingLayer")
def pooling(view: LayerView) -> torch.Tensor:
    """Reduce each window; padding takes no part in a maximum.

    An average divides by the window's overlap with the input, or with the padded input where
    ``average_count_excludes_padding`` is false (never counting what rounding up adds beyond).
    """
    x = view.value()
    window, stride = view.dims("window_size_nd"), view.dims("stride_nd")
    if x.dim() != len(window) + 2:
        raise view.unsupported(f"window {window} with an input of rank {x.dim()}.")
    if x.dtype not in FLOATS:
        raise view.unsupported(f"pooling of {x.dtype}.")
    size, mode = tuple(x.shape[2:]), view.name_of("padding_mode")
    if mode.startswith("SAME"):
        pads, output = same_pads(size, window, stride, lower=mode == "SAME_LOWER")
        declared = pads
    else:
        pre, post = view.dims("pre_padding"), view.dims("post_padding")
        round_up = mode == "EXPLICIT_ROUND_UP"
        pads, output = explicit_pads(size, window, stride, pre, post, round_up=round_up)
        declared = list(zip(pre, post, strict=True))

    def windows(tensor: torch.Tensor) -> torch.Tensor:
        for dim, (length, step, count) in enumerate(zip(window, stride, output, strict=True)):
            tensor = tensor.unfold(2 + dim, length, step).narrow(2 + dim, 0, count)
        return tensor.flatten(start_dim=x.dim())

    inside = windows(pad_spatial(torch.ones(1, 1, *size), pads)).sum(-1)
    if (inside == 0).any():
        raise view.unsupported("a window lies wholly in the padding.")
    kind = view.name_of("type")
    maximum = windows(pad_spatial(x, pads, value=-torch.inf)).amax(-1)
    if kind == "MAX":
        return maximum
    count = inside
    if not view.layer.average_count_excludes_padding:
        extra = [(0, pad[1] - own[1]) for pad, own in zip(pads, declared, strict=True)]
        count = windows(pad_spatial(pad_spatial(torch.ones(1, 1, *size), declared, 1.0), extra))
        count = count.sum(-1)
    average = windows(pad_spatial(x, pads)).sum(-1) / count
    if kind == "AVERAGE":
        return average
    if kind == "MAX_AVERAGE_BLEND":
        blend = float(view.layer.blend_factor)
        return (1 - blend) * maximum + blend * average
    raise view.unsupported(f"pooling type {kind}.")

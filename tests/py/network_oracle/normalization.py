"""Normalization (layer, instance and group norm) and local response normalization."""

from __future__ import annotations

import torch

from network_oracle.layer_view import LayerView
from network_oracle.padding import pad_spatial
from network_oracle.registry import handles


@handles("NORMALIZATION", "INormalizationLayer")
def normalization(view: LayerView) -> torch.Tensor:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over ``axes`` or groups of channels."""
    x, scale, bias = view.value(0), view.value(1), view.value(2)
    axes = view.axes_of_mask(view.layer.axes, x.dim())
    groups, epsilon = view.layer.num_groups, view.layer.epsilon
    if scale.shape != bias.shape or scale.dim() != x.dim():
        raise view.mismatch(f"scale {tuple(scale.shape)} and bias {tuple(bias.shape)}.")
    if groups == 1:
        return _normalized(x, axes, epsilon) * scale + bias
    spatial = tuple(range(2, x.dim()))
    if axes != spatial or x.shape[1] % groups:
        raise view.mismatch(f"{groups} groups of {x.shape[1]} channels, axes {axes}.")
    grouped = x.reshape(x.shape[0], groups, -1)
    result = _normalized(grouped, (2,), epsilon)
    if getattr(view.layer, "is_v2", False):  # one coefficient per channel
        _check_coefficients(view, scale, x.shape[1])
        return result.reshape(x.shape) * scale + bias
    _check_coefficients(view, scale, groups)  # one coefficient per group
    shape = (1, groups, 1)
    return (result * scale.reshape(shape) + bias.reshape(shape)).reshape(x.shape)


def _normalized(x: torch.Tensor, axes: tuple[int, ...], epsilon: float) -> torch.Tensor:
    centred = x - x.mean(axes, keepdim=True)
    variance = centred.square().mean(axes, keepdim=True)
    return centred / torch.sqrt(variance + epsilon)


def _check_coefficients(view: LayerView, scale: torch.Tensor, count: int) -> None:
    expected = (1, count, *[1] * (scale.dim() - 2))
    if tuple(scale.shape) != expected:
        raise view.mismatch(f"scale has shape {tuple(scale.shape)}, not {expected}.")


@handles("LRN", "ILRNLayer")
def local_response_normalization(view: LayerView) -> torch.Tensor:
    """x / (k + alpha / window * sum of squares over a window of channels) ** beta.

    The division by the window is not in NVIDIA's formula but in the numbers beside it.
    """
    x, window = view.value(), view.layer.window_size
    if x.dim() < 3 or window % 2 == 0:
        raise view.unsupported(f"window {window} on an input of rank {x.dim()}.")
    squares = x.square().movedim(-3, -1)
    sums = pad_spatial(squares, [(window // 2, window // 2)]).unfold(-1, window, 1).sum(-1)
    denominator: torch.Tensor = view.layer.k + view.layer.alpha / window * sums.movedim(-1, -3)
    return x / denominator.pow(float(view.layer.beta))

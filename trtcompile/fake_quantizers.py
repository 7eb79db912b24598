"""Lets ``torch.export`` trace the fake quantizers of ``torch.ao``, which quantization-aware training leaves."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantizeBase

from trtcompile.errors import TRTCompileWarning


def fix_fake_quantizers(model: nn.Module) -> None:
    """Gives each fake quantizer a ``forward`` that quantizes with its present range, on the instance.

    Their own looks at a tensor to know whether they observe and whether they quantize, which cannot be traced. The
    caller puts the attributes of the modules back.

    Args:
        model: what is about to be traced.
    """
    observing = 0
    for module in model.modules():
        if isinstance(module, FakeQuantizeBase):
            observing += bool(module.observer_enabled[0])
            vars(module)["forward"] = _fixed(module)
    if observing:
        warnings.warn(
            f"{observing} fake quantizers still observe, so that their ranges change with each call. The ranges of "
            "now are compiled in. Call model.apply(torch.ao.quantization.disable_observer) when training is over.",
            TRTCompileWarning,
            stacklevel=3,
        )


def _fixed(module: Any) -> Callable[[Tensor], Tensor]:
    if not bool(module.fake_quant_enabled[0]):
        return lambda x: x
    observer = module.activation_post_process
    low, high = int(observer.quant_min), int(observer.quant_max)
    scale, zero_point = module.scale.detach().float(), module.zero_point.detach()
    if scale.numel() > 1:
        return functools.partial(_per_channel, module, int(module.ch_axis), low, high)
    return functools.partial(_per_tensor, float(scale.item()), int(zero_point.item()), low, high)


def _per_tensor(scale: float, zero_point: int, low: int, high: int, x: Tensor) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)


def _per_channel(module: Any, axis: int, low: int, high: int, x: Tensor) -> Tensor:
    return torch.fake_quantize_per_channel_affine(
        x, module.scale, module.zero_point, axis, low, high
    )

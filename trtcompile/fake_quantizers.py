"""Lets ``torch.export`` trace the fake quantizers of ``torch.ao``, which quantization-aware training leaves."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantizeBase, FixedQParamsFakeQuantize

from trtcompile.errors import TRTCompileWarning

_PER_CHANNEL = (
    torch.per_channel_symmetric,
    torch.per_channel_affine,
    torch.per_channel_affine_float_qparams,
)


def fix_fake_quantizers(model: nn.Module) -> None:
    """Gives each fake quantizer a ``forward`` that quantizes with its present range, on the instance.

    Their own looks at a tensor to know whether they observe and whether they quantize, which cannot be traced. One of
    the user's keeps its ``forward``, and gets numbers in place of these tensors. The caller puts the attributes of the
    modules back.

    Args:
        model: what is about to be traced.
    """
    quantizers = [module for module in model.modules() if isinstance(module, FakeQuantizeBase)]
    observing = sum(map(_observes, quantizers))
    unused = sum(map(_never_observed, quantizers))
    for module in quantizers:
        if type(module).forward.__module__.startswith("torch."):
            vars(module)["forward"] = _fixed(module)
        else:
            vars(module)["fake_quant_enabled"] = module.fake_quant_enabled.tolist()
            vars(module)["observer_enabled"] = [0]
    if observing:
        warnings.warn(
            f"{observing} fake quantizers still observe, so that their ranges change with each call. The ranges of "
            "now are compiled in. Call model.apply(torch.ao.quantization.disable_observer) when training is over.",
            TRTCompileWarning,
            stacklevel=3,
        )
    if unused:
        warnings.warn(
            f"{unused} fake quantizers have never observed data, so that their scale is 1. Run the model on data "
            "first, or give the model as it was before quantization, and a calibrator.",
            TRTCompileWarning,
            stacklevel=3,
        )


def _observes(module: Any) -> bool:
    return bool(module.observer_enabled[0]) and not isinstance(module, FixedQParamsFakeQuantize)


def _never_observed(module: Any) -> bool:
    """Whether a fake quantizer quantizes with the range that it was made with, for lack of another."""
    seen = getattr(getattr(module, "activation_post_process", None), "min_val", None)
    unseen = isinstance(seen, Tensor) and (seen.numel() == 0 or bool(seen.isinf().any()))
    return unseen and bool(module.fake_quant_enabled[0]) and bool((module.scale == 1).all())


def _fixed(module: Any) -> Callable[[Tensor], Tensor]:
    if not bool(module.fake_quant_enabled[0]):
        return lambda x: x
    observer = module.activation_post_process
    low, high = int(observer.quant_min), int(observer.quant_max)
    scale, zero_point = module.scale.detach().float(), module.zero_point.detach()
    if module.qscheme in _PER_CHANNEL:
        return functools.partial(_per_channel, module, int(module.ch_axis), low, high)
    return functools.partial(_per_tensor, float(scale.item()), int(zero_point.item()), low, high)


def _per_tensor(scale: float, zero_point: int, low: int, high: int, x: Tensor) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)


def _per_channel(module: Any, axis: int, low: int, high: int, x: Tensor) -> Tensor:
    return torch.fake_quantize_per_channel_affine(
        x, module.scale, module.zero_point, axis, low, high
    )

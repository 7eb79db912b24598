"""Logical operations that several families of converters need."""

from __future__ import annotations

import torch

from trtcompile._tensorrt import trt
from trtcompile.conversion.network import ITensor, Network, TensorLike


def either(net: Network, a: TensorLike, b: TensorLike) -> ITensor:
    """Whether ``a`` or ``b`` is true; one of them may be constant."""
    if _is_variable(a) and _is_variable(b):
        return net.elementwise(net.truth(a), net.truth(b), trt.ElementWiseOperation.OR)
    # Of an OR with a constant, TensorRT 10.6 was seen to leave the constant out, or to find no implementation.
    variable, constant = (a, b) if _is_variable(a) else (b, a)
    return net.select(net.truth(variable), True, _known_truth(constant), torch.bool)


def _is_variable(x: object) -> bool:
    return not isinstance(x, (bool, int, float, torch.Tensor))


def _known_truth(x: TensorLike) -> bool | torch.Tensor:
    return x.bool() if isinstance(x, torch.Tensor) else bool(x)

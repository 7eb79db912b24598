"""Converters, one family of operators a file. Importing this package registers them all."""

from trtcompile.conversion.ops import (
    activation,
    convolution,
    elementwise,
    linear,
    pooling,
    quantize,
    reduction,
    shape,
    symbolic,
    unary,
)

__all__ = [
    "activation",
    "convolution",
    "elementwise",
    "linear",
    "pooling",
    "quantize",
    "reduction",
    "shape",
    "symbolic",
    "unary",
]

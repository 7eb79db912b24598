"""Converters, one family of operators a file. Importing this package registers them all."""

from trtcompile.conversion.ops import (
    activation,
    comparison,
    convolution,
    elementwise,
    linear,
    normalization,
    pooling,
    quantize,
    reduction,
    resize,
    shape,
    slicing,
    symbolic,
    unary,
)

__all__ = [
    "activation",
    "comparison",
    "convolution",
    "elementwise",
    "linear",
    "normalization",
    "pooling",
    "quantize",
    "reduction",
    "resize",
    "shape",
    "slicing",
    "symbolic",
    "unary",
]

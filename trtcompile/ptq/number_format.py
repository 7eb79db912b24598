"""``NumberFormat``: what Q/DQ of INT8 and of FP8 differ in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from trtcompile import float8
from trtcompile.lowering.constants import add_constant
from trtcompile.lowering.qdq_pair import FP8_PAIRS, INTEGER_PAIRS
from trtcompile.products import PRODUCTS
from trtcompile.ptq.algorithms import INT8_MAX, MIN_SCALE, CalibrationAlgo

aten = torch.ops.aten


@dataclass(frozen=True)
class NumberFormat:
    """A format that both factors of a product are quantized to.

    Attributes:
        name: ``"INT8"`` or ``"FP8"``.
        dtype: its torch dtype.
        largest: the number that amax is mapped to.
        per_tensor: the operators that quantize and dequantize with one scale.
        per_channel: the same with a scale for each index of an axis.
        algos: the algorithms that choose ranges well for it; None for all.
        refuses: gives None, or why TensorRT does not compute this operator in the format.
    """

    name: str
    dtype: torch.dtype
    largest: float
    per_tensor: tuple[Any, Any]
    per_channel: tuple[Any, Any]
    algos: frozenset[CalibrationAlgo] | None
    refuses: Callable[[Node], str | None]

    def scale_of(self, table_scale: float) -> float:
        """The scale that maps the same amax to ``largest`` as a table's scale maps to 127.

        A table says ``amax / 127`` whatever it is used for, as TensorRT's cache files do.
        """
        if self.largest == INT8_MAX:
            return table_scale
        return max(float(np.float32(table_scale * INT8_MAX / self.largest)), MIN_SCALE)

    def activation_arguments(self, scale: float) -> tuple[Any, ...]:
        """What the per-tensor operators take behind the tensor."""
        if self.dtype == torch.int8:
            return scale, 0, -128, 127, torch.int8
        return (scale,)

    def weight_arguments(
        self, graph_module: GraphModule, weight: str, scales: torch.Tensor, axis: int, reader: Node
    ) -> tuple[Any, ...]:
        """What the per-channel operators take behind the weight; constants are added in front of ``reader``."""
        named = add_constant(graph_module, f"{weight}_scales", scales, before=reader)
        if self.dtype != torch.int8:
            return named, axis
        zeros = torch.zeros_like(scales, dtype=torch.int64)
        zero_points = add_constant(graph_module, f"{weight}_zero_points", zeros, before=reader)
        return named, zero_points, axis, -127, 127, torch.int8


def _refuses_nothing(node: Node) -> str | None:
    return None


def _no_fp8_kernels(node: Node) -> str | None:
    if node.target is aten.convolution.default:
        # TensorRT 10.6 on an H200 dequantizes in front of them: two of 256 channels take 176 us where FP16 takes 153. A
        # linear layer of 4096x4096 written as one takes 10 ms, the matrix product 0.11 ms.
        return "TensorRT has no FP8 kernels for convolutions"
    if node.target in PRODUCTS:
        return None
    return "TensorRT computes products of matrices alone in FP8"


INT8 = NumberFormat(
    name="INT8",
    dtype=torch.int8,
    largest=INT8_MAX,
    per_tensor=INTEGER_PAIRS[False],
    per_channel=INTEGER_PAIRS[True],
    algos=None,
    refuses=_refuses_nothing,
)
FP8 = NumberFormat(
    name="FP8",
    dtype=float8.E4M3,
    largest=float8.E4M3_MAX,
    per_tensor=FP8_PAIRS[False],
    per_channel=FP8_PAIRS[True],
    # Cutting off large values makes the steps of INT8 finer. FP8 has fine steps near zero whatever its range, so that
    # there is nothing to gain: of a softmax's values, entropy calibration loses half, and the largest value 3 %.
    algos=frozenset({CalibrationAlgo.MINMAX_CALIBRATION}),
    refuses=_no_fp8_kernels,
)
#: The formats by the dtype that ``enabled_precisions`` names.
FORMATS: Mapping[torch.dtype, NumberFormat] = {f.dtype: f for f in (INT8, FP8)}

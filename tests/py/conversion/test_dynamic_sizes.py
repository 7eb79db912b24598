"""Every converter with sizes that are known at run time only."""

from __future__ import annotations

import importlib
import operator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from operator_case import (
    Case,
    GraphCase,
    Refusal,
    booleans,
    case,
    each,
    floats,
    integers,
    positive,
    refusal,
)
from torch import nn

# Registers the quantized_decomposed operators.
from trtcompile.conversion import REGISTRY

aten, qd = torch.ops.aten, torch.ops.quantized_decomposed

X, Y = floats(2, 3), floats(2, 3, seed=1)
_ROWS = {0: (1, 2, 5)}
_LARGER = {0: (1, 2, 3), 2: (4, 4, 6)}


_INT8 = (-128, 127, torch.int8)
_SCALES, _ZERO_POINTS = torch.tensor([0.01, 0.02, 0.05]), torch.zeros(3, dtype=torch.int64)


def _through_int8(x: torch.Tensor) -> torch.Tensor:
    q = qd.quantize_per_channel(x, _SCALES, _ZERO_POINTS, 1, *_INT8)
    return qd.dequantize_per_channel(q, _SCALES, _ZERO_POINTS, 1, *_INT8)


def _of_one(target: Any, *arguments: Any, x: torch.Tensor = X) -> GraphCase:
    return GraphCase(target, "dynamic_rows", (x, *arguments), build=False, dynamic={0: _ROWS})


def _of_two(target: Any, *arguments: Any, x: torch.Tensor = X, y: torch.Tensor = Y) -> GraphCase:
    dynamic = {0: _ROWS, 1: _ROWS}
    return GraphCase(target, "dynamic_rows", (x, y, *arguments), build=False, dynamic=dynamic)


_POINTWISE = (
    aten.abs.default,
    aten.acos.default,
    aten.acosh.default,
    aten.asin.default,
    aten.asinh.default,
    aten.atan.default,
    aten.atanh.default,
    aten.ceil.default,
    aten.cos.default,
    aten.cosh.default,
    aten.elu.default,
    aten.erf.default,
    aten.exp2.default,
    aten.expm1.default,
    aten.floor.default,
    aten.gelu.default,
    aten.hardsigmoid.default,
    aten.hardswish.default,
    aten.hardtanh.default,
    aten.isfinite.default,
    aten.isinf.default,
    aten.isnan.default,
    aten.leaky_relu.default,
    aten.log.default,
    aten.log10.default,
    aten.log2.default,
    aten.logical_not.default,
    aten.neg.default,
    aten.reciprocal.default,
    aten.round.default,
    aten.rsqrt.default,
    aten.signbit.default,
    aten.sin.default,
    aten.sinh.default,
    aten.sqrt.default,
    aten.tan.default,
)
_OF_TENSORS = (
    aten.eq.Tensor,
    aten.ge.Tensor,
    aten.gt.Tensor,
    aten.le.Tensor,
    aten.logical_and.default,
    aten.logical_or.default,
    aten.logical_xor.default,
    aten.lt.Tensor,
    aten.ne.Tensor,
)
_OF_NUMBER = (
    aten.copysign.Scalar,
    aten.div.Scalar,
    aten.eq.Scalar,
    aten.fmod.Scalar,
    aten.ge.Scalar,
    aten.gt.Scalar,
    aten.le.Scalar,
    aten.lt.Scalar,
    aten.mul.Scalar,
    aten.ne.Scalar,
    aten.remainder.Scalar,
    aten.rsub.Scalar,
    aten.sub.Scalar,
)
_BITWISE = (aten.bitwise_and, aten.bitwise_or, aten.bitwise_xor)
_IMAGE, _VOLUME = floats(2, 3, 4, 5), floats(2, 2, 4, 4, 5)
_PLACES = torch.tensor([2, 0])

CASES: list[Case | GraphCase] = [
    *(_of_one(target) for target in _POINTWISE),
    *(_of_one(target, -0.75) for target in _OF_NUMBER),
    *(_of_two(target) for target in _OF_TENSORS),
    _of_one(aten.bitwise_not.default, x=booleans(2, 3)),
    *(_of_two(packet.Tensor, x=booleans(2, 3), y=booleans(2, 3, seed=1)) for packet in _BITWISE),
    *(_of_one(packet.Scalar, True, x=booleans(2, 3)) for packet in _BITWISE),
    *(
        GraphCase(target, "dynamic_rows", (number, x), build=False, dynamic={0: _ROWS})
        for target, number, x in (
            *((packet.Scalar_Tensor, True, booleans(2, 3)) for packet in _BITWISE),
            (aten.pow.Scalar, 1.5, X),
            (aten.remainder.Scalar_Tensor, 7.5, X),
        )
    ),
    GraphCase(
        aten.pow.Tensor_Tensor,
        "dynamic_rows",
        (positive(2, 3), floats(3)),
        build=False,
        dynamic={0: _ROWS},
    ),
    case(
        aten.div.Scalar_mode,
        "dynamic_rows",
        lambda x: [aten.div.Scalar_mode(x, 0.7, rounding_mode=mode) for mode in ("floor", "trunc")],
        X,
        dynamic={0: _ROWS},
        build=False,
    ),
    case(
        aten.round.decimals,
        "dynamic_rows",
        lambda x: x.round(decimals=1),
        X,
        dynamic={0: _ROWS},
        build=False,
    ),
    case(aten.rrelu.default, "dynamic_rows", F.rrelu, X, dynamic={0: _ROWS}, build=False),
    case(
        aten.view.dtype,
        "dynamic_rows",
        lambda x: (x + 1).view(torch.float32) * 2,
        X,
        dynamic={0: _ROWS},
        build=False,
    ),
    # Pools and resizes.
    *(
        case(target, "dynamic", function, x, dynamic={0: _LARGER}, build=False)
        for target, function, x in (
            (aten.max_pool3d.default, lambda x: F.max_pool3d(x, 2, 1, 1, ceil_mode=True), _VOLUME),
            (
                aten.max_pool2d_with_indices.default,
                lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
                _IMAGE,
            ),
            (
                aten.max_pool3d_with_indices.default,
                lambda x: F.max_pool3d(x, 2, return_indices=True)[0],
                _VOLUME,
            ),
            (aten.avg_pool3d.default, lambda x: F.avg_pool3d(x, 2, 1, 1), _VOLUME),
        )
    ),
    *(
        GraphCase(
            target, "dynamic_batch", (x, *arguments), build=False, dynamic={0: {0: (1, 2, 3)}}
        )
        for target, x, *arguments in (
            (aten._adaptive_avg_pool2d.default, _IMAGE, [2, 3]),
            (aten._upsample_bicubic2d_aa.default, _IMAGE, [3, 3], False),
            (aten._upsample_bilinear2d_aa.default, _IMAGE, [3, 3], False),
            (aten._upsample_nearest_exact1d.default, _IMAGE[0], [7]),
            (aten._upsample_nearest_exact2d.default, _IMAGE, [7, 7]),
            (aten._upsample_nearest_exact3d.default, _VOLUME, [7, 7, 7]),
            (aten.upsample_bicubic2d.default, _IMAGE, [7, 7], False),
            (aten.upsample_bilinear2d.default, _IMAGE, [7, 7], False),
            (aten.upsample_linear1d.default, _IMAGE[0], [7], False),
            (aten.upsample_nearest1d.default, _IMAGE[0], [7]),
            (aten.upsample_nearest2d.default, _IMAGE, [7, 7]),
            (aten.upsample_nearest3d.default, _VOLUME, [7, 7, 7]),
            (aten.upsample_trilinear3d.default, _VOLUME, [7, 7, 7], False),
        )
    ),
    GraphCase(
        aten.reflection_pad1d.default,
        "dynamic_length",
        (_IMAGE[0], [2, 1]),
        dynamic={0: {0: (1, 3, 4), 2: (3, 5, 8)}},
    ),
    GraphCase(
        aten.replication_pad1d.default,
        "dynamic_length",
        (_IMAGE[0], [2, 1]),
        dynamic={0: {0: (1, 3, 4), 2: (3, 5, 8)}},
    ),
    # Products.
    GraphCase(
        aten.addmm.default,
        "dynamic_rows",
        (floats(4), X, Y.t()[:, [0, 1, 0, 1]]),
        dynamic={1: _ROWS},
    ),
    GraphCase(
        aten.addbmm.default,
        "dynamic_batch",
        (floats(4, 5), floats(2, 4, 3), floats(2, 3, 5)),
        dynamic={1: _ROWS, 2: _ROWS},
    ),
    GraphCase(aten.addmv.default, "dynamic_rows", (floats(1), X, floats(3)), dynamic={1: _ROWS}),
    # Norms.
    case(
        aten._native_batch_norm_legit_no_training.default,
        "dynamic",
        F.batch_norm,
        _IMAGE,
        floats(3),
        positive(3),
        dynamic={0: _LARGER},
    ),
    case(
        aten._fused_rms_norm.default,
        "dynamic",
        lambda x, w: aten._fused_rms_norm(x, [5], w, 0.1)[0],
        _IMAGE,
        floats(5),
        dynamic={0: _LARGER},
    ),
    # Elements picked, moved, and written.
    GraphCase(
        aten._unsafe_index.Tensor,
        "dynamic_rows",
        (floats(3, 4), [None, _PLACES]),
        dynamic={0: _ROWS},
    ),
    GraphCase(
        aten._unsafe_index_put.default,
        "dynamic_rows",
        (floats(4, 3), [_PLACES], floats(2, 3)),
        dynamic={0: {0: (3, 4, 6)}},
    ),
    GraphCase(
        aten.index_fill.int_Tensor,
        "dynamic_rows",
        (floats(2, 3), 1, _PLACES, floats()),
        dynamic={0: _ROWS},
    ),
    GraphCase(
        aten.take_along_dim.default,
        "dynamic_rows",
        (X, torch.tensor([[0, 2]]), 1),
        dynamic={0: _ROWS},
    ),
    case(
        aten.sort.stable,
        "dynamic_rows",
        lambda x: x.sort(dim=0, stable=True)[0],
        X,
        dynamic={0: _ROWS},
    ),
    case(
        operator.getitem,
        "dynamic_rows",
        lambda x: x.split([1, 2], 1)[1] * 2,
        X,
        dynamic={0: _ROWS},
        build=False,
    ),
    case(
        torch.ops.prims.scalar_tensor.default,
        "dynamic_rows",
        lambda x: torch.xlogy(x, 2.5),
        X,
        dynamic={0: _ROWS},
        build=False,
    ),
    # Quantization.
    case(
        qd.dequantize_per_tensor.default,
        "dynamic_rows",
        lambda x: qd.dequantize_per_tensor(
            qd.quantize_per_tensor(x, 0.05, 0, *_INT8), 0.05, 0, *_INT8
        ),
        X,
        dynamic={0: _ROWS},
        build=False,
    ),
    *(
        case(target, "dynamic_rows", _through_int8, X, dynamic={0: _ROWS}, build=False)
        for target in (qd.quantize_per_channel.default, qd.dequantize_per_channel.default)
    ),
    GraphCase(aten.view.default, "dynamic_rows", (floats(2, 6), [-1, 3]), dynamic={0: _ROWS}),
    GraphCase(aten.clone.default, "dynamic_rows", (X,), dynamic={0: _ROWS}),
]

REFUSALS = [
    *(
        refusal(
            target, "dynamic", "only known at run time", function, x, i, dynamic={0: {1: (3, 3, 5)}}
        )
        for target, function, x, i in (
            (
                aten.scatter_reduce.two,
                lambda x, i: x.scatter_reduce(0, i, torch.ones(2, 3), "sum"),
                X,
                torch.zeros(2, 3, dtype=torch.int64),
            ),
            (
                aten.scatter.reduce,
                lambda x, i: aten.scatter.reduce(x, 0, i, torch.ones(2, 3), reduce="add"),
                X,
                torch.zeros(2, 3, dtype=torch.int64),
            ),
            (
                aten.scatter.value_reduce,
                lambda x, i: aten.scatter.value_reduce(x, 0, i, 2.0, reduce="add"),
                X,
                torch.zeros(2, 3, dtype=torch.int64),
            ),
            (
                aten.index_reduce.default,
                lambda x, i: x.index_reduce(0, i, x[:1].repeat(3, 1), "amax"),
                X,
                torch.zeros(3, dtype=torch.int64),
            ),
        )
    ),
    refusal(
        aten._embedding_bag.default,
        "dynamic",
        "only known at run time",
        nn.EmbeddingBag(7, 3, mode="mean"),
        integers(2, 3).abs() % 7,
        dynamic={0: _ROWS},
    ),
]

#: Why there is neither a case with sizes known at run time only nor a refusal of them.
NOT_DYNAMIC: dict[Any, str] = {
    aten._pdist_forward.default: "PyTorch traces it for a known number of rows only",
}


def _all(kind: str) -> list[Any]:
    modules = sorted(p.stem for p in Path(__file__).parent.glob("test_*.py"))
    return [one for name in modules for one in getattr(importlib.import_module(name), kind, ())]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case | GraphCase) -> None:
    case.check()


@pytest.mark.filterwarnings(r"ignore:index_reduce\(\) is in beta:UserWarning")
@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


def test_every_target_is_tested_with_dynamic_sizes_or_refuses_them() -> None:
    tested: list[Case | GraphCase | Refusal] = [*_all("CASES"), *_all("REFUSALS")]
    with_dynamic_sizes = {one.target for one in tested if one.dynamic}
    without = {converter.target for converter in REGISTRY} - with_dynamic_sizes
    assert without == set(NOT_DYNAMIC)

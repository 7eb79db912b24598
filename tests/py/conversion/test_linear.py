from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from operator_case import Case, Refusal, case, each, floats, integers, refusal
from operator_samples import check_samples
from torch import nn

aten = torch.ops.aten
MATMUL = aten.matmul.default

HALF = {"tolerance": 1e-2, "build": False}


def _linear(bias: bool, dtype: torch.dtype = torch.float32) -> nn.Linear:
    layer = nn.Linear(4, 5, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(floats(5, 4, seed=3))
        if bias:
            layer.bias.copy_(floats(5, seed=4))
    return layer.to(dtype)


W, V = floats(5, 4, seed=3), floats(5, seed=4)

CASES = [
    case(aten.linear.default, "bias", _linear(True), floats(3, 4)),
    case(aten.linear.default, "no_bias", _linear(False), floats(3, 4)),
    case(aten.linear.default, "vector", _linear(True), floats(4)),
    case(aten.linear.default, "vector_no_bias", _linear(False), floats(4)),
    case(aten.linear.default, "three_dimensions", _linear(True), floats(2, 3, 4)),
    case(aten.linear.default, "four_dimensions", _linear(True), floats(2, 1, 3, 4)),
    case(aten.linear.default, "half", _linear(True, torch.half), floats(3, 4).half(), **HALF),
    case(aten.linear.default, "weight_is_an_input", F.linear, floats(3, 4), W, V),
    case(
        aten.linear.default,
        "fp16_network",
        _linear(True),
        floats(3, 4),
        tolerance=1e-2,
        options={"enabled_precisions": {torch.float16, torch.float32}},
    ),
    case(
        aten.linear.default,
        "dynamic",
        _linear(True),
        floats(3, 2, 4),
        dynamic={0: {0: (1, 3, 5), 1: (1, 2, 4)}},
    ),
    case(aten.mm.default, "inputs", torch.mm, floats(3, 4), floats(4, 5)),
    case(aten.mm.default, "one_row", torch.mm, floats(1, 4), floats(4, 1)),
    case(aten.mm.default, "transposed", lambda a, b: torch.mm(a, b.t()), floats(3, 4), W),
    case(aten.mm.default, "half", torch.mm, floats(3, 4).half(), floats(4, 5).half(), **HALF),
    case(
        aten.mm.default,
        "dynamic",
        torch.mm,
        floats(3, 4),
        floats(4, 5),
        dynamic={0: {0: (1, 3, 6)}},
    ),
    case(aten.bmm.default, "inputs", torch.bmm, floats(2, 3, 4), floats(2, 4, 5)),
    case(aten.bmm.default, "one_batch", torch.bmm, floats(1, 3, 4), floats(1, 4, 5)),
    case(
        aten.bmm.default,
        "dynamic",
        torch.bmm,
        floats(2, 3, 4),
        floats(2, 4, 5),
        dynamic={0: {0: (1, 2, 4)}, 1: {0: (1, 2, 4)}},
    ),
    case(aten.addmm.default, "vector", torch.addmm, V, floats(3, 4), W.t().contiguous()),
    case(aten.addmm.default, "matrix", torch.addmm, floats(3, 5), floats(3, 4), floats(4, 5)),
    case(aten.addmm.default, "column", torch.addmm, floats(3, 1), floats(3, 4), floats(4, 5)),
    *(
        case(
            aten.addmm.default,
            f"beta_{beta}_alpha_{alpha}",
            lambda c, a, b, beta=beta, alpha=alpha: torch.addmm(c, a, b, beta=beta, alpha=alpha),
            V,
            floats(3, 4),
            floats(4, 5),
        )
        for beta, alpha in ((0.5, 1), (1, -2.5), (-0.5, 3), (0, 1), (0, 2))
    ),
    case(
        aten.addmm.default,
        "beta_0_ignores_nan",
        lambda c, a, b: torch.addmm(c, a, b, beta=0),
        torch.full((5,), torch.nan),
        floats(3, 4),
        floats(4, 5),
    ),
    case(
        aten.addmm.default,
        "half",
        torch.addmm,
        V.half(),
        floats(3, 4).half(),
        floats(4, 5).half(),
        **HALF,
    ),
]

_MATMULS = [
    ((4,), (4,)),
    ((3, 4), (4,)),
    ((4,), (4, 5)),
    ((3, 4), (4, 5)),
    ((2, 3, 4), (4,)),
    ((4,), (2, 4, 5)),
    ((2, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((1, 3, 4), (2, 4, 5)),
    ((6, 1, 3, 4), (2, 4, 5)),
    ((6, 2, 3, 4), (6, 2, 4, 5)),
    ((2, 1, 1, 3, 4), (5, 1, 4, 5)),
]
_BILINEAR = nn.Bilinear(3, 4, 5)
CASES += [
    *(
        case(MATMUL, f"{len(a)}d_{len(b)}d_{i}", torch.matmul, floats(*a), floats(*b, seed=1))
        for i, (a, b) in enumerate(_MATMULS)
    ),
    case(
        MATMUL,
        "dynamic",
        lambda a, b: [a @ b, a.transpose(-1, -2) @ a, a @ a[0, 0, 0]],
        floats(2, 3, 4, 5),
        floats(5, 6),
        dynamic={0: {0: (1, 2, 3), 2: (1, 4, 5)}},
    ),
    case(MATMUL, "half", torch.matmul, floats(2, 3, 4).half(), floats(4, 5).half(), **HALF),
    *(
        case(
            target,
            f"beta_{beta}_alpha_{alpha}",
            lambda c, a, b, f=f, beta=beta, alpha=alpha: f(c, a, b, beta=beta, alpha=alpha),
            *(floats(*shape, seed=seed) for seed, shape in enumerate(shapes)),
            build=beta == 0.5,
        )
        for target, f, shapes in (
            (aten.addbmm.default, torch.addbmm, ((5,), (2, 3, 4), (2, 4, 5))),
            (aten.addmv.default, torch.addmv, ((3,), (3, 4), (4,))),
            (aten.bmm.default, torch.baddbmm, ((3, 1), (2, 3, 4), (2, 4, 5))),
        )
        for beta, alpha in ((1, 1), (0.5, -2.5), (0, 3))
    ),
    case(aten.bilinear.default, "bias", _BILINEAR, floats(2, 6, 3), floats(2, 6, 4)),
    case(
        aten.bilinear.default,
        "no_bias_vector",
        lambda a, b: F.bilinear(a, b, _BILINEAR.weight.detach()),
        floats(3),
        floats(4),
    ),
    case(
        aten.bilinear.default,
        "dynamic",
        _BILINEAR,
        floats(2, 6, 3),
        floats(2, 6, 4),
        dynamic={i: {0: (1, 2, 4)} for i in (0, 1)},
    ),
    *(
        case(target, form, f, *(floats(*s, seed=i) for i, s in enumerate(shapes)), build=False)
        for target, form, f, shapes in (
            (aten.mul.Tensor, "outer", torch.outer, ((3,), (4,))),
            (aten.mul.Tensor, "mv", torch.mv, ((3, 4), (4,))),
            (aten.mul.Tensor, "dot", torch.dot, ((4,), (4,))),
            (
                aten.mm.default,
                "tensordot",
                lambda a, b: torch.tensordot(a, b, 2),
                ((2, 3, 4), (3, 4, 5)),
            ),
            (
                aten.bmm.default,
                "einsum_bij_bkj_bik",
                lambda a, b: torch.einsum("bij,bkj->bik", a, b),
                ((2, 3, 4), (2, 5, 4)),
            ),
            (
                aten.bmm.default,
                "einsum_heads",
                lambda a, b: torch.einsum("bqhd,bkhd->bhqk", a, b),
                ((2, 3, 4, 5), (2, 6, 4, 5)),
            ),
        )
    ),
]

_INTEGERS = "matrices of floats"
REFUSALS = [
    refusal(MATMUL, "int64", _INTEGERS, torch.matmul, integers(2, 3), integers(3, 2)),
    refusal(
        aten.addbmm.default,
        "int64",
        _INTEGERS,
        torch.addbmm,
        integers(2),
        integers(3, 2, 3),
        integers(3, 3, 2),
    ),
    refusal(
        aten.addmv.default,
        "int64",
        _INTEGERS,
        torch.addmv,
        integers(2),
        integers(2, 3),
        integers(3),
    ),
    refusal(aten.mm.default, "int64", _INTEGERS, torch.mm, integers(2, 3), integers(3, 2)),
    refusal(aten.bmm.default, "int64", _INTEGERS, torch.bmm, integers(2, 2, 3), integers(2, 3, 2)),
    refusal(
        aten.addmm.default,
        "int64",
        _INTEGERS,
        torch.addmm,
        integers(2),
        integers(2, 3),
        integers(3, 2),
    ),
    refusal(aten.linear.default, "int64", _INTEGERS, F.linear, integers(2, 3), integers(4, 3)),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


_SAMPLED = (
    "matmul",
    "__rmatmul__",
    "mm",
    "bmm",
    "baddbmm",
    "addmm",
    "addmv",
    "mv",
    "outer",
    "einsum",
    "tensordot",
    "inner",
    "addr",
    "kron",
    "linalg.multi_dot",
    "linalg.vecdot",
    "nn.functional.linear",
    "nn.functional.bilinear",
)


@pytest.mark.parametrize("name", _SAMPLED)
def test_computes_the_samples_of_pytorch(name: str) -> None:
    check_samples(name, torch.float32, most=8)

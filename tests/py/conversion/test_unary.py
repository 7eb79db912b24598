from __future__ import annotations

from collections.abc import Callable

import torch
from operator_case import Case, booleans, case, each, floats, integers, positive
from operator_samples import check_samples, each_sample

aten = torch.ops.aten

HALF = {"tolerance": 2e-3, "build": False}

_FLOATING = {
    aten.exp.default: torch.exp,
    aten.sin.default: torch.sin,
    aten.cos.default: torch.cos,
    aten.erf.default: torch.erf,
    aten.abs.default: torch.abs,
    aten.neg.default: torch.neg,
    aten.floor.default: torch.floor,
    aten.ceil.default: torch.ceil,
    aten.reciprocal.default: torch.reciprocal,
    aten.sign.default: torch.sign,
    aten.tan.default: torch.tan,
    aten.atan.default: torch.atan,
    aten.sinh.default: torch.sinh,
    aten.cosh.default: torch.cosh,
    aten.asinh.default: torch.asinh,
    aten.round.default: torch.round,
    aten.trunc.default: torch.trunc,
    aten.exp2.default: torch.exp2,
    aten.expm1.default: torch.expm1,
}
_OF_POSITIVE = {
    aten.log.default: torch.log,
    aten.sqrt.default: torch.sqrt,
    aten.rsqrt.default: torch.rsqrt,
    aten.log2.default: torch.log2,
    aten.log10.default: torch.log10,
    aten.log1p.default: torch.log1p,
}
_OF_FRACTIONS = {
    aten.asin.default: torch.asin,
    aten.acos.default: torch.acos,
    aten.atanh.default: torch.atanh,
}
_ALL = _FLOATING | _OF_POSITIVE
_TRUTHS = {
    aten.isnan.default: torch.isnan,
    aten.isinf.default: torch.isinf,
    aten.isfinite.default: torch.isfinite,
}
_OF_BFLOAT16 = (torch.tan, torch.atan, torch.sinh, torch.cosh, torch.asinh, torch.expm1)
_KEEPING_INTEGERS = (
    aten.abs.default,
    aten.neg.default,
    aten.floor.default,
    aten.ceil.default,
    aten.sign.default,
    aten.round.default,
    aten.trunc.default,
)
HALVES = torch.tensor([-1.5, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 1.5, 2.5])

SPECIAL = torch.tensor([-torch.inf, -2.5, -0.0, 0.0, 0.1, 7.0, torch.inf, torch.nan])
_SAMPLED = [
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "ceil",
    "cos",
    "cosh",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "isinf",
    "isnan",
    "log",
    "log10",
    "log1p",
    "log2",
    "logit",
    "neg",
    "reciprocal",
    "round",
    "rsqrt",
    "sgn",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "trunc",
]


def _near_zero() -> torch.Tensor:
    sizes = torch.logspace(-9, 1, 200)
    return torch.cat([sizes, -sizes * 0.0999])  # above -1


def _per_unit(f: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """So that the absolute tolerance is a relative one."""
    return lambda x: f(x) / x


CASES = [
    *(case(target, "signed", f, floats(2, 3, 4) * 2) for target, f in _FLOATING.items()),
    *(case(target, "positive", f, positive(2, 3, 4)) for target, f in _OF_POSITIVE.items()),
    *(case(target, "half", f, positive(2, 3).half(), **HALF) for target, f in _ALL.items()),
    *(case(target, "no_dimension", f, positive()) for target, f in _ALL.items()),
    *(
        case(target, "integers", f, integers(2, 3).abs() + 1, build=target in _KEEPING_INTEGERS)
        for target, f in _ALL.items()
    ),
    *(
        case(target, "signed_integers", _ALL[target], integers(2, 3))
        for target in _KEEPING_INTEGERS
    ),
    case(aten.abs.default, "int32", torch.abs, integers(9, dtype=torch.int32)),
    case(aten.floor.default, "ties", torch.floor, HALVES),
    case(aten.ceil.default, "ties", torch.ceil, HALVES),
    case(aten.reciprocal.default, "zeros", torch.reciprocal, torch.tensor([0.0, -0.0, 2.0])),
    case(aten.log.default, "zero", torch.log, torch.tensor([0.0, 1.0])),
    case(aten.rsqrt.default, "zero", torch.rsqrt, torch.tensor([0.0, 4.0])),
    case(aten.exp.default, "bool", torch.exp, floats(9) > 0, build=False),
    case(aten.exp.default, "dynamic", torch.exp, floats(2, 3), dynamic={0: {1: (1, 3, 6)}}),
    *(
        case(target, "fractions", f, torch.tensor([-1.0, -0.9, -0.1, -0.0, 0.3, 0.99, 1.0]))
        for target, f in _OF_FRACTIONS.items()
    ),
    *(
        case(target, "half", f, torch.tensor([-0.9, -0.1, 0.3]).half(), **HALF)
        for target, f in _OF_FRACTIONS.items()
    ),
    case(aten.acosh.default, "from_1_on", torch.acosh, positive(2, 3) + 0.9),
    case(aten.acosh.default, "half", torch.acosh, (positive(2, 3) + 0.9).half(), **HALF),
    case(aten.acosh.default, "below_1", torch.acosh, torch.tensor([0.5, -1.0]), build=False),
    case(
        aten.tan.default,
        "bfloat16",
        lambda x: [f(x) for f in _OF_BFLOAT16],
        floats(2, 3).bfloat16(),
        tolerance=1e-2,
    ),
    *(case(target, "special", f, SPECIAL) for target, f in _TRUTHS.items()),
    *(case(target, "half", f, SPECIAL.half(), build=False) for target, f in _TRUTHS.items()),
    *(case(target, "bfloat16", f, SPECIAL.bfloat16()) for target, f in _TRUTHS.items()),
    *(case(target, "int64", f, integers(5), build=False) for target, f in _TRUTHS.items()),
    *(case(target, "bool", f, booleans(5), build=False) for target, f in _TRUTHS.items()),
    case(aten.round.default, "ties_to_even", torch.round, torch.arange(-12, 12) / 4),
    case(aten.trunc.default, "ties", torch.trunc, torch.arange(-12, 12) / 4),
    case(aten.trunc.default, "special", torch.trunc, SPECIAL, build=False),
    case(aten.sign.default, "bool", torch.sign, booleans(5), build=False),
    case(aten.sign.default, "zeros", torch.sgn, torch.tensor([0.0, -0.0, 1e-30, -1e-30])),
    case(aten.sign.default, "frac", torch.frac, floats(9) * 4, build=False),
    case(aten.pow.Tensor_Scalar, "square", torch.square, floats(9), build=False),
    *(
        case(
            aten.round.decimals,
            f"decimals_{decimals}",
            lambda x, decimals=decimals: torch.round(x, decimals=decimals),
            floats(2, 9) * 40,
            build=decimals == 2,
        )
        for decimals in (-2, -1, 0, 1, 2, 3)
    ),
    *(
        case(target, "near_0", f, _near_zero(), tolerance=1e-6, build=False)
        for target, f in (
            (aten.expm1.default, _per_unit(torch.expm1)),
            (aten.log1p.default, _per_unit(torch.log1p)),
        )
    ),
    case(aten.expm1.default, "special", torch.expm1, SPECIAL, build=False),
    case(aten.expm1.default, "large", torch.expm1, torch.tensor([-200.0, 80.0, 200.0])),
    case(aten.log1p.default, "special", torch.log1p, SPECIAL, build=False),
    case(aten.log1p.default, "below_minus_1", torch.log1p, torch.tensor([-1.0, -2.0, 1e30])),
    case(aten.log1p.default, "dynamic", torch.log1p, positive(2, 3), dynamic={0: {0: (1, 2, 4)}}),
    case(aten.trunc.default, "dynamic", torch.trunc, floats(2, 3), dynamic={0: {0: (1, 2, 4)}}),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each_sample(
    [
        *((name, (torch.float32, torch.int64)) for name in _SAMPLED),
        ("isfinite", (torch.float32, torch.bool)),
        ("frac", (torch.float32,)),
        ("nan_to_num", (torch.float32,)),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: tuple[str, ...]) -> None:
    check_samples(name, dtype, most=2, refused=refused)

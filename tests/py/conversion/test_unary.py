from __future__ import annotations

import torch
from operator_case import Case, case, each, floats, integers, positive

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
}
_OF_POSITIVE = {
    aten.log.default: torch.log,
    aten.sqrt.default: torch.sqrt,
    aten.rsqrt.default: torch.rsqrt,
}
_ALL = _FLOATING | _OF_POSITIVE
_KEEPING_INTEGERS = (
    aten.abs.default,
    aten.neg.default,
    aten.floor.default,
    aten.ceil.default,
)
HALVES = torch.tensor([-1.5, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 1.5, 2.5])

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
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()

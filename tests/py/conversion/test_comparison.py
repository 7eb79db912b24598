from __future__ import annotations

import torch
from operator_case import Case, Refusal, booleans, case, each, floats, integers, refusal

aten = torch.ops.aten

A = torch.tensor([-1.0, 0.0, 1.0, 2.0, torch.nan, torch.inf])
B = torch.tensor([0.0, 0.0, 1.5, torch.nan, torch.nan, -torch.inf])
_COMPARISONS = {
    aten.eq: torch.eq,
    aten.ne: torch.ne,
    aten.lt: torch.lt,
    aten.le: torch.le,
    aten.gt: torch.gt,
    aten.ge: torch.ge,
}
_LOGICAL = {
    aten.logical_and.default: torch.logical_and,
    aten.logical_or.default: torch.logical_or,
    aten.logical_xor.default: torch.logical_xor,
}
_BITWISE = {
    aten.bitwise_and.Tensor: torch.bitwise_and,
    aten.bitwise_or.Tensor: torch.bitwise_or,
    aten.bitwise_xor.Tensor: torch.bitwise_xor,
}

CASES = [
    *(case(packet.Tensor, "nan", f, A, B) for packet, f in _COMPARISONS.items()),
    *(
        case(packet.Tensor, "broadcasts", f, integers(3, 1), integers(4))
        for packet, f in _COMPARISONS.items()
    ),
    *(
        case(packet.Tensor, "int64_and_float", f, integers(2, 3), floats(3), build=False)
        for packet, f in _COMPARISONS.items()
    ),
    *(
        case(packet.Tensor, "bool", f, booleans(9), booleans(9, seed=1), build=False)
        for packet, f in _COMPARISONS.items()
    ),
    *(
        case(packet.Scalar, "float", lambda x, f=f: f(x, 1.0), A)
        for packet, f in _COMPARISONS.items()
    ),
    *(
        case(packet.Scalar, "int64_half", lambda x, f=f: f(x, 0.5), integers(2, 9), build=False)
        for packet, f in _COMPARISONS.items()
    ),
    case(aten.gt.Scalar, "dynamic", lambda x: x > 0, floats(2, 3), dynamic={0: {0: (1, 2, 4)}}),
    case(aten.gt.Scalar, "half", lambda x: x > 0, floats(2, 3).half()),
    *(
        case(t, "bool", f, booleans(2, 9), booleans(9, seed=1))
        for t, f in (_LOGICAL | _BITWISE).items()
    ),
    *(case(t, "numbers", f, integers(2, 9), A[:1]) for t, f in _LOGICAL.items()),
    case(aten.logical_not.default, "bool", torch.logical_not, booleans(9)),
    case(aten.logical_not.default, "float", torch.logical_not, A),
    case(aten.bitwise_not.default, "bool", lambda x: ~x, booleans(9)),
    case(
        aten.where.self, "inputs", torch.where, booleans(2, 3), floats(2, 3), floats(2, 3, seed=1)
    ),
    case(aten.where.self, "broadcasts", torch.where, booleans(3), floats(2, 1), floats()),
    case(aten.where.self, "int64_and_float", torch.where, booleans(3), integers(3), floats(3)),
    case(aten.where.self, "int64", torch.where, booleans(3), integers(3), integers(3, seed=1)),
    case(
        aten.where.self, "bool", torch.where, booleans(9), booleans(9, seed=1), booleans(9, seed=2)
    ),
    case(
        aten.where.self,
        "half",
        torch.where,
        booleans(3),
        floats(3).half(),
        floats(3, seed=1).half(),
    ),
    case(
        aten.where.self,
        "computed",
        lambda x: torch.where(x > 0, x, x * 2),
        floats(2, 3),
        dynamic={0: {0: (1, 2, 4)}},
    ),
]

_NUMBERS = "no bitwise operations on torch.int64"
REFUSALS = [
    *(refusal(t, "int64", _NUMBERS, f, integers(3), integers(3)) for t, f in _BITWISE.items()),
    refusal(aten.bitwise_not.default, "int64", _NUMBERS, torch.bitwise_not, integers(3)),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()

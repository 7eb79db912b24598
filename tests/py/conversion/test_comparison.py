from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from operator_case import (
    Case,
    GraphCase,
    Refusal,
    booleans,
    case,
    each,
    floats,
    integers,
    refusal,
)
from operator_samples import check_samples, each_sample

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

_BITWISE_OF_NUMBERS = {
    form: packet
    for packet in (aten.bitwise_and, aten.bitwise_or, aten.bitwise_xor)
    for form in (packet.Scalar, packet.Scalar_Tensor)
}
#: Neighbours that FP32 does not tell apart.
LARGE = torch.tensor([2**40, 2**40 + 1, -(2**40), -(2**40) - 1])

_SOME = torch.tensor([True, False, True, True, False, False, True, False, True])


def _with_constant(function: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return function(x > 0, _SOME) ^ function(_SOME, x < 0.5)


CASES: list[Case | GraphCase] = [
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
    case(aten.bitwise_not.default, "int64", torch.bitwise_not, torch.cat([integers(9), LARGE])),
    case(aten.bitwise_not.default, "int32", torch.bitwise_not, integers(9, dtype=torch.int32)),
    *(
        case(packet.Tensor, "large_int64", f, LARGE[:, None], LARGE, build=False)
        for packet, f in _COMPARISONS.items()
    ),
    *(
        case(packet.Tensor, "bool_and_int64", f, booleans(3, 1), integers(9), build=False)
        for packet, f in _COMPARISONS.items()
    ),
    *(
        case(
            packet.Tensor,
            "int32_and_int64",
            f,
            integers(3, 1, dtype=torch.int32),
            integers(9),
            build=False,
        )
        for packet, f in _COMPARISONS.items()
    ),
    *(
        case(packet.Scalar, "bool", lambda x, f=f: f(x, True), booleans(9), build=False)
        for packet, f in _COMPARISONS.items()
    ),
    *(
        GraphCase(
            t,
            str(number),
            (number, booleans(9)) if "Scalar_Tensor" in str(t) else (booleans(9), number),
            build=number,
        )
        for t in _BITWISE_OF_NUMBERS
        for number in (False, True)
    ),
    *(
        case(target, "constant", partial(_with_constant, function), floats(2, 9))
        for target, function in (
            (aten.logical_and.default, torch.logical_and),
            (aten.logical_or.default, torch.logical_or),
            (aten.logical_xor.default, torch.logical_xor),
        )
    ),
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

CASES += [
    case(
        aten.where.self,
        f"scalars_{str(x.dtype).removeprefix('torch.')}",
        lambda c, x: [
            torch.where(c, x, 0),
            torch.where(c, 1, x),
            x.masked_fill(c, -2),
            torch.where(c, 0.5, x),
        ],
        booleans(3),
        x,
        build=False,
    )
    for x in (floats(2, 3), integers(2, 3), integers(2, 3, dtype=torch.int32), booleans(2, 3))
]

_NUMBERS = "no bitwise operations on torch.int64"
REFUSALS = [
    *(refusal(t, "int64", _NUMBERS, f, integers(3), integers(3)) for t, f in _BITWISE.items()),
    refusal(
        aten.bitwise_and.Scalar, "int64", _NUMBERS, lambda x: torch.bitwise_and(x, 3), integers(3)
    ),
    refusal(
        aten.bitwise_or.Scalar_Tensor,
        "int64",
        _NUMBERS,
        lambda x: torch.bitwise_or(3, x),
        integers(3),
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case | GraphCase) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


_COMPARED = ("eq", "ne", "lt", "le", "gt", "ge")
_LOGIC = ("logical_and", "logical_or", "logical_xor", "logical_not")


@each_sample(
    [
        *((name, (torch.float32, torch.int64, torch.bool)) for name in (*_COMPARED, *_LOGIC)),
        *((name, (torch.bool,)) for name in ("bitwise_and", "bitwise_or", "bitwise_xor")),
        ("bitwise_not", (torch.int64, torch.bool)),
        ("where", (torch.float32, torch.int64, torch.bool)),
        ("masked_fill", (torch.float32, torch.bool)),
        ("isclose", (torch.float32,)),
        ("heaviside", (torch.float32, torch.int64)),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: tuple[str, ...]) -> None:
    check_samples(name, dtype, most=2, refused=refused)

from __future__ import annotations

import torch
from operator_case import Case, case, each, floats, integers
from operator_samples import check_samples, each_sample

aten = torch.ops.aten

HALF = {"tolerance": 2e-3, "build": False}
SPECIAL = torch.tensor(
    [-torch.inf, -7.0, -1.0, -0.0, 0.0, 0.1, 1.0, 6.5, 7.0, torch.inf, torch.nan]
)
#: Nearly multiples of these, where a quotient that is rounded is a wrong whole number.
DIVISORS = torch.tensor([0.1, 0.3, -0.7, torch.pi, 1e-3])
MULTIPLES = (torch.arange(-60, 60)[:, None] * DIVISORS).flatten()[:, None]
WIDE = torch.tensor([1e-30, -3e-20, 2.5e4, -7e15, 3e29, -1e33])
ODD = integers(9, seed=1) * 2 + 1
BY_ROW = SPECIAL[:, None]


def _floor(x: torch.Tensor, y: torch.Tensor | float) -> torch.Tensor:
    return torch.div(x, y, rounding_mode="floor")


def _trunc(x: torch.Tensor, y: torch.Tensor | float) -> torch.Tensor:
    return torch.div(x, y, rounding_mode="trunc")


_MODES = {"floor": _floor, "trunc": _trunc}
_RESTS = {aten.fmod: torch.fmod, aten.remainder: torch.remainder}
_OF_SIGNS = {
    aten.atan2.default: torch.atan2,
    aten.hypot.default: torch.hypot,
    aten.copysign.Tensor: torch.copysign,
}

CASES = [
    *(
        case(aten.div.Tensor_mode, f"{mode}_{form}", f, *inputs, **fields)
        for mode, f in _MODES.items()
        for form, inputs, fields in (
            ("signed", (floats(9, 20) * 9, floats(20, seed=1)), {}),
            ("special", (BY_ROW, SPECIAL), {"build": False}),
            ("multiples", (MULTIPLES, DIVISORS), {"build": False}),
            ("wide", (WIDE[:, None], WIDE * 1.5), {"build": False}),
            ("int64", (integers(8, 9), ODD), {}),
            ("int32", (integers(8, 9, dtype=torch.int32), ODD.int()), {"build": False}),
            ("int64_and_float", (integers(8, 1), floats(9)), {"build": False}),
            ("half", (floats(9, 20).half() * 9, floats(20, seed=1).half()), HALF),
            ("no_dimension", (floats(), floats(seed=1)), {"build": False}),
            (
                "dynamic",
                (floats(2, 3) * 9, floats(3)),
                {"dynamic": {0: {0: (1, 2, 5)}}},
            ),
        )
    ),
    *(
        case(aten.div.Tensor_mode, f"{mode}_scalar", lambda x, f=f: [f(x, -3), f(x, 2.5)], x)
        for mode, f in _MODES.items()
        for x in (floats(2, 3) * 9,)
    ),
    case(aten.div.Tensor_mode, "floor_divide", lambda x: [x // 2, x // -3, 20 // x], ODD),
    case(aten.div.Tensor_mode, "floor_large_int64", _floor, -(2**40) - ODD, ODD, build=False),
    *(
        case(
            aten.div.Scalar_mode,
            f"{mode}_{form}",
            lambda x, mode=mode: aten.div.Scalar_mode(x, 4, rounding_mode=mode),
            x,
            build=mode == "floor",
        )
        for mode in ("floor", "trunc", None)
        for form, x in (("float", floats(2, 3) * 9), ("int64", integers(2, 9)))
    ),
    *(
        case(packet.Tensor, form, f, *inputs, **fields)
        for packet, f in _RESTS.items()
        for form, inputs, fields in (
            ("signed", (floats(9, 20) * 9, floats(20, seed=1)), {}),
            ("special", (BY_ROW, SPECIAL), {"build": False}),
            ("multiples", (MULTIPLES, DIVISORS), {"tolerance": 1e-7, "build": False}),
            (
                "infinite_divisor",
                (WIDE[:, None], torch.tensor([torch.inf, 3e38])),
                {"build": False},
            ),
            ("int64", (integers(8, 9), ODD), {}),
            ("large_int64", (-(2**40) - ODD, ODD), {"build": False}),
            ("int32", (integers(8, 9, dtype=torch.int32), ODD.int()), {"build": False}),
            ("half", (floats(9, 20).half() * 9, floats(20, seed=1).half()), HALF),
            ("no_dimension", (floats(), floats(seed=1)), {"build": False}),
            ("dynamic", (floats(2, 3) * 9, floats(3)), {"dynamic": {0: {0: (1, 2, 5)}}}),
        )
    ),
    *(
        case(packet.Scalar, form, lambda x, f=f: [f(x, -3), f(x, 2.5)], x)
        for packet, f in _RESTS.items()
        for form, x in (("float", floats(2, 9) * 9), ("int64", integers(2, 9)))
    ),
    case(aten.remainder.Scalar_Tensor, "int64", lambda x: 20 % x, ODD),
    case(aten.remainder.Scalar_Tensor, "float", lambda x: torch.remainder(-7.5, x), floats(9)),
    *(
        case(target, form, f, *inputs, **fields)
        for target, f in _OF_SIGNS.items()
        for form, inputs, fields in (
            ("signed", (floats(9, 1), floats(20, seed=1)), {}),
            ("special", (BY_ROW, SPECIAL[:-1]), {"build": False}),
            ("half", (floats(9, 1).half(), floats(20, seed=1).half()), HALF),
            ("no_dimension", (floats(), floats(seed=1)), {"build": False}),
            ("dynamic", (floats(2, 3), floats(3)), {"dynamic": {0: {0: (1, 2, 5)}}}),
        )
    ),
    *(
        case(target, "nan", _OF_SIGNS[target], SPECIAL, SPECIAL[-1:], build=False)
        for target in (aten.atan2.default, aten.hypot.default)
    ),
    case(aten.atan2.default, "integers", torch.atan2, integers(9, 1), integers(9), build=False),
    case(aten.hypot.default, "large", torch.hypot, torch.tensor([3e30]), torch.tensor([-4e30])),
    case(aten.copysign.Scalar, "both_signs", lambda x: [x.copysign(-2), x.copysign(0.0)], SPECIAL),
    case(aten.signbit.default, "special", torch.signbit, SPECIAL),
    case(aten.signbit.default, "int64", torch.signbit, integers(9), build=False),
    case(aten.signbit.default, "half", torch.signbit, SPECIAL.half(), build=False),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


_NUMBERS = (torch.float32, torch.int64)


@each_sample(
    [
        *((name, _NUMBERS) for name in ("div", "floor_divide", "fmod", "remainder")),
        *((name, _NUMBERS) for name in ("atan2", "copysign")),
        ("hypot", (torch.float32,)),
        ("__rmod__", (torch.float32,)),
        ("signbit", (torch.float32, torch.bool)),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: tuple[str, ...]) -> None:
    check_samples(name, dtype, most=2, refused=refused)

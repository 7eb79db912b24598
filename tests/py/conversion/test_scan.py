from __future__ import annotations

import torch
from operator_case import Case, Refusal, booleans, case, each, floats, integers, refusal
from operator_samples import check_samples, each_sample

aten = torch.ops.aten

_SCANS = {aten.cumsum.default: torch.cumsum, aten.cumprod.default: torch.cumprod}
_EXTREMES = {aten.cummax.default: torch.cummax, aten.cummin.default: torch.cummin}
LOG = aten.logcumsumexp.default

# Numbers and infinities before and after NaN, and equal ones.
_ODD = torch.tensor(
    [
        [1.0, torch.nan, 2.0, torch.nan, 5.0],
        [torch.inf, 1.0, torch.inf, -torch.inf, 2.0],
        [-torch.inf, -torch.inf, -3.0, -3.0, -torch.inf],
        [2.0, 2.0, 1.0, 1.0, torch.inf],
    ]
)

CASES = [
    *(
        case(target, form, lambda x, f=f: [f(x, 0), f(x, 1), f(x, -1)], x, **fields)
        for target, f in _SCANS.items()
        for form, x, fields in (
            ("dims", floats(3, 9, 4), {}),
            ("int64", integers(2, 7), {}),
            ("large_int64", 2**40 + integers(2, 3), {"build": False}),
            ("int32", integers(3, 4, dtype=torch.int32), {"build": False}),
            ("bool", booleans(3, 4), {}),
            ("half", floats(3, 8).half(), {"tolerance": 2e-3, "build": False}),
            ("one_element", floats(1, 1), {"build": False}),
            ("nan", torch.tensor([[1.0, torch.nan, 2.0], [torch.inf, 1.0, 2.0]]), {"build": False}),
            ("dynamic", floats(2, 3), {"dynamic": {0: {0: (1, 2, 5), 1: (1, 3, 17)}}}),
        )
    ),
    *(
        case(target, "no_dimension", lambda x, f=f: f(x, 0), floats())
        for target, f in _SCANS.items()
    ),
    *(
        case(target, "dtype", lambda x, f=f: f(x, 0, dtype=torch.float32), integers(7), build=False)
        for target, f in _SCANS.items()
    ),
    # In FP16 a running sum would stop at 2048.
    case(aten.cumsum.default, "half_many", lambda x: x.cumsum(0), torch.ones(3000).half()),
    case(
        aten.cumsum.default,
        "fp16",
        lambda x: x.cumsum(0),
        torch.ones(3000),
        options={"enabled_precisions": {torch.float32, torch.float16}},
        build=False,
    ),
]

CASES += [
    *(
        case(target, form, lambda x, f=f: [*f(x, 0), *f(x, 1), *f(x, -1)], x, **fields)
        for target, f in _EXTREMES.items()
        for form, x, fields in (
            ("dims", floats(3, 9, 4), {}),
            ("int64", integers(2, 7), {}),
            ("large_int64", 2**40 + integers(2, 3), {"build": False}),
            ("int32", integers(3, 4, dtype=torch.int32), {"build": False}),
            ("bool", booleans(3, 4), {"build": False}),
            ("half", floats(3, 8).half(), {"build": False}),
            ("bfloat16", floats(3, 8).bfloat16(), {"build": False}),
            ("odd", _ODD, {"build": False}),
            ("dynamic", floats(2, 3), {"dynamic": {0: {0: (1, 2, 5), 1: (1, 3, 17)}}}),
        )
    ),
    *(
        case(target, "no_dimension", lambda x, f=f: f(x, 0), floats(), build=False)
        for target, f in _EXTREMES.items()
    ),
    *(
        case(LOG, form, lambda x: [x.logcumsumexp(0), x.logcumsumexp(-1)], x, **fields)
        for form, x, fields in (
            ("dims", floats(3, 9) * 5, {}),
            ("large", floats(3, 9) * 300, {"build": False}),
            ("half", floats(3, 8).half(), {"tolerance": 4e-3, "build": False}),
            ("odd", _ODD, {"build": False}),
            ("dynamic", floats(2, 3), {"dynamic": {0: {0: (1, 2, 5), 1: (1, 3, 17)}}}),
        )
    ),
    case(LOG, "no_dimension", lambda x: x.logcumsumexp(0), floats(), build=False),
]

REFUSALS = [
    refusal(
        target,
        "long",
        "more than 1048576",
        lambda x, f=f: f(x, 0),
        torch.ones(8),
        dynamic={0: {0: (1, 8, 2**20 + 1)}},
    )
    for target, f in (_SCANS | _EXTREMES | {LOG: torch.logcumsumexp}).items()
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@each_sample(
    [
        *(
            (name, (torch.float32, torch.int64))
            for name in ("cumsum", "cumprod", "cummax", "cummin")
        ),
        ("logcumsumexp", (torch.float32,)),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: tuple[str, ...]) -> None:
    check_samples(name, dtype, most=4, refused=refused)

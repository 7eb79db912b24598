from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from operator_case import Case, booleans, case, each, floats, integers
from operator_samples import check_samples, each_sample

aten = torch.ops.aten

#: The first of equal values, and of NaN, counts; the last row has no number.
TIES = torch.tensor(
    [
        [1.0, 3.0, 3.0, -2.0, -2.0],
        [torch.inf, torch.inf, 0.0, -torch.inf, -torch.inf],
        [5.0, torch.nan, 9.0, torch.nan, -9.0],
        [torch.nan] * 5,
    ]
)
_OF_DIM = {aten.max.dim: torch.max, aten.min.dim: torch.min}
_ARGUMENT = {aten.argmax.default: torch.argmax, aten.argmin.default: torch.argmin}


def _dims(f: Callable[..., Any]) -> Callable[[torch.Tensor], list[Any]]:
    return lambda x: [f(x, 0), f(x, 1, keepdim=True), f(x, -1), f(x, -2, keepdim=True)]


def _without_dim(f: Callable[..., Any]) -> Callable[[torch.Tensor], list[Any]]:
    return lambda x: [f(x), f(x, keepdim=True)]


CASES = [
    *(
        case(target, form, _dims(f), x, **fields)
        for target, f in (_OF_DIM | _ARGUMENT).items()
        for form, x, fields in (
            ("dims", floats(3, 4, 5), {}),
            ("ties", TIES, {"build": False}),
            ("int64", integers(4, 9), {}),
            ("int64_equal", torch.zeros(3, 4, dtype=torch.int64), {"build": False}),
            ("large_int64", 2**40 + integers(3, 5), {"build": False}),
            ("int32", integers(3, 4, dtype=torch.int32), {"build": False}),
            ("half", floats(3, 4).half(), {"build": False}),
            ("dynamic", floats(2, 3), {"dynamic": {0: {0: (1, 2, 5), 1: (1, 3, 4)}}}),
        )
    ),
    *(case(target, "bool", _dims(f), booleans(3, 9), build=False) for target, f in _OF_DIM.items()),
    *(
        case(target, "no_dimension", lambda x, f=f: f(x, 0), floats())
        for target, f in _OF_DIM.items()
    ),
    *(
        case(target, form, _without_dim(f), x, **fields)
        for target, f in _ARGUMENT.items()
        for form, x, fields in (
            ("all", floats(3, 4, 5), {}),
            ("all_ties", TIES, {"build": False}),
            ("all_dynamic", floats(2, 3), {"dynamic": {0: {0: (1, 2, 5)}}}),
            ("no_dimension", floats(), {"build": False}),
        )
    ),
    case(aten.max.dim, "values_alone", lambda x: x.max(1).values, TIES, build=False),
    case(aten.max.dim, "indices_alone", lambda x: x.max(1).indices, TIES, build=False),
    case(aten.argmax.default, "bfloat16", lambda x: x.argmax(1), floats(3, 4).bfloat16()),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each_sample(
    [
        ("argmax", (torch.float32, torch.int64)),
        ("argmin", (torch.float32, torch.int64)),
        ("max", (torch.float32, torch.int64, torch.bool)),
        ("min", (torch.float32, torch.int64, torch.bool)),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: tuple[str, ...]) -> None:
    check_samples(name, dtype, most=4, refused=refused)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from operator_case import Case, Refusal, booleans, case, each, floats, integers, refusal
from operator_samples import check_samples, each_sample

pytestmark = pytest.mark.filterwarnings(
    "ignore:The reduce argument of torch.scatter with Tensor src is deprecated:UserWarning",
    r"ignore:index_reduce\(\) is in beta:UserWarning",
)
aten = torch.ops.aten

X = floats(4, 3, 5)
SOURCE = floats(4, 6, 5, seed=1)
#: Names some places more than once and some not at all.
PLACES = integers(4, 6, 5).abs() % 2
ROWS = torch.tensor([1, 2, 1, 1, 0, 2])


def _scatter_reduce(reduce: str) -> Callable[..., list[Any]]:
    return lambda x, i, s: [
        x.scatter_reduce(1, i, s, reduce),
        x.scatter_reduce(-2, i, s, reduce, include_self=False),
    ]


def _index_reduce(reduce: str) -> Callable[..., list[Any]]:
    return lambda x, i, s: [
        x.index_reduce(1, i, s, reduce),
        x.index_reduce(1, i % 2, s, reduce, include_self=False),
    ]


CASES = [
    case(
        aten.scatter_add.default,
        "dims",
        lambda x, i, s: [
            x.scatter_add(1, i, s),
            x.scatter_add(0, i[:, :3], s),
            x.scatter_add(-1, i[:2, :3, :1], s),
        ],
        X,
        PLACES,
        SOURCE,
    ),
    case(
        aten.scatter_add.default,
        "no_dimension",
        lambda x, i: x.scatter_add(0, i, x),
        floats(),
        torch.tensor(0),
    ),
    case(
        aten.scatter_add.default,
        "special_values",
        lambda x, i: torch.zeros_like(x).scatter_add(0, i, x),
        torch.tensor([torch.inf, 1.0, torch.nan, -torch.inf]),
        torch.tensor([0, 1, 2, 3]),
    ),
    case(aten.scatter_add.default, "int64", lambda x, i: x.scatter_add(0, i, x), integers(6), ROWS),
    case(
        aten.scatter_add.default,
        "int32",
        lambda x, i: x.scatter_add(0, i, x),
        integers(6, dtype=torch.int32),
        ROWS,
        build=False,
    ),
    case(
        aten.scatter_add.default,
        "half",
        lambda x, i: x.scatter_add(0, i, x),
        floats(6).half(),
        ROWS,
        tolerance=2e-3,
    ),
    *(
        case(aten.scatter_reduce.two, reduce, _scatter_reduce(reduce), X, PLACES, SOURCE)
        for reduce in ("sum", "prod", "mean", "amax", "amin")
    ),
    *(
        case(
            aten.scatter_reduce.two,
            f"{reduce}_int64",
            _scatter_reduce(reduce),
            integers(4, 3, 5),
            PLACES,
            integers(4, 6, 5, seed=1),
            build=False,
        )
        for reduce in ("sum", "prod", "amax", "amin")
    ),
    case(
        aten.scatter.reduce,
        "reductions",
        lambda x, i, s: [x.scatter(1, i, s, reduce="add"), x.scatter(1, i, s, reduce="multiply")],
        X,
        PLACES,
        SOURCE,
    ),
    case(
        aten.scatter.value_reduce,
        "reductions",
        lambda x, i: [x.scatter(1, i, -2.5, reduce="add"), x.scatter(1, i, 3, reduce="multiply")],
        X,
        PLACES,
    ),
    *(
        case(aten.index_reduce.default, reduce, _index_reduce(reduce), X, ROWS, SOURCE)
        for reduce in ("prod", "mean", "amax", "amin")
    ),
]

_DYNAMIC = {0: {0: (1, 4, 6)}, 1: {0: (1, 4, 6)}, 2: {0: (1, 4, 6)}}
REFUSALS = [
    refusal(
        aten.scatter_add.default,
        "dynamic",
        "only known at run time",
        lambda x, i, s: x.scatter_add(1, i, s),
        X,
        PLACES,
        SOURCE,
        dynamic=_DYNAMIC,
    ),
    refusal(
        aten.scatter_add.default,
        "too_large",
        "too much memory",
        lambda x, i: x.scatter_add(0, i, x),
        floats(5000),
        torch.arange(5000),
    ),
    refusal(
        aten.scatter_add.default,
        "bool",
        "no bools",
        lambda x, i: x.scatter_add(0, i, x),
        booleans(6),
        ROWS,
    ),
    refusal(
        aten.scatter_reduce.two,
        "mean_of_integers",
        "mean of integers",
        lambda x, i: x.scatter_reduce(0, i, x, "mean"),
        integers(6),
        ROWS,
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@each_sample(
    [
        ("index_reduce", (torch.float32,), "mean of integers"),
        ("scatter", (torch.float32, torch.bool), "no bools"),
        ("scatter_add", (torch.float32, torch.int64)),
        ("scatter_reduce", (torch.float32, torch.int64), "mean of integers"),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: list[str]) -> None:
    check_samples(name, dtype, most=20, refused=refused)

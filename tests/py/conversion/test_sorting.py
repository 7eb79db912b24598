from __future__ import annotations

import torch
from operator_case import Case, Refusal, case, each, floats, refusal
from operator_samples import check_samples, each_sample

aten = torch.ops.aten

X = floats(2, 5, 3)
_BATCH = {0: {0: (1, 2, 5)}}
_MIDDLE = {0: {1: (3, 5, 7)}}


def _distinct(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    count = torch.Size(shape).numel()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return (order - count // 2).reshape(shape).to(dtype)


CASES = [
    case(
        aten.sort.default,
        "dims",
        lambda x: [*x.sort(), *x.sort(1), *x.sort(0, True), *x.sort(dim=-2, descending=True)],
        X,
    ),
    case(aten.sort.default, "vector", lambda x: x.sort(), floats(7)),
    case(aten.sort.default, "no_dimension", lambda x: x.sort(), floats()),
    case(aten.sort.default, "argsort", lambda x: [x.argsort(), x.argsort(1, True)], X, build=False),
    case(aten.sort.default, "msort", torch.msort, X, build=False),
    case(aten.sort.default, "outer_of_six", lambda x: x.sort(0), floats(4, 1, 2, 1, 2, 3)),
    case(aten.sort.default, "int64", lambda x: x.sort(0), _distinct(4, 2, dtype=torch.int64)),
    case(aten.sort.default, "int32", lambda x: x.sort(0), _distinct(4, 2, dtype=torch.int32)),
    case(aten.sort.default, "half", lambda x: x.sort(0), _distinct(4, 2, dtype=torch.float16)),
    case(
        aten.sort.default, "bool", lambda x: x.sort(0, descending=True), torch.tensor([False, True])
    ),
    case(aten.sort.default, "dynamic_elsewhere", lambda x: x.sort(1), X, dynamic=_BATCH),
    case(aten.sort.default, "dynamic", lambda x: x.sort(1), X, dynamic=_MIDDLE),
    case(
        aten.sort.default,
        "dynamic_vector",
        lambda x: x.sort(),
        floats(5),
        dynamic={0: {0: (2, 5, 9)}},
    ),
    case(aten.sort.stable, "not", lambda x: x.sort(stable=False, dim=1), X),
    case(aten.sort.stable, "values", lambda x: x.sort(stable=True, descending=True)[0], X),
    case(
        aten.topk.default,
        "forms",
        lambda x: [
            *x.topk(2),
            *x.topk(3, 1),
            *x.topk(1, -3, False),
            *x.topk(k=4, dim=1, largest=False, sorted=True),
            *x.topk(5, 1),
        ],
        X,
    ),
    case(aten.topk.default, "vector", lambda x: x.topk(3), floats(7)),
    case(aten.topk.default, "no_dimension", lambda x: x.topk(1), floats()),
    case(aten.topk.default, "int64", lambda x: x.topk(2), _distinct(3, 4, dtype=torch.int64)),
    case(aten.topk.default, "half", lambda x: x.topk(2), _distinct(3, 4, dtype=torch.float16)),
    case(
        aten.topk.default, "dynamic", lambda x: [*x.topk(2, 1), *x.topk(1, 0)], X, dynamic=_MIDDLE
    ),
    case(
        aten.topk.default,
        "dynamic_k",
        lambda x, y: x.topk(y.shape[0], 1),
        X,
        floats(3),
        dynamic={1: {0: (2, 3, 5)}},
    ),
    case(
        aten.topk.default,
        "gathers",
        lambda x, y: y.gather(1, x.topk(2, 1)[1]),
        X,
        floats(2, 5, 3, seed=1),
        build=False,
    ),
]

REFUSALS = [
    refusal(aten.topk.default, "too_many", "3840", lambda x: x.topk(3841), floats(4000)),
    refusal(aten.topk.default, "none", "at least one", lambda x: x.topk(0), X),
    refusal(aten.sort.default, "too_many", "3840", lambda x: x.sort(), floats(3841)),
    refusal(
        aten.sort.default,
        "too_many_for_some_sizes",
        "3840",
        lambda x: x.sort(),
        floats(4),
        dynamic={0: {0: (2, 4, 4000)}},
    ),
    refusal(aten.sort.stable, "stable", "stable", lambda x: x.sort(stable=True), X),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@each_sample(
    [
        ("sort", (torch.float32, torch.int64), "stable", "3840", "at least one"),
        ("argsort", (torch.float32,), "stable", "3840", "at least one"),
        ("msort", (torch.float32,), "3840"),
        ("topk", (torch.float32,)),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: list[str]) -> None:
    check_samples(name, dtype, refused=refused)

from __future__ import annotations

from collections.abc import Callable

import torch
from operator_case import Case, booleans, case, each, floats, integers

aten = torch.ops.aten

_DIMS = ([0], [1], [2], [-1], [-3], [0, 2], [2, 0], [-1, 1], [0, 1, 2])
_REDUCTIONS: dict[object, Callable[..., torch.Tensor]] = {
    aten.mean.dim: torch.mean,
    aten.sum.dim_IntList: torch.sum,
    aten.amax.default: torch.amax,
    aten.amin.default: torch.amin,
}


def _cases(target: object, f: Callable[..., torch.Tensor]) -> list[Case]:
    def one(form: str, function: Callable[..., object], x: torch.Tensor, **fields: object) -> Case:
        return case(target, form, function, x, **fields)

    return [
        one("dims", lambda x: [f(x, d) for d in _DIMS], floats(2, 3, 4)),
        one("dims_keepdim", lambda x: [f(x, d, keepdim=True) for d in _DIMS], floats(2, 3, 4)),
        one("empty_dims", lambda x: [f(x, []), f(x, [], keepdim=True)], floats(2, 3)),
        one("no_dimension", lambda x: f(x, []), floats()),
        one("no_dimension_dim_0", lambda x: f(x, [0]), floats()),
        one("half", lambda x: f(x, [1]), floats(3, 7).half(), tolerance=2e-3, build=False),
        one(
            "dynamic",
            lambda x: [f(x, [0]), f(x, [1], keepdim=True), f(x, [0, 1])],
            floats(2, 3),
            dynamic={0: {0: (1, 2, 5), 1: (2, 3, 4)}},
        ),
    ]


CASES = [
    *(c for target, f in _REDUCTIONS.items() for c in _cases(target, f)),
    case(aten.mean.dim, "dtype", lambda x: x.mean(1, dtype=torch.float32), integers(3, 7)),
    case(aten.mean.dim, "dim_none", lambda x: aten.mean.dim(x, None, True), floats(2, 3)),
    case(aten.mean.default, "all", torch.mean, floats(2, 3, 4)),
    case(aten.mean.default, "no_dimension", torch.mean, floats()),
    case(aten.mean.default, "dtype", lambda x: x.mean(dtype=torch.float32), integers(2, 3)),
    case(aten.mean.default, "dynamic", torch.mean, floats(2, 3), dynamic={0: {0: (1, 2, 4)}}),
    case(aten.sum.dim_IntList, "all", torch.sum, floats(2, 3)),
    case(aten.sum.dim_IntList, "int64", lambda x: x.sum(0), integers(3, 4)),
    case(aten.sum.dim_IntList, "int32", lambda x: x.sum(0), integers(3, 4, dtype=torch.int32)),
    case(aten.sum.dim_IntList, "bool", lambda x: x.sum(1), booleans(3, 7)),
    case(aten.sum.dim_IntList, "dtype", lambda x: x.sum(0, dtype=torch.float32), integers(3, 4)),
    *(
        case(target, str(x.dtype).removeprefix("torch."), lambda x, f=f: f(x, [1]), x)
        for target, f in ((aten.amax.default, torch.amax), (aten.amin.default, torch.amin))
        for x in (integers(3, 4), integers(3, 4, dtype=torch.int32), booleans(3, 2))
    ),
    case(aten.amax.default, "negative", lambda x: x.amax(1), -floats(3, 4).abs() - 1),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()

from __future__ import annotations

from collections.abc import Callable

import torch
from operator_case import Case, booleans, case, each, floats, integers
from operator_samples import check_samples, each_sample
from torch import nn

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


SPECIAL = torch.tensor([[0.0, torch.nan, -0.0], [0.0, 0.0, -0.0], [torch.inf, 0.0, 1.0]])
_ORDERS = (2, 1, 0, 3, -1, 0.5, 2.5, torch.inf, -torch.inf)
ROWS = {0: {0: (1, 2, 5)}}
TWO_ROWS = {0: {0: (2, 3, 5), 1: (2, 4, 6)}}  # of one element no variance is defined


def _norms(x: torch.Tensor) -> list[torch.Tensor]:
    return [
        torch.linalg.vector_norm(x, order, dim, keepdim)
        for order in _ORDERS
        for dim, keepdim in ((None, False), (-1, True), ([0, 1], False))
    ]


def _vector_norm(x: torch.Tensor, dim: list[int], keepdim: bool = False) -> torch.Tensor:
    return torch.linalg.vector_norm(x, 2, dim, keepdim)


def _all_forms(f: Callable[..., torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    return [f(x), f(x, 1), f(x, -2, keepdim=True), f(x, (0, 1))]


CASES += [
    *_cases(aten.linalg_vector_norm.default, _vector_norm),
    case(aten.linalg_vector_norm.default, "orders", _norms, floats(3, 4)),
    case(
        aten.linalg_vector_norm.default,
        "orders_no_dimension",
        lambda x: [torch.linalg.vector_norm(x, order) for order in _ORDERS],
        floats(),
        build=False,
    ),
    case(
        aten.linalg_vector_norm.default,
        "orders_dynamic",
        _norms,
        floats(3, 4),
        dynamic={0: {0: (1, 3, 5)}},
        build=False,
    ),
    case(
        aten.linalg_vector_norm.default,
        "dtype",
        lambda x: torch.linalg.vector_norm(x, dtype=torch.float32),
        floats(9).half(),
    ),
    case(
        aten.linalg_vector_norm.default,
        "half_large",
        torch.linalg.vector_norm,
        floats(9).half() * 1000,
        tolerance=2e-3,
    ),
    case(
        aten.linalg_vector_norm.default,
        "norm",
        lambda x: [x.norm(), x.norm(1), x.norm(torch.inf, -1), x.norm(2, 0, True)],
        floats(3, 4),
        build=False,
    ),
    case(
        aten.linalg_vector_norm.default,
        "normalize",
        nn.functional.normalize,
        floats(3, 4),
        build=False,
    ),
    *(
        case(
            t,
            str(x.dtype).removeprefix("torch."),
            f,
            x,
            build=x.dtype in (torch.float32, torch.bool),
        )
        for t, f in (
            (aten.prod.default, torch.prod),
            (aten.max.default, torch.max),
            (aten.min.default, torch.min),
        )
        for x in (
            floats(2, 3, 4),
            integers(2, 3),
            integers(2, 3, dtype=torch.int32),
            booleans(3, 3),
        )
    ),
    *(
        case(t, "no_dimension", f, floats(), build=False)
        for t, f in (
            (aten.prod.default, torch.prod),
            (aten.max.default, torch.max),
            (aten.min.default, torch.min),
        )
    ),
    *(
        case(t, "dynamic", f, floats(2, 3), dynamic=ROWS)
        for t, f in (
            (aten.prod.default, torch.prod),
            (aten.max.default, torch.max),
            (aten.min.default, torch.min),
        )
    ),
    *(
        case(
            aten.prod.dim_int,
            str(x.dtype).removeprefix("torch."),
            lambda x: [x.prod(1), x.prod(-2, keepdim=True)],
            x,
            dynamic=ROWS,
        )
        for x in (floats(2, 3), integers(2, 3), integers(2, 3, dtype=torch.int32))
    ),
    case(aten.prod.dim_int, "bool", lambda x: x.prod(1), booleans(4, 2), build=False),
    case(
        aten.prod.dim_int,
        "dtype",
        lambda x: x.prod(1, dtype=torch.float32),
        integers(4, 2),
        build=False,
    ),
    case(
        aten.prod.dim_int,
        "half",
        lambda x: x.prod(1),
        floats(4, 3).half(),
        tolerance=2e-3,
        build=False,
    ),
    *(
        case(
            target,
            f"{form}_{name}",
            lambda x, f=f: _all_forms(f, x),
            x,
            dynamic=ROWS,
            build=form == "bool" and name == "any",
        )
        for target, name, f in (
            (aten.any.default, "any", torch.any),
            (aten.any.dim, "any", torch.any),
            (aten.any.dims, "any", torch.any),
            (aten.any.dims, "all", torch.all),
        )
        for form, x in (
            ("bool", booleans(2, 3)),
            ("float", floats(2, 3)),
            ("int64", integers(2, 3)),
        )
    ),
    *(
        case(t, "nan", lambda x, f=f: _all_forms(f, x), SPECIAL, build=False)
        for t, f in ((aten.any.dim, torch.any), (aten.any.dims, torch.all))
    ),
    case(aten.any.dims, "no_dimensions", lambda x: torch.any(x, ()), SPECIAL),
    case(aten.any.default, "no_dimension", torch.any, floats()),
    case(
        aten.var.correction,
        "dims",
        lambda x: [
            x.var(),
            x.var(1),
            x.var((0, 2), keepdim=True),
            x.var(-1, unbiased=False),
            x.var(0, correction=0),
        ],
        floats(3, 4, 5) + 9,
        tolerance=1e-4,
    ),
    case(
        aten.var.correction,
        "dynamic",
        lambda x: [x.var(), x.var(1), x.var(0, correction=1.5, keepdim=True)],
        floats(3, 4),
        dynamic=TWO_ROWS,
    ),
    case(
        aten.var.correction,
        "half",
        lambda x: x.var(1),
        floats(3, 9).half() * 100,
        tolerance=2e-3,
        build=False,
    ),
    case(
        aten.var.correction,
        "std",
        lambda x: [x.std(), x.std(1), x.std((0, 1), unbiased=False)],
        floats(3, 4),
        dynamic=TWO_ROWS,
        build=False,
    ),
    case(
        aten.var_mean.correction,
        "dims",
        lambda x: [
            *torch.var_mean(x),
            *torch.var_mean(x, 1, correction=0),
            *torch.std_mean(x, -2, keepdim=True),
        ],
        floats(3, 4),
        dynamic=TWO_ROWS,
    ),
    case(
        aten.amax.default,
        "aminmax",
        lambda x: [*x.aminmax(), *x.aminmax(dim=1, keepdim=True)],
        floats(3, 4),
        build=False,
    ),
    case(
        aten.amax.default,
        "logsumexp",
        lambda x: [x.logsumexp(1), x.logsumexp((0, 1)), x.logsumexp(-2, keepdim=True)],
        floats(3, 4) * 50,
        dynamic=ROWS,
    ),
    case(
        aten.sum.dim_IntList,
        "nansum",
        lambda x: [x.nansum(), x.nansum(1)],
        SPECIAL[:2],
        build=False,
    ),
    case(
        aten.sum.dim_IntList,
        "count_nonzero",
        lambda x: [x.count_nonzero(), x.count_nonzero(1)],
        SPECIAL,
        build=False,
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


_NUMBERS = (torch.float32, torch.int64, torch.bool)


@each_sample(
    [
        *((name, _NUMBERS) for name in ("all", "any", "sum", "prod", "count_nonzero")),
        *((name, _NUMBERS[:2]) for name in ("amax", "amin", "aminmax", "nansum")),
        *((name, _NUMBERS[:1]) for name in ("mean", "logsumexp", "norm", "linalg.vector_norm")),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: tuple[str, ...]) -> None:
    check_samples(name, dtype, most=3, refused=refused)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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

X = floats(4, 3, 5)
_BATCH = {0: {0: (1, 2, 5)}}
#: Without repetition along either dimension.
PLACES = torch.tensor([[0, 2, 1], [1, 0, 2]])
#: Makes pairs with those of which no two are equal.
SECOND = torch.tensor([[0], [-1]]).expand(2, 3)
ROWS = torch.tensor([3, -4, 1])


def _put(*dims: int, accumulate: bool = False) -> Callable[..., Any]:
    """Puts values at two index tensors that stand at the given dimensions."""

    def put(x: Any, values: Any, first: Any, second: Any) -> Any:
        indices: list[Any] = [None] * (max(dims) + 1)
        for dim, index in zip(dims, (first, second), strict=False):
            indices[dim] = index
        return torch.ops.aten.index_put(x, indices, values, accumulate)

    return put


def _assign(x: torch.Tensor) -> torch.Tensor:
    result = x.clone()
    result[:, 1:] = 0.5
    result[0] = x[1]
    result[:, [0, -1]] = 3.0
    result[..., ::2] = -x[..., ::2]
    result[result < -1] = -1.0
    return result


def _masked(x: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    result = [x.clone() for _ in range(4)]
    result[0][mask] = 2.5
    result[1][mask[:, 0]] = x[0, 0, 0]
    result[2][:, mask[0]] = torch.arange(5.0)
    result[3][mask[:, 0]] = x[:1, :, :1]
    return result


CASES = [
    case(
        aten.index_put.default,
        "one",
        lambda x, v, i: aten.index_put(x, [i], v),
        X,
        floats(3, 3, 5),
        ROWS,
    ),
    case(
        aten.index_put.default,
        "broadcast",
        lambda x, v, i: aten.index_put(x, [i], v),
        X,
        floats(5),
        ROWS,
    ),
    case(aten.index_put.default, "adjacent", _put(1, 2), X, floats(4, 2, 3), PLACES, SECOND),
    case(aten.index_put.default, "separated", _put(0, 2), X, floats(2, 3, 3), PLACES, SECOND),
    case(
        aten.index_put.default,
        "separated_inside",
        _put(1, 3),
        floats(2, 4, 3, 5),
        floats(2, 3, 2, 3),
        PLACES,
        SECOND,
    ),
    case(
        aten.index_put.default,
        "broadcast_places",
        _put(0, 1),
        X,
        floats(2, 1, 5),
        PLACES[:, :1],
        PLACES[:1] - 3,
    ),
    case(aten.index_put.default, "one_value", _put(0, 2), X, floats(), PLACES, SECOND),
    case(aten.index_put.default, "assignments", _assign, X),
    case(
        aten.index_put.default,
        "int64",
        lambda x, i: aten.index_put(x, [None, i], x[:, :3] + 1),
        integers(2, 4),
        ROWS,
    ),
    case(
        aten.index_put.default,
        "bool",
        lambda x, i: aten.index_put(x, [i], ~x[:3]),
        booleans(4, 2),
        ROWS,
    ),
    case(
        aten.index_put.default, "half", lambda x, i: aten.index_put(x, [i], x[1:]), X.half(), ROWS
    ),
    case(
        aten.index_put.default,
        "copies",
        lambda x, i: [x.index_copy(0, i % 4, x[:3] * 2), x.index_fill(0, i % 4, 2.0)],
        X,
        ROWS,
        build=False,
    ),
    case(
        aten.index_put.default,
        "dynamic",
        lambda x: aten.index_put(x, [None, ROWS % 3], x[:, :, 0][..., None]),
        floats(2, 3, 5),
        dynamic=_BATCH,
    ),
    case(
        aten.index_put.default,
        "dynamic_rows",
        lambda x, v: aten.index_put(x, [torch.tensor([1, -1])], v),
        X,
        floats(3, 5),
        dynamic={0: {0: (3, 4, 5)}},
    ),
    case(aten.index_put.default, "mask", _masked, X, floats(4, 3) > 0),
    case(
        aten.index_put.default,
        "mask_accumulates",
        lambda x: aten.index_put(x, [x > 0], x.sum(), True),
        X,
    ),
    case(
        aten.index_put.default,
        "mask_dynamic",
        lambda x: aten.index_put(x, [x > 0], x[0, 0, 0]),
        X,
        dynamic=_BATCH,
    ),
    case(
        aten.index_put.default,
        "accumulates",
        lambda x, i: [x.index_add(0, i, x[:3]), x.index_add(1, i % 3, x[:, :3], alpha=-2)],
        X,
        torch.tensor([1, 3, 1]),
    ),
    case(
        aten.index_put.default,
        "accumulates_at_pairs",
        _put(0, 2, accumulate=True),
        X,
        floats(2, 3, 3),
        PLACES * 0 + 1,
        PLACES,
    ),
    case(
        aten.index_put.default,
        "accumulates_int64",
        lambda x, i: aten.index_put(x, [i], x[:3], True),
        integers(4, 2),
        torch.tensor([1, -3, 1]),
        build=False,
    ),
    GraphCase(aten._unsafe_index_put.default, "one", (X, [ROWS], floats(3, 3, 5))),
    GraphCase(aten._unsafe_index_put.default, "adds", (X, [ROWS * 0], floats(3, 3, 5), True)),
    case(
        aten.scatter.src,
        "dims",
        lambda x, i, s: [x.scatter(1, i, s), x.scatter(0, i, s), x.scatter(-1, i + 1, s)],
        floats(4, 5),
        PLACES,
        floats(2, 3, seed=1),
    ),
    case(
        aten.scatter.src,
        "larger_source",
        lambda x, i: x.scatter(1, i, x * 2),
        floats(4, 5),
        PLACES,
    ),
    case(
        aten.scatter.src,
        "no_dimension",
        lambda x, i: x.scatter(0, i, x + 1),
        floats(),
        torch.tensor(0),
    ),
    case(aten.scatter.src, "bool", lambda x, i: x.scatter(1, i, ~x), booleans(4, 5), PLACES),
    case(aten.scatter.src, "int64", lambda x, i: x.scatter(1, i, x + 1), integers(4, 5), PLACES),
    case(aten.scatter.src, "half", lambda x, i: x.scatter(1, i, -x), floats(4, 5).half(), PLACES),
    case(
        aten.scatter.src,
        "dynamic",
        lambda x, s: x.scatter(1, PLACES[:1].expand(x.shape[0], -1), s),
        floats(4, 5),
        floats(4, 3),
        dynamic={0: {0: (1, 4, 6)}, 1: {0: (1, 4, 6)}},
    ),
    case(
        aten.scatter.value,
        "values",
        lambda x, i: [x.scatter(1, i, -2.5), x.scatter(0, i, value=1)],
        floats(4, 5),
        PLACES,
    ),
    case(
        aten.scatter.value,
        "no_dimension",
        lambda x, i: x.scatter(0, i, 7.0),
        floats(),
        torch.tensor(0),
    ),
    case(aten.scatter.value, "bool", lambda x, i: x.scatter(1, i, True), booleans(4, 5), PLACES),
    case(aten.scatter.value, "int64", lambda x, i: x.scatter(1, i, -3), integers(4, 5), PLACES),
    case(
        aten.scatter.value,
        "repeated",
        lambda x, i: x.scatter(1, i, 1.0),
        torch.zeros(2, 5),
        PLACES,
        dynamic={},
    ),
    case(
        aten.scatter.value,
        "dynamic",
        lambda x: x.scatter(1, PLACES[:1].expand(x.shape[0], -1), 1.0),
        floats(4, 5),
        dynamic={0: {0: (1, 4, 6)}},
    ),
    case(
        aten.index_fill.int_Scalar,
        "dims",
        lambda x, i: [
            x.index_fill(0, i, 2.0),
            x.index_fill(-1, i, -1),
            x.index_fill(1, i[:1] * 0, 1),
        ],
        X,
        torch.tensor([3, -4, 3]),
    ),
    case(
        aten.index_fill.int_Scalar,
        "no_dimension",
        lambda x, i: x.index_fill(0, i, 2.0),
        floats(),
        ROWS * 0,
    ),
    case(
        aten.index_fill.int_Scalar, "bool", lambda x, i: x.index_fill(0, i, True), booleans(4), ROWS
    ),
    case(
        aten.index_fill.int_Scalar, "int64", lambda x, i: x.index_fill(0, i, 7), integers(4), ROWS
    ),
    case(
        aten.index_fill.int_Scalar,
        "dynamic",
        lambda x: [x.index_fill(0, torch.tensor([0, -1]), 2.0), x.index_fill(1, ROWS % 3, 2.0)],
        X,
        dynamic=_BATCH,
    ),
    case(
        aten.index_fill.int_Tensor,
        "data",
        lambda x, i, v: x.index_fill(1, i % 3, v),
        X,
        ROWS,
        floats(),
    ),
    case(
        aten.slice_scatter.default,
        "forms",
        lambda x: [
            x.slice_scatter(x[:2] * 2, 0, 1, 3),
            x.slice_scatter(x[:, :2] * 2, 1, -2),
            x.slice_scatter(x[..., :3] * 2, -1, 0, 99, 2),
            x.slice_scatter(x[..., :2] * 2, 2, 1, None, 3),
            x.slice_scatter(-x),
            x.slice_scatter(x[:0], 0, 2, 2),
        ],
        X,
    ),
    case(
        aten.slice_scatter.default, "bool", lambda x: x.slice_scatter(~x[:2], 0, 1, 3), booleans(4)
    ),
    case(
        aten.slice_scatter.default,
        "int64",
        lambda x: x.slice_scatter(x[:2] + 1, 0, 0, 4, 2),
        integers(5),
    ),
    case(
        aten.slice_scatter.default,
        "dynamic_elsewhere",
        lambda x: [
            x.slice_scatter(x[..., 1:] * 2, 2, 0, 4),
            x.slice_scatter(x[..., ::2] * 2, 2, 0, 5, 2),
        ],
        X,
        dynamic=_BATCH,
    ),
    case(
        aten.slice_scatter.default,
        "dynamic",
        lambda x: x.slice_scatter(x[:, :2] * 2, 1, -2),
        X,
        dynamic={0: {1: (3, 3, 6)}},
    ),
    case(
        aten.select_scatter.default,
        "dims",
        lambda x: [
            x.select_scatter(x[1] * 2, 0, 0),
            x.select_scatter(x[:, 0] * 2, 1, -1),
            x.select_scatter(x[..., 1], -1, 4),
        ],
        X,
    ),
    case(
        aten.select_scatter.default, "bool", lambda x: x.select_scatter(~x[0], 0, 2), booleans(4, 2)
    ),
    case(
        aten.select_scatter.default, "vector", lambda x: x.select_scatter(x[1] * 2, 0, 0), floats(3)
    ),
    case(
        aten.select_scatter.default,
        "dynamic",
        lambda x: [x.select_scatter(x[:, 1] * 2, 1, -1), x.select_scatter(x[..., 1] * 2, 2, 0)],
        X,
        dynamic={0: {1: (3, 3, 6)}},
    ),
    case(
        aten.diagonal_scatter.default,
        "forms",
        lambda x: [
            x.diagonal_scatter(x.diagonal(0, 0, 1) * 2, 0, 0, 1),
            x.diagonal_scatter(x.diagonal(-1, 0, 2) * 2, -1, 0, 2),
            x.diagonal_scatter(x.diagonal(2, 1, -1) * 2, 2, 1, -1),
            x.diagonal_scatter(x.diagonal(1, 2, 0) * 2, 1, 2, 0),
        ],
        X,
    ),
    case(
        aten.diagonal_scatter.default,
        "bool",
        lambda x: x.diagonal_scatter(~x[0, :3]),
        booleans(4, 3),
    ),
]

REFUSALS = [
    refusal(
        aten.index_put.default,
        "values_for_a_mask",
        "depends on data",
        lambda x, v: aten.index_put(x, [x > 0], v),
        torch.ones(3),
        floats(3),
    ),
    refusal(
        aten.index_put.default,
        "mask_and_index",
        "together",
        lambda x, m, i: aten.index_put(x, [i, m], x[0, 0]),
        X,
        torch.tensor([True, False, True]),
        torch.tensor([1, 2]),
    ),
    refusal(
        aten.index_put.default,
        "accumulates_dynamic",
        "only known at run time",
        lambda x, i: x.index_add(1, i, x),
        X,
        torch.tensor([1, 2, 1]),
        dynamic=_BATCH,
    ),
    refusal(
        aten.index_put.default,
        "accumulates_bools",
        "no bools",
        lambda x, i: aten.index_put(x, [i], x[:3], True),
        booleans(4),
        ROWS,
    ),
    refusal(
        aten.scatter.src,
        "repeats",
        "more than once",
        lambda x, i: x.scatter(1, i, i * 1.0),
        floats(2, 2),
        PLACES % 2,
    ),
    refusal(
        aten.slice_scatter.default,
        "dynamic_step",
        "only known at run time",
        lambda x: x.slice_scatter(x[:, ::2] * 2, 1, 0, None, 2),
        floats(2, 6),
        dynamic={0: {1: (4, 6, 8)}},
    ),
    refusal(
        aten.diagonal_scatter.default,
        "dynamic",
        "only known at run time",
        lambda x: x.diagonal_scatter(x.diagonal() * 2),
        floats(6, 3),
        dynamic={0: {0: (4, 6, 8)}},
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case | GraphCase) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@each_sample(
    [
        ("diagonal_scatter", (torch.float32, torch.bool)),
        ("index_add", (torch.float32, torch.int64)),
        ("index_copy", (torch.float32, torch.bool)),
        ("index_fill", (torch.float32, torch.bool)),
        ("index_put", (torch.float32, torch.int64)),
        ("select_scatter", (torch.float32, torch.bool)),
        ("slice_scatter", (torch.float32, torch.int64)),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: list[str]) -> None:
    check_samples(name, dtype, refused=refused)

"""What has known sizes becomes a constant before conversion, so most cases are dynamic."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checks import capture_for_test
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
from torch import Tensor

from trtcompile.partition import judge
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

SIZES: Any = {0: {0: (1, 2, 5), 1: (1, 3, 6)}}
ROWS: Any = {0: {0: (1, 2, 5)}}
DTYPES = (torch.float32, torch.float16, torch.int64, torch.int32, torch.bool)


def _full(x: Tensor) -> list[Tensor]:
    rows = x.shape[0]
    values = [torch.full((rows, 2), 1.5, dtype=dtype) for dtype in DTYPES]
    return [
        *values,
        x.new_zeros(3, rows),
        x.new_ones((rows,)),
        torch.zeros(rows, 1),
        x.new_full([rows], -7),
        x + 1,
    ]


def _like(x: Tensor) -> list[Tensor]:
    values = [torch.full_like(x, -2.5, dtype=dtype) for dtype in DTYPES]
    return [
        *values,
        torch.zeros_like(x),
        torch.ones_like(x),
        x.clone().fill_(3),
        aten.fill.Scalar(x, 2),
        x + 1,
    ]


def _ranges(x: Tensor) -> list[Tensor]:
    rows, columns = x.shape
    return [
        torch.arange(rows),
        torch.arange(2, columns * 3, 2),
        torch.arange(columns, -1, -1),
        torch.arange(columns, -1, -3),
        torch.arange(rows, rows + columns),
        torch.arange(columns, dtype=torch.float32) / 2,
        torch.arange(rows * columns, dtype=torch.int32),
        x + 1,
    ]


def _triangles(x: Tensor) -> list[Tensor]:
    return [x.tril(), x.triu(), x.tril(-1), x.triu(2), x.tril(1)]


def _eyes(x: Tensor) -> list[Tensor]:
    rows, columns = x.shape
    return [torch.eye(rows), torch.eye(columns, dtype=torch.int64), x + 1]


def _wide_eyes(x: Tensor) -> list[Tensor]:
    rows, columns = x.shape
    return [torch.eye(rows, columns) + x, torch.eye(columns, 2, dtype=torch.bool)]


CASES: list[Case | GraphCase] = [
    case(aten.full.default, "dynamic", _full, floats(2, 3), dynamic=ROWS),
    case(
        aten.full.default,
        "of_a_size",
        lambda x: [torch.full((2, x.shape[0]), x.shape[0]), x + x.shape[0]],
        floats(2, 3),
        dynamic=ROWS,
    ),
    GraphCase(aten.full.default, "known", ([2, 3], 1.5)),
    GraphCase(aten.full.default, "no_dimension", ([], 2), build=False),
    case(aten.full_like.default, "dynamic", _like, floats(2, 3), dynamic=SIZES),
    GraphCase(aten.full_like.default, "known", (floats(2, 3), 7)),
    GraphCase(aten.full_like.default, "no_dimension", (floats(), 7), build=False),
    GraphCase(aten.full_like.default, "int64_by_float", (integers(3), 2.75), build=False),
    case(
        aten.arange.start_step,
        "dynamic",
        _ranges,
        floats(2, 3),
        dynamic={0: {0: (1, 2, 5), 1: (3, 4, 7)}},
    ),
    GraphCase(aten.arange.start_step, "floats", (1.0, 3.0, 0.3)),
    GraphCase(aten.arange.start_step, "down", (5, -3, -2), build=False),
    case(aten.arange.start_step, "triangles", _triangles, floats(2, 3), dynamic=SIZES),
    case(
        aten.arange.start_step,
        "triangles_int64",
        _triangles,
        integers(2, 3),
        dynamic=SIZES,
        build=False,
    ),
    case(
        aten.arange.start_step,
        "triangles_bool",
        _triangles,
        booleans(2, 3),
        dynamic=SIZES,
        build=False,
    ),
    case(
        aten.arange.start_step,
        "mask",
        lambda x: torch.arange(x.shape[1]) < x,
        integers(2, 3),
        dynamic=SIZES,
    ),
    case(aten.eye.default, "dynamic", _eyes, floats(2, 3), dynamic=SIZES),
    case(aten.eye.m, "dynamic", _wide_eyes, floats(2, 3), dynamic=SIZES),
    case(
        aten.scalar_tensor.default,
        "of_a_size",
        lambda x: x / torch.scalar_tensor(x.shape[0]),
        floats(2, 3),
        dynamic=ROWS,
    ),
    GraphCase(aten.scalar_tensor.default, "number", (2.5,)),
    case(
        torch.ops.prims.scalar_tensor.default, "xlogy", lambda x: torch.xlogy(x, 2.5), floats(2, 3)
    ),
    case(
        aten.empty.memory_format,
        "filled",
        lambda x: x.new_empty(x.shape[0]).fill_(3) + x[:, 0],
        floats(2, 3),
        dynamic=ROWS,
    ),
    case(
        aten.empty_strided.default,
        "filled",
        lambda x: torch.empty_strided((x.shape[0], 3), (1, 7)).fill_(3) + x,
        floats(2, 3),
        dynamic={0: {0: (1, 2, 4)}},
    ),
    case(
        aten.empty_permuted.default,
        "filled",
        lambda x: torch.empty_like(x).fill_(3) + x,
        floats(2, 3),
        dynamic=ROWS,
    ),
]

REFUSALS = [
    refusal(
        aten.arange.start_step,
        "float_step",
        "no integer",
        lambda x: torch.arange(0, x.shape[0], 0.5),
        floats(2, 3),
        dynamic=ROWS,
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case | GraphCase) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


_RANDOM = {
    "rand": lambda x: torch.rand(3) + x,
    "rand_like": torch.rand_like,
    "randn": lambda x: torch.randn(3) + x,
    "randn_like": torch.randn_like,
    "randint": lambda x: torch.randint(3, (3,)) + x,
    "randperm": lambda x: torch.randperm(3) + x,
    "multinomial": lambda x: torch.multinomial(x.abs(), 1),
    "normal": lambda x: torch.normal(x, 1.0),
}


@pytest.mark.parametrize("name", _RANDOM)
def test_random_numbers_stay_in_pytorch(name: str) -> None:
    graph_module = capture_for_test(_RANDOM[name], [floats(2, 3)]).graph_module
    reasons = [
        reason
        for node, reason in judge(graph_module, CompileSpec()).items()
        if torch.Tag.nondeterministic_seeded in node.target.tags
    ]
    assert reasons and all("draws random numbers" in (reason or "") for reason in reasons)

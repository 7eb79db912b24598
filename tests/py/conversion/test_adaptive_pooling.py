from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from operator_case import Case, GraphCase, Refusal, case, each, floats, refusal
from operator_samples import check_samples

from trtcompile.conversion.ops.adaptive_pooling import averaging_matrix

aten = torch.ops.aten
AVERAGE_2D, AVERAGE_3D = aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default
MAX_2D, MAX_3D = aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default

_FUNCTIONS = {
    AVERAGE_2D: F.adaptive_avg_pool2d,
    AVERAGE_3D: F.adaptive_avg_pool3d,
    MAX_2D: F.adaptive_max_pool2d,
    MAX_3D: F.adaptive_max_pool3d,
}
_SIZES_2D = (
    ((8, 6), (1, 1)),
    ((8, 6), (4, 3)),
    ((8, 6), (2, 6)),
    ((7, 5), (3, 2)),
    ((7, 5), (3, 5)),
    ((7, 5), (1, 3)),
    ((7, 5), (3, 1)),
    ((1, 1), (7, 7)),
    ((3, 4), (7, 6)),
    ((2, 9), (3, 1)),
)
_SIZES_3D = (
    ((4, 6, 8), (2, 3, 8)),
    ((4, 6, 8), (4, 1, 2)),
    ((4, 6, 8), (3, 4, 5)),
    ((4, 5, 6), (1, 3, 6)),
    ((2, 3, 4), (5, 1, 3)),
)


def _name(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _of_target(target: Any, sizes: Any) -> list[Case]:
    f, (size, _) = _FUNCTIONS[target], sizes[-1]
    dims = len(size)
    to_one = dict.fromkeys(range(2, dims + 2), (2, 5, 9))
    return [
        *(
            case(
                target,
                f"{_name(size)}_to_{_name(out)}",
                lambda x, out=out: f(x, out),
                floats(2, 3, *size),
                build=i < 4,
            )
            for i, (size, out) in enumerate(sizes)
        ),
        case(target, "no_batch", lambda x: f(x, 3), floats(3, *(7, 5, 4)[:dims])),
        case(target, "none", lambda x: f(x, (None, 3, 2)[:dims]), floats(2, 3, *(7, 5, 4)[:dims])),
        case(
            target,
            "half",
            lambda x: f(x, 3),
            floats(2, 3, *(7, 5, 4)[:dims]).half(),
            tolerance=2e-3,
            build=False,
        ),
        case(
            target,
            "dynamic_batch",
            lambda x: f(x, (3, 2, 2)[:dims]),
            floats(2, 3, *(7, 5, 4)[:dims]),
            dynamic={0: {0: (1, 2, 4)}},
        ),
        case(
            target,
            "one_dynamic_dimension_to_1",
            lambda x: f(x, (1, 3, 2)[:dims]),
            floats(2, 3, *(7, 5, 4)[:dims]),
            dynamic={0: {2: (2, 7, 9)}},
        ),
        *(
            [
                case(
                    target,
                    "dynamic_to_1",
                    lambda x: f(x, 1),
                    floats(2, 3, *[5] * dims),
                    dynamic={0: to_one},
                )
            ]
            if target is not AVERAGE_3D  # PyTorch makes a mean of that
            else []
        ),
    ]


CASES: list[Case | GraphCase] = [
    *_of_target(AVERAGE_2D, _SIZES_2D),
    *_of_target(AVERAGE_3D, _SIZES_3D),
    *_of_target(MAX_2D, _SIZES_2D),
    *_of_target(MAX_3D, _SIZES_3D),
    GraphCase(aten._adaptive_avg_pool2d.default, "7x5_to_3x5", (floats(2, 3, 7, 5), [3, 5])),
    *(
        case(target, f"1d_to_{out}", lambda x, f=f, out=out: f(x, out), floats(2, 3, 8))
        for target, f in (
            (AVERAGE_2D, F.adaptive_avg_pool1d),
            (MAX_2D, F.adaptive_max_pool1d),
        )
        for out in (3, 4)
    ),
    case(MAX_2D, "negative", lambda x: F.adaptive_max_pool2d(x, 3), -floats(2, 3, 7, 5).abs() - 1),
    case(
        MAX_2D,
        "symbolic_size_kept",
        lambda x: F.adaptive_max_pool2d(x, (3, 1)),
        floats(2, 3, 7, 5),
        dynamic={0: {3: (2, 5, 6)}},
    ),
    case(
        AVERAGE_2D,
        "symbolic_size_kept",
        lambda x: F.adaptive_avg_pool2d(x, (None, 2)),
        floats(2, 3, 7, 5),
        dynamic={0: {2: (2, 7, 9)}},
    ),
]

REFUSALS = [
    *(
        refusal(
            target,
            "dynamic",
            "known when compiling",
            lambda x, f=f: f(x, 3),
            floats(1, 2, *[6] * dims),
            dynamic={0: {2: (4, 6, 8)}},
        )
        for (target, f), dims in zip(_FUNCTIONS.items(), (2, 3, 2, 3), strict=True)
    ),
    *(
        refusal(
            target,
            "indices",
            "indices of the maxima",
            lambda x, f=f: f(x, 2, return_indices=True),
            floats(1, 2, *[6] * dims),
        )
        for target, f, dims in (
            (MAX_2D, F.adaptive_max_pool2d, 2),
            (MAX_3D, F.adaptive_max_pool3d, 3),
        )
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@pytest.mark.parametrize(("size", "output_size"), [*itertools.product((1, 2, 5, 12), (1, 2, 3, 7))])
def test_averaging_matrix_is_adaptive_average_pooling(size: int, output_size: int) -> None:
    x = floats(1, 3, size).double()
    matrix = averaging_matrix(size, output_size)
    torch.testing.assert_close(x @ matrix.T, F.adaptive_avg_pool1d(x, output_size))


# Of a maximum in two or three dimensions PyTorch's samples give the indices too.
_SAMPLED = [
    *(f"nn.functional.adaptive_avg_pool{d}d" for d in (1, 2, 3)),
    "nn.functional.adaptive_max_pool1d",
]


@pytest.mark.parametrize("name", _SAMPLED)
def test_computes_the_samples_of_pytorch(name: str) -> None:
    check_samples(name, torch.float32, most=6, refused=["indices of the maxima"])

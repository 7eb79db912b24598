from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from operator_case import Case, Refusal, case, each, floats, refusal
from operator_samples import check_samples

aten = torch.ops.aten
SAMPLER, AFFINE = aten.grid_sampler_2d.default, aten.affine_grid_generator.default

X, GRID = floats(2, 3, 5, 6), floats(2, 4, 3, 2, seed=1) * 0.8

CASES = [
    *(
        case(
            SAMPLER,
            f"{mode}_{border}_{'corners' if corners else 'half_pixel'}",
            lambda x, g, m=mode, b=border, c=corners: F.grid_sample(x, g, m, b, c),
            X,
            GRID,
            build=border == "zeros",
        )
        for mode, border, corners in itertools.product(
            ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (False, True)
        )
    ),
    case(
        SAMPLER,
        "constant_grid",
        lambda x: F.grid_sample(x, GRID, align_corners=False),
        X,
        tolerance=1e-5,
    ),
    case(
        SAMPLER,
        "dynamic",
        lambda x, g: F.grid_sample(x, g, align_corners=False),
        X,
        GRID,
        dynamic={0: {0: (1, 2, 3), 2: (2, 5, 6)}, 1: {0: (1, 2, 3), 1: (1, 4, 5)}},
    ),
    *(
        case(
            AFFINE,
            f"{len(size) - 2}d_{'corners' if corners else 'half_pixel'}",
            lambda theta, s=size, c=corners: F.affine_grid(theta, s, align_corners=c),
            floats(2, len(size) - 2, len(size) - 1),
        )
        for size in ((2, 1, 4, 5), (2, 1, 3, 4, 5))
        for corners in (False, True)
    ),
    case(
        AFFINE,
        "dynamic",
        lambda theta: F.affine_grid(theta, (theta.shape[0], 1, 4, 5), align_corners=False),
        floats(2, 2, 3),
        dynamic={0: {0: (1, 2, 4)}},
    ),
    case(
        AFFINE,
        "half",
        lambda theta: F.affine_grid(theta, (2, 1, 4, 5), align_corners=False),
        floats(2, 2, 3).half(),
        tolerance=4e-3,
        build=False,
    ),
]

REFUSALS = [
    refusal(
        aten.grid_sampler_3d.default,
        "3d",
        "no converter",
        lambda x, g: F.grid_sample(x, g, align_corners=False),
        floats(1, 2, 3, 4, 5),
        floats(1, 2, 2, 2, 3),
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


def test_computes_the_samples_of_pytorch() -> None:
    check_samples("nn.functional.grid_sample", torch.float32, most=16, refused=["grid_sampler_3d"])

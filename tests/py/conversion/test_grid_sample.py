from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from operator_case import Case, case, each, floats
from operator_samples import check_samples

aten = torch.ops.aten
SAMPLER, AFFINE = aten.grid_sampler_2d.default, aten.affine_grid_generator.default

X, GRID = floats(2, 3, 5, 6), floats(2, 4, 3, 2, seed=1) * 0.8
VOLUMES = aten.grid_sampler_3d.default
VOLUME, PLACES = floats(2, 3, 4, 5, 6), floats(2, 2, 3, 4, 3, seed=1) * 0.9


def _far_places() -> torch.Tensor:
    """Places far outside, and one that is none."""
    places = PLACES.clone()
    places[0, 0, 0, :3, 0] = torch.tensor([torch.nan, 1e30, -1e30])
    places[0, 1, 0, :2, 2] = torch.tensor([torch.inf, -torch.inf])
    return places


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
            VOLUMES,
            f"{mode}_{border}_{'corners' if corners else 'half_pixel'}",
            lambda x, g, m=mode, b=border, c=corners: F.grid_sample(x, g, m, b, c),
            VOLUME,
            PLACES,
            build=mode == "bilinear" and border == "reflection",
        )
        for mode, border, corners in itertools.product(
            ("bilinear", "nearest"), ("zeros", "border", "reflection"), (False, True)
        )
    ),
    *(
        case(
            VOLUMES,
            f"far_places_{mode}",
            lambda x, m=mode: F.grid_sample(x, _far_places(), m, align_corners=False),
            VOLUME,
            build=False,
        )
        for mode in ("bilinear", "nearest")
    ),
    case(
        VOLUMES,
        "infinity_beside_the_border",
        lambda x, g: F.grid_sample(x.log(), g.clamp(-1, 1), "bilinear", "border", True),
        (VOLUME > 0).float(),
        torch.ones(1, 1, 1, 1, 3).expand(2, -1, -1, -1, -1) * torch.tensor([1.0, -1.0, 1.0]),
        build=False,
    ),
    case(
        VOLUMES,
        "one_slice",
        lambda x, g: F.grid_sample(x, g, "bilinear", "reflection", True),
        VOLUME[:, :, :1],
        PLACES,
        build=False,
    ),
    case(
        VOLUMES,
        "half",
        lambda x, g: F.grid_sample(x, g, align_corners=False),
        VOLUME.half(),
        PLACES.half(),
        tolerance=2e-2,
        build=False,
    ),
    case(
        VOLUMES,
        "dynamic",
        lambda x, g: F.grid_sample(x, g, padding_mode="reflection", align_corners=False),
        VOLUME,
        PLACES,
        dynamic={0: {0: (1, 2, 3), 2: (2, 4, 5)}, 1: {0: (1, 2, 3), 1: (1, 2, 3)}},
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


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


def test_computes_the_samples_of_pytorch() -> None:
    check_samples("nn.functional.grid_sample", torch.float32, most=16)

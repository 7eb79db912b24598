from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from operator_case import Case, Refusal, case, each, floats, refusal

aten = torch.ops.aten
NEAREST, BILINEAR = aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec

X = floats(2, 3, 4, 6)
_MODES = [
    (NEAREST, "nearest", partial(F.interpolate, mode="nearest")),
    (BILINEAR, "half_pixel", partial(F.interpolate, mode="bilinear")),
    (BILINEAR, "corners", partial(F.interpolate, mode="bilinear", align_corners=True)),
]
_ARGUMENTS = {
    "twice": {"scale_factor": 2},
    "two_factors": {"scale_factor": (3, 2)},
    "half": {"scale_factor": 0.5},
    "factor_1.5": {"scale_factor": 1.5},
    "larger": {"size": (9, 7)},
    "smaller": {"size": (3, 4)},
    "one_dimension": {"size": (4, 11)},
}

CASES = [
    *(
        case(target, f"{mode}_{name}", partial(f, **arguments), X)
        for target, mode, f in _MODES
        for name, arguments in _ARGUMENTS.items()
    ),
    *(
        case(
            target,
            f"{mode}_dynamic_factor",
            partial(f, scale_factor=2),
            X,
            dynamic={0: {0: (1, 2, 4), 2: (2, 4, 5)}},
        )
        for target, mode, f in _MODES
    ),
    *(
        case(
            target,
            f"{mode}_dynamic_batch_to_size",
            partial(f, size=(5, 8)),
            X,
            dynamic={0: {0: (1, 2, 4)}},
        )
        for target, mode, f in _MODES
    ),
    case(NEAREST, "fp16", partial(F.interpolate, scale_factor=2), X.half()),
]

REFUSALS = [
    refusal(NEAREST, "broken_size", "no whole size", partial(F.interpolate, scale_factor=1.3), X),
    refusal(
        BILINEAR,
        "broken_size",
        "no whole size",
        partial(F.interpolate, scale_factor=1.3, mode="bilinear"),
        X,
    ),
    refusal(
        BILINEAR,
        "one_pixel_between_corners",
        "align_corners",
        partial(F.interpolate, size=(1, 1), mode="bilinear", align_corners=True),
        X,
    ),
    refusal(
        NEAREST,
        "dynamic_size",
        "only known at run time",
        lambda x, y: F.interpolate(x, size=y.shape[2:]),
        X,
        floats(1, 1, 8, 8),
        dynamic={1: {2: (4, 8, 9)}},
    ),
    refusal(
        NEAREST, "uint8", "uint8", partial(F.interpolate, scale_factor=2), X.abs().to(torch.uint8)
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()

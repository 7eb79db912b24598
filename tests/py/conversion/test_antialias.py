from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from operator_case import Case, GraphCase, Refusal, case, each, floats, integers, refusal

aten = torch.ops.aten
X = floats(2, 3, 7, 9)
_SIZES = {"smaller": (3, 4), "larger": (14, 11), "one_dimension": (7, 3), "one": (1, 1)}
_MODES = {"bilinear": aten._upsample_bilinear2d_aa, "bicubic": aten._upsample_bicubic2d_aa}


def _resize(mode: str, **options: object) -> object:
    return partial(F.interpolate, mode=mode, antialias=True, **options)


CASES = [
    *(
        case(
            family.vec,
            form + "_corners" * corners,
            _resize(mode, size=size, align_corners=corners),
            X,
            build=form == "smaller" and not corners,
        )
        for mode, family in _MODES.items()
        for form, size in _SIZES.items()
        for corners in (False, True)
    ),
    *(
        case(family.vec, "factor", _resize(mode, scale_factor=0.4), X, build=False)
        for mode, family in _MODES.items()
    ),
    *(
        case(
            family.vec,
            "fp16_network",  # PyTorch's CPU kernel takes no FP16
            _resize(mode, size=(3, 4)),
            X,
            tolerance=4e-3,
            build=False,
            options={"enabled_precisions": {torch.float16, torch.float32}},
        )
        for mode, family in _MODES.items()
    ),
    *(
        case(
            family.vec,
            "dynamic_batch",
            _resize(mode, size=(3, 4)),
            X,
            dynamic={0: {0: (1, 2, 5)}},
        )
        for mode, family in _MODES.items()
    ),
    *(
        graph_case
        for family in _MODES.values()
        for graph_case in (
            GraphCase(family.default, "size", (X, [3, 4], False, None, None)),
            GraphCase(family.default, "factors", (X, [2, 13], False, 0.4, 1.5), build=False),
        )
    ),
]

REFUSALS = [
    refusal(
        aten._upsample_bilinear2d_aa.vec,
        "dynamic",
        "only known at run time",
        _resize("bilinear", size=(3, 4)),
        X,
        dynamic={0: {2: (4, 7, 9)}},
    ),
    refusal(
        aten._upsample_bicubic2d_aa.vec,
        "dynamic",
        "only known at run time",
        _resize("bicubic", scale_factor=0.5),
        X,
        dynamic={0: {2: (4, 7, 9)}},
    ),
    refusal(
        aten._upsample_bilinear2d_aa.vec,
        "uint8",
        "uint8",
        _resize("bilinear", size=(3, 4)),
        integers(1, 3, 7, 9).abs().to(torch.uint8),
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case | GraphCase) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()

from __future__ import annotations

import math

import torch
from operator_case import Case, case, each, floats, integers
from operator_samples import check_samples, each_sample

aten = torch.ops.aten
ERFINV, LGAMMA = aten.erfinv.default, aten.lgamma.default

_BETWEEN = torch.cat(
    [torch.linspace(-1, 1, 201), torch.tensor([1e-10, -1e-5, 0.999, -0.9999, 0.9999999])]
)
_EVERYWHERE = torch.cat(
    [
        torch.linspace(-12.3, 12.4, 301),
        torch.linspace(0.001, 5, 200),
        torch.tensor([-50.3, -1e-6, 1e-6, 100.0, 1e6, 1e30]),
    ]
)
_DYNAMIC = {0: {0: (1, 3, 7)}}

CASES = [
    case(ERFINV, "between", torch.erfinv, _BETWEEN),
    case(
        ERFINV,
        "outside",
        torch.erfinv,
        torch.tensor([1.5, -2.0, math.inf, -math.inf, math.nan]),
        build=False,
    ),
    case(ERFINV, "half", torch.erfinv, _BETWEEN[::10].half() * 0.9, tolerance=2e-3, build=False),
    case(ERFINV, "integers", torch.erfinv, integers(5) // 5, build=False),
    case(ERFINV, "no_dimension", torch.erfinv, floats() / 4, build=False),
    case(ERFINV, "dynamic", lambda x: (x / 4).erfinv(), floats(3), dynamic=_DYNAMIC),
    case(LGAMMA, "everywhere", torch.lgamma, _EVERYWHERE),
    case(
        LGAMMA,
        "special",
        torch.lgamma,
        torch.tensor([0.0, -0.0, -1, -2, -3, 1, 2, 3, math.inf, -math.inf, math.nan]),
        build=False,
    ),
    case(LGAMMA, "half", torch.lgamma, _EVERYWHERE[::25].half(), tolerance=4e-3, build=False),
    case(LGAMMA, "integers", torch.lgamma, integers(9), build=False),
    case(LGAMMA, "no_dimension", torch.lgamma, floats(), build=False),
    case(LGAMMA, "dynamic", torch.lgamma, floats(3) * 3, dynamic=_DYNAMIC),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each_sample([("erfinv", (torch.float32,)), ("lgamma", (torch.float32, torch.int64))])
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: tuple[str, ...]) -> None:
    check_samples(name, dtype, most=3, refused=refused)

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from operator_case import Case, GraphCase, Refusal, case, each, floats, refusal

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

CASES: list[Case | GraphCase] = [
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
    case(
        NEAREST,
        "size_of_another",
        lambda x, y: F.interpolate(x, size=y.shape[2:]),
        X,
        floats(1, 1, 8, 8),
        dynamic={1: {2: (4, 8, 9)}},
    ),
    case(
        BILINEAR,
        "half_broken_scale",
        partial(F.interpolate, scale_factor=1.3, mode="bilinear"),
        X.half(),
        tolerance=2e-3,
        build=False,
    ),
    case(NEAREST, "fp16", partial(F.interpolate, scale_factor=2), X.half()),
]

_ALL_MODES = {
    1: ("nearest", "nearest-exact", "linear"),
    2: ("nearest", "nearest-exact", "bilinear", "bicubic"),
    3: ("nearest", "nearest-exact", "trilinear"),
}
_OPERATORS = {"nearest": "upsample_nearest", "nearest-exact": "_upsample_nearest_exact"}
_SHAPES = {1: (2, 3, 7), 2: (2, 3, 7, 6), 3: (1, 2, 5, 6, 4)}


def _operator(mode: str, dims: int) -> Any:
    return getattr(aten, f"{_OPERATORS.get(mode, f'upsample_{mode}')}{dims}d")


def _sweep(mode: str, dims: int, corners: bool | None) -> Callable[..., object]:
    """Sizes and scales, whole and broken ones, in one graph."""

    def resize(x: torch.Tensor) -> list[torch.Tensor]:
        f = partial(F.interpolate, x, mode=mode, align_corners=corners)
        sizes = ((9, 9, 9), (4, 4, 3), (1, 3, 1), (11, 6, 4), (13, 11, 12))
        return [
            *(f(size=size[-dims:]) for size in sizes),
            *(f(scale_factor=scale) for scale in (2, 1.3, 0.6, 1.5, 3)),
            *(f(scale_factor=scale, recompute_scale_factor=True) for scale in (1.3, 0.6)),
        ]

    return resize


def _default_form(mode: str, dims: int) -> Callable[..., object]:
    operator, flag = _operator(mode, dims).default, () if "nearest" in mode else (False,)

    def resize(x: torch.Tensor) -> list[torch.Tensor]:
        sizes, broken = [9, 8, 5][:dims], [int(n * 1.3) for n in x.shape[2:]]
        return [operator(x, sizes, *flag), operator(x, broken, *flag, *[1.3] * dims)]

    return resize


for _dims, _modes in _ALL_MODES.items():
    for _mode in _modes:
        _x, _target = floats(*_SHAPES[_dims]), _operator(_mode, _dims)
        for _corners in (None,) if "nearest" in _mode else (False, True):
            _ranges = {0: {0: (1, 2, 3), 2: (2, _x.shape[2], 9)}}
            _options = {"mode": _mode, "align_corners": _corners}
            _suffix = {None: "", False: "_half_pixel", True: "_corners"}[_corners]
            CASES += [
                case(_target.vec, f"sweep{_suffix}", _sweep(_mode, _dims, _corners), _x),
                case(
                    _target.vec,
                    f"dynamic_to_twice{_suffix}",
                    lambda x, o=_options: F.interpolate(x, scale_factor=2, **o),
                    _x,
                    dynamic=_ranges,
                    build=False,
                ),
                case(
                    _target.vec,
                    f"dynamic_size{_suffix}",
                    lambda x, o=_options: F.interpolate(
                        x, size=(x.shape[2] * 2, 5, 7)[: x.dim() - 2], **o
                    ),
                    _x,
                    dynamic=_ranges,
                ),
            ]
        if _mode not in ("bilinear", "bicubic"):  # torch.export takes those apart
            CASES.append(case(_target.default, "default", _default_form(_mode, _dims), _x))
CASES += [
    GraphCase(_operator(mode, 2).default, f"size_{name}", (X, *arguments))
    for mode in ("bilinear", "bicubic")
    for name, arguments in (
        ("half_pixel", ([9, 8], False, None, None)),
        ("corners", ([9, 8], True, None, None)),
        ("broken_scale", ([5, 7], False, 1.3, 1.3)),
    )
]

REFUSALS = [
    refusal(
        NEAREST,
        "broken_size_dynamic",
        "no whole size",
        partial(F.interpolate, scale_factor=1.3),
        X,
        dynamic={0: {2: (2, 4, 8)}},
    ),
    refusal(
        BILINEAR,
        "one_pixel_between_corners_dynamic",
        "align_corners",
        partial(F.interpolate, size=(1, 1), mode="bilinear", align_corners=True),
        X,
        dynamic={0: {2: (2, 4, 8)}},
    ),
    refusal(
        NEAREST, "uint8", "uint8", partial(F.interpolate, scale_factor=2), X.abs().to(torch.uint8)
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case | GraphCase) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()

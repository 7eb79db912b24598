from __future__ import annotations

import math

import torch
from operator_case import Case, Refusal, booleans, case, each, floats, integers, refusal
from operator_samples import check_samples, each_sample

aten = torch.ops.aten
MEDIAN, NANMEDIAN, KTH, MODE = (
    aten.median.dim,
    aten.nanmedian.dim,
    aten.kthvalue.default,
    aten.mode.default,
)

X = floats(2, 5, 3)
DISTINCT = integers(2, 4, 3) + 20 * torch.arange(24).reshape(2, 4, 3).flip(1)
FEW = integers(3, 7, 2) // 4
_BATCH_AND_MIDDLE = {0: {0: (1, 2, 4), 1: (2, 5, 8)}}


def _odd() -> torch.Tensor:
    """Rows with one NaN, with several, and with nothing else; infinities beside NaN."""
    x = floats(3, 5, 2, seed=1)
    x[0, 1] = math.nan
    x[1, ::2, 0] = math.nan
    x[1, 1:, 1] = math.inf
    x[1, 2, 1] = math.nan
    x[2, :, 1] = math.nan
    x[2, :4, 0] = -math.inf
    return x


def _with_picked(found: tuple[torch.Tensor, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """The values, and what is at the indices: of equal values PyTorch names any."""
    return [found[0], x.gather(1, found[1])]


CASES = [
    *(
        case(
            target,
            form,
            lambda x, f=f: [*f(x, 1), *f(x, -1, True), *f(x, 0)],
            x,
            build=form in ("dims", "int64"),
        )
        for target, f in ((MEDIAN, torch.median), (NANMEDIAN, torch.nanmedian))
        for form, x in (
            ("dims", X),
            ("int64", DISTINCT),
            ("int32", DISTINCT.int()),
            ("half", DISTINCT.half()),
        )
    ),
    *(
        case(target, "nan", lambda x, f=f: _with_picked(f(x, 1, True), x), _odd(), build=False)
        for target, f in ((MEDIAN, torch.median), (NANMEDIAN, torch.nanmedian))
    ),
    *(
        case(target, "no_dimension", lambda x, f=f: f(x, 0), floats(), build=False)
        for target, f in ((MEDIAN, torch.median), (NANMEDIAN, torch.nanmedian))
    ),
    *(
        case(target, "dynamic", lambda x, f=f: f(x, 1), X, dynamic=_BATCH_AND_MIDDLE)
        for target, f in ((MEDIAN, torch.median), (NANMEDIAN, torch.nanmedian))
    ),
    *(
        case(target, form, f, x, build=form == "floats")
        for target, f in (
            (aten.median.default, torch.median),
            (aten.nanmedian.default, torch.nanmedian),
        )
        for form, x in (
            ("floats", X),
            ("int64", DISTINCT),
            ("nan", _odd()),
            ("only_nan", torch.full((3,), math.nan)),
            ("no_dimension", floats()),
        )
    ),
    *(
        case(target, "dynamic", f, X, dynamic=_BATCH_AND_MIDDLE, build=False)
        for target, f in (
            (aten.median.default, torch.median),
            (aten.nanmedian.default, torch.nanmedian),
        )
    ),
    case(KTH, "forms", lambda x: [*x.kthvalue(2), *x.kthvalue(5, 1), *x.kthvalue(1, 0, True)], X),
    case(KTH, "int64", lambda x: x.kthvalue(3, 1), DISTINCT, build=False),
    case(KTH, "no_dimension", lambda x: x.kthvalue(1), floats(), build=False),
    case(
        KTH,
        "nan",
        lambda x: [y for k in (1, 3, 5) for y in _with_picked(x.kthvalue(k, 1, True), x)],
        _odd(),
        build=False,
    ),
    case(KTH, "dynamic", lambda x: x.kthvalue(2, 1), X, dynamic=_BATCH_AND_MIDDLE),
    case(MODE, "dims", lambda x: [*x.mode(1), *x.mode(-1, True), *x.mode(0)], FEW),
    case(MODE, "floats", lambda x: x.mode(1), FEW / 2),
    case(MODE, "all_distinct", lambda x: x.mode(1), X, build=False),
    case(MODE, "int32", lambda x: x.mode(1), FEW.int(), build=False),
    case(MODE, "half", lambda x: x.mode(1), FEW.half(), build=False),
    # Where a NaN is first and no number is there twice, PyTorch's own answer depends on how it sorts.
    case(
        MODE,
        "nan",
        lambda x: _with_picked(x.mode(1, True), x),
        torch.tensor(
            [
                [1.0, 1.0, math.nan, math.nan, math.nan],
                [3.0, math.nan, 2.0, math.nan, 5.0],
                [math.nan] * 5,
                [math.nan, math.inf, -math.inf, math.inf, -math.inf],
            ]
        ),
        build=False,
    ),
    case(MODE, "no_dimension", lambda x: x.mode(0), floats(), build=False),
    case(MODE, "dynamic", lambda x: x.mode(1), FEW, dynamic=_BATCH_AND_MIDDLE),
]

REFUSALS = [
    *(
        refusal(target, "too_many", "3840", f, floats(2 * 3840 + 1))
        for target, f in (
            (MEDIAN, lambda x: x.median(0)),
            (NANMEDIAN, lambda x: x.nanmedian(0)),
            (aten.median.default, torch.median),
            (aten.nanmedian.default, torch.nanmedian),
        )
    ),
    refusal(KTH, "too_many", "3840", lambda x: x.kthvalue(3841), floats(4000)),
    refusal(MODE, "too_many", "pairs", lambda x: x.mode(0), floats(2**13 + 1)),
    refusal(
        MODE,
        "too_many_for_some_sizes",
        "pairs",
        lambda x: x.mode(0),
        floats(4),
        dynamic={0: {0: (2, 4, 2**14)}},
    ),
    refusal(MODE, "bool", "no bools", lambda x: x.mode(0), booleans(4)),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


# Those of integers hold equal elements, of which PyTorch names any.
@each_sample(
    [
        ("median", (torch.float32,)),
        ("nanmedian", (torch.float32,)),
        ("kthvalue", (torch.float32,)),
        ("mode", (torch.float32,)),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: tuple[str, ...]) -> None:
    check_samples(name, dtype, most=4, refused=refused)

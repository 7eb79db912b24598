from __future__ import annotations

import torch
import torch.nn.functional as F
from operator_case import Case, Refusal, booleans, case, each, floats, integers, refusal
from operator_samples import check_samples, each_sample

aten = torch.ops.aten

X = floats(2, 3, 4)
IMAGE = floats(2, 3, 5, 6)
_BATCH = {0: {0: (1, 2, 5)}}
_IMAGES = {0: {0: (1, 2, 3), 2: (4, 5, 8), 3: (4, 6, 7)}}


CASES = [
    case(aten.copy.default, "same_shape", aten.copy, X, floats(2, 3, 4, seed=1)),
    case(aten.copy.default, "broadcast", aten.copy, X, floats(4)),
    case(aten.copy.default, "other_type", aten.copy, X, integers(3, 1)),
    case(
        aten.copy.default,
        "to_bool",
        aten.copy,
        booleans(3),
        integers(3),
        build=False,
    ),
    case(
        aten.copy.default,
        "dynamic",
        aten.copy,
        X,
        floats(3, 1),
        dynamic={0: {0: (4, 5, 7)}},
    ),
    case(
        aten.repeat.default,
        "times",
        lambda x: [x.repeat(2, 1, 3), x.repeat(2, 2, 1, 1), x.tile(3), x.tile(2, 1, 1, 2)],
        X,
    ),
    case(aten.repeat.default, "no_dimension", lambda x: [x.repeat(3), x.repeat([]) + 1], floats()),
    case(
        aten.repeat.default,
        "to_nothing",
        lambda x: torch.cat([x.repeat(0, 1, 1), x]),
        X,
        build=False,
    ),
    case(aten.repeat.default, "bool", lambda x: x.repeat(2, 2), booleans(2, 3)),
    case(aten.repeat.default, "int64", lambda x: x.repeat(2, 2), integers(2, 3)),
    case(aten.repeat.default, "half", lambda x: x.repeat(2, 2, 2), X.half(), build=False),
    case(
        aten.repeat.default,
        "dynamic",
        lambda x: [x.repeat(2, 1, 2), x.repeat(3, 1, 1, 1)],
        X,
        dynamic=_BATCH,
    ),
    case(
        aten.repeat.default,
        "dynamic_times",
        lambda x, y: y.repeat(x.shape[0], 1, 1),
        X,
        floats(1, 3),
        dynamic=_BATCH,
    ),
    case(
        aten.roll.default,
        "shifts",
        lambda x: [
            x.roll(1, 0),
            x.roll(-3, 2),
            x.roll((1, -1), (0, -1)),
            x.roll((1, 1), (2, 2)),
            x.roll(99, 1),
        ],
        X,
    ),
    case(aten.roll.default, "flat", lambda x: [x.roll(5), x.roll(-1)], X),
    case(aten.roll.default, "no_dimension", lambda x: x.roll(1) + 1, floats()),
    case(aten.roll.default, "bool", lambda x: x.roll(1), booleans(5)),
    case(aten.roll.default, "int64", lambda x: x.roll(2), integers(5)),
    case(
        aten.roll.default,
        "dynamic",
        lambda x: [x.roll(1, 0), x.roll((-9, 1), (0, 2)), x.roll(3)],
        X,
        dynamic=_BATCH,
    ),
    case(
        aten.roll.default,
        "dynamic_shift",
        lambda x: x.roll(x.shape[0] // 2, 0),
        X,
        dynamic={0: {0: (2, 3, 5)}},
    ),
    case(
        aten.unfold.default,
        "windows",
        lambda x: [x.unfold(2, 2, 1), x.unfold(1, 2, 2), x.unfold(-1, 4, 3), x.unfold(0, 1, 5)],
        X,
    ),
    case(aten.unfold.default, "no_dimension", lambda x: x.unfold(0, 1, 1), floats()),
    case(aten.unfold.default, "int64", lambda x: x.unfold(0, 3, 2), integers(8)),
    case(aten.unfold.default, "bool", lambda x: x.unfold(0, 3, 2), booleans(8), build=False),
    case(aten.unfold.default, "dynamic_elsewhere", lambda x: x.unfold(2, 2, 1), X, dynamic=_BATCH),
    case(
        aten.unfold.default,
        "dynamic",
        lambda x: [x.unfold(1, 3, 2), x.unfold(1, 2, 1)],
        floats(2, 9, 3),
        dynamic={0: {1: (7, 9, 12)}},
    ),
    case(
        aten.im2col.default,
        "forms",
        lambda x: [
            F.unfold(x, 2),
            F.unfold(x, (2, 3), stride=(2, 1)),
            F.unfold(x, 3, padding=1, dilation=2),
            F.unfold(x, (1, 4), padding=(0, 2), stride=3),
        ],
        IMAGE,
    ),
    case(aten.im2col.default, "unbatched", lambda x: F.unfold(x, 2), floats(3, 4, 5)),
    case(aten.im2col.default, "half", lambda x: F.unfold(x, 2), IMAGE.half(), build=False),
    case(
        aten.im2col.default,
        "dynamic",
        lambda x: F.unfold(x, (2, 3), padding=(1, 0), stride=(1, 2)),
        IMAGE,
        dynamic={0: {0: (1, 2, 3)}},
    ),
    case(
        aten.im2col.default,
        "dynamic_image",
        lambda x: F.unfold(x, 3, padding=1),
        IMAGE,
        dynamic=_IMAGES,
    ),
    case(
        aten.diagonal.default,
        "forms",
        lambda x: [
            *(x.diagonal(offset, 1, 2) for offset in (-2, -1, 0, 1, 3)),
            x.diagonal(0, -1, 0),
            x.diagonal(1, 2, 0),
        ],
        X,
    ),
    case(
        aten.diagonal.default,
        "others",
        lambda x: [x[0].diag(), x[0].diag(1), torch.diagonal_copy(x, 0, 1, 2)],
        X,
        build=False,
    ),
    case(
        aten.diagonal.default,
        "to_nothing",
        lambda x: torch.cat([x.diagonal(4), x.diagonal(-3), x[0]]),
        floats(3, 4),
        build=False,
    ),
    case(aten.diagonal.default, "bool", lambda x: x.diagonal(), booleans(3, 4)),
    case(aten.diagonal.default, "int64", lambda x: x.diagonal(-1), integers(3, 4)),
    case(
        aten.diagonal.default, "dynamic_elsewhere", lambda x: x.diagonal(1, 1, 2), X, dynamic=_BATCH
    ),
    case(
        aten.diagonal.default,
        "dynamic",
        lambda x: [x.diagonal(0, 0, 1), x.diagonal(0, 1, 0)],
        floats(4, 3, 2),
        dynamic={0: {0: (3, 4, 5), 1: (3, 3, 6)}},
    ),
    case(
        aten.as_strided.default,
        "forms",
        lambda x: [
            x.as_strided((2, 2), (1, 2), 1),
            x.as_strided((3, 4), (0, 5)),
            x.as_strided((), (), 7),
            x.as_strided((4, 3, 2), (1, 4, 12)),
        ],
        X,
    ),
    case(aten.as_strided.default, "int64", lambda x: x.as_strided((2, 3), (3, 1)), integers(9)),
    case(aten.as_strided.default, "of_a_result", lambda x: (x * 2).as_strided((5,), (2,), 3), X),
    *(
        case(aten.as_strided.default, form, function, X, build=False)
        for form, function in (
            ("transposed", lambda x: x.mT.as_strided((2,), (1,), 3)),
            ("part", lambda x: [x[1].as_strided((2,), (1,), 0), x[1].as_strided((2,), (1,))]),
            ("of_a_transposed_result", lambda x: (x.mT * 2).as_strided((5,), (2,), 3)),
        )
    ),
    case(aten.view.dtype, "same", lambda x: (x + 1).view(torch.float32) * 2, X),
]

REFUSALS = [
    refusal(
        aten.as_strided.default,
        "beside",
        "memory",
        lambda x: x.as_strided((2, 3), (1, 2), 0),
        X[:1, :1, :2],
    ),
    refusal(
        aten.as_strided.default,
        "dynamic",
        "only known at run time",
        lambda x: x.as_strided((2,), (1,)),
        X,
        dynamic=_BATCH,
    ),
    refusal(aten.view.dtype, "bits", "bits", lambda x: x.view(torch.int32), X),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@each_sample(
    [
        ("as_strided", (torch.float32, torch.int64), "memory"),
        ("diagonal", (torch.float32, torch.bool)),
        ("nn.functional.unfold", (torch.float32, torch.bool)),
        ("repeat", (torch.float32, torch.bool)),
        ("roll", (torch.float32, torch.int64)),
        ("tile", (torch.float32,)),
        ("unfold", (torch.float32, torch.int64)),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: list[str]) -> None:
    check_samples(name, dtype, refused=refused)

from __future__ import annotations

import operator

import torch
from operator_case import Case, Refusal, booleans, case, each, floats, integers, refusal
from operator_samples import check_samples, each_sample

aten = torch.ops.aten

X = floats(2, 3, 4)
_BATCH = {0: {0: (1, 2, 5)}}
_ANY = {0: {1: (3, 4, 7)}}
_FROM_TO = (
    (None, None, 1), (1, None, 1), (None, 2, 1), (1, 3, 1), (-2, None, 1), (None, -1, 1), (-3, -1, 1),
    (-99, 99, 1), (2, 99, 1), (0, 4, 2), (1, None, 2), (0, None, 3), (0, None, 99), (3, 1, 1), (4, None, 1),
)  # fmt: skip
_KNOWN_SIGN = ((1, None, 1), (None, 2, 1), (1, 3, 1), (-2, None, 1), (None, -1, 1), (-3, -1, 2), (1, None, 2),
               (0, None, 3))  # fmt: skip

CASES = [
    case(
        aten.slice.Tensor,
        "bounds",
        lambda x: [aten.slice.Tensor(x, 2, *bounds) for bounds in _FROM_TO],
        X,
    ),
    case(aten.slice.Tensor, "negative_dim", lambda x: aten.slice.Tensor(x, -2, 1, 3), X),
    case(aten.slice.Tensor, "bool", lambda x: x[1:], booleans(4)),
    case(aten.slice.Tensor, "int64", lambda x: x[::2], integers(5)),
    case(aten.slice.Tensor, "dynamic_elsewhere", lambda x: x[:, 1:, ::3], X, dynamic=_BATCH),
    case(
        aten.select.int,
        "indices",
        lambda x: [x.select(d, i) for d, i in ((0, 1), (1, -1), (-1, -4), (2, 0))],
        X,
    ),
    case(aten.select.int, "to_no_dimension", lambda x: x[2], floats(3)),
    case(aten.select.int, "bool", lambda x: x[1], booleans(2, 3)),
    case(aten.select.int, "dynamic_elsewhere", lambda x: x[:, -1], X, dynamic=_BATCH),
    case(aten.split_with_sizes.default, "equal", lambda x: x.split(1, 1), X),
    case(aten.split_with_sizes.default, "sizes", lambda x: x.split([1, 3], -1), X),
    case(aten.split_with_sizes.default, "chunk", lambda x: x.chunk(3, 2), X),
    case(
        aten.split_with_sizes.default,
        "dynamic_elsewhere",
        lambda x: x.split(2, 2),
        X,
        dynamic=_BATCH,
    ),
    case(operator.getitem, "last_part_first", lambda x: x.split([1, 2], 1)[::-1], X),
    case(operator.getitem, "one_of_several", lambda x: x.split([1, 2], 1)[1] * 2, X),
    case(aten.flip.default, "dims", lambda x: [x.flip(0), x.flip(-1), x.flip(1, 2)], X),
    case(aten.flip.default, "int64", lambda x: x.flip(0), integers(5)),
    case(aten.flip.default, "dynamic_elsewhere", lambda x: x.flip(1), X, dynamic=_BATCH),
    case(
        aten.slice.Tensor,
        "dynamic",
        lambda x: [x[:, b:e:s] for b, e, s in _KNOWN_SIGN],
        floats(2, 6, 4),
        dynamic={0: {1: (5, 6, 9)}},
    ),
    case(
        aten.slice.Tensor,
        "dynamic_first",
        lambda x: [x[1:], x[:-1], x[-2:], x[::2]],
        X,
        dynamic={0: {0: (3, 4, 6)}},
    ),
    case(
        aten.slice.Tensor,
        "size_of_another",
        lambda a, b: [
            a[:, : b.shape[0]],
            a[:, b.shape[0] :],
            a[:, -b.shape[0] :],
            a[:, : -b.shape[0]],
        ],
        floats(2, 9),
        floats(3),
        dynamic={1: {0: (2, 3, 4)}},
    ),
    case(
        aten.slice.Tensor,
        "narrow",
        lambda x: [x.narrow(1, 1, 2), x.narrow(-1, -3, 2)],
        X,
        build=False,
    ),
    case(
        aten.slice.Tensor,
        "tensor_split",
        lambda x: [*x.tensor_split(3, 2), *torch.tensor_split(x, [1, 3], 2), *x.unbind(1)],
        X,
        build=False,
    ),
    case(aten.slice.Tensor, "half", lambda x: x[1:, ::2], X.half(), build=False),
    case(aten.slice.Tensor, "int32", lambda x: x[1:], integers(5, dtype=torch.int32), build=False),
    case(aten.slice.Tensor, "to_nothing", lambda x: torch.cat([x[3:], x]), floats(3), build=False),
    case(aten.select.int, "dynamic", lambda x: [x[:, 0], x[:, -1], x[:, 2]], X, dynamic=_ANY),
    case(
        aten.select.int,
        "size_of_another",
        lambda a, b: [a[b.shape[0]], a[-b.shape[0]], a[b.shape[0] - 5]],
        floats(9, 2),
        floats(3),
        dynamic={1: {0: (2, 3, 4)}},
    ),
    case(
        aten.split_with_sizes.default,
        "sizes_of_another",
        lambda x, y: x.split([y.shape[0], 9 - y.shape[0]], 1),
        floats(2, 9),
        floats(3),
        dynamic={1: {0: (2, 3, 4)}},
    ),
    case(aten.split_with_sizes.default, "bool", lambda x: x.split(2), booleans(5), build=False),
    case(aten.flip.default, "dynamic", lambda x: [x.flip(1), x.flip(0, 1, 2)], X, dynamic=_ANY),
    case(aten.flip.default, "bool", lambda x: x.flip(0, -1), booleans(3, 4)),
    case(aten.flip.default, "nothing", lambda x: [x.flip([]) + 1, x[0, 0, 0].flip(0) + 1], X),
    case(
        aten.flip.default,
        "rot90",
        lambda x: [x.rot90(k, (0, 2)) for k in (1, 2, 3)] + [x.fliplr()],
        X,
        build=False,
    ),
]

REFUSALS = [
    refusal(
        operator.getitem,
        "of_an_operator_in_pytorch",
        "runs in PyTorch",
        lambda x: torch.frexp(x)[0],
        X,
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@each_sample(
    [
        (name, (torch.float32, torch.bool))
        for name in ("flip", "rot90", "select", "slice", "split", "split_with_sizes", "unbind")
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: list[str]) -> None:
    check_samples(name, dtype, refused=refused)

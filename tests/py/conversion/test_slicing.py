from __future__ import annotations

import operator

import pytest
import torch
import torch.nn.functional as F
from checks import check_op
from operator_case import Case, Refusal, booleans, case, each, floats, integers, refusal

aten = torch.ops.aten

X = floats(2, 3, 4)
_BATCH = {0: {0: (1, 2, 5)}}
_FROM_TO = (
    (None, None, 1), (1, None, 1), (None, 2, 1), (1, 3, 1), (-2, None, 1), (None, -1, 1), (-3, -1, 1),
    (-99, 99, 1), (2, 99, 1), (0, 4, 2), (1, None, 2), (0, None, 3), (0, None, 99), (3, 1, 1), (4, None, 1),
)  # fmt: skip

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
        aten.constant_pad_nd.default,
        "amounts",
        lambda x: [
            F.pad(x, p) for p in ((1, 2), (0, 1, 2, 0), (1, 0, 0, 2, 3, 1), (-1, 2), (-1, -1))
        ],
        X,
    ),
    case(aten.constant_pad_nd.default, "value", lambda x: F.pad(x, (1, 2), value=-2.5), X),
    case(aten.constant_pad_nd.default, "infinity", lambda x: F.pad(x, (1, 2), value=-torch.inf), X),
    case(aten.constant_pad_nd.default, "int64", lambda x: F.pad(x, (1, 2), value=7), integers(3)),
    case(aten.constant_pad_nd.default, "half", lambda x: F.pad(x, (1, 2), value=0.5), X.half()),
    case(
        aten.constant_pad_nd.default,
        "dynamic",
        lambda x: F.pad(x, (0, 1, 2, 0, 0, 1)),
        X,
        dynamic=_BATCH,
    ),
]

_DYNAMIC = {0: {1: (2, 3, 4)}}
REFUSALS = [
    refusal(
        aten.slice.Tensor,
        "dynamic",
        "only known at run time",
        lambda x: x[:, 1:],
        X,
        dynamic={0: {1: (3, 4, 5)}},
    ),
    refusal(
        aten.slice.Tensor,
        "dynamic_bound",
        "only known at run time",
        lambda a, b: a[:, : b.shape[0]],
        floats(2, 9),
        floats(3),
        dynamic={1: {0: (2, 3, 4)}},
    ),
    refusal(
        aten.select.int, "dynamic", "only known at run time", lambda x: x[:, 0], X, dynamic=_DYNAMIC
    ),
    refusal(
        operator.getitem,
        "of_an_operator_in_pytorch",
        "runs in PyTorch",
        lambda x: torch.kthvalue(x, 2)[0],
        X,
    ),
    refusal(
        aten.flip.default,
        "dynamic",
        "only known at run time",
        lambda x: x.flip(1),
        X,
        dynamic=_DYNAMIC,
    ),
    refusal(
        aten.constant_pad_nd.default, "bool", "no bool", lambda x: F.pad(x, (1, 1)), booleans(3)
    ),
    refusal(
        aten.constant_pad_nd.default,
        "dynamic_amount",
        "only known at run time",
        lambda x, y: F.pad(x, (0, y.shape[0])),
        X,
        floats(3),
        dynamic={1: {0: (2, 3, 4)}},
    ),
    refusal(
        aten.split_with_sizes.default,
        "dynamic_sizes",
        "only known at run time",
        lambda x, y: x.split([y.shape[0], 9 - y.shape[0]], 1),
        floats(2, 9),
        floats(3),
        dynamic={1: {0: (2, 3, 4)}},
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_convolution_with_padding_same_and_an_even_kernel_pads_unevenly() -> None:
    convolution = torch.nn.Conv2d(2, 3, (2, 4), padding="same")
    check_op(convolution, floats(1, 2, 5, 6), converts=aten.constant_pad_nd.default)

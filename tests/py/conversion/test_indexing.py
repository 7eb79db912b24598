from __future__ import annotations

import torch
from operator_case import (
    Case,
    GraphCase,
    Refusal,
    booleans,
    case,
    each,
    floats,
    integers,
    refusal,
)
from operator_samples import check_samples, each_sample

aten = torch.ops.aten

X = floats(4, 3, 5, 2)
#: Valid along every dimension of X but the last, of either sign.
I = torch.tensor([1, -1, 0, -3])  # noqa: E741
J = torch.tensor([[2], [-2], [0]])
PLACES = torch.tensor([2, 0, 2, 1])
_BATCH = {0: {0: (1, 4, 6)}}


def _constant(x: torch.Tensor) -> list[torch.Tensor]:
    last = torch.tensor([-1, 0])
    return [x[:, last], x[torch.tensor([2, -1])[:, None], :, last]]


CASES = [
    case(
        aten.index.Tensor,
        "one",
        lambda x, i: [x[i], x[:, i], x[:, :, i], x[:, i, :, 1], x[..., i % 2]],
        X,
        I,
    ),
    case(aten.index.Tensor, "adjacent", lambda x, i, j: [x[:, i, j], x[i, j], x[0, i, j]], X, I, J),
    case(
        aten.index.Tensor,
        "separated",
        lambda x, i, j: [x[i, :, j], x[:, i, :, j % 2], x[i, :, :, i % 2], x[i, 1, j]],
        X,
        I,
        J,
    ),
    case(aten.index.Tensor, "three", lambda x, i, j: [x[i, j, j], x[i, j, :, i % 2]], X, I, J),
    case(aten.index.Tensor, "all", lambda x, i, j: x[i, j, i, j % 2], X, I, J),
    case(
        aten.index.Tensor,
        "no_dimension",
        lambda x, i: [aten.index.Tensor(x, [i[1]]), aten.index.Tensor(x, [i[1], None, i])],
        X,
        I,
    ),
    case(aten.index.Tensor, "constant", _constant, X),
    case(aten.index.Tensor, "int32", lambda x, i: x[:, i], X, I.int()),
    case(aten.index.Tensor, "of_int64", lambda x, i: x[i], integers(4, 2), I),
    case(aten.index.Tensor, "of_int32", lambda x, i: x[i], integers(4, dtype=torch.int32), I),
    case(aten.index.Tensor, "of_bool", lambda x, i: x[i], booleans(4, 2), I),
    case(aten.index.Tensor, "of_half", lambda x, i: x[i, :, i], X.half(), I),
    case(aten.index.Tensor, "to_nothing", lambda x: torch.cat([x[I[:0]], x]), X, build=False),
    case(
        aten.index.Tensor,
        "dynamic",
        lambda x: [x[:, I], x[:, I, :, I % 2], x[:, I, J]],
        X,
        dynamic=_BATCH,
    ),
    case(
        aten.index.Tensor,
        "dynamic_places",
        lambda x, i: [x[i.clamp(-3, 2)], x[:, i.clamp(-3, 2)], x[i.clamp(-3, 2), :, i.clamp(0, 1)]],
        X,
        I,
        dynamic={1: {0: (1, 4, 7)}},
    ),
    case(
        aten.index.Tensor,
        "dynamic_dimension",
        lambda x, i: [x[:, i.clamp(-3, 2)], x[:, i.clamp(-3, 2), i.clamp(-1, 1)]],
        X,
        I,
        dynamic={0: {1: (3, 3, 6), 2: (2, 5, 6)}, 1: {0: (1, 4, 7)}},
    ),
    GraphCase(aten._unsafe_index.Tensor, "adjacent", (X, [None, I, J])),
    GraphCase(aten._unsafe_index.Tensor, "separated", (X, [I, None, J])),
    case(
        aten.index_select.default,
        "dims",
        lambda x, i: [x.index_select(d, i) for d in (0, 1, -2)],
        X,
        PLACES,
    ),
    case(aten.index_select.default, "one", lambda x, i: x.index_select(1, i[0]), X, PLACES),
    case(
        aten.index_select.default,
        "of_no_dimension",
        lambda x, i: x.index_select(0, i * 0),
        floats(),
        PLACES[:1],
    ),
    case(aten.index_select.default, "bool", lambda x, i: x.index_select(0, i), booleans(3), PLACES),
    case(
        aten.index_select.default, "int64", lambda x, i: x.index_select(0, i), integers(3), PLACES
    ),
    case(
        aten.index_select.default,
        "constant",
        lambda x: x.index_select(1, PLACES),
        X,
        dynamic=_BATCH,
    ),
    case(
        aten.index_select.default,
        "dynamic",
        lambda x, i: x.index_select(1, i.clamp(0, 2)),
        X,
        PLACES,
        dynamic={0: {1: (3, 3, 6)}, 1: {0: (1, 4, 7)}},
    ),
    case(
        aten.gather.default,
        "dims",
        lambda x, i: [x.gather(0, i), x.gather(1, i), x.gather(-1, i % 2)],
        floats(4, 3, 2),
        integers(4, 3, 2).abs() % 3,
    ),
    case(
        aten.gather.default,
        "smaller",
        lambda x, i: [x.gather(0, i), x.gather(1, i), x.gather(2, i % 2)],
        floats(4, 3, 2),
        integers(2, 3, 1).abs() % 3,
    ),
    case(
        aten.gather.default,
        "larger",
        lambda x, i: x.gather(1, i),
        floats(2, 3),
        integers(2, 7).abs() % 3,
    ),
    case(
        aten.gather.default,
        "no_dimension",
        lambda x, y, i: [x.gather(0, i), y.gather(0, i), x.gather(0, i[None] * 0)],
        floats(),
        floats(3),
        torch.tensor(0),
    ),
    case(
        aten.gather.default, "bool", lambda x, i: x.gather(0, i), booleans(4), integers(3).abs() % 4
    ),
    case(
        aten.gather.default,
        "int64",
        lambda x, i: x.gather(0, i),
        integers(4),
        integers(3).abs() % 4,
    ),
    case(
        aten.gather.default,
        "half",
        lambda x, i: x.gather(0, i),
        floats(4).half(),
        integers(3).abs() % 4,
        build=False,
    ),
    case(
        aten.gather.default,
        "dynamic",
        lambda x, i: x.gather(1, i.clamp(0, 2)),
        floats(4, 3),
        integers(4, 5),
        dynamic={0: {0: (1, 4, 6)}, 1: {0: (1, 4, 6), 1: (1, 5, 7)}},
    ),
    case(
        aten.take.default,
        "forms",
        lambda x, i: [x.take(i), x.take(i[0])],
        X,
        torch.tensor([[7, -3], [0, 119]]),
    ),
    case(
        aten.take.default, "no_dimension", lambda x, i: x.take(i), floats(), torch.tensor([0, -1])
    ),
    case(
        aten.take.default,
        "dynamic",
        lambda x, i: x.take(i.clamp(-9, 9)),
        X,
        I,
        dynamic={0: {0: (1, 4, 6)}, 1: {0: (1, 4, 7)}},
    ),
    case(
        aten.take_along_dim.default,
        "broadcast",
        lambda x, i: [
            x.take_along_dim(i, 1),
            x.take_along_dim(i[:1, :, :1], 1),
            x.take_along_dim(i),
        ],
        floats(4, 3, 2),
        integers(4, 5, 2) % 3,
    ),
    case(
        aten.take_along_dim.default,
        "order",
        lambda x: x.take_along_dim(x.argsort(1), 1),
        floats(4, 3),
    ),
]

_DATA = "depends on data"
REFUSALS = [
    refusal(aten.index.Tensor, "mask", _DATA, lambda x: x[x > 0], X),
    refusal(
        aten.index.Tensor, "mask_and_index", _DATA, lambda x, i: x[i, x[0, :, 0, 0] > 0], X, I[:1]
    ),
    refusal(aten.nonzero.default, "any", _DATA, lambda x: x.nonzero(), X),
    refusal(aten.masked_select.default, "any", _DATA, lambda x: x.masked_select(x > 0), X),
    refusal(aten._unique2.default, "any", _DATA, lambda x: x.unique(), X),
    refusal(
        aten.repeat_interleave.Tensor,
        "repeats",
        _DATA,
        lambda x, i: x.repeat_interleave(i, 0),
        X,
        PLACES,
    ),
    refusal(
        aten.gather.default,
        "uint8",
        "uint8",
        lambda x: x.gather(0, PLACES),
        PLACES.to(torch.uint8),
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case | GraphCase) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@each_sample(
    [
        ("__getitem__", (torch.float32, torch.bool), _DATA),
        ("gather", (torch.float32, torch.int64), "uint8"),
        ("index_select", (torch.float32, torch.bool)),
        ("take", (torch.float32, torch.int64)),
        ("take_along_dim", (torch.float32, torch.bool)),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: list[str]) -> None:
    check_samples(name, dtype, refused=refused)

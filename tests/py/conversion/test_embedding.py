from __future__ import annotations

import torch
import torch.nn.functional as F
from operator_case import Case, Refusal, case, each, floats, refusal
from torch import nn

aten = torch.ops.aten

TABLE = floats(7, 3)
PLACES = torch.tensor([[1, 6, 0], [3, 3, 5]])
ROW = torch.tensor([1, 6, 0, 3, 3, 5])
BAGS = torch.tensor([0, 2, 2, 5])
_BAGS = aten._embedding_bag_forward_only.default


def _bag(mode: str, **options: object) -> object:
    return lambda table, places, bags: F.embedding_bag(places, table, bags, mode=mode, **options)


CASES = [
    case(aten.embedding.default, "module", nn.Embedding(7, 3), PLACES),
    case(aten.embedding.default, "padding", nn.Embedding(7, 3, padding_idx=3), PLACES),
    case(aten.embedding.default, "int32", nn.Embedding(7, 3), PLACES.int()),
    case(aten.embedding.default, "half", nn.Embedding(7, 3).half(), PLACES),
    case(aten.embedding.default, "one", nn.Embedding(7, 3), torch.tensor(4)),
    case(aten.embedding.default, "table_of_data", lambda w, i: F.embedding(i, w), TABLE, PLACES),
    case(
        aten.embedding.default,
        "dynamic",
        lambda i: F.embedding(i.clamp(0, 6), TABLE),
        PLACES,
        dynamic={0: {0: (1, 2, 5), 1: (1, 3, 4)}},
    ),
    *(
        case(_BAGS, mode, _bag(mode), TABLE, ROW, BAGS)  # the second bag is empty
        for mode in ("sum", "mean", "max")
    ),
    *(
        case(
            _BAGS,
            f"{mode}_without_padding",
            _bag(mode, padding_idx=3),
            TABLE,
            ROW,
            BAGS,
            build=False,
        )
        for mode in ("sum", "mean", "max")
    ),
    case(
        _BAGS,
        "with_last_offset",
        _bag("sum", include_last_offset=True),
        TABLE,
        ROW,
        torch.tensor([0, 2, 6]),
    ),
    case(_BAGS, "one_bag", _bag("mean"), TABLE, ROW, BAGS[:1], build=False),
    case(
        _BAGS,
        "weighted",
        lambda table, places, bags, w: F.embedding_bag(
            places, table, bags, mode="sum", per_sample_weights=w
        ),
        TABLE,
        ROW,
        BAGS,
        floats(6),
    ),
    case(aten._embedding_bag.default, "equal_bags", nn.EmbeddingBag(7, 3, mode="mean"), PLACES),
    case(aten.one_hot.default, "classes", lambda i: [F.one_hot(i, 7), F.one_hot(i, 9)], PLACES),
    case(aten.one_hot.default, "no_dimension", lambda i: F.one_hot(i, 7), torch.tensor(4)),
    case(
        aten.one_hot.default,
        "dynamic",
        lambda i: F.one_hot(i.clamp(0, 6), 7).float(),
        PLACES,
        dynamic={0: {0: (1, 2, 5)}},
    ),
]

REFUSALS = [
    refusal(
        _BAGS,
        "dynamic",
        "only known at run time",
        lambda i: F.embedding_bag(i, TABLE, BAGS),
        ROW,
        dynamic={0: {0: (5, 6, 7)}},
    ),
    refusal(
        _BAGS,
        "too_large",
        "too much memory",
        _bag("sum"),
        floats(2, 512),
        torch.zeros(2048, dtype=torch.int64),
        torch.arange(0, 2048, 2),
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()

from __future__ import annotations

import torch
from operator_case import Case, Refusal, booleans, case, each, floats, integers, refusal
from operator_samples import check_samples, each_sample

aten = torch.ops.aten
TARGET = aten.masked_scatter.default

X, MASK, SOURCE = floats(3, 4), booleans(3, 4), floats(4, 4, seed=1)
_ROWS = {0: (1, 3, 6)}

CASES = [
    case(TARGET, "same_shape", torch.masked_scatter, X, MASK, X + 9),
    case(TARGET, "larger_source", torch.masked_scatter, X, MASK, SOURCE, build=False),
    case(TARGET, "mask_of_rows", torch.masked_scatter, X, MASK[:, :1], SOURCE),
    case(TARGET, "mask_is_larger", torch.masked_scatter, X[0], MASK, SOURCE, build=False),
    case(TARGET, "nothing", lambda x, s: x.masked_scatter(x > 99, s), X, SOURCE, build=False),
    case(TARGET, "int64", torch.masked_scatter, integers(3, 4), MASK, integers(4, 4), build=False),
    case(TARGET, "bool", torch.masked_scatter, MASK, ~MASK, booleans(3, 4, seed=3), build=False),
    case(TARGET, "no_dimension", torch.masked_scatter, X[0, 0], MASK[0, 0], SOURCE, build=False),
    case(
        TARGET,
        "dynamic",
        lambda x, s: x.masked_scatter(x > 0, s),
        X,
        SOURCE[:3],
        dynamic={0: _ROWS, 1: _ROWS},
    ),
]

REFUSALS = [
    refusal(
        TARGET,
        "large",
        "accumulates",
        lambda x, s: x.masked_scatter(x > 0, s),
        X,
        X,
        dynamic={0: {0: (1, 3, 2**19)}, 1: {0: (1, 3, 2**19)}},
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@each_sample([("masked_scatter", (torch.float32, torch.int64))])
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: tuple[str, ...]) -> None:
    check_samples(name, dtype, most=3, refused=refused)

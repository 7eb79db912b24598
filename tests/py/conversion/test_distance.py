from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from operator_case import Case, Refusal, case, each, floats, refusal
from operator_samples import check_samples

aten = torch.ops.aten
CDIST, PDIST = aten._cdist_forward.default, aten._pdist_forward.default

A, B = floats(2, 4, 3), floats(2, 5, 3, seed=1)
_NORMS = (0.0, 1.0, 1.5, 2.0, math.inf)

CASES = [
    *(
        case(CDIST, f"norm_{p}", lambda a, b, p=p: torch.cdist(a, b, p), A, B, build=p == 2)
        for p in _NORMS
    ),
    case(CDIST, "matrices", torch.cdist, A[0], B[1]),
    case(CDIST, "broadcast", lambda a, b: torch.cdist(a[:, None], b), A, B, build=False),
    case(CDIST, "equal_rows", lambda a: torch.cdist(a * 1e3 + 1e4, a * 1e3 + 1e4), A),
    case(
        CDIST,
        "dynamic",
        torch.cdist,
        A,
        B,
        dynamic={0: {0: (1, 2, 3), 1: (1, 4, 6)}, 1: {0: (1, 2, 3), 1: (2, 5, 7)}},
    ),
    *(case(PDIST, f"norm_{p}", lambda a, p=p: F.pdist(a, p), A[0], build=p == 2) for p in _NORMS),
]

REFUSALS = [
    refusal(
        CDIST,
        "too_many",
        "differences",
        lambda a, b: torch.cdist(a, b, 1.0),
        floats(4, 3),
        floats(5, 3),
        dynamic={0: {0: (1, 4, 2**15)}, 1: {0: (1, 5, 2**15)}},
    ),
    refusal(PDIST, "too_many", "differences", F.pdist, torch.zeros(2**13, 9)),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


def test_computes_the_samples_of_pytorch() -> None:
    check_samples("cdist", torch.float32, most=4)

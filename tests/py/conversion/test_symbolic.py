from __future__ import annotations

import operator

import torch
from operator_case import Case, case, each, floats

aten = torch.ops.aten

_TWO = {0: {0: (1, 2, 4), 1: (2, 3, 5)}}
_ROWS = {0: {0: (1, 2, 4)}, 1: {0: (1, 3, 4)}}

CASES = [
    case(
        aten.sym_size.int, "view", lambda x: x.view(x.shape[0], -1), floats(2, 3, 4), dynamic=_TWO
    ),
    case(
        aten.sym_size.int,
        "two",
        lambda x: x.view(x.shape[1], x.shape[0], 2, 2),
        floats(2, 3, 4),
        dynamic=_TWO,
    ),
    case(
        operator.mul,
        "two_sizes",
        lambda x: x.view(x.shape[0] * x.shape[1], 4),
        floats(2, 3, 4),
        dynamic=_TWO,
    ),
    case(
        operator.mul,
        "by_constant",
        lambda x: x.view(x.shape[0] * 2, -1),
        floats(2, 3, 4),
        dynamic=_TWO,
    ),
    case(
        operator.floordiv,
        "by_constant",
        lambda x: x.view(x.shape[0] * 4 // 2, 2),
        floats(3, 4),
        dynamic={0: {0: (1, 3, 5)}},
    ),
    case(
        operator.add,
        "two_sizes",
        lambda a, b: torch.cat([a, b]).view(a.shape[0] + b.shape[0], 3, 1),
        floats(2, 3),
        floats(3, 3),
        dynamic=_ROWS,
    ),
    case(
        operator.sub,
        "two_sizes",
        lambda x: x.view(x.shape[0] * 3 - x.shape[0], 2),
        floats(3, 4),
        dynamic={0: {0: (1, 3, 5)}},
    ),
    case(
        operator.mod,
        "by_constant",
        lambda x: x[: x.shape[0] % 2 + 2],
        floats(4, 4),
        dynamic={0: {0: (3, 4, 8)}},
    ),
    case(
        operator.neg,
        "from_the_end",
        lambda a, b: a[-b.shape[0] :],
        floats(9, 2),
        floats(3),
        dynamic={1: {0: (2, 3, 4)}},
    ),
    case(
        torch.sym_max,
        "with_constant",
        lambda a, b: a[: torch.sym_max(b.shape[0], 3)],
        floats(9, 2),
        floats(4),
        dynamic={1: {0: (2, 4, 5)}},
    ),
    case(
        torch.sym_min,
        "with_constant",
        lambda a, b: a[torch.sym_min(b.shape[0], 3) :],
        floats(9, 2),
        floats(4),
        dynamic={1: {0: (2, 4, 5)}},
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()

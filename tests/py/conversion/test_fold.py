from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from operator_case import Case, Refusal, case, each, floats, integers, refusal

COL2IM = torch.ops.aten.col2im.default

_FORMS: dict[str, dict[str, Any]] = {
    "overlapping": {"output_size": (5, 6), "kernel_size": 3},
    "everything": {
        "output_size": (6, 5),
        "kernel_size": (2, 3),
        "stride": 2,
        "padding": 1,
        "dilation": (1, 2),
    },
    "with_a_rest": {"output_size": (5, 5), "kernel_size": 2, "stride": 2},
    "with_gaps": {"output_size": (7, 7), "kernel_size": 2, "stride": 3},
}


def _blocks(batch: int, *, output_size: tuple[int, int], **form: Any) -> torch.Tensor:
    shape = F.unfold(torch.zeros(batch, 2, *output_size), **form).shape
    return floats(*shape)


CASES = [
    *(
        case(COL2IM, form, lambda x, a=arguments: F.fold(x, **a), _blocks(2, **arguments))
        for form, arguments in _FORMS.items()
    ),
    case(
        COL2IM,
        "no_batch",
        lambda x: F.fold(x, **_FORMS["everything"]),
        _blocks(1, **_FORMS["everything"])[0],
        build=False,
    ),
    case(
        COL2IM,
        "half",
        lambda x: F.fold(x, **_FORMS["overlapping"]),
        _blocks(1, **_FORMS["overlapping"]).half(),
        tolerance=1e-2,
        build=False,
    ),
    case(
        COL2IM,
        "dynamic_batch",
        lambda x: F.fold(x, **_FORMS["overlapping"]),
        _blocks(2, **_FORMS["overlapping"]),
        dynamic={0: {0: (1, 2, 4)}},
    ),
]

REFUSALS = [
    refusal(
        COL2IM,
        "large",
        "table",
        lambda x: F.fold(x, (2048, 2048), 2, stride=2),
        torch.zeros(1, 4, 2**20),
    ),
    refusal(
        COL2IM, "int64", "floating-point blocks", lambda x: F.fold(x, (2, 4), 2), integers(1, 4, 3)
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()

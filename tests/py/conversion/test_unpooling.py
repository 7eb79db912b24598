from __future__ import annotations

import torch
import torch.nn.functional as F
from operator_case import Case, case, each, floats

aten = torch.ops.aten
# What PyTorch makes of unpooling.
PUT = aten._unsafe_index_put.default

_IMAGE = F.max_pool2d(floats(2, 3, 4, 6), 2, return_indices=True)
_VOLUME = F.max_pool3d(floats(2, 3, 4, 6, 4), 2, return_indices=True)
_ROW = F.max_pool1d(floats(2, 3, 8), 2, return_indices=True)

CASES = [
    case(PUT, "max_unpool1d", lambda x, i: F.max_unpool1d(x, i, 2), *_ROW, build=False),
    case(PUT, "max_unpool2d", lambda x, i: F.max_unpool2d(x, i, 2), *_IMAGE),
    case(
        PUT,
        "max_unpool2d_larger",
        lambda x, i: F.max_unpool2d(x, i, 2, output_size=(5, 7)),
        *_IMAGE,
        build=False,
    ),
    case(PUT, "max_unpool3d", lambda x, i: F.max_unpool3d(x, i, 2), *_VOLUME, build=False),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()

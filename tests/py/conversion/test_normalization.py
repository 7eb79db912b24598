from __future__ import annotations

import torch
import torch.nn.functional as F
from operator_case import Case, Refusal, case, each, floats, refusal
from torch import nn

aten = torch.ops.aten
LAYER, GROUP = aten.native_layer_norm.default, aten.native_group_norm.default


def _with_weights(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters(), start=3):
            parameter.copy_(floats(*parameter.shape, seed=seed))
    return module


X = floats(2, 6, 4, 5) * 3 + 1

CASES = [
    case(LAYER, "last", _with_weights(nn.LayerNorm(5)), X),
    case(LAYER, "three_dimensions", _with_weights(nn.LayerNorm((6, 4, 5))), X, tolerance=1e-4),
    case(LAYER, "no_affine", lambda x: F.layer_norm(x, (4, 5)), X),
    case(LAYER, "no_bias", _with_weights(nn.LayerNorm(5, bias=False)), X),
    case(LAYER, "large_eps", lambda x: F.layer_norm(x, (5,), eps=2.0), X),
    case(LAYER, "vector", lambda x: F.layer_norm(x, (7,)), floats(7)),
    case(
        LAYER,
        "dynamic",
        _with_weights(nn.LayerNorm(5)),
        X,
        dynamic={0: {0: (1, 2, 4), 2: (2, 4, 6)}},
    ),
    *(
        case(GROUP, f"groups_{groups}", _with_weights(nn.GroupNorm(groups, 6)), X, tolerance=1e-4)
        for groups in (1, 2, 6)
    ),
    case(GROUP, "no_affine", lambda x: F.group_norm(x, 3), X),
    case(GROUP, "large_eps", lambda x: F.group_norm(x, 3, eps=2.0), X),
    case(
        GROUP,
        "one_spatial_dimension",
        _with_weights(nn.GroupNorm(2, 6)),
        floats(2, 6, 9),
        tolerance=1e-4,
    ),
    case(
        GROUP,
        "no_spatial_dimension",
        _with_weights(nn.GroupNorm(2, 6)),
        floats(4, 6),
        tolerance=1e-4,
    ),
    case(
        GROUP,
        "dynamic_batch",
        _with_weights(nn.GroupNorm(2, 6)),
        X,
        dynamic={0: {0: (1, 2, 4)}},
        tolerance=1e-4,
    ),
]

REFUSALS = [
    refusal(
        LAYER,
        "mean",
        "mean and deviation",
        lambda x: aten.native_layer_norm(x, [5], None, None, 1e-5)[:2],
        X,
    ),
    refusal(
        GROUP,
        "mean",
        "mean and deviation",
        lambda x: aten.native_group_norm(x, None, None, 2, 6, 20, 2, 1e-5)[1],
        X,
    ),
    refusal(
        LAYER,
        "dynamic",
        "only known at run time",
        lambda x: F.layer_norm(x, x.shape[2:]),
        X,
        dynamic={0: {2: (2, 4, 6)}},
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()

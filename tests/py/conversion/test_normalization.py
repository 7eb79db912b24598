from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from checks import operators, partition_for_test
from operator_case import Case, Refusal, case, each, floats, positive, refusal
from operator_samples import check_samples
from torch import nn

aten = torch.ops.aten
LAYER, GROUP = aten.native_layer_norm.default, aten.native_group_norm.default
INSTANCE = aten.instance_norm.default
BATCH = aten._native_batch_norm_legit_no_training.default
BATCH_OF_INPUT = aten._native_batch_norm_legit.no_stats
RMS, FUSED_RMS = aten.rms_norm.default, aten._fused_rms_norm.default


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

_STATISTICS = nn.InstanceNorm2d(6, affine=True, track_running_stats=True)
with torch.no_grad():
    _STATISTICS.running_mean.copy_(floats(6))
    _STATISTICS.running_var.copy_(positive(6))
_BATCH = {0: {0: (1, 2, 4)}}
CASES += [
    case(
        LAYER,
        "dynamic_normalized_sizes",
        lambda x: F.layer_norm(x, x.shape[2:]),
        X,
        dynamic={0: {2: (2, 4, 6)}},
    ),
    case(
        GROUP,
        "dynamic_sizes",
        _with_weights(nn.GroupNorm(2, 6)),
        X,
        dynamic={0: {0: (1, 2, 4), 2: (2, 4, 6)}},
        tolerance=1e-4,
    ),
    case(INSTANCE, "affine", _with_weights(nn.InstanceNorm2d(6, affine=True)), X, dynamic=_BATCH),
    case(INSTANCE, "large_eps", lambda x: F.instance_norm(x, eps=2.0), X),
    case(INSTANCE, "running_statistics", _with_weights(_STATISTICS), X, dynamic=_BATCH),
    case(INSTANCE, "1d", nn.InstanceNorm1d(6), floats(2, 6, 7)),
    case(INSTANCE, "3d", nn.InstanceNorm3d(2), floats(1, 2, 3, 4, 5)),
    case(
        BATCH,
        "statistics_are_inputs",
        lambda x, mean, var: F.batch_norm(x, mean, var, eps=0.5),
        X,
        floats(6),
        positive(6),
    ),
    case(
        BATCH,
        "all_are_inputs",
        lambda x, var, weight: F.batch_norm(x, weight, var, weight, weight),
        X,
        positive(6),
        floats(6),
    ),
    case(
        BATCH_OF_INPUT,
        "affine",
        _with_weights(nn.BatchNorm2d(6, track_running_stats=False)),
        X,
        dynamic={0: {0: (2, 3, 4)}},
    ),
    case(RMS, "weight", _with_weights(nn.RMSNorm(5, eps=0.1)), X, dynamic={0: {0: (1, 2, 4)}}),
    case(RMS, "two_dimensions", lambda x: F.rms_norm(x, (4, 5)), X),
    case(RMS, "default_eps", lambda x: F.rms_norm(x * 1e-3, (5,)), X, build=False),
    case(
        RMS,
        "half_default_eps",
        lambda x: F.rms_norm(x * 1e-2, (5,)),
        X.half(),
        tolerance=2e-3,
        build=False,
    ),
    case(
        RMS,
        "fp16_network_of_large_values",
        _with_weights(nn.RMSNorm(5)),
        X * 1000,
        tolerance=1e-2,
        options={"enabled_precisions": {torch.float16, torch.float32}},
        build=False,
    ),
    case(
        FUSED_RMS,
        "weight",
        lambda x, w: aten._fused_rms_norm(x, [5], w, 0.1)[0],
        X,
        floats(5),
    ),
    *(
        case(target, "local_response", lambda x: F.local_response_norm(x, 3, 0.3), x, build=False)
        for target, x in ((aten.avg_pool2d.default, X[:, :, 0]), (aten.avg_pool3d.default, X))
    ),
]

REFUSALS = [
    refusal(
        FUSED_RMS,
        "deviation",
        "mean and deviation",
        lambda x: aten._fused_rms_norm(x, [5], None, 0.1),
        X,
    ),
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
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


_SAMPLED = (
    "nn.functional.layer_norm",
    "nn.functional.group_norm",
    "nn.functional.rms_norm",
    "nn.functional.local_response_norm",
)


@pytest.mark.parametrize("name", _SAMPLED)
def test_computes_the_samples_of_pytorch(name: str) -> None:
    check_samples(name, torch.float32, most=6, refused=["empty tensor"])


def test_dropout_is_not_there() -> None:
    dropouts = (nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout(), nn.FeatureAlphaDropout())
    model = nn.Sequential(*dropouts, nn.ReLU(), *dropouts)
    captured, _, _ = partition_for_test(model, [X])
    assert operators(captured.graph_module) == ["aten.relu.default"]
